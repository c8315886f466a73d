import json
import re
import statistics

import pytest
from conftest import ROOT

from tern import fleet
from tern._route import beginning, preferred, ranked
from tern.fleet import Costs, Kind, Rates, Request, simulate, summary, traffic


def test_a_queue_before_one_server_waits_as_the_formula_says():
    # One at a time, always 0.1 s, arrivals by chance: Pollaczek and Khinchine's mean wait.
    kinds = {"m": Kind("m", Rates({1: 0.1}), parallel=1)}
    for busy in (0.3, 0.7):
        requests = traffic({"model": "m", "per_second": busy / 0.1, "prompt": 1, "answer": 1}, 10_000, 1)
        simulate(kinds, [(1, ["m"])], requests)
        wait = statistics.mean(one.end - one.at for one in requests) - 0.1
        assert wait == pytest.approx(0.1 * busy / (2 * (1 - busy)), rel=0.05)


def test_a_batch_and_its_prompt():
    kinds = {"m": Kind("m", Rates({1: 1.0, 2: 1.5, 256: 100.0}))}
    first, second = Request(0.0, "m", 1, 4), Request(0.5, "m", 2, 2)
    simulate(kinds, [(1, ["m"])], [first, second])
    # Alone until 1; then its second token beside two rows of the other's prompt; then both; then alone again.
    three = 1.5 + 98.5 / 254
    assert (first.first, second.first) == (1.0, pytest.approx(1 + three))
    assert second.end == pytest.approx(1 + three + 1.5) and first.end == pytest.approx(1 + three + 1.5 + 1)


def test_texts_that_begin_and_long_ones_take_longer():
    kinds = {"m": Kind("m", Rates({1: 1.0, 256: 1.0}, position=0.01, begin=0.5))}
    (request,) = requests = [Request(0.0, "m", 100, 11)]
    simulate(kinds, [(1, ["m"])], requests)
    # Its prompt's mean position is 50; then ten steps, the first at 101, the last at 110, each a half further on.
    assert request.first == pytest.approx(1 + 0.5 + 0.5)
    assert request.end - request.first == pytest.approx(10 * 1 + 0.01 * sum(101 + nth for nth in range(10)) + 0.01 * 5)


def test_replicas_share_the_cores():
    kinds = {"m": Kind("m", Rates({1: 1.0}))}
    for cores, replicas, end in ((2, 2, 10), (1, 2, 20), (2, 4, 20)):
        requests = [Request(0.0, "m", 1, 10) for _ in range(replicas)]
        (machine,) = simulate(kinds, [(cores, ["m"] * replicas)], requests, slack=0)
        assert [one.end for one in requests] == [pytest.approx(end)] * replicas
        assert summary(requests, [machine])["cores_used"] == pytest.approx(1)


def test_what_stands_before_the_replicas_takes_its_time():
    kinds = {"m": Kind("m", Rates({1: 1.0}))}
    alone, beside = Request(0.0, "m", 1, 1), Request(0.0, "m", 1, 1)
    simulate(kinds, [(2, ["m"])], [alone], Costs(request=0.5))
    assert alone.end == pytest.approx(1.5)
    requests = [Request(0.0, "m", 1, 5)]
    simulate(kinds, [(1, ["m"])], requests, Costs(token=0.5))
    # On one core, each token is made and the one before it is sent.
    assert requests[0].end == pytest.approx(5 * 1.5)
    simulate(kinds, [(2, ["m"])], [beside], Costs(token=0.5))
    assert beside.end == pytest.approx(1)


def test_known_beginnings_are_found_again_by_routing():
    kinds = {"m": Kind("m", Rates({1: 0.01, 256: 0.5}), kept=8_000)}
    told = {"model": "m", "per_second": 4, "prompt": 16, "answer": 8, "shared": {"groups": 40, "tokens": 1_000, "skew": 0.5}}
    known = {}
    for shared in (True, False):
        requests = traffic(told, 300, 3)
        machines = simulate(kinds, [(1, ["m"])] * 10, requests, shared=shared)
        known[shared] = summary(requests, machines)["known"]
    # Ten replicas that keep eight of forty beginnings each have all of them; by chance a fifth.
    assert known[True] > 0.8 and known[False] < 0.4


