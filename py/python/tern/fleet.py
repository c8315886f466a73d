"""How many machines a traffic needs: `python -m tern.fleet FLEET.json`, and `docs/scale.md`.

A simulation, step by step, of replicas that batch as the engine does, of the machines' cores that they share, and of
requests sent by the rule that the deployment on Ray Serve uses.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import random
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional, Sequence, Union

from tern._route import preferred, ranked

#: Rows of a step: of prompts while nothing is written, and at least while something is (`engine/src/batch/step.rs`).
PIECE, LEAST = 256, 16
#: The longest that a step takes for prompts while texts are written, in seconds (`--pause`).
PAUSE = 0.2


class Rates:
    """How long a step takes with so many rows, on cores of its own."""

    def __init__(self, points: Mapping[int, float]) -> None:
        self._points = sorted((int(rows), float(seconds)) for rows, seconds in points.items())
        if not self._points or any(rows < 1 or not seconds > 0 for rows, seconds in self._points):
            raise ValueError("rates: expected the seconds of a step for at least one number of rows")

    @classmethod
    def read(cls, path: str, threads: int) -> "Rates":
        """Out of a record of `tern bench --json -p 512 -n 64 -b 1,2,4,8,16`."""
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        points = {}
        for test in record["tests"]:
            if test["n_threads"] == threads and test["n_depth"] == 0:
                rows = PIECE if test["n_prompt"] else test["n_sequences"]
                points[rows] = rows / test["avg_ts"]
        if PIECE not in points or 1 not in points:
            raise ValueError(f"{path}: expected a prompt's and a text's rate on {threads} threads")
        return cls(points)

    def step(self, rows: int) -> float:
        """Between two points the straight line, below the first and beyond the last in proportion to the rows."""
        points = self._points
        if len(points) == 1 or rows <= points[0][0]:
            return points[0][1] * (1 if rows <= points[0][0] else rows / points[0][0])
        for (low, fast), (high, slow) in zip(points, points[1:]):
            if rows <= high:
                return fast + (slow - fast) * (rows - low) / (high - low)
        return points[-1][1] * rows / points[-1][0]


@dataclass
class Kind:
    """A model: its steps, the threads of a replica, texts written at a time, tokens of known beginnings that it keeps."""

    name: str
    rates: Rates
    threads: int = 1
    parallel: int = 16
    kept: int = 1 << 16


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
    written: int = 0
    first: float = math.nan
    end: float = math.nan


class Server:
    """A replica: its queue, its batch, its known beginnings."""

    def __init__(self, kind: Kind, name: str, machine: "Machine") -> None:
        self.kind, self.name, self.machine = kind, name, machine
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.known: OrderedDict[str, int] = OrderedDict()
        self.pieces: list[tuple[Request, int]] = []
        # Of a step, or of several alike: work in seconds of a core, steps in it.
        self.work = self.each = 0.0
        self.steps = 0
        self.busy = 0.0

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.running)

    def plan(self, alike: bool) -> None:
        """Lets requests in and decides the next step. Steps that are `alike` can be taken at once."""
        while self.waiting and len(self.running) < self.kind.parallel:
            request = self.waiting.popleft()
            if request.group in self.known:
                self.known.move_to_end(request.group)
                request.known = min(self.known[request.group], request.prompt - 1)
            request.left = request.prompt - request.known
            self.running.append(request)
        if not self.running:
            return
        writing = [one for one in self.running if not one.left]
        reading = sorted((one for one in self.running if one.left), key=lambda one: one.left)
        left = PIECE
        if writing:
            rate = self.kind.rates.step(PIECE) / PIECE
            left = max(LEAST, min(PIECE, int(PAUSE / rate)))
        self.pieces = [(one, 1) for one in writing]
        for nth, one in enumerate(reading):
            part = min(one.left, math.ceil(left / (len(reading) - nth)))
            if part > 0:
                left -= part
                self.pieces.append((one, part))
        self.steps = min(one.answer - one.written for one in writing) if alike and not reading else 1
        self.each = self.kind.rates.step(sum(rows for _, rows in self.pieces))
        self.work = self.steps * self.each

    def shorten(self) -> None:
        """Somebody has come: no more than the step that runs."""
        if self.steps > 1 and self.waiting and len(self.running) < self.kind.parallel:
            # What is left of the step that runs, beside whole ones that have not begun.
            whole = max(0, math.ceil(self.work / self.each - 1e-9) - 1)
            self.steps -= whole
            self.work -= whole * self.each

    def done(self, now: float) -> None:
        """Takes the steps' results in."""
        ended, pieces, self.pieces = [], self.pieces, []
        for one, rows in pieces:
            if one.left:
                one.left -= rows
                if one.left:
                    continue
                self._keep(one)
                one.written = 1
                one.first = now
            else:
                one.written += self.steps
            if one.written >= one.answer:
                one.end = now
                ended.append(one)
        for one in ended:
            self.running.remove(one)

    def _keep(self, one: Request) -> None:
        """The beginning that a group shares is known now; the oldest are forgotten."""
        if one.shared:
            self.known[one.group] = one.shared
            self.known.move_to_end(one.group)
            while sum(self.known.values()) > self.kind.kept:
                self.known.popitem(last=False)


