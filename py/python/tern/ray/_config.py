"""How a model is served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Union

from tern._model import Path


@dataclass
class TernServeConfig:
    """A model that is served. `replicas` of `threads` threads each (or as many between `(m, n)` as hold requests that run
    or wait to about `requests` for each); each replica writes `parallel` texts at a time, and `queue` requests may wait
    for each process that routes. A replica that ends has `grace` seconds for what it runs. Requests with the same
    `prefix` first characters go to the same replica until it has `slack` more than the least busy. With another `version`
    (or anything else that is new) the replicas are replaced, a fifth at a time: `surge` percent more, where there are
    cores for them, before old ones end. `options` are further settings of `tern.Model`."""

    model: Path
    name: Optional[str] = None
    threads: int = 1
    replicas: Union[int, tuple[int, int]] = 1
    parallel: int = 16
    requests: float = 12
    queue: int = 128
    grace: float = 60
    prefix: int = 1024
    slack: float = 4
    version: str = "1"
    surge: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    autoscaling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The name that clients use."""
        return self.name or str(self.model)