def test_the_same_seed_gives_the_same_figures(tmp_path, capsys):
    told = {
        "models": {"m": {"rates": {"1": 0.01, "16": 0.04, "256": 0.3}}},
        "machine": {"cores": 2, "replicas": {"m": 2}, "price": 0.1},
        "traffic": [{"model": "m", "per_second": 5, "prompt": [60, 40], "answer": [40, 20]}], "seconds": 60,
    }
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(told))
    fleet.main([str(path), "--machines", "1,4", "--json"])
    first = capsys.readouterr().out
    fleet.main([str(path), "--machines", "1,4", "--json"])
    assert capsys.readouterr().out == first
    one, four = map(json.loads, first.splitlines())
    assert four["first_token"]["p95"] <= one["first_token"]["p95"] and four["per_million_tokens"] > one["per_million_tokens"]
    with pytest.raises(SystemExit, match="do not help"):
        fleet.main([str(path), "--find", "--first", "0.01"])
    fleet.main([str(path), "--find", "--scale", "10", "--first", "0.5", "--token", "0.1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["first_token"]["p95"] <= 0.5 and found["per_token"]["p95"] <= 0.1
    assert fleet.Fleet.read(str(path)).run(found["machines"] - 1, scale=10)["first_token"]["p95"] > 0.5 or (
        fleet.Fleet.read(str(path)).run(found["machines"] - 1, scale=10)["per_token"]["p95"] > 0.1)


@pytest.mark.parametrize("change, word", [({"models": {}}, "models"), ({"traffic": [{"model": "m"}]}, "per_second"),
                                          ({"machine": 3}, "TypeError")])
def test_a_wrong_file_is_told(tmp_path, change, word):
    told = {"models": {"m": {"rates": {"1": 0.01}}}, "machine": {"cores": 1, "replicas": {"m": 1}},
            "traffic": [{"model": "m", "per_second": 1, "prompt": 1, "answer": 1}], "seconds": 1}
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps({**told, **change}))
    with pytest.raises(SystemExit, match=word):
        fleet.main([str(path)])


def test_rates_out_of_a_record(tmp_path):
    def test(rows, rate, depth=0, threads=1):
        return {"n_prompt": 512 if rows == 256 else 0, "n_gen": 0 if rows == 256 else 64, "n_depth": depth, "n_threads": threads,
                "n_sequences": 1 if rows == 256 else rows, "avg_ts": rate}

    path = tmp_path / "record.json"
    path.write_text(json.dumps({"tests": [test(256, 512.0), test(1, 50.0), test(16, 200.0), test(16, 900.0, threads=2)]}))
    rates = Rates.read(str(path), 1)
    assert (rates.step(1), rates.step(16), rates.step(256)) == pytest.approx((0.02, 0.08, 0.5))
    assert rates.step(1) < rates.step(8) < rates.step(16) and rates.position == 0
    assert Rates.of(rates.json()).step(100) == rates.step(100)
    # 16 texts take 8 ms more when each of their rows has 500 positions more: a microsecond for each.
    path.write_text(json.dumps({"tests": [test(256, 512.0), test(1, 50.0), test(16, 200.0), test(16, 16 / 0.088, depth=500)]}))
    rates = Rates.read(str(path), 1)
    assert rates.position == pytest.approx(1e-6) and rates.step(16) == pytest.approx(0.08 - 16 * 32 * 1e-6)
    with pytest.raises(ValueError, match="threads"):
        Rates.read(str(path), 4)


def test_rates_of_a_model(capsys):
    fleet.main(["story", "--rates"])
    told = json.loads(capsys.readouterr().out)
    rates = Rates.of(told["rates"])
    assert told["threads"] == 1 and 0 < rates.step(1) < rates.step(256) < 10


def test_what_a_request_begins_with():
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    first = beginning("/v1/chat/completions", {"messages": talk}, 100)
    later = [*talk, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "More"}]
    assert beginning("/v1/chat/completions", {"messages": later}, 100) == first != beginning(
        "/v1/chat/completions", {"messages": [talk[0], {"role": "user", "content": "Other"}]}, 100)
    assert beginning("p", {"messages": talk}, 8) == beginning("p", {"messages": [talk[0], later[3]]}, 8) == "p Be kind."
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url"}]}]
    assert beginning("p", {"messages": parts}, 9) == beginning("p", {"prompt": "Hello"}, 9) == "p Hello"
    assert beginning("p", {"prompt": [1, 2]}, 9) == "p 1 2 "
    for odd in ({}, {"messages": 3}, {"messages": [None, [], {"content": {}}]}, {"prompt": {"a": 1}}, {"prompt": [[1], [2]]}):
        assert beginning("p", odd, 9).startswith("p ")


def test_few_beginnings_move_when_a_replica_comes():
    keys = [f"key {nth}" for nth in range(2_000)]
    before, after = "abcd", "abcde"
    moved = [key for key in keys if ranked(key, before)[0] != ranked(key, after)[0]]
    assert all(ranked(key, after)[0] == "e" for key in moved) and 0.15 < len(moved) / 2_000 < 0.25
    counts = [sum(ranked(key, before)[0] == one for key in keys) for one in before]
    assert min(counts) > 400


def test_a_busy_replica_comes_last():
    assert preferred("abc", {"a": 5, "b": 0, "c": 4}.get, 4) == ["b", "c", "a"]
    assert preferred("abc", {"a": 4, "b": 0, "c": 4}.get, 4) == ["a", "b", "c"]
    assert preferred("", lambda _: 0, 4) == []


def test_the_lines_of_the_manual(tmp_path, capsys, monkeypatch):
    page = (ROOT / "docs/scale.md").read_text()
    (told,) = re.findall(r"^```json\n(.*?)^```", page, re.M | re.S)
    # Its traffic for a tenth of the time: what is tried is that the lines run.
    (tmp_path / "fleet.json").write_text(told.replace('"seconds": 300', '"seconds": 20'))
    monkeypatch.chdir(tmp_path)
    lines = [line for line in re.findall(r"^python -m tern.fleet (fleet.json .*?)(?: *#.*)?$", page, re.M)]
    assert len(lines) == 4
    for line in lines:
        fleet.main(line.split())
        assert len(capsys.readouterr().out.splitlines()) >= 2
