"""`Llama`, in the shape of llama-cpp-python's class."""

from __future__ import annotations

import os
import warnings
from typing import Any, Iterator, Mapping, Optional, Sequence, Union, cast

from tern import _tern
from tern._model import Model, Path

#: Accepted and of no effect: they place or pace the work and change no answer.
HARMLESS = frozenset(
    "n_gpu_layers split_mode main_gpu tensor_split n_batch n_ubatch n_threads_batch use_mlock offload_kqv flash_attn op_offload"
    " swa_full numa last_n_tokens_size verbose logits_all embedding spm_infill no_perf".split()
)
#: Refused unless they are as here: with another value the answer would be another one.
NEUTRAL = {
    "vocab_only": (False,),
    "kv_overrides": (None,),
    "rope_scaling_type": (None, -1),
    "rope_freq_base": (0, 0.0),
    "rope_freq_scale": (0, 0.0),
    "yarn_ext_factor": (-1.0,),
    "yarn_attn_factor": (1.0,),
    "yarn_beta_fast": (32.0,),
    "yarn_beta_slow": (1.0,),
    "yarn_orig_ctx": (0,),
    "lora_base": (None,),
    "chat_handler": (None,),
    "draft_model": (None,),
    "tokenizer": (None,),
    "pooling_type": (None, -1),
}
#: ggml's numbers and names for how keys and values are kept.
KINDS = {0: "f32", 1: "f16", 2: "q4", 8: "int8", "q4_0": "q4", "q8_0": "int8"}
KINDS.update((name, name) for name in ("f32", "f16", "int8", "q8", "q4", "q3"))

Prompt = Union[str, Sequence[int]]
Stop = Union[None, str, Sequence[str]]


