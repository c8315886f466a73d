import json
import threading
import time
import urllib.error
import urllib.request

import openai
import pytest
from ray import serve
from ray.serve.context import _get_global_client

import tern
from tern.ray import TernServeConfig, build_openai_app

PORT = 18437
URL = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def running(cluster):
    serve.start(http_options={"port": PORT})
    yield
    serve.shutdown()


@pytest.fixture
def client(running):
    with openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def start(*models):
    serve.run(build_openai_app(list(models)), name="tern", route_prefix="/")


def ask(model, word, stream=False, tokens=12, **more):
    return {"model": model, "messages": [{"role": "user", "content": word}], "max_tokens": tokens, "temperature": 0,
            "stream": stream, **more}


def text(stream):
    return "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)


def post(path, body):
    request = urllib.request.Request(URL + path, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as wrong:
        return wrong.code, json.load(wrong)


def test_two_models_answer_as_they_do_alone(client):
    start(TernServeConfig("story", name="one", replicas=2), TernServeConfig("story", name="two", options={"n_ctx": 64}))
    assert [model.id for model in client.models.list()] == ["one", "two"]
    assert client.models.retrieve("two").owned_by == "tern"
    with tern.Model("story", threads=1, name="one") as model:
        for word in ("Hello", "A dog"):
            whole = model.request("/v1/chat/completions", ask("one", word))
            answer = client.chat.completions.create(**ask("one", word))
            assert answer.choices[0].message.content == whole["choices"][0]["message"]["content"]
            assert answer.model == whole["model"] and answer.usage.total_tokens == whole["usage"]["total_tokens"]
            assert text(client.chat.completions.create(**ask("one", word, True))) == answer.choices[0].message.content
            assert client.chat.completions.create(**ask("two", word)).choices[0].message.content == answer.choices[0].message.content
        told = model.request("/v1/completions", {"prompt": "The dog", "max_tokens": 5, "temperature": 0})
    answer = client.completions.create(model="two", prompt="The dog", max_tokens=5, temperature=0)
    assert answer.choices[0].text == told["choices"][0]["text"]

    # What is wrong is told as the server tells it.
    with pytest.raises(openai.NotFoundError, match="there is one, two"):
        client.chat.completions.create(**ask("three", "x"))
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(**{**ask("one", "x"), "temperature": -1})
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**ask("two", "word " * 200))
    assert post("/v1/chat/completions", b"{")[0] == 400
    assert post("/v1/chat/completions", b"[" * 100_000)[0] == 400
    assert post("/v1/chat/completions", b"3")[0] == 400
    assert post("/v1/models/load", b"{}")[0] == 404
    status, told = post("/v1/chat/completions", b'{"model": "one", "x": "' + b"x" * (17 << 20) + b'"}')
    assert status == 413 and "16 MiB" in told["error"]["message"]


def test_a_rolling_update_fails_no_request(client):
    def config(version):
        return TernServeConfig("story", name="story", replicas=2, version=version, grace=60)

    start(config("1"))
    expected = {word: client.chat.completions.create(**ask("story", word, tokens=60)).choices[0].message.content
                for word in ("Hello", "A dog", "Tom")}
    answers, failures, end = [0], [], threading.Event()

    def talk(word, stream):
        while not end.is_set():
            try:
                answer = client.chat.completions.create(**ask("story", word, stream, tokens=60))
                told = text(answer) if stream else answer.choices[0].message.content
                assert told == expected[word]
                answers[0] += 1
            except Exception as wrong:  # noqa: BLE001
                failures.append(repr(wrong))

    threads = [threading.Thread(target=talk, args=(word, stream)) for word in expected for stream in (True, False)]
    for thread in threads:
        thread.start()
    try:
        before = replicas()
        time.sleep(1)
        start(config("2"))
        assert len(replicas()) == 2 and not before & replicas()
        time.sleep(1)
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert failures == [] and answers[0] > 20


def replicas():
    """The model's replicas that run."""
    deployments = _get_global_client().get_serve_details()["applications"]["tern"]["deployments"]
    return {one["replica_id"] for name, told in deployments.items() if name != "Ingress"
            for one in told["replicas"] if one["state"] == "RUNNING"}


def test_requests_that_begin_alike_find_what_is_known(client):
    start(TernServeConfig("story", name="story", replicas=3, prefix=400))
    known = []
    for group in range(4):
        begins = f"Group {group}. " + "The dog played in the park. " * 20
        for nth in range(4):
            answer = client.completions.create(model="story", prompt=f"{begins} {nth}", max_tokens=2, temperature=0)
            known.append(answer.usage.prompt_tokens_details.cached_tokens / answer.usage.prompt_tokens)
    # The first of each group reads it; those that follow find it where they are sent.
    for group in range(4):
        assert all(part > 0.8 for part in known[4 * group + 1 : 4 * group + 4]), known


def test_a_client_that_leaves_frees_its_place(client):
    start(TernServeConfig("story", name="story", replicas=1, parallel=1))
    for _ in range(5):
        stream = client.chat.completions.create(**ask("story", "Tell me", True, tokens=400, extra_body={"ignore_eos": True}))
        next(iter(stream))
        stream.close()
    begin = time.monotonic()
    client.chat.completions.create(**ask("story", "Hello", tokens=2))
    assert time.monotonic() - begin < 30


def test_more_replicas_come_when_requests_wait(client):
    quick = {"upscale_delay_s": 0.5, "metrics_interval_s": 0.2, "look_back_period_s": 1}
    start(TernServeConfig("story", name="story", replicas=(1, 3), requests=2, parallel=2, autoscaling=quick))
    assert len(replicas()) == 1
    end = threading.Event()

    def talk():
        while not end.is_set():
            client.chat.completions.create(**ask("story", "Tell me", tokens=200, extra_body={"ignore_eos": True}))

    threads = [threading.Thread(target=talk) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 90
    try:
        while len(replicas()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_names_must_differ():
    with pytest.raises(ValueError, match="different names"):
        build_openai_app([TernServeConfig("story"), TernServeConfig("story")])
    with pytest.raises(ValueError, match="none"):
        build_openai_app([])
