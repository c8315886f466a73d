"""How good a model is: the perplexity of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Union

from tern._model import Model, Path


@dataclass
class Perplexity:
    """A perplexity, its standard error, the tokens that were scored, and the window."""

    perplexity: float
    error: float
    tokens: int
    n_ctx: int


def perplexity(
    model: Union[Path, Model],
    text: Union[str, Sequence[int]],
    *,
    n_ctx: Optional[int] = None,
    stride: Optional[int] = None,
) -> Perplexity:
    """The perplexity of a text (or of its ids). Without `stride` it is llama.cpp's convention: chunks of `n_ctx` tokens, of
    which the second half is scored. With it, Hugging Face's: windows of `n_ctx` tokens that begin every `stride` tokens."""
    loaded = model if isinstance(model, Model) else Model(model)
    try:
        ids = loaded.tokenize(text) if isinstance(text, str) else text
        window = min(loaded.n_ctx_train, len(ids)) if n_ctx is None else n_ctx
        found = loaded.perplexity(ids, n_ctx=window, stride=stride)
        return Perplexity(*found, window)
    finally:
        if loaded is not model:
            loaded.close()
