"""Ternary (BitNet b1.58) language models on ordinary CPUs.

`Llama` has the shape of llama-cpp-python's class, `LLM` that of vLLM's offline class, `Embedder` that of
sentence-transformers; all of them stand on `Model`, and that on the engine and the server behind the command `tern`.
"""

import atexit

from tern import eval
from tern._convert import Converted, convert
from tern._embedder import Embedder
from tern._llama import Llama
from tern._llm import (
    LLM,
    AsyncLLM,
    CompletionOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    LoRARequest,
    Logprob,
    RequestOutput,
    SamplingParams,
    ScoringOutput,
    ScoringRequestOutput,
)
from tern._model import Model
from tern._tokenizer import Tokenizer
from tern._tern import leave
from tern._train import TrainResult, train, train_worker

__version__ = "0.1.0"

# No thread of the engine's may be on its way into an interpreter that ends.
atexit.register(leave)

__all__ = [
    "AsyncLLM",
    "CompletionOutput",
    "Converted",
    "Embedder",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "LLM",
    "Llama",
    "LoRARequest",
    "Logprob",
    "Model",
    "RequestOutput",
    "SamplingParams",
    "ScoringOutput",
    "ScoringRequestOutput",
    "Tokenizer",
    "TrainResult",
    "convert",
    "eval",
    "train",
    "train_worker",
]
