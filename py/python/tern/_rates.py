"""How long the steps of a model take: measured here, or read from a record."""

from __future__ import annotations

import json
import random
from typing import Any, Mapping

#: Rows of a step of a prompt, while nothing is written (`engine/src/batch/step.rs`).
PIECE = 256


class Rates:
    """How long a step takes with so many rows, on cores of its own; `position` seconds more for each token that is there
    before, of each text: its keys and values are read once, whether one row or many of the text look at them. `begin` seconds more
    for a text that comes in: room for its keys and values is made, or those of a known beginning are copied."""

    def __init__(self, points: Mapping[int, float], position: float = 0.0, begin: float = 0.0) -> None:
        self.position, self.begin = position, begin
        self._points = sorted((int(rows), float(seconds)) for rows, seconds in points.items())
        if not self._points or any(rows < 1 or not seconds > 0 for rows, seconds in self._points):
            raise ValueError("rates: expected the seconds of a step for at least one number of rows")

    @classmethod
    def read(cls, path: str, threads: int) -> "Rates":
        """Out of a record of `tern bench --json -p 512 -n 64 -d 0,512 -b 1,2,4,8,16`."""
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        found: dict[tuple[int, int], tuple[float, int]] = {}
        for test in record["tests"]:
            if test["n_threads"] == threads:
                rows = PIECE if test["n_prompt"] else test["n_sequences"]
                depth = test["n_depth"] + (test["n_prompt"] or test["n_gen"]) // 2
                found[rows, test["n_depth"]] = (rows / test["avg_ts"], depth)
        return cls.fit(found)

    @classmethod
    def fit(cls, found: Mapping[tuple[int, int], tuple[float, int]]) -> "Rates":
        """Out of seconds and mean positions by rows and depths: of two depths of as many texts the most tells what a position
        takes, which is then taken off all."""
        if (PIECE, 0) not in found or (1, 0) not in found:
            raise ValueError("rates: expected a prompt's and a text's rate on so many threads, at depth 0")
        deep = max((key for key in found if key[1] and key[0] != PIECE and (key[0], 0) in found), default=None)
        position = 0.0
        if deep:
            (slow, far), (quick, near) = found[deep], found[deep[0], 0]
            position = max(0.0, (slow - quick) / (deep[0] * (far - near)))
        points = {}
        for (rows, depth), (seconds, mean) in found.items():
            if depth == 0:
                points[rows] = max(seconds - position * mean * (1 if rows == PIECE else rows), seconds / 4)
        return cls(points, position)

    def json(self) -> dict[str, float]:
        """As `FLEET.json` has them."""
        return {**{str(rows): seconds for rows, seconds in self._points}, "position": self.position, "begin": self.begin}

    @classmethod
    def of(cls, told: Mapping[str, float]) -> "Rates":
        """Out of that."""
        points = {int(rows): seconds for rows, seconds in told.items() if rows not in ("position", "begin")}
        return cls(points, told.get("position", 0.0), told.get("begin", 0.0))

    def step(self, rows: int) -> float:
        """Between two points the straight line, below the first and beyond the last in proportion to the rows."""
        points = self._points
        if len(points) == 1 or rows <= points[0][0]:
            return points[0][1] * (1 if rows <= points[0][0] else rows / points[0][0])
        for (low, fast), (high, slow) in zip(points, points[1:]):
            if rows <= high:
                return fast + (slow - fast) * (rows - low) / (high - low)
        return points[-1][1] * rows / points[-1][0]


def measure(model: str, threads: int = 1, **options: Any) -> Rates:
    """The rates of a model on this machine: what the server itself tells of texts that are written together (and of a
    prompt), the quickest of two rounds after one that warms up."""
    from tern._model import Model

    found: dict[tuple[int, int], list[float]] = {}
    begins: list[float] = []
    # Texts at a time, the depth, tokens of each prompt and answer.
    tests = [(count, 0, 16, 32) for count in (1, 2, 4, 16)] + [(4, 256, 272, 32), (PIECE, 0, 500, 1)]
    with Model(model, threads=threads, parallel=16, **options) as loaded:
        dice = random.Random(0)
        for turn in range(3):
            for count, depth, length, tokens in tests:
                if length + tokens > loaded.n_ctx:
                    raise ValueError(f"{model}: a context of {loaded.n_ctx} tokens is too short to measure")
                requests: list[dict[str, Any]] = [{
                    "prompt": [dice.randrange(16, loaded.n_vocab) for _ in range(length)], "n_predict": tokens,
                    "temperature": 0, "ignore_eos": True, "cache_prompt": False} for _ in range(1 if count == PIECE else count)]
                told = [answer["timings"] for _, answer in loaded.requests("/completion", requests)]
                if count == PIECE:
                    seconds = told[0]["prompt_ms"] / length * PIECE / 1000
                else:
                    # The last to begin: from then on all are written together.
                    seconds = min(one["predicted_ms"] for one in told) / (tokens - 1) / 1000
                if count == 1:
                    alone = loaded.request("/completion", {**requests[0], "prompt": requests[0]["prompt"][:1]})
                    begins.append(alone["timings"]["prompt_ms"] / 1000)
                # The first round warms up.
                if turn:
                    found.setdefault((count, depth), []).append(seconds)
    means = {(count, depth): (length + tokens) // 2 if count == PIECE else length + tokens // 2 for count, depth, length, tokens in tests}
    rates = Rates.fit({key: (min(each), means[key]) for key, each in found.items()})
    rates.begin = max(0.0, min(begins) - rates.step(1))
    return rates
