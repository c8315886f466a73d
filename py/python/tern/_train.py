"""`train`: a training run in this process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Union

from tern import _tern
from tern._model import Path


@dataclass
class TrainResult:
    """Where the model is, or, of a run that was stopped, the checkpoint."""

    path: str
    done: bool


def _toml(value: Any) -> str:
    if isinstance(value, (bool, int, float, str)):
        return json.dumps(value)
    if isinstance(value, os.PathLike):
        return json.dumps(os.fspath(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    raise TypeError(f"a {type(value).__name__} cannot be a value of a run")


def train(
    run: Union[Path, Mapping[str, Any]],
    *,
    callback: Optional[Callable[[dict[str, Any]], Any]] = None,
    listen: Optional[str] = None,
    token: str = "",
    **flags: Any,
) -> TrainResult:
    """Trains: `run` is the keys of a run as a dict, a TOML file with them, or the folder of a run, which goes on where it was
    saved. `flags` come over its keys. `callback` gets each logged step (`{"kind": "step", "loss": ...}`), validation,
    sample and checkpoint; where it returns True, or an exception or Ctrl-C comes, the run saves and ends.

    With `listen` (`"127.0.0.1:0"`), `train_worker` in other processes and on other machines computes some of a step's batches, to
    the same bits; the callback is told the address first (`{"kind": "listening", "address": ...}`). Beyond this machine, workers
    must know a `token`."""
    listed = [(name, _toml(value)) for name, value in flags.items()]
    heard = None if callback is None else lambda line: callback(json.loads(line))
    if isinstance(run, Mapping):
        text = "".join(f"{name} = {_toml(value)}\n" for name, value in run.items())
        return TrainResult(*_tern.train(None, text, os.getcwd(), listed, heard, listen, token))
    return TrainResult(*_tern.train(run, None, os.getcwd(), listed, heard, listen, token))


def train_worker(address: str, *, token: str = "", threads: int = 0, patience: float = 60.0) -> int:
    """Computes batches for a run that listens at `address` (`"host:port"`), on `threads` threads (0 for all cores), until it is
    done; gives how many. A run that is not there is looked for again for `patience` seconds."""
    return _tern.train_worker(address, token, threads, patience)
