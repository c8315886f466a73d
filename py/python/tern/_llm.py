"""`LLM` and `AsyncLLM`, in the shape of vLLM's offline classes: many prompts at a time, results in order."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Mapping, Optional, Sequence, Union

from tern._model import Events, Model, Path, _ids

Prompt = Union[str, Sequence[int], Mapping[str, Any]]


@dataclass
class SamplingParams:
    """How answers are written; the names and defaults are vLLM's."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: Union[None, str, Sequence[str]] = None
    seed: Optional[int] = None
    max_tokens: Optional[int] = 16
    ignore_eos: bool = False
    logprobs: Optional[int] = None
    logit_bias: Optional[Mapping[int, float]] = None
    structured_outputs: Optional[Mapping[str, Any]] = None
    stop_token_ids: Optional[Sequence[int]] = None
    min_tokens: int = 0
    prompt_logprobs: Optional[int] = None
    detokenize: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        neutral: dict[str, tuple[Any, ...]] = {"stop_token_ids": (None, [], ()), "min_tokens": (0,), "prompt_logprobs": (None,), "detokenize": (True,),
                   "skip_special_tokens": (True,)}
        for word, values in neutral.items():
            if getattr(self, word) not in values:
                raise ValueError(f"{word}={getattr(self, word)!r} is not supported: expected {values[0]!r}")
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"n={self.n!r}: expected at least 1")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens!r}: expected at least 1, or None for no limit")

    def _request(self) -> dict[str, Any]:
        stop = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        bias = {str(token): value for token, value in self.logit_bias.items()} if self.logit_bias else None
        return dict(
            n=self.n, temperature=self.temperature, top_p=self.top_p, top_k=max(self.top_k, 0), min_p=self.min_p,
            presence_penalty=self.presence_penalty, frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty, stop=stop or None, seed=self.seed,
            n_predict=-1 if self.max_tokens is None else self.max_tokens, ignore_eos=self.ignore_eos or None,
            n_probs=None if self.logprobs is None else max(self.logprobs, 1), logit_bias=bias,
            structured_outputs=self.structured_outputs, return_tokens=True,
        )


@dataclass
class LoRARequest:
    """The adapter that answers, by the name that `adapters` gave it when the model was loaded; `lora_int_id` is vLLM's and says
    nothing here."""

    lora_name: str
    lora_int_id: int = 1
    lora_path: Path = ""


@dataclass
class Logprob:
    """A token's log-probability, its rank where it is known, and its text."""

    logprob: float
    rank: Optional[int] = None
    decoded_token: Optional[str] = None


@dataclass
class CompletionOutput:
    """One answer to a prompt."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: Optional[float] = None
    logprobs: Optional[list[dict[int, Logprob]]] = None
    finish_reason: Optional[str] = None
    stop_reason: Union[int, str, None] = None

    def finished(self) -> bool:
        """Whether it has ended."""
        return self.finish_reason is not None


@dataclass
class RequestOutput:
    """A prompt and the answers to it."""

    request_id: str
    prompt: Optional[str]
    prompt_token_ids: Optional[list[int]]
    outputs: list[CompletionOutput]
    finished: bool = True
    prompt_logprobs: None = None
    metrics: Optional[dict[str, Any]] = None
    num_cached_tokens: Optional[int] = None


@dataclass
class EmbeddingOutput:
    """A vector of length 1."""

    embedding: list[float]


@dataclass
class EmbeddingRequestOutput:
    """A text's vector."""

    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    finished: bool = True


@dataclass
class ScoringOutput:
    """How alike two texts are."""

    score: float


@dataclass
class ScoringRequestOutput:
    """A pair's likeness."""

    request_id: str
    outputs: ScoringOutput
    prompt_token_ids: list[int] = field(default_factory=list)
    finished: bool = True


