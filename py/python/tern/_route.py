"""Which replica answers a request: those that begin alike go to the same one, as long as it is not busier than others.

The deployment on Ray Serve and the simulation of a fleet use the same rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as _Mapping
from typing import Any, Callable, Mapping, Sequence, TypeVar

Replica = TypeVar("Replica")


def beginning(path: str, request: Mapping[str, Any], length: int) -> str:
    """The first characters of what the model reads. Of a conversation it is the instructions and the first message of
    the user, which stay the same from turn to turn."""
    text = ""
    messages = request.get("messages", request.get("input", request.get("prompt")))
    for one in [request.get("system"), *(messages if isinstance(messages, list) else [messages])]:
        text += _text(one)
        if len(text) >= length or (isinstance(one, _Mapping) and one.get("role") == "user"):
            break
    return f"{path} {text[:length]}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, _Mapping):
        value = value.get("content")
        if isinstance(value, list):
            return "".join(one["text"] for one in value if isinstance(one, _Mapping) and isinstance(one.get("text"), str))
        return value if isinstance(value, str) else ""
    if isinstance(value, int):
        return f"{value} "
    return "".join(f"{one} " for one in value) if isinstance(value, list) else ""


def ranked(key: str, replicas: Sequence[Replica], name: Callable[[Replica], str] = str) -> list[Replica]:
    """The replicas in the order in which this beginning prefers them (rendezvous hashing): when one comes or goes, only
    the beginnings that it has move."""
    def weight(replica: Replica) -> bytes:
        return hashlib.blake2b(f"{name(replica)} {key}".encode(errors="surrogatepass"), digest_size=8).digest()

    return sorted(replicas, key=weight, reverse=True)


def preferred(order: Sequence[Replica], load: Callable[[Replica], float], slack: float) -> list[Replica]:
    """The same, those last that have more than `slack` requests more than the least busy."""
    if not order:
        return []
    limit = min(load(replica) for replica in order) + slack
    return [*(one for one in order if load(one) <= limit), *(one for one in order if load(one) > limit)]