class Llama:
    """A model in the shape of `llama_cpp.Llama`; docs/python.md lists where the two differ."""

    def __init__(
        self,
        model_path: Path,
        *,
        n_ctx: int = 512,
        n_threads: Optional[int] = None,
        seed: int = 0xFFFFFFFF,
        use_mmap: bool = True,
        type_k: Union[None, int, str] = None,
        type_v: Union[None, int, str] = None,
        lora_path: Optional[Path] = None,
        lora_scale: float = 1.0,
        **rest: Any,
    ) -> None:
        if rest.get("chat_format") is not None:
            warnings.warn(f"chat_format={rest['chat_format']!r} has no effect: the model's own chat template is used", stacklevel=2)
        for word, value in rest.items():
            if word in NEUTRAL:
                if value not in NEUTRAL[word]:
                    raise ValueError(f"{word}={value!r} is not supported: expected {NEUTRAL[word][0]!r}")
            elif word not in HARMLESS and word != "chat_format":
                raise TypeError(f"Llama() got an unexpected keyword argument {word!r}")
        if not isinstance(n_ctx, int) or isinstance(n_ctx, bool) or n_ctx < 0:
            raise ValueError(f"n_ctx={n_ctx!r}: expected tokens, or 0 for as many as the model was made for")
        for kind in (type_k, type_v):
            if kind is not None and kind not in KINDS:
                raise ValueError(f"type_k, type_v: expected f32, f16, q8_0, q4_0 (0, 1, 8, 2), int8, q8, q4 or q3, found {kind!r}")
        self.model_path = os.fspath(model_path)
        self._options = dict(
            rest, n_ctx=n_ctx, n_threads=n_threads, seed=seed, use_mmap=use_mmap, type_k=type_k, type_v=type_v,
            lora_path=lora_path, lora_scale=lora_scale,
        )
        self._seed: Optional[int] = None if seed in (0xFFFFFFFF, -1) else seed
        self.model = Model(
            model_path, n_ctx=n_ctx or None, threads=n_threads, mmap=use_mmap,
            kv=":".join("f16" if kind is None else KINDS[kind] for kind in (type_k, type_v)), name=os.fspath(model_path),
            adapters=None if lora_path is None else {"lora": (lora_path, lora_scale)},
        )
        self._adapted = None if lora_path is None else self.model.adapted("lora")

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: Optional[str] = None,
        additional_files: Optional[Sequence[str]] = None,
        local_dir: Optional[Path] = None,
        cache_dir: Optional[Path] = None,
        **rest: Any,
    ) -> "Llama":
        """Loads a model of the Hub, downloading it first where it is not in the cache, which is the Hub's own. `filename`
        is a file, or a pattern such as `*Q2_0*` with one plain part; without it the usual file is taken."""
        if additional_files:
            raise ValueError("additional_files: all that a model needs is downloaded, and nothing beside it")
        if local_dir is not None:
            raise ValueError("local_dir is not supported: `cache_dir` names a folder for downloads")
        word = repo_id
        if filename is not None:
            part = filename.strip("*")
            if any(mark in part for mark in "*?["):
                raise ValueError(f"filename {filename!r}: expected a file, or one part of its name between `*`")
            word = f"{repo_id}:{part}" if part else repo_id
        return cls(_tern.download(word, cache_dir), **rest)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (type(self), self.model_path, self._options)

    def __enter__(self) -> "Llama":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory back; every later call is a RuntimeError."""
        self.model.close()

    def __call__(self, prompt: Prompt, suffix: Optional[str] = None, max_tokens: Optional[int] = 16, **rest: Any) -> Any:
        return self.create_completion(prompt, suffix, max_tokens, **rest)

    def create_completion(
        self,
        prompt: Prompt,
        suffix: Optional[str] = None,
        max_tokens: Optional[int] = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: Optional[int] = None,
        echo: bool = False,
        stop: Stop = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: Optional[int] = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: Optional[str] = None,
        stopping_criteria: Any = None,
        logits_processor: Any = None,
        grammar: Any = None,
        logit_bias: Optional[Mapping[Any, float]] = None,
    ) -> Any:
        """Continues a text. With `stream` an iterator of pieces, else the whole answer."""
        _neutral(tfs_z=(tfs_z, 1.0), mirostat_mode=(mirostat_mode, 0), stopping_criteria=(stopping_criteria, None),
                 logits_processor=(logits_processor, None), suffix=(suffix, None))
        request = self._request(
            max_tokens, temperature, top_p, min_p, typical_p, stop, frequency_penalty, presence_penalty, repeat_penalty,
            top_k, seed, grammar, logit_bias,
        )
        request.update(
            prompt=prompt if isinstance(prompt, str) else _list(prompt), logprobs=logprobs, echo=echo or None,
        )
        return self._answer("/v1/completions", request, stream, model)

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: Any = None,
        function_call: Any = None,
        tools: Optional[Sequence[Any]] = None,
        tool_choice: Any = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: Stop = None,
        seed: Optional[int] = None,
        response_format: Optional[Mapping[str, Any]] = None,
        max_tokens: Optional[int] = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: Optional[str] = None,
        logits_processor: Any = None,
        grammar: Any = None,
        logit_bias: Optional[Mapping[Any, float]] = None,
        logprobs: Optional[bool] = None,
        top_logprobs: Optional[int] = None,
    ) -> Any:
        """Answers a conversation. With `stream` an iterator of pieces, else the whole answer."""
        _neutral(tfs_z=(tfs_z, 1.0), mirostat_mode=(mirostat_mode, 0), logits_processor=(logits_processor, None),
                 functions=(functions, None), function_call=(function_call, None))
        request = self._request(
            max_tokens, temperature, top_p, min_p, typical_p, stop, frequency_penalty, presence_penalty, repeat_penalty,
            top_k, seed, grammar, logit_bias,
        )
        if response_format is not None and response_format.get("type") == "json_object" and "schema" in response_format:
            response_format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": response_format["schema"]}}
        request.update(
            messages=list(messages), tools=tools, tool_choice=tool_choice, response_format=response_format,
            logprobs=logprobs, top_logprobs=top_logprobs,
        )
        return self._answer("/v1/chat/completions", request, stream, model)

    def create_chat_completion_openai_v1(self, *args: Any, **rest: Any) -> Any:
        """The same, as the types of the package `openai`, which has to be there."""
        from openai.types.chat import ChatCompletion, ChatCompletionChunk  # type: ignore[import-not-found,unused-ignore]

        answer = self.create_chat_completion(*args, **rest)
        if rest.get("stream"):
            return (ChatCompletionChunk(**piece) for piece in answer)
        return ChatCompletion(**answer)

    def create_embedding(self, input: Union[str, Sequence[str]], model: Optional[str] = None) -> dict[str, Any]:
        """Vectors of texts, in OpenAI's shape."""
        self._plain()
        texts = [input] if isinstance(input, str) else list(input)
        if self.model.pooling is not None:
            answer = self.model.request("/v1/embeddings", {"input": texts})
        else:
            vectors = self.model.embed(texts, pooling="mean").tolist()
            count = sum(len(self.tokenize(text.encode())) for text in texts)
            data = [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)]
            answer = {"object": "list", "data": data, "usage": {"prompt_tokens": count, "total_tokens": count}}
        answer["model"] = model or self.model_path
        return cast("dict[str, Any]", answer)

    def embed(
        self, input: Union[str, Sequence[str]], normalize: bool = True, truncate: bool = True, return_count: bool = False
    ) -> Any:
        """Vectors as lists: one for one text, a list of them for several. They have length 1."""
        if not normalize:
            raise ValueError("normalize=False is not supported: vectors have length 1 here")
        self._plain()
        texts = [input] if isinstance(input, str) else list(input)
        pooling = None if self.model.pooling else "mean"
        vectors = self.model.embed(texts, pooling=pooling, truncate=truncate).tolist()
        found = vectors[0] if isinstance(input, str) else vectors
        count = sum(len(self.tokenize(text.encode())) for text in texts)
        return (found, count) if return_count else found

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """The ids of a text in UTF-8."""
        if not isinstance(text, (bytes, bytearray)):
            raise TypeError(f"expected bytes, found {type(text).__name__}")
        return self.model.tokenize(bytes(text).decode(), add_bos=add_bos and self.model.adds_bos, special=special)

    def detokenize(self, tokens: Sequence[int], prev_tokens: Optional[Sequence[int]] = None, special: bool = False) -> bytes:
        """The bytes of a text; after `prev_tokens` only what is new."""
        before = list(prev_tokens or [])
        text = self.model.detokenize([*before, *tokens], special=special)
        return text[len(self.model.detokenize(before, special=special)) :] if before else text

    def reset(self) -> None:
        """Nothing is carried from one call to the next, so there is nothing to forget."""
        self.model.stops

    def n_ctx(self) -> int:
        """Tokens of a text, prompt and answer."""
        return self.model.n_ctx

    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self.model.n_vocab

    def n_embd(self) -> int:
        """Numbers of a vector."""
        return self.model.dim

    def token_bos(self) -> int:
        """The token that begins a text; -1 where there is none."""
        return -1 if self.model.bos is None else self.model.bos

    def token_eos(self) -> int:
        """The first of the tokens that end a text; -1 where there is none."""
        return next(iter(self.model.stops), -1)

    def _request(
        self, max_tokens: Optional[int], temperature: float, top_p: float, min_p: float, typical_p: float, stop: Stop,
        frequency_penalty: float, presence_penalty: float, repeat_penalty: float, top_k: int, seed: Optional[int],
        grammar: Any, logit_bias: Optional[Mapping[Any, float]],
    ) -> dict[str, Any]:
        if grammar is not None and not isinstance(grammar, str):
            raise TypeError(f"grammar: expected its text (GBNF or Lark), found {type(grammar).__name__}")
        stops = [stop] if isinstance(stop, str) else list(stop or [])
        return dict(
            # None and what is below 1 are no limit but the context.
            n_predict=-1 if max_tokens is None or max_tokens < 1 else max_tokens,
            temperature=temperature, top_p=top_p, min_p=min_p, typical_p=typical_p, stop=stops or None,
            frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, repeat_penalty=repeat_penalty,
            top_k=top_k, seed=self._seed if seed is None else seed, grammar=grammar,
            logit_bias={str(token): bias for token, bias in logit_bias.items()} if logit_bias else None,
        )

    def _plain(self) -> None:
        if self._adapted is not None:
            raise ValueError("lora_path: vectors are made by the model alone; open it without an adapter for them")

    def _answer(self, path: str, request: dict[str, Any], stream: bool, model: Optional[str]) -> Any:
        request["model"] = self._adapted
        if stream:
            return self._named(self.model.stream(path, request), model)
        answer = self.model.request(path, request)
        answer["model"] = model or self.model_path
        return answer

    def _named(self, pieces: Iterator[Any], model: Optional[str]) -> Iterator[Any]:
        for piece in pieces:
            piece["model"] = model or self.model_path
            yield piece


def _neutral(**words: tuple[Any, Any]) -> None:
    for word, (value, neutral) in words.items():
        if value is not neutral and value != neutral:
            raise ValueError(f"{word} is not supported: expected {neutral!r}")


def _list(tokens: Sequence[int]) -> list[int]:
    from tern._model import _ids

    return _ids(tokens)


def _load(kind: type[Llama], path: str, options: dict[str, Any]) -> Llama:
    return kind(path, **options)
