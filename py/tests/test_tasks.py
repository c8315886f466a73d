"""`tern.eval.tasks`: grades as transformers has them (testdata/golden/eval/expected.json), and what cannot be asked."""

import json
import math

import pytest
from conftest import ROOT

import tern

ITEMS = ROOT / "testdata/golden/eval"
EXPECTED = json.loads((ITEMS / "expected.json").read_text())["tasks"]


@pytest.fixture(scope="module")
def page():
    with tern.Model(ROOT / "testdata/models/page/page.gguf", parallel=1, head="stored", kv="f32") as model:
        yield model


def test_grades_are_those_of_the_reference(page):
    own = json.loads((ITEMS / "gsm8k_short.json").read_text())
    heard = []
    found = tern.eval.tasks(page, ["copa", ITEMS / "ifeval_short.json", own], data=ITEMS, callback=lambda *told: heard.append(told))
    assert [one.task for one in found] == ["copa", "ifeval_short", "gsm8k_short"]
    for one in found:
        expected = EXPECTED[one.task]
        assert len(one.items) == len(expected) == one.figures[one.metric].count and not one.bad
        for item, reference in zip(one.items, expected):
            assert item["line"] == reference["line"]
            for name, grade in reference["grades"].items():
                assert item["grades"][name] == grade, (one.task, item, reference)
            if isinstance(reference["detail"], str):
                assert item["detail"]["text"] == reference["detail"]
        mean = sum(item["grades"][one.metric] for item in one.items) / len(expected)
        assert one.value == pytest.approx(mean, abs=1e-12) and one.seconds > 0 and one.tokens > 0
    copa = found[0].figures["acc"]
    assert copa.error == pytest.approx(math.sqrt(copa.value * (1 - copa.value) / (copa.count - 1)), abs=1e-12)
    assert heard[:3] == [("copa", 0, 24), ("copa", 16, 24), ("copa", 24, 24)]


def test_the_first_items_alone(page):
    (found,) = tern.eval.tasks(page, ["copa"], data=ITEMS, limit=3, batch=2)
    assert [item["line"] for item in found.items] == [1, 2, 3]


def test_bad_items_are_named_or_left_out(page, tmp_path):
    lines = (ITEMS / "copa.jsonl").read_text().splitlines()[:3]
    long = json.dumps({"query": "word " * 600, "choices": ["a", "b"], "gold": 0})
    (tmp_path / "copa.jsonl").write_text("\n".join([lines[0], "{", lines[1], long]) + "\n")
    with pytest.raises(ValueError, match=r"line 2: is not JSON.*line 4: .*512.*skip_bad"):
        tern.eval.tasks(page, ["copa"], data=tmp_path)
    (found,) = tern.eval.tasks(page, ["copa"], data=tmp_path, skip_bad=True)
    assert [item["line"] for item in found.items] == [1, 3] and [line for line, _ in found.bad] == [2, 4]


@pytest.mark.parametrize(
    ("tasks", "words", "error", "what"),
    [
        (["nothing"], {}, ValueError, "no task is called `nothing`"),
        (["copa"], {"data": "nowhere"}, ValueError, "no such file of items"),
        ([{"name": "x"}], {}, ValueError, "missing field"),
        (["x.json"], {}, ValueError, "x.json: "),
        ("copa", {}, TypeError, "a list of tasks"),
        (["copa"], {"limit": 0}, ValueError, "at least 1"),
        (["copa"], {"batch": 0}, ValueError, "at least 1"),
        ([1], {}, TypeError, "int"),
    ],
)
def test_what_makes_no_sense_is_said(page, tasks, words, error, what):
    with pytest.raises(error, match=what):
        tern.eval.tasks(page, tasks, **words)


def test_an_exception_of_the_callback_ends_it(page):
    with pytest.raises(ZeroDivisionError):
        tern.eval.tasks(page, ["copa"], data=ITEMS, callback=lambda *_: 1 / 0)
