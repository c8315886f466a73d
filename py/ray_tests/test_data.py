import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import ray
from conftest import prompts
from ray.data import ActorPoolStrategy

import tern
from tern.ray import Predictor, TernProcessorConfig, build_processor, row_seed

HERE = Path(__file__).parent
#: Rows of the jobs; bench/2026-11-27-ray.md is of 2000.
ROWS = int(os.environ.get("ROWS", "320"))


def by_id(rows):
    rows = sorted(rows, key=lambda row: row["id"])
    return {row["id"]: row["generated_text"] for row in rows}, [row["id"] for row in rows]


@pytest.fixture(scope="module")
def alone():
    """The same rows in one process with two threads, all at once."""
    with tern.LLM("story", threads=2) as llm:
        rows = prompts(ROWS)
        params = [tern.SamplingParams(**row["sampling_params"], seed=row_seed(0, row)) for row in rows]
        outputs = llm.generate([row["prompt"] for row in rows], params, use_tqdm=False)
    return {row["id"]: output.outputs[0].text for row, output in zip(rows, outputs)}


def test_tern_does_not_import_ray():
    code = "import sys, tern; assert not any(name.split('.')[0] == 'ray' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_texts_depend_on_no_actor_and_no_batch(cluster, alone):
    assert len(set(alone.values())) > 0.7 * ROWS
    for actors, size, blocks in ((2, 16, 20), (3, 7, 5)):
        process = build_processor(
            TernProcessorConfig("story", concurrency=actors, batch_size=size),
            postprocess=lambda row: {"id": row["id"], "generated_text": row["generated_text"]},
        )
        found, ids = by_id(process(ray.data.from_items(prompts(ROWS), override_num_blocks=blocks)).take_all())
        assert ids == list(range(ROWS))
        assert found == alone


def test_a_killed_actor_loses_and_repeats_nothing(cluster, alone, tmp_path):
    def slow(row):
        time.sleep(0.01)
        (tmp_path / str(os.getpid())).touch()
        return {}

    process = build_processor(TernProcessorConfig("story", concurrency=2, batch_size=16), preprocess=slow)
    found, killed = [], None
    for row in process(ray.data.from_items(prompts(ROWS), override_num_blocks=20)).iter_rows():
        found.append(row)
        if killed is None:
            killed = int(next(iter(tmp_path.iterdir())).name)
            os.kill(killed, signal.SIGKILL)
    texts, ids = by_id(found)
    assert ids == list(range(ROWS)) and texts == alone
    # The one that took its place wrote some of them.
    assert len(list(tmp_path.iterdir())) >= 3