class _Bar:
    """A progress bar: tqdm's where that is installed, else a line on a terminal."""

    def __init__(self, total: int, shown: bool) -> None:
        self._total, self._done, self._tqdm, self._last = total, 0, None, 0.0
        self._shown = shown and sys.stderr is not None and sys.stderr.isatty()
        if self._shown:
            try:
                from tqdm import tqdm  # type: ignore[import-untyped,import-not-found,unused-ignore]

                self._tqdm = tqdm(total=total, desc="Processed prompts", file=sys.stderr)
            except ImportError:
                pass

    def step(self) -> None:
        self._done += 1
        if self._tqdm is not None:
            self._tqdm.update(1)
        elif self._shown and (time.monotonic() - self._last > 0.1 or self._done == self._total):
            self._last = time.monotonic()
            sys.stderr.write(f"\rProcessed prompts: {self._done}/{self._total}")

    def close(self) -> None:
        if self._tqdm is not None:
            self._tqdm.close()
        elif self._shown:
            sys.stderr.write("\n")


def _prompt(model: Model, prompt: Any) -> tuple[Optional[str], list[int]]:
    """A prompt as its text, if it is one, and its ids."""
    if isinstance(prompt, Mapping):
        if "prompt_token_ids" in prompt:
            return prompt.get("prompt"), _ids(prompt["prompt_token_ids"])
        prompt = prompt.get("prompt")
    if isinstance(prompt, str):
        return prompt, model.tokenize(prompt, special=True)
    if prompt is None:
        raise TypeError("a prompt: expected a text, token ids, or a dict with `prompt` or `prompt_token_ids`")
    return None, _ids(prompt)


def _reason(kind: str, word: str) -> tuple[str, Optional[str]]:
    return ("length", None) if kind == "limit" else ("stop", word or None)


def _logprobs(told: Sequence[Any], count: Optional[int]) -> Optional[list[dict[int, Logprob]]]:
    if count is None:
        return None
    tokens = []
    for one in told:
        top = {
            other["id"]: Logprob(other["logprob"], rank + 1, other["token"])
            for rank, other in enumerate(one["top_logprobs"][:count])
        }
        top.setdefault(one["id"], Logprob(one["logprob"], None, one["token"]))
        tokens.append(top)
    return tokens


def _output(index: int, answer: Mapping[str, Any], params: SamplingParams) -> CompletionOutput:
    reason, word = _reason(answer["stop_type"], answer["stopping_word"])
    told = answer.get("completion_probabilities", [])
    total = sum(one["logprob"] for one in told) if params.logprobs is not None else None
    return CompletionOutput(
        index, answer["content"], answer["tokens"], total, _logprobs(told, params.logprobs), reason, word
    )


def _numbers(model: Model, params: Any, count: int) -> list[SamplingParams]:
    each: list[Any] = [params] * count if params is None or isinstance(params, SamplingParams) else list(params)
    if len(each) != count:
        raise ValueError(f"sampling_params: expected one for each of the {count} prompts, found {len(each)}")
    each = [SamplingParams() if one is None else one for one in each]
    for one in each:
        if not isinstance(one, SamplingParams):
            raise TypeError(f"sampling_params: expected SamplingParams, found {type(one).__name__}")
    return each


#: vLLM's settings that place the work and change no answer.
HARMLESS = frozenset(
    "tensor_parallel_size gpu_memory_utilization enforce_eager swap_space cpu_offload_gb disable_log_stats trust_remote_code"
    " enable_prefix_caching max_num_batched_tokens disable_custom_all_reduce dtype tokenizer_mode enable_lora max_loras"
    " max_cpu_loras max_lora_rank".split()
)