class Front:
    """What stands before the replicas of a machine and takes time of its cores: HTTP, routing, sending tokens."""

    def __init__(self) -> None:
        self.queue: deque[tuple[float, Optional[Request]]] = deque()
        self.work = self.busy = 0.0


@dataclass
class Machine:
    """Cores, and what uses them."""

    cores: float
    servers: list[Server] = field(default_factory=list)
    front: Front = field(default_factory=Front)
    now: float = 0.0
    turn: int = 0

    def share(self) -> float:
        """How fast each goes that works: all at full speed, unless they want more cores than there are."""
        wanted = sum(one.kind.threads for one in self.servers if one.work > 0) + (1 if self.front.work > 0 else 0)
        return 1.0 if wanted <= self.cores else self.cores / wanted

    def busy(self) -> list[Union[Server, Front]]:
        """Those that work."""
        everyone: list[Union[Server, Front]] = [*self.servers, self.front]
        return [one for one in everyone if one.work > 0]

    def advance(self, now: float) -> None:
        part = (now - self.now) * self.share()
        for one in self.busy():
            one.busy += part
            one.work = max(0.0, one.work - part)
            if one.work < 1e-9:
                one.work = 0.0
        self.now = now

    def next(self) -> float:
        works = [one.work for one in self.busy()]
        return self.now + min(works) / self.share() if works else math.inf


@dataclass
class Costs:
    """Seconds of a core for each request and each token that is sent, beside the replicas' steps; how many requests a
    machine's front handles at the same time does not matter, they are handled one after the other."""

    request: float = 0.0
    token: float = 0.0