def test_a_killed_driver_goes_on(alone, tmp_path):
    source, out, checkpoint = tmp_path / "in", tmp_path / "out", tmp_path / "checkpoint"
    source.mkdir()
    for nth in range(0, ROWS, 80):
        parquet.write_table(pyarrow.Table.from_pylist(prompts(ROWS)[nth : nth + 80]), source / f"{nth:04}.parquet")
    job = [sys.executable, str(HERE / "job.py"), str(source), str(out), str(checkpoint)]
    told = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    first = subprocess.Popen(job, env={**told, "SLOW": "0.03"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.parquet"))) < 3:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    done = set(committed(checkpoint))
    assert 0 < len(done) < ROWS
    subprocess.run(job, env=told, check=True, timeout=300, capture_output=True)
    rows = [row for file in sorted(out.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
    texts, ids = by_id(rows)
    assert ids == list(range(ROWS)) and texts == alone
    # What was finished was not written again.
    assert sorted(committed(checkpoint)) == list(range(ROWS))


def committed(checkpoint):
    files = [file for file in checkpoint.glob("*.parquet") if ".pending" not in file.name]
    return [row["id"] for file in files for row in parquet.read_table(file).to_pylist()]


def test_the_columns(cluster):
    rows = [{"id": 1, "question": "Hello"}, {"id": 2, "question": "A dog?"}]
    process = build_processor(
        TernProcessorConfig("story"),
        preprocess=lambda row: {"messages": [{"role": "user", "content": row["question"]}], "sampling_params": {"max_tokens": 5}},
    )
    first, second = sorted(process(ray.data.from_items(rows)).take_all(), key=lambda row: row["id"])
    assert first["num_generated_tokens"] == len(first["generated_tokens"]) == 5 and first["finish_reason"] == "length"
    assert first["num_input_tokens"] == len(first["prompt_token_ids"]) and "Hello" in first["prompt"]
    assert second["question"] == "A dog?" and second["generated_text"] and second["time_taken_llm"] > 0


def test_a_row_that_is_wrong(cluster):
    rows = [{"id": 1, "prompt": "The dog"}, {"id": 2, "prompt": "x", "sampling_params": {"max_tokens": 0}}, {"id": 3, "prompt": None}]
    kept = build_processor(TernProcessorConfig("story", should_continue_on_error=True), postprocess=lambda row: {
        "id": row["id"], "text": row["generated_text"]})
    first, second, third = sorted(kept(ray.data.from_items(rows)).take_all(), key=lambda row: row["id"])
    assert first["__inference_error__"] == "" and first["text"]
    assert "max_tokens" in second["__inference_error__"] and "prompt" in third["__inference_error__"]
    with pytest.raises(Exception, match="max_tokens"):
        build_processor(TernProcessorConfig("story"))(ray.data.from_items(rows)).take_all()


def test_vectors(cluster):
    process = build_processor(TernProcessorConfig("story", task="embed", options={"pooling": "mean"}))
    rows = process(ray.data.from_items([{"prompt": "a dog"}, {"prompt": "a cat"}])).take_all()
    vectors = np.array([row["embeddings"] for row in rows])
    assert vectors.shape[0] == 2 and np.allclose((vectors**2).sum(1), 1, atol=1e-4)


def test_the_plain_actor_class(cluster, alone):
    rows = prompts(32)
    data = ray.data.from_items(rows).map_batches(
        Predictor, fn_constructor_args=("story",), compute=ActorPoolStrategy(size=1), num_cpus=1, batch_size=8, batch_format="numpy")
    texts, ids = by_id(data.take_all())
    assert ids == list(range(32)) and texts == {nth: alone[nth] for nth in range(32)}


def test_http_requests_to_a_server(cluster, server):
    from ray.data.llm import HttpRequestProcessorConfig
    from ray.data.llm import build_processor as theirs

    process = theirs(
        HttpRequestProcessorConfig(url=f"{server}/v1/chat/completions", concurrency=1, batch_size=8),
        preprocess=lambda row: {"payload": {
            "model": "story", "messages": [{"role": "user", "content": row["item"]}], "max_tokens": 6, "temperature": 0}},
        postprocess=lambda row: {"item": row["item"], "text": row["http_response"]["choices"][0]["message"]["content"]},
    )
    words = [f"dog {nth}" for nth in range(24)]
    found = {row["item"]: row["text"] for row in process(ray.data.from_items(words)).take_all()}
    with tern.Model("story", threads=1) as model:
        for word in words:
            whole = model.request("/v1/chat/completions", {
                "messages": [{"role": "user", "content": word}], "max_tokens": 6, "temperature": 0})
            assert found[word] == whole["choices"][0]["message"]["content"]


@pytest.fixture
def server():
    tern_program = os.environ["TERN"]
    process = subprocess.Popen([tern_program, "serve", "story", "--port", "0", "--log", "none", "--threads", "1"],
                               stderr=subprocess.PIPE, text=True)
    url = next(line.split()[-1] for line in process.stderr if line.startswith("listening on "))
    yield url
    process.terminate()
    process.wait(30)


def test_a_job_that_leaves_ray_no_cpu_is_warned_of(cluster):
    with pytest.warns(UserWarning, match="4 CPUs of the cluster's 4"):
        build_processor(TernProcessorConfig("story", concurrency=4))(ray.data.range(1))


@pytest.mark.parametrize("word, value", [("task", "sing"), ("threads", 0), ("concurrency", (3, 2)), ("batch_size", True)])
def test_settings_that_cannot_be(word, value):
    with pytest.raises(ValueError, match=word):
        TernProcessorConfig("story", **{word: value})


def test_a_seed_does_not_depend_on_how_a_batch_is_stored():
    row = {"id": 3, "prompt": "a", "sampling_params": {"max_tokens": 4}}
    stored = {"id": np.float64(3), "prompt": np.str_("a"), "sampling_params": {"max_tokens": 4, "stop": None}, "more": float("nan")}
    assert row_seed(0, row) == row_seed(0, stored)
    assert row_seed(1, row) != row_seed(0, row) != row_seed(0, {**row, "id": 4})
