"""What must not end the interpreter, leak, or hang."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import tern
from tern import SamplingParams

CHILD = """
import os, tern
model = tern.Llama("story", n_threads=2)
pid = os.fork()
if pid == 0:
    try:
        model("x")
    except RuntimeError as error:
        os._exit(0 if "fork" in str(error) else 3)
    os._exit(4)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert model("x", max_tokens=1)["usage"]["completion_tokens"] == 1
"""

INTERRUPTED = """
import os, signal, threading, time, tern
llm = tern.LLM("story", threads=1, max_num_seqs=2)
params = tern.SamplingParams(max_tokens=400, ignore_eos=True)
# Who runs the tests may have told them to ignore it, as a shell does with what it starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    llm.generate(["Once"] * 5000, params, use_tqdm=False)
except KeyboardInterrupt:
    assert llm.generate("Once", tern.SamplingParams(max_tokens=1))[0].finished
    raise SystemExit(42)
"""

LEFT = """
import tern
model = tern.LLM("story", threads=1).model
task = model.call("/completion", {"prompt": "Once", "n_predict": 300, "stream": True}, lambda status, piece: None)
model.tokenize("Once " * 2000)
"""


def run(code, timeout=120):
    return subprocess.run([sys.executable, "-c", code], timeout=timeout).returncode


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_is_refused_with_a_sentence():
    assert run(CHILD) == 0


def test_ctrl_c_is_heard_and_what_ran_is_cancelled():
    assert run(INTERRUPTED) == 42


def test_other_threads_run_meanwhile(llm):
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    before = len(ticks)
    llm.generate(["Once upon a time"] * 8, SamplingParams(max_tokens=64, ignore_eos=True), use_tqdm=False)
    counted = len(ticks) - before
    done.set()
    thread.join()
    assert counted > 5


def test_calls_from_many_threads(llm):
    wanted = llm.generate("The dog", SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].text
    found = []

    def ask():
        found.append(llm.generate("The dog", SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)[0].outputs[0].text)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [wanted] * 12


def wrong_calls(llama, llm):
    """Some 200 calls of which each is an exception."""
    model = llm.model
    values = [None, 1.5, float("nan"), float("inf"), -1, 2**70, "x" * 5, b"x", [], [[]], {}, object(), [None], [-1],
              [2**40], [1.5], ["a", 1], np.zeros((2, 2)), np.array([1.5]), True]
    takes_ids = [model.logits, model.logprobs, model.detokenize, lambda v: model.loglikelihood([(v, [1])]),
                 lambda v: model.loglikelihood([([1], v)]), lambda v: llm.generate({"prompt_token_ids": v})]
    for value in values:
        for call in takes_ids:
            if value == [] if isinstance(value, list) else False:
                continue
            yield call, value
        if not isinstance(value, str):
            yield lambda v: model.tokenize(v), value
            yield lambda v: tern.Model(v), value
            yield lambda v: tern.Tokenizer(v), value
    numbers = [float("nan"), float("inf"), "x", [], {}, object()]
    for value in numbers:
        for word in ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "repeat_penalty", "presence_penalty",
                     "logprobs"):
            yield lambda v, word=word: llama("x", **{"max_tokens": 1, word: v}), value
    for value in (-1, 0, 2**63, "x", 1.5):
        yield lambda v: tern.Model("story", parallel=v), value if value != 16 else -1
        yield lambda v: tern.Model("story", threads=v), value
    for word in ("kv", "cpu", "packing", "head", "activations", "pooling"):
        for value in ("none", 5, b"x"):
            yield lambda v, word=word: tern.Model("story", **{word: v}), value


def test_wrong_calls_are_exceptions(llama, llm):
    count, wrongly = 0, []
    for call, value in wrong_calls(llama, llm):
        count += 1
        try:
            call(value)
        except Exception:
            continue
        wrongly.append((count, value))
    assert count >= 200
    assert wrongly == []
    assert llama("x", max_tokens=1)["usage"]["completion_tokens"] == 1


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_ten_thousand_calls_leave_nothing(llama, llm):
    ids = [1, 2, 3]

    def calls(count):
        for nth in range(count):
            kind = nth % 50
            if kind == 0:
                llama("A", max_tokens=1)
            elif kind == 1:
                next(llama("A", max_tokens=4, stream=True))
            elif kind < 10:
                llm.model.logits(ids)
            elif kind < 15:
                llm.model.loglikelihood([(ids, [4])])
            elif kind < 20:
                with pytest.raises(ValueError):
                    llm.model.detokenize([2**31])
            else:
                llm.model.detokenize(llm.model.tokenize("Once upon a time"))

    # Caches and the allocator's pages for each thread fill up first: 15 MiB after what the tests before have done.
    calls(10_000)
    before = resident()
    calls(10_000)
    assert resident() - before < 8 << 20


def test_the_interpreter_may_end_while_answers_come():
    assert [run(LEFT) for _ in range(10)] == [0] * 10