def simulate(
    kinds: Mapping[str, Kind], machines: Sequence[tuple[float, Sequence[str]]], requests: Sequence[Request],
    costs: Costs = Costs(), slack: float = 4, shared: bool = True,
) -> list[Machine]:
    """Runs all requests (whose times are filled in) through machines, each with its cores and its replicas' models.
    Without `shared`, requests go to the least busy replica, whatever they begin with."""
    fleet = []
    by_model: dict[str, list[Server]] = {name: [] for name in kinds}
    for nth, (cores, names) in enumerate(machines):
        machine = Machine(cores)
        for other, name in enumerate(names):
            server = Server(kinds[name], f"{nth}-{other}", machine)
            machine.servers.append(server)
            by_model[name].append(server)
        fleet.append(machine)
    for request in requests:
        if not by_model.get(request.model):
            raise ValueError(f"no replica of {request.model}")
    coming: dict[Server, int] = {}
    goes: dict[int, Server] = {}
    orders: dict[str, list[Server]] = {}
    # When something ends on a machine, which one, and the turn in which that was expected.
    events: list[tuple[float, int, int]] = []

    def expect(at: int) -> None:
        machine = fleet[at]
        machine.turn += 1
        time = machine.next()
        if time < math.inf:
            heapq.heappush(events, (time, at, machine.turn))

    # What is sent takes time, too: then after each step.
    alike = costs.token == 0

    def route(request: Request, nth: int) -> Server:
        servers = by_model[request.model]
        load = lambda one: one.load + coming.get(one, 0)  # noqa: E731
        if not shared:
            return min(servers, key=load)
        if not request.group:
            return preferred(ranked(str(nth), servers, lambda one: one.name), load, slack)[0]
        if request.group not in orders:
            orders[request.group] = ranked(request.group, servers, lambda one: one.name)
        return preferred(orders[request.group], load, slack)[0]

    def arrive(server: Server, request: Request) -> None:
        server.waiting.append(request)
        if server.work > 0:
            server.shorten()
        else:
            server.plan(alike)

    def settle(at: int) -> None:
        """Whatever has ended on this machine goes on with what comes next."""
        machine = fleet[at]
        front = machine.front
        while front.queue and front.work == 0:
            _, request = front.queue.popleft()
            if request is not None:
                server = goes.pop(id(request))
                coming[server] -= 1
                arrive(server, request)
            if front.queue:
                front.work = front.queue[0][0]
        for server in machine.servers:
            while server.pieces and server.work == 0:
                sent = sum(server.steps for one, rows in server.pieces if one.left in (0, rows))
                server.done(machine.now)
                server.plan(alike)
                if costs.token and sent:
                    push(front, sent * costs.token, None)

    def push(front: Front, work: float, request: Optional[Request]) -> None:
        front.queue.append((work, request))
        if len(front.queue) == 1:
            front.work = work

    places = {id(machine): at for at, machine in enumerate(fleet)}
    arrivals = iter(enumerate(sorted(requests, key=lambda one: one.at)))
    nth, upcoming = next(arrivals, (0, None))
    while upcoming is not None or events:
        if upcoming is not None and (not events or upcoming.at <= events[0][0]):
            server = route(upcoming, nth)
            at = places[id(server.machine)]
            server.machine.advance(upcoming.at)
            if costs.request:
                coming[server] = coming.get(server, 0) + 1
                goes[id(upcoming)] = server
                push(server.machine.front, costs.request, upcoming)
            else:
                arrive(server, upcoming)
            expect(at)
            nth, upcoming = next(arrivals, (0, None))
            continue
        time, at, turn = heapq.heappop(events)
        if turn == fleet[at].turn:
            fleet[at].advance(time)
            settle(at)
            expect(at)
    return fleet


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


