"""What clients of a fleet ask for."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from typing import Any, Mapping


@dataclass(eq=False)
class Request:
    """What a client wants, and what it saw."""

    at: float
    model: str
    prompt: int
    answer: int
    group: str = ""
    shared: int = 0
    known: int = 0
    left: int = 0
    begun: bool = False
    written: int = 0
    first: float = math.nan
    end: float = math.nan


def traffic(told: Mapping[str, Any], seconds: float, seed: int) -> list[Request]:
    """Requests of one kind: `model`, `per_second`, `prompt` and `answer` (tokens: a number, or mean and standard deviation,
    log-normal), `shared` (`groups` whose prompts begin with the same `tokens`; the n-th is asked 1 / n ** `skew` as often)."""
    dice = random.Random(f"{seed} {json.dumps(told, sort_keys=True)}")
    shared = told.get("shared", {})
    groups, tokens = int(shared.get("groups", 0)), int(shared.get("tokens", 0))
    weights = [(1 + nth) ** -float(shared.get("skew", 1)) for nth in range(groups)]
    requests: list[Request] = []
    now = 0.0
    while True:
        now += dice.expovariate(float(told["per_second"]))
        if now >= seconds:
            return requests
        group = f"{told['model']} {dice.choices(range(groups), weights)[0]}" if groups else ""
        own, answer = _draw(dice, told["prompt"]), _draw(dice, told["answer"])
        requests.append(Request(now, told["model"], own + (tokens if groups else 0), answer, group, tokens if groups else 0))


def _draw(dice: random.Random, told: Any) -> int:
    if isinstance(told, (int, float)):
        return max(1, round(told))
    mean, spread = float(told[0]), float(told[1])
    wide = math.log(1 + (spread / mean) ** 2)
    return max(1, round(dice.lognormvariate(math.log(mean) - wide / 2, math.sqrt(wide))))
