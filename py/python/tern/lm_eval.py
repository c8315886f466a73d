"""Model type `tern` of lm-evaluation-harness: `pip install lm-eval`, import this module, and `simple_evaluate(model="tern", ...)`
knows it. `python -m tern.lm_eval` is lm-eval's own command line with it: `python -m tern.lm_eval run --model tern --model_args
pretrained=story --tasks ...`."""

from __future__ import annotations

import logging
from typing import Any, Mapping, Optional, Sequence, Union

from lm_eval import utils  # type: ignore[import-not-found,import-untyped,unused-ignore]
from lm_eval.api.model import TemplateLM  # type: ignore[import-not-found,import-untyped,unused-ignore]
from lm_eval.api.registry import register_model  # type: ignore[import-not-found,import-untyped,unused-ignore]
from tqdm import tqdm  # type: ignore[import-not-found,import-untyped,unused-ignore]

from tern._model import Model, Path

_log = logging.getLogger(__name__)

#: Requests between two steps of the progress bar, after which they are also in lm-eval's cache.
_PIECE = 256
#: What a task may say of generation, and our word for it.
_WORDS = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "seed": "seed",
    "repetition_penalty": "repeat_penalty",
}
#: What it may say besides where that is what happens anyway.
_SAME: Mapping[str, tuple[Any, ...]] = {"num_beams": (1,), "use_cache": (True,), "num_return_sequences": (1,)}


