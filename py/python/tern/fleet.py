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
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional, Sequence, Union

from tern._rates import PIECE, Rates, measure
from tern._route import preferred, ranked
from tern._traffic import Request, traffic

#: Rows of prompts in a step, at least, while something is written (`engine/src/batch/step.rs`).
LEAST = 16
#: The longest that a step takes for prompts while texts are written, in seconds (`--pause`).
PAUSE = 0.2


@dataclass
class Kind:
    """A model: its steps, the threads of a replica, texts written at a time, tokens of known beginnings that it keeps."""

    name: str
    rates: Rates
    threads: int = 1
    parallel: int = 16
    kept: int = 1 << 16


class Server:
    """A replica: its queue, its batch, its known beginnings."""

    def __init__(self, kind: Kind, name: str, machine: "Machine") -> None:
        self.kind, self.name, self.machine = kind, name, machine
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.known: OrderedDict[str, int] = OrderedDict()
        self.pieces: list[tuple[Request, int]] = []
        # Of a step, or of several alike: work in seconds of a core, steps in it; cores that send what it writes.
        self.work = self.each = self.sending = 0.0
        self.steps = 0
        self.busy = 0.0
        # When the step began; seconds for a row of a prompt, by the clock, as the engine measures them.
        self.since = self.row = 0.0

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.running)

    def plan(self, token: float) -> None:
        """Lets requests in and decides the next step; steps that are alike are taken at once. To send a token takes `token`
        seconds of a core."""
        held = []
        while self.waiting and len(self.running) < self.kind.parallel:
            request = self.waiting.popleft()
            if request.shared and request.group not in self.known and any(
                one.left and one.group == request.group for one in self.running
            ):
                # Another one reads the same beginning: soon it is known.
                held.append(request)
                continue
            if request.group in self.known:
                self.known.move_to_end(request.group)
                request.known = min(self.known[request.group], request.prompt - 1)
            request.left = request.prompt - request.known
            self.running.append(request)
        self.waiting.extendleft(reversed(held))
        if not self.running:
            return
        writing = [one for one in self.running if not one.left]
        reading = sorted((one for one in self.running if one.left), key=lambda one: one.left)
        left = PIECE
        if writing and self.row:
            left = max(LEAST, min(PIECE, int(PAUSE / self.row)))
        self.pieces = [(one, 1) for one in writing]
        for nth, one in enumerate(reading):
            part = min(one.left, math.ceil(left / (len(reading) - nth)))
            if part > 0:
                left -= part
                self.pieces.append((one, part))
        self.steps = min(one.answer - one.written for one in writing) if not reading else 1
        before = sum(one.prompt - one.left + one.written + rows * self.steps / 2 for one, rows in self.pieces)
        rows = sum(rows for _, rows in self.pieces)
        new = [one for one, _ in self.pieces if not one.begun]
        for one in new:
            one.begun = True
        rates = self.kind.rates
        self.each = rates.step(rows) + rates.position * before + rates.begin * len(new)
        self.since = self.machine.now
        self.work = self.steps * self.each
        self.sending = token * sum(one.left in (0, rows) for one, rows in self.pieces) / self.each

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
        reading = sum(rows for _, rows in pieces if rows > 1)
        if reading >= LEAST:
            row = (now - self.since) / reading
            self.row = (self.row + row) / 2 if self.row else row
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
    """What stands before the replicas of a machine and takes time of its cores: HTTP and routing."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Server, Request]] = deque()
        self.work = self.busy = 0.0


@dataclass
class Machine:
    """Cores, and what uses them. `together` is how fast each goes when all are busy, of what one goes alone: cores share
    memory, and two threads of a processor's core share that."""

    cores: float
    together: float = 1.0
    servers: list[Server] = field(default_factory=list)
    front: Front = field(default_factory=Front)
    now: float = 0.0
    turn: int = 0

    def share(self) -> float:
        """How fast each goes that works: those that want more cores than there are have equal parts of them."""
        wanted = sum(one.kind.threads + one.sending for one in self.servers if one.work > 0) + (self.front.work > 0)
        busy = min(wanted, self.cores)
        slower = 1 - (1 - self.together) * max(0.0, (busy - 1) / (self.cores - 1)) if self.cores > 1 else 1.0
        return slower * busy / wanted if wanted else 1.0

    def busy(self) -> list[Union[Server, Front]]:
        """Those that work."""
        everyone: list[Union[Server, Front]] = [*self.servers, self.front]
        return [one for one in everyone if one.work > 0]

    def advance(self, now: float) -> None:
        part = (now - self.now) * self.share()
        for one in self.busy():
            one.busy += part
            if isinstance(one, Server):
                self.front.busy += part * one.sending
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
    costs: Costs = Costs(), slack: float = 4, shared: bool = True, together: float = 1.0,
) -> list[Machine]:
    """Runs all requests (whose times are filled in) through machines, each with its cores and its replicas' models.
    Without `shared`, requests go to the least busy replica, whatever they begin with."""
    fleet = []
    by_model: dict[str, list[Server]] = {name: [] for name in kinds}
    for nth, (cores, names) in enumerate(machines):
        machine = Machine(cores, together)
        for other, name in enumerate(names):
            server = Server(kinds[name], f"{nth}-{other}", machine)
            machine.servers.append(server)
            by_model[name].append(server)
        fleet.append(machine)
    for request in requests:
        if not by_model.get(request.model):
            raise ValueError(f"no replica of {request.model}")
    coming: dict[Server, int] = {}
    orders: dict[str, list[Server]] = {}
    # When something ends on a machine, which one, and the turn in which that was expected.
    events: list[tuple[float, int, int]] = []

    def expect(at: int) -> None:
        machine = fleet[at]
        machine.turn += 1
        time = machine.next()
        if time < math.inf:
            heapq.heappush(events, (time, at, machine.turn))

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
            server.plan(costs.token)

    def settle(machine: Machine) -> None:
        """Whatever has ended on this machine goes on with what comes next."""
        front = machine.front
        if front.queue and front.work == 0:
            server, request = front.queue.popleft()
            coming[server] -= 1
            arrive(server, request)
            front.work = costs.request if front.queue else 0.0
        for server in machine.servers:
            if server.pieces and server.work == 0:
                server.done(machine.now)
                server.plan(costs.token)

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
                front = server.machine.front
                front.queue.append((server, upcoming))
                if len(front.queue) == 1:
                    front.work = costs.request
            else:
                arrive(server, upcoming)
            expect(at)
            nth, upcoming = next(arrivals, (0, None))
            continue
        time, at, turn = heapq.heappop(events)
        if turn == fleet[at].turn:
            fleet[at].advance(time)
            settle(fleet[at])
            expect(at)
    return fleet


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
    together: float

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
                known = Rates.of(rates)
            kinds[name] = Kind(name, known, threads, int(one.get("parallel", 16)), int(one.get("kept", 1 << 16)))
        replicas = [name for name, count in machine["replicas"].items() for _ in range(count)]
        for name in [*replicas, *(one["model"] for one in told["traffic"])]:
            if name not in kinds:
                raise ValueError(f"{path}: `models` has no {name}")
        costs = Costs(machine.get("request_ms", 0) / 1000, machine.get("token_ms", 0) / 1000)
        return cls(kinds, float(machine["cores"]), replicas, machine.get("price"), costs, told["traffic"],
                   float(told.get("seconds", 300)), int(told.get("seed", 0)), float(told.get("slack", 4)),
                   float(machine.get("together", 1)))

    def run(self, machines: int, shared: bool = True, scale: float = 1.0) -> dict[str, Any]:
        """So many machines under this traffic, `scale` times of it."""
        requests: list[Request] = []
        for one in self.traffic:
            requests += traffic({**one, "per_second": one["per_second"] * scale}, self.seconds, self.seed)
        fleet = simulate(self.kinds, [(self.cores, self.replicas)] * machines, requests, self.costs, self.slack, shared, self.together)
        return summary(requests, fleet, self.price)

    def fewest(self, first: float, token: float, most: int, shared: bool = True, scale: float = 1.0) -> dict[str, Any]:
        """The fewest machines with which 95 of 100 requests have their first token after `first` seconds, and one more
        every `token`."""
        def enough(told: Mapping[str, Any]) -> bool:
            return bool(told["first_token"]["p95"] <= first and told["per_token"]["p95"] <= token)

        low, high, found = 0, 1, self.run(1, shared, scale)
        while not enough(found):
            before = found
            if high >= most:
                raise ValueError(f"{most} machines are not enough")
            low, high = high, min(2 * high, most)
            found = self.run(high, shared, scale)
            # With hardly anything to wait for, more of them change nothing.
            if found["cores_used"] < 0.1 and found["first_token"]["p95"] > 0.95 * before["first_token"]["p95"]:
                raise ValueError(
                    f"more machines do not help: with {high} the first token of 95 in 100 takes {found['first_token']['p95']:.2f} s,"
                    f" and each further one {found['per_token']['p95']:.3f} s"
                )
        while high - low > 1:
            middle = (low + high) // 2
            told = self.run(middle, shared, scale)
            low, high, found = (low, middle, told) if enough(told) else (middle, high, found)
        return found


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield (f"{told['machines']:>8} {told['replicas']:>8} {told['requests_per_second']:>10.2f} {told['tokens_per_second']:>9.0f}"
           f" {told['first_token']['median']:>8.3f} {told['first_token']['p95']:>8.3f} {told['per_token']['p95']:>8.3f}"
           f" {told['whole']['p95']:>8.2f} {100 * told['known']:>6.1f} {100 * told['cores_used']:>6.1f}"
           + (f" {told['per_million_tokens']:>9.3f}" if "per_million_tokens" in told else ""))


def main(words: Optional[Sequence[str]] = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tern.fleet", description="How many machines a traffic needs.")
    parser.add_argument("fleet", help="models, machine and traffic as JSON (docs/scale.md says how); with --rates a model")
    parser.add_argument("--rates", action="store_true", help="measure how long steps of a model take here, for `models`")
    parser.add_argument("--threads", type=int, default=1, help="threads of a replica, with --rates [default: 1]")
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
        if told.rates:
            print(json.dumps({"threads": told.threads, "rates": measure(told.fleet, told.threads).json()}))
            return
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