def _at(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else math.nan


def summary(requests: Sequence[Request], fleet: Sequence[Machine], price: Optional[float] = None) -> dict[str, Any]:
    """What clients saw, and what it cost."""
    end = max((one.end for one in requests), default=math.nan)
    span = end - min((one.at for one in requests), default=math.nan)
    written, read = sum(one.answer for one in requests), sum(one.prompt for one in requests)
    cores = sum(machine.cores for machine in fleet)
    used = sum(sum(one.busy * one.kind.threads for one in machine.servers) + machine.front.busy for machine in fleet)
    firsts = [one.first - one.at for one in requests]
    wholes = [one.end - one.at for one in requests]
    paces = [(one.end - one.first) / (one.answer - 1) for one in requests if one.answer > 1]
    told: dict[str, Any] = {
        "machines": len(fleet), "replicas": sum(len(machine.servers) for machine in fleet), "requests": len(requests),
        "requests_per_second": len(requests) / span, "tokens_per_second": written / span,
        "prompt_tokens_per_second": read / span, "known": sum(one.known for one in requests) / max(read, 1),
        "first_token": {"median": _at(firsts, 0.5), "p95": _at(firsts, 0.95)},
        "per_token": {"median": _at(paces, 0.5), "p95": _at(paces, 0.95)},
        "whole": {"mean": sum(wholes) / max(len(wholes), 1), "median": _at(wholes, 0.5), "p95": _at(wholes, 0.95)},
        "cores_used": used / (cores * span),
    }
    if price is not None:
        told["per_million_tokens"] = price * len(fleet) * span / 3600 / written * 1e6
    return told


@dataclass
class Fleet:
    """What `FLEET.json` says."""

    kinds: dict[str, Kind]
    cores: float
    replicas: list[str]
    price: Optional[float]
    costs: Costs
    traffic: list[Mapping[str, Any]]
    seconds: float
    seed: int
    slack: float

    @classmethod
    def read(cls, path: str) -> "Fleet":
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
        machine = told["machine"]
        kinds = {}
        for name, one in told["models"].items():
            threads = int(one.get("threads", 1))
            rates = one["rates"]
            if isinstance(rates, str):
                known = Rates.read(os.path.join(os.path.dirname(path), rates), threads)
            else:
                known = Rates({int(rows): seconds for rows, seconds in rates.items()})
            kinds[name] = Kind(name, known, threads, int(one.get("parallel", 16)), int(one.get("kept", 1 << 16)))
        replicas = [name for name, count in machine["replicas"].items() for _ in range(count)]
        for name in [*replicas, *(one["model"] for one in told["traffic"])]:
            if name not in kinds:
                raise ValueError(f"{path}: `models` has no {name}")
        costs = Costs(machine.get("request_ms", 0) / 1000, machine.get("token_ms", 0) / 1000)
        return cls(kinds, float(machine["cores"]), replicas, machine.get("price"), costs, told["traffic"],
                   float(told.get("seconds", 300)), int(told.get("seed", 0)), float(told.get("slack", 4)))

    def run(self, machines: int, shared: bool = True, scale: float = 1.0) -> dict[str, Any]:
        """So many machines under this traffic, `scale` times of it."""
        requests: list[Request] = []
        for one in self.traffic:
            requests += traffic({**one, "per_second": one["per_second"] * scale}, self.seconds, self.seed)
        fleet = simulate(self.kinds, [(self.cores, self.replicas)] * machines, requests, self.costs, self.slack, shared)
        return summary(requests, fleet, self.price)

    def fewest(self, first: float, token: float, most: int, shared: bool = True, scale: float = 1.0) -> dict[str, Any]:
        """The fewest machines with which 95 of 100 requests have their first token after `first` seconds, and one more
        every `token`."""
        def enough(count: int) -> Optional[dict[str, Any]]:
            told = self.run(count, shared, scale)
            return told if told["first_token"]["p95"] <= first and told["per_token"]["p95"] <= token else None

        low, high, found = 0, 1, enough(1)
        while found is None:
            if high >= most:
                raise ValueError(f"{most} machines are not enough")
            low, high = high, min(2 * high, most)
            found = enough(high)
        while high - low > 1:
            middle = (low + high) // 2
            told = enough(middle)
            low, high, found = (low, middle, told) if told else (middle, high, found)
        return found


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield (f"{told['machines']:>8} {told['replicas']:>8} {told['requests_per_second']:>10.2f} {told['tokens_per_second']:>9.0f}"
           f" {told['first_token']['median']:>8.3f} {told['first_token']['p95']:>8.3f} {told['per_token']['p95']:>8.3f}"
           f" {told['whole']['p95']:>8.2f} {100 * told['known']:>6.1f} {100 * told['cores_used']:>6.1f}"
           + (f" {told['per_million_tokens']:>9.3f}" if "per_million_tokens" in told else ""))


def main(words: Optional[Sequence[str]] = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tern.fleet", description="How many machines a traffic needs.")
    parser.add_argument("fleet", help="models, machine and traffic as JSON; docs/scale.md says how")
    parser.add_argument("--machines", default="1", help="numbers of machines to try, such as 1,2,4 [default: 1]")
    parser.add_argument("--find", action="store_true", help="find the fewest machines that keep --first and --token")
    parser.add_argument("--first", type=float, default=1.0, help="seconds to the first token, of 95 in 100 [default: 1]")
    parser.add_argument("--token", type=float, default=0.1, help="seconds for each further token, of 95 in 100 [default: 0.1]")
    parser.add_argument("--most", type=int, default=1024, help="the most machines to try [default: 1024]")
    parser.add_argument("--scale", type=float, default=1.0, help="times the traffic [default: 1]")
    parser.add_argument("--least-busy", action="store_true", help="send requests to the least busy replica, whatever they begin with")
    parser.add_argument("--json", action="store_true", help="print one JSON object in each line")
    told = parser.parse_args(words)
    try:
        fleet, shared = Fleet.read(told.fleet), not told.least_busy
        if told.find:
            results = iter([fleet.fewest(told.first, told.token, told.most, shared, told.scale)])
        else:
            results = (fleet.run(int(count), shared, told.scale) for count in told.machines.split(","))
        if not told.json:
            print("machines replicas requests/s  tokens/s  first50  first95  token95  whole95 known% cores%"
                  + ("  $/Mtoken" if fleet.price is not None else ""))
        for result in results:
            print(json.dumps(result) if told.json else "\n".join(_lines(result)), flush=True)
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        sys.exit(f"tern.fleet: {type(wrong).__name__ + ': ' if isinstance(wrong, (KeyError, TypeError)) else ''}{wrong}")


if __name__ == "__main__":
    main()
