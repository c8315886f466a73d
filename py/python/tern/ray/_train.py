"""Training on a Ray cluster: the run in this process, its workers in actors."""

from __future__ import annotations

import secrets
from typing import Any, Callable, Mapping, Optional, Union

import ray  # type: ignore[import-not-found,unused-ignore]

import tern
from tern._model import Path


class TrainWorker:
    """An actor that computes batches for a run."""

    def compute(self, address: str, token: str, threads: int) -> int:
        return tern.train_worker(address, token=token, threads=threads)


def train(
    run: Union[Path, Mapping[str, Any]],
    *,
    workers: int,
    threads: int = 1,
    host: Optional[str] = None,
    callback: Optional[Callable[[dict[str, Any]], Any]] = None,
    **flags: Any,
) -> tern.TrainResult:
    """`tern.train` with `workers` actors of `threads` CPUs that compute some of a step's batches (`accumulate` of them): to the bits
    of one machine. An actor that is lost is started again by Ray and joins again. The run, its data and its folder are this
    process's, at `host`, which is this node's address in the cluster if it is not given."""
    if workers < 1:
        raise ValueError(f"workers={workers}: expected at least 1")
    token = secrets.token_hex(16)
    address = host or ray.util.get_node_ip_address()  # type: ignore[no-untyped-call,unused-ignore]
    actor = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=-1)(TrainWorker)
    hired: list[Any] = []
    computing: list[Any] = []

    def heard(event: dict[str, Any]) -> Any:
        if event["kind"] == "listening":
            hired.extend(actor.remote() for _ in range(workers))
            computing.extend(one.compute.remote(event["address"], token, threads) for one in hired)
        return callback(event) if callback else None

    try:
        return tern.train(run, callback=heard, listen=f"{address}:0", token=token, **flags)
    finally:
        for one in hired:
            ray.kill(one)
