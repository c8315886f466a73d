"""Training with actors as workers: the bits of one process, whatever becomes of them."""

import os
import random
import signal
import time

import tern
import tern.ray


def run(folder, data, steps):
    return {"from": "story", "out": folder, "train": [data], "length": 32, "sequences": 2, "accumulate": 4, "steps": steps, "warmup": 1,
            "rate": 1e-4, "schedule": "constant", "validation": 0.2, "validate_every": 0, "log_every": 1, "threads": 1}


def pids():
    """Processes of actors that compute."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if file.read().startswith(b"ray::TrainWorker"):
                    found.append(int(pid))
        except OSError:
            pass
    return found


def test_two_actors_one_of_them_killed_come_to_the_bits_of_one_process(cluster, tmp_path):
    words = ["the", "tern", "flies", "over", "a", "cold", "sea", "and", "sleeps"]
    rng = random.Random(1)
    stories = "\n<|endoftext|>\n".join(" ".join(rng.choices(words, k=30)) for _ in range(60))
    (tmp_path / "data.txt").write_text(stories)
    data, notes, losses, killed = str(tmp_path / "data.txt"), [], [], []

    def watch(event):
        if event["kind"] == "note":
            notes.append(event["text"])
        if event["kind"] == "step":
            losses.append((event["loss"], event["gradient"]))
        joined = sum("computes too" in note for note in notes)
        if joined == 2 and not killed:
            killed.append(pids()[0])
            os.kill(killed[0], signal.SIGKILL)
        # Until the one that was killed has been started again and has joined.
        return joined == 3 and sum("was lost" in note for note in notes) == 1

    stopped = tern.ray.train(run(str(tmp_path / "ray"), data, 10**6), workers=2, callback=watch)
    assert killed and not stopped.done, notes
    alone = []
    steps = len(losses)
    keep = lambda event: alone.append((event["loss"], event["gradient"])) if event["kind"] == "step" else None  # noqa: E731
    tern.train(run(str(tmp_path / "alone"), data, steps), callback=keep)
    assert alone == losses
    end = time.monotonic() + 20
    while pids() and time.monotonic() < end:
        time.sleep(0.1)
    assert not pids(), "the actors are gone with the run"