@register_model("tern")  # type: ignore[misc,untyped-decorator,unused-ignore]
class TernLM(TemplateLM):  # type: ignore[misc,unused-ignore]
    """`pretrained` is what `tern.Model` takes, or one that is loaded; `max_length` the most tokens of a text, `batch_size` how
    many texts are written at the same time. `add_bos_token` says whether texts begin with the begin-of-text token (default: as
    the model's do). Other options are those of `tern.Model`."""

    def __init__(
        self,
        pretrained: Union[Path, Model],
        *,
        threads: Optional[int] = None,
        max_length: Optional[int] = None,
        batch_size: Union[int, str, None] = None,
        max_gen_toks: int = 256,
        add_bos_token: Optional[bool] = None,
        device: Optional[str] = None,
        max_batch_size: Optional[int] = None,
        **options: Any,
    ) -> None:
        super().__init__()
        # `device` and `max_batch_size` come from lm-eval's command line, which asks for a GPU unless told; here is none to choose.
        word = str(batch_size or 16)
        parallel = 16 if word.startswith("auto") else int(word)
        if isinstance(pretrained, Model):
            self.model = pretrained
        else:
            self.model = Model(pretrained, threads=threads, n_ctx=max_length, parallel=parallel, **options)
        if max_length is not None and not 1 < max_length <= self.model.n_ctx:
            raise ValueError(f"max_length {max_length}: expected 2 to {self.model.n_ctx}")
        self.max_length: int = max_length or self.model.n_ctx
        self.batch_size = parallel
        self.max_gen_toks = int(max_gen_toks)
        self.add_bos_token = self.model.adds_bos if add_bos_token is None else bool(add_bos_token)

    # What lm-eval asks of a tokenizer.

    @property
    def eot_token_id(self) -> int:
        stops = self.model.stops
        if not stops:
            raise ValueError("the model has no token that ends a text")
        return stops[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that begins with nothing."""
        bos = self.model.bos
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string: str, add_special_tokens: Optional[bool] = None, **_: Any) -> list[int]:
        bos = self.model.bos
        add = self.add_bos_token if add_special_tokens is None else add_special_tokens
        ids = self.model.tokenize(string, add_bos=False, special=True)
        # A chat template may have written it.
        written = add_special_tokens is None and ids[:1] == [bos]
        return [bos, *ids] if add and bos is not None and not written else ids

    def tok_decode(self, tokens: Sequence[int], **_: Any) -> str:
        return self.model.detokenize(tokens, special=True).decode(errors="replace")

    @property
    def tokenizer_name(self) -> str:
        return self.model.path.replace("/", "__")

    def chat_template(self, chat_template: Union[bool, str] = False) -> Optional[str]:
        if chat_template is False or chat_template is None:
            return None
        if isinstance(chat_template, str) and chat_template != "default":
            raise ValueError(f"chat template {chat_template!r}: a model of tern has one, its own")
        return self.model.chat_template

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        text, _ = self.model.apply_chat_template(
            chat_history, add_generation_prompt=add_generation_prompt,
            continue_final_message=None if add_generation_prompt else True,
        )
        return text

    # What it asks of a model.

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._fit(context or [self.prefix_token_id], end) for _, context, end in requests]
        # Side by side what begins alike: that is computed once.
        order = sorted(range(len(pairs)), key=lambda at: pairs[at][0])
        done: list[Any] = [None] * len(pairs)
        with tqdm(total=len(pairs), desc="Log-likelihoods", disable=disable_tqdm) as bar:
            for at in range(0, len(order), _PIECE):
                piece = order[at : at + _PIECE]
                for nth, found in zip(piece, self.model.loglikelihood([pairs[nth] for nth in piece])):
                    done[nth] = found
                    if requests[nth][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[nth][0], found)
                bar.update(len(piece))
        return done

    def _fit(self, context: list[int], end: list[int]) -> tuple[list[int], list[int]]:
        """What is too long loses its beginning, as in lm-eval's other models."""
        room = self.max_length + 1 - len(end)
        if not end:
            raise ValueError("a continuation without a token has no likelihood")
        if room < 1:
            raise ValueError(f"a continuation of {len(end)} tokens does not fit into {self.max_length}")
        if len(context) > room:
            _log.warning("%d tokens do not fit into %d: the first are cut off", len(context) + len(end) - 1, self.max_length)
        return context[-room:], end

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for request in requests:
            # Each token of the text is predicted; what stands before texts is not one of them.
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            found = utils.get_rolling_token_windows(
                token_list=ids, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            mine = [(None, *utils.make_disjoint_window(window)) for window in found]
            windows += mine
            counts.append(len(mine))
        scores = iter(self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm))
        sums = []
        for request, count in zip(requests, counts):
            total = sum(next(scores)[0] for _ in range(count))
            sums.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        asked = [self._request(context, dict(words)) for context, words in (request.args for request in requests)]
        # Longest first, so that none is alone at the end.
        order = sorted(range(len(asked)), key=lambda at: -len(asked[at]["prompt"]))
        done: list[Any] = [None] * len(asked)
        with tqdm(total=len(asked), desc="Texts", disable=disable_tqdm) as bar:
            for nth, answer in self.model.requests("/completion", [asked[at] for at in order]):
                done[order[nth]] = answer["content"]
                self.cache_hook.add_partial("generate_until", requests[order[nth]].args, answer["content"])
                bar.update(1)
        return done

    def _request(self, context: str, words: dict[str, Any]) -> dict[str, Any]:
        until = words.pop("until", None) or []
        tokens = int(words.pop("max_gen_toks", words.pop("max_tokens", self.max_gen_toks)))
        sampled = words.pop("do_sample", None)
        stop = [until] if isinstance(until, str) else [word for word in until if word]
        request: dict[str, Any] = {"n_predict": tokens, "stop": stop, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
        for name, value in words.items():
            if name in _WORDS:
                request[_WORDS[name]] = value
            elif value not in _SAME.get(name, ()):
                raise ValueError(f"{name}={value!r}: tern does not know this about generation")
        if sampled is False or (sampled is None and not request.get("temperature")):
            request["temperature"] = 0.0
        elif "temperature" not in request:
            request["temperature"] = 1.0
        room = self.max_length - tokens
        if room < 1:
            raise ValueError(f"max_gen_toks {tokens}: a context of {self.max_length} leaves no room for a prompt")
        ids = self.tok_encode(context) or [self.prefix_token_id]
        if len(ids) > room:
            _log.warning("%d tokens and %d of the answer do not fit into %d: the first are cut off", len(ids), tokens, self.max_length)
        request["prompt"] = ids[-room:]
        return request


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found,import-untyped,unused-ignore]

    cli_evaluate()
