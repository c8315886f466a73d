"""`convert`: a model file out of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tern import _tern
from tern._model import Path


@dataclass
class Converted:
    """What was written, and what there is to know about it."""

    family: str
    tensors: int
    bytes: int
    notes: list[str]


def convert(
    input: Path,
    output: Path,
    *,
    to: str,
    lossy: bool = False,
    i2s_arm: bool = False,
    embedding: str = "keep",
    head: str = "keep",
    engine: Optional[str] = None,
) -> Converted:
    """Converts a model as `tern convert` does; no trit and no scale changes. The file appears whole or not at all."""
    found = _tern.convert(
        input, output, to=to, lossy=lossy, i2s_arm=i2s_arm, embedding=embedding, head=head, engine=engine
    )
    return Converted(*found)
