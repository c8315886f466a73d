"""A loaded model: what `Llama`, `LLM` and `Embedder` share."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping as _Mapping
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from tern import _tern

Path = Union[str, "os.PathLike[str]"]
#: Adapters by their names: a folder each, or with it what the adapter's products are multiplied by beside its own scale.
Adapters = Mapping[str, Union[Path, "tuple[Path, float]"]]

#: Runs the trial of grammars in a process of its own: only the Rust part is loaded there.
_TRIAL = (
    "import importlib.util as u,sys;"
    "s=u.spec_from_file_location('tern._tern',sys.argv[1]);"
    "m=u.module_from_spec(s);s.loader.exec_module(m);m.try_grammars()"
)


def _failure(status: int, body: bytes) -> Exception:
    """The exception that a refusal of the server stands for."""
    try:
        error = json.loads(body)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    return ValueError(text) if 400 <= status < 500 and status != 429 else RuntimeError(text)


def encode(request: Mapping[str, Any]) -> bytes:
    """A request as JSON, without what is None."""
    fields = {name: value for name, value in request.items() if value is not None}
    try:
        return json.dumps(fields, allow_nan=False, ensure_ascii=True, default=_plain).encode()
    except RecursionError:
        raise ValueError("the request is nested too deeply") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be part of a request")


def _ids(tokens: Any) -> list[int]:
    """Token ids out of a list or an array of whole numbers."""
    if isinstance(tokens, np.ndarray):
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise TypeError(f"expected a row of whole numbers, found {tokens.dtype} of shape {tokens.shape}")
        tokens = tokens.tolist()
    if isinstance(tokens, (str, bytes, _Mapping)):
        raise TypeError(f"expected token ids, found {type(tokens).__name__}")
    ids = list(tokens)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
            raise TypeError(f"expected token ids, found {type(token).__name__}")
        if not 0 <= token < 1 << 32:
            raise ValueError(f"token {token}: expected an id of the vocabulary")
    return [int(token) for token in ids]


class Model:
    """A model that is loaded and answers, on threads of its own.

    `path` is a file, a directory, a name of the Hub whose model was downloaded, or `"story"`, the built-in one.
    `n_ctx` is the most tokens of a text (default: what the model was made for and memory allows), `parallel` how many
    texts are written at the same time, `threads` how many compute (default: the cores). Up to `draft_tokens` are guessed in a step
    where that saves time, from the text itself and by a smaller model, `draft`: no text depends on it. `adapters` are LoRA
    adapters in PEFT's layout by their names (a folder, or a folder and what it counts): a request whose `model` is
    `adapted(NAME)` is answered with one. Calls may come from any thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: Optional[int] = None,
        threads: Optional[int] = None,
        parallel: int = 16,
        kv: Optional[str] = None,
        kv_memory: Optional[int] = None,
        cpu: Optional[str] = None,
        packing: Optional[str] = None,
        head: Optional[str] = None,
        activations: Optional[str] = None,
        zeros: Optional[str] = None,
        pooling: Optional[str] = None,
        mmap: bool = True,
        floats: bool = False,
        i2s_arm: bool = False,
        draft: Optional[Path] = None,
        draft_tokens: int = 15,
        adapters: Optional[Adapters] = None,
        name: Optional[str] = None,
    ) -> None:
        word = os.fspath(path)
        self.adapters = _adapters(adapters or {})
        self._options = dict(
            path=word, n_ctx=n_ctx, threads=threads, parallel=parallel, kv=kv, kv_memory=kv_memory, cpu=cpu,
            packing=packing, head=head, activations=activations, zeros=zeros, pooling=pooling, mmap=mmap, floats=floats,
            i2s_arm=i2s_arm, draft=None if draft is None else os.fspath(draft), draft_tokens=draft_tokens,
            adapters=self.adapters, name=name,
        )
        self.path = _tern.find(word)
        trial = [sys.executable, "-I", "-S", "-c", _TRIAL, _tern.__file__] if sys.executable else []
        self.name = name or os.path.splitext(os.path.basename(word.rstrip("/")))[0] or "model"
        self._engine = _tern.Engine(
            self.path,
            name=self.name,
            threads=threads, context=n_ctx, parallel=parallel, kv=kv, kv_memory=kv_memory, cpu=cpu, packing=packing,
            head=head, activations=activations, zeros=zeros, pooling=pooling, copy=not mmap, floats=floats,
            i2s_arm=i2s_arm, draft=None if draft is None else _tern.find(os.fspath(draft)), draft_tokens=draft_tokens,
            adapters=[(name, path, scale) for name, (path, scale) in self.adapters.items()], grammar_process=trial,
        )
        sizes = self._engine.sizes()
        self.n_ctx, self.n_ctx_train, self.n_vocab, self.dim, self.n_layers, self.threads, self.family = sizes
        self.pooling = self._engine.pooling()
        self._about: Any = None

    # Pickled by path and options: the copy loads the model again.
    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (type(self), self._options)

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what runs and gives the memory back. Every later call is a RuntimeError."""
        self._engine.close()

    def adapted(self, adapter: str) -> str:
        """The `model` of a request that is answered with this adapter."""
        if adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise ValueError(f"the adapter {adapter!r}: expected one of those that `adapters` named when the model was loaded ({known})")
        return f"{self.name}:{adapter}"

    # Requests in the server's own words.

    def request(self, path: str, request: Mapping[str, Any]) -> Any:
        """Asks what `tern serve` answers at this path, such as `/v1/chat/completions`; a refusal is an exception."""
        status, body = self._engine.ask(path, encode(request))
        if status >= 400:
            raise _failure(status, body)
        return json.loads(body)

    def stream(self, path: str, request: Mapping[str, Any]) -> Iterator[Any]:
        """The same, piece by piece. Closing the iterator cancels the request."""
        pieces = self._engine.stream(path, encode({**request, "stream": True}))
        return self._events(pieces)

    @staticmethod
    def _events(pieces: _tern.Pieces) -> Iterator[Any]:
        events = Events()
        try:
            for _, status, piece in pieces:
                yield from events.push(status, piece)
            events.end()
        finally:
            pieces.close()

    def requests(self, path: str, requests: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Any]]:
        """Many requests at the same time: pairs of index and answer, as they end. A refusal cancels all others."""
        pieces = self._engine.many(path, [encode(request) for request in requests])
        try:
            for index, status, body in pieces:
                if status >= 400:
                    raise _failure(status, body)
                yield index, json.loads(body)
        finally:
            pieces.close()

    def call(self, path: str, request: Mapping[str, Any], callback: Callable[[int, Optional[bytes]], Any]) -> _tern.Task:
        """A request whose pieces go to `callback(status, bytes)`, on other threads; at the end it gets None."""
        return self._engine.call(path, encode({**request, "stream": True}), callback)

    # Tokens.

    def _words(self) -> Any:
        if self._about is None:
            self._about = self._engine.about()
        return self._about

    @property
    def bos(self) -> Optional[int]:
        """The token that begins a text, where the model has one."""
        bos: Optional[int] = self._words()[1]
        return bos

    @property
    def adds_bos(self) -> bool:
        """Whether texts begin with it."""
        return bool(self._words()[2])

    @property
    def stops(self) -> list[int]:
        """Tokens that end a text."""
        return list(self._words()[3])

    @property
    def chat_template(self) -> Optional[str]:
        """The chat template's source."""
        template: Optional[str] = self._words()[4]
        return template

    def tokenize(self, text: str, *, add_bos: bool = True, special: bool = False) -> list[int]:
        """The ids of a text; `special` reads names of special tokens as these."""
        return self._engine.encode(text, add_bos, special)

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> bytes:
        """The bytes of a text; `special` shows special tokens by their names."""
        return self._engine.decode(_ids(tokens), special)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Optional[Sequence[Any]] = None,
        add_generation_prompt: bool = True,
        continue_final_message: Optional[bool] = None,
        enable_thinking: Optional[bool] = None,
    ) -> tuple[str, list[int]]:
        """A conversation in the model's own format: its text and its ids."""
        words = None if enable_thinking is None else {"enable_thinking": enable_thinking}
        answer = self.request(
            "/apply-template",
            {
                "messages": list(messages), "tools": tools, "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message, "chat_template_kwargs": words, "return_tokens": True,
            },
        )
        return answer["prompt"], answer["tokens"]

    # Numbers.

    def logits(self, tokens: Sequence[int], start: int = 0) -> NDArray[np.float32]:
        """Logits after each token from `start` on, of shape (tokens, vocabulary)."""
        if not 0 <= start:
            raise ValueError(f"start {start}: expected at least 0")
        return self._engine.logits(_ids(tokens), start)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """The log-probability of each token but the first, given those before it."""
        return self._engine.logprobs(_ids(tokens))

    def loglikelihood(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """For each pair of token ids (what comes before, what follows): the sum of log-probabilities of what follows, and
        whether each of its tokens is the likeliest. Pairs that begin alike share the work."""
        return self._engine.likelihoods([(_ids(context), _ids(end)) for context, end in pairs])

    def perplexity(
        self, tokens: Sequence[int], *, n_ctx: Optional[int] = None, stride: Optional[int] = None
    ) -> tuple[float, float, int]:
        """Perplexity, its standard error, and how many tokens were scored; see `tern.eval.perplexity`."""
        return self._engine.perplexity(_ids(tokens), self.n_ctx_train if n_ctx is None else n_ctx, stride)

    def tasks(
        self,
        tasks: Sequence[Union[Path, Mapping[str, Any]]],
        *,
        data: Path = ".",
        limit: Optional[int] = None,
        batch: int = 16,
        skip_bad: bool = False,
        callback: Optional[Callable[[str, int, int], Any]] = None,
    ) -> list[dict[str, Any]]:
        """What came out of tasks; see `tern.eval.tasks`."""
        if isinstance(tasks, (str, os.PathLike, _Mapping)):
            raise TypeError("expected a list of tasks, found one")
        words = [(json.dumps(one), True) if isinstance(one, _Mapping) else (os.fspath(one), False) for one in tasks]
        found: list[dict[str, Any]] = json.loads(self._engine.tasks(words, data, limit, batch, skip_bad, callback))
        return found

    def embed(self, texts: Sequence[str], *, pooling: Optional[str] = None, truncate: bool = False) -> NDArray[np.float32]:
        """Vectors of length 1, of shape (texts, dim). A model that writes needs `pooling`: mean, last or cls."""
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, found one text")
        return self._engine.vectors(list(texts), pooling or self._options["pooling"], truncate)  # type: ignore[arg-type]


def _adapters(given: Adapters) -> dict[str, tuple[str, float]]:
    found = {}
    for name, value in given.items():
        path, scale = value if isinstance(value, tuple) else (value, 1.0)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError(f"adapters: {name!r}: expected a name of letters, digits, `-`, `_` and `.`")
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not -1e6 < scale < 1e6:
            raise ValueError(f"adapters: {name}: its scale {scale!r}: expected a number")
        found[name] = (os.fspath(path), float(scale))
    return found


def _load(kind: type[Model], options: dict[str, Any]) -> Model:
    rest = dict(options)
    return kind(rest.pop("path"), **rest)


class Events:
    """The events of a stream (server-sent events), out of its bytes as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._status = 200

    def push(self, status: int, piece: bytes) -> Iterator[Any]:
        self._status = status
        self._rest += piece
        if status >= 400:
            return
        *whole, self._rest = self._rest.split(b"\n\n")
        for event in whole:
            for line in event.split(b"\n"):
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    value = json.loads(line[6:])
                    if isinstance(value, dict) and "error" in value:
                        raise _failure(500, line[6:])
                    yield value

    def end(self) -> None:
        if self._status >= 400:
            raise _failure(self._status, self._rest)