def _guesses(config: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    """Our settings for vLLM's `speculative_config`: a model that guesses, or the text itself (`"method": "ngram"`)."""
    if config is None:
        return {}
    told = dict(config)
    draft, method = told.pop("model", None), told.pop("method", None)
    tokens = told.pop("num_speculative_tokens", 15)
    # How long a repetition must be is Tern's own choice.
    told.pop("prompt_lookup_max", None), told.pop("prompt_lookup_min", None)
    if told or method not in (None, "draft_model" if draft else "ngram") or not (draft or method):
        raise ValueError(f"speculative_config {dict(config)}: expected num_speculative_tokens, and a model or the method ngram")
    return {"draft": draft, "draft_tokens": tokens}


def _model(model: Union[Path, Model], max_model_len: Optional[int], max_num_seqs: int, rest: dict[str, Any]) -> Model:
    for word in [word for word in rest if word in HARMLESS]:
        rest.pop(word)
    for word, neutral in (("tokenizer", None), ("quantization", None)):
        if rest.pop(word, neutral) not in (neutral, None):
            raise ValueError(f"{word} is not supported")
    rest.update(_guesses(rest.pop("speculative_config", None)))
    if isinstance(model, Model):
        if rest or max_model_len is not None:
            raise TypeError("a model that is loaded takes no further settings")
        return model
    return Model(model, n_ctx=max_model_len, parallel=max_num_seqs, **rest)


def _adapter(model: Model, request: Optional[LoRARequest]) -> Optional[str]:
    """What a request names as its model."""
    if request is None:
        return None
    adapted = model.adapted(request.lora_name)
    path = model.adapters[request.lora_name][0]
    if request.lora_path and os.path.realpath(request.lora_path) != os.path.realpath(path):
        raise ValueError(f"lora_request: {request.lora_name} is {path}, which was loaded with the model, and not {os.fspath(request.lora_path)}")
    return adapted


class LLM:
    """A model that answers many prompts at a time. `model` is a path, a name, or a `Model`, whose settings (`threads`,
    `kv`, `adapters`, ...) can be given here, too."""

    def __init__(
        self,
        model: Union[Path, Model],
        *,
        max_model_len: Optional[int] = None,
        max_num_seqs: int = 16,
        seed: Optional[int] = None,
        **rest: Any,
    ) -> None:
        self.model = _model(model, max_model_len, max_num_seqs, rest)
        self._seed = seed
        self._count = itertools.count()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory back; every later call is a RuntimeError."""
        self.model.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.model, self._seed)

    def generate(
        self,
        prompts: Union[Prompt, Sequence[Prompt]],
        sampling_params: Union[None, SamplingParams, Sequence[SamplingParams]] = None,
        use_tqdm: bool = True,
        lora_request: Optional[LoRARequest] = None,
    ) -> list[RequestOutput]:
        """Answers prompts (texts, `{"prompt_token_ids": ids}`), in their order. An exception or Ctrl-C cancels all."""
        one = isinstance(prompts, (str, Mapping)) or (len(prompts) > 0 and isinstance(prompts[0], int))
        each: Sequence[Any] = [prompts] if one else prompts  # type: ignore[assignment]
        texts = [_prompt(self.model, prompt) for prompt in each]
        return self._run(texts, _numbers(self.model, sampling_params, len(texts)), use_tqdm, lora_request)

    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: Union[None, SamplingParams, Sequence[SamplingParams]] = None,
        use_tqdm: bool = True,
        chat_template: None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Optional[Sequence[Any]] = None,
        lora_request: Optional[LoRARequest] = None,
    ) -> list[RequestOutput]:
        """Answers one conversation or a list of them."""
        if chat_template is not None:
            raise ValueError("chat_template is not supported: the model's own is used")
        talks = [messages] if messages and isinstance(messages[0], Mapping) else messages
        texts = [
            self.model.apply_chat_template(
                talk, tools=tools, add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message or None,
            )
            for talk in talks
        ]
        return self._run(list(texts), _numbers(self.model, sampling_params, len(texts)), use_tqdm, lora_request)

    def embed(self, prompts: Union[str, Sequence[str]], *, pooling: Optional[str] = None) -> list[EmbeddingRequestOutput]:
        """Vectors of texts. A model that writes needs `pooling`: mean, last or cls."""
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        vectors = self.model.embed(texts, pooling=pooling)
        return [
            EmbeddingRequestOutput(str(next(self._count)), EmbeddingOutput(vector.tolist()), self.model.tokenize(text))
            for text, vector in zip(texts, vectors)
        ]

    def score(
        self, data_1: Union[str, Sequence[str]], data_2: Union[str, Sequence[str]], *, pooling: Optional[str] = None
    ) -> list[ScoringRequestOutput]:
        """How alike texts are, pair by pair or one against each: the cosine of their vectors."""
        first = [data_1] if isinstance(data_1, str) else list(data_1)
        second = [data_2] if isinstance(data_2, str) else list(data_2)
        if len(first) == 1:
            first = first * len(second)
        if len(first) != len(second):
            raise ValueError(f"expected as many texts on both sides, found {len(first)} and {len(second)}")
        vectors = self.model.embed([*first, *second], pooling=pooling)
        scores = (vectors[: len(first)] * vectors[len(first) :]).sum(axis=1)
        return [ScoringRequestOutput(str(next(self._count)), ScoringOutput(float(score))) for score in scores]

    def _run(
        self, texts: Sequence[tuple[Optional[str], list[int]]], params: list[SamplingParams], bar: bool,
        lora: Optional[LoRARequest],
    ) -> list[RequestOutput]:
        adapter = _adapter(self.model, lora)
        requests = [_request(ids, one, self._seed, adapter) for (_, ids), one in zip(texts, params)]
        done: list[Any] = [None] * len(texts)
        shown = _Bar(len(texts), bar)
        try:
            for index, answer in self.model.requests("/completion", requests):
                answers = answer if isinstance(answer, list) else [answer]
                outputs = [_output(at, one, params[index]) for at, one in enumerate(answers)]
                cached = answers[0]["timings"]["cache_n"]
                text, ids = texts[index]
                done[index] = RequestOutput("", text, ids, outputs, num_cached_tokens=cached)
                shown.step()
        finally:
            shown.close()
        if None in done:
            raise RuntimeError("internal error: an answer is missing")
        for output in done:
            output.request_id = str(next(self._count))
        return done


def _request(ids: list[int], params: SamplingParams, seed: Optional[int], adapter: Optional[str]) -> dict[str, Any]:
    request = params._request()
    request["prompt"], request["model"] = ids, adapter
    if request["seed"] is None:
        request["seed"] = seed
    if request["n"] == 1:
        request["n"] = None
    return request


def _again(model: Model, seed: Optional[int]) -> LLM:
    return LLM(model, seed=seed)


class AsyncLLM:
    """The same for asyncio: each `generate` is an asynchronous iterator, and all that run are one batch."""

    def __init__(
        self, model: Union[Path, Model], *, max_model_len: Optional[int] = None, max_num_seqs: int = 16, **rest: Any
    ) -> None:
        self.model = _model(model, max_model_len, max_num_seqs, rest)

    def shutdown(self) -> None:
        """Gives the memory back; every later call is a RuntimeError."""
        self.model.close()

    close = shutdown

    async def generate(
        self, prompt: Prompt, sampling_params: Optional[SamplingParams] = None, request_id: str = "",
        lora_request: Optional[LoRARequest] = None,
    ) -> AsyncIterator[RequestOutput]:
        """Yields the answer as far as it is written, again and again; leaving the loop cancels it."""
        params = sampling_params or SamplingParams()
        text, ids = _prompt(self.model, prompt)
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def heard(status: int, piece: Optional[bytes]) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (status, piece))

        task = self.model.call("/completion", _request(ids, params, None, _adapter(self.model, lora_request)), heard)
        outputs = [CompletionOutput(index, "", [], None, None if params.logprobs is None else []) for index in range(params.n)]
        events, cached = Events(), None
        try:
            while True:
                status, piece = await queue.get()
                if piece is None:
                    break
                for event in events.push(status, piece):
                    output = outputs[event["index"]]
                    output.text += event["content"]
                    output.token_ids.extend(event["tokens"])
                    told = event.get("completion_probabilities", [])
                    if output.logprobs is not None:
                        output.logprobs.extend(_logprobs(told, params.logprobs) or [])
                        total = sum(one["logprob"] for one in told)
                        output.cumulative_logprob = (output.cumulative_logprob or 0.0) + total
                    if event["stop"]:
                        output.finish_reason, output.stop_reason = _reason(event["stop_type"], event["stopping_word"])
                        cached = event["timings"]["cache_n"]
                finished = all(output.finished() for output in outputs)
                yield RequestOutput(request_id, text, ids, outputs, finished, num_cached_tokens=cached)
            events.end()
        finally:
            task.cancel()
