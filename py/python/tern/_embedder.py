"""`Embedder`, in the shape of sentence-transformers' class."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from tern._model import Model, Path


class Embedder:
    """Makes vectors of texts. A model that writes needs `pooling`: mean, last or cls."""

    def __init__(self, model: Union[Path, Model], *, pooling: Optional[str] = None, **options: Any) -> None:
        if isinstance(model, Model) and options:
            raise TypeError("a model that is loaded takes no further settings")
        self.model = model if isinstance(model, Model) else Model(model, pooling=pooling, **options)
        self._pooling = pooling
        if self.model.pooling is None and pooling is None:
            raise ValueError(f"a {self.model.family} model writes texts: expected pooling `mean`, `last` or `cls`")

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.model, self._pooling)

    def close(self) -> None:
        """Gives the memory back; every later call is a RuntimeError."""
        self.model.close()

    def get_sentence_embedding_dimension(self) -> int:
        """Numbers of a vector."""
        return self.model.dim

    def encode(
        self,
        sentences: Union[str, Sequence[str]],
        batch_size: int = 32,
        normalize: bool = True,
        truncate: bool = True,
        dimensions: Optional[int] = None,
    ) -> NDArray[np.float32]:
        """Vectors of length 1: one for one text, a matrix for several; `dimensions` keeps the first numbers only. Texts go
        through the model together however many they are, so `batch_size` changes nothing."""
        if not normalize:
            raise ValueError("normalize=False is not supported: vectors have length 1 here")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: expected at least 1")
        one = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        vectors = self.model.embed(texts, pooling=self._pooling, truncate=truncate)
        if dimensions is not None and dimensions != self.model.dim:
            if not 0 < dimensions < self.model.dim:
                raise ValueError(f"{dimensions} dimensions: expected 1 to {self.model.dim}, those of the model")
            vectors = vectors[:, :dimensions]
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors[0] if one else vectors


def _again(model: Model, pooling: Optional[str]) -> Embedder:
    return Embedder(model, pooling=pooling)
