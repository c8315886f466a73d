"""`Tokenizer`: texts to tokens and back, without a model."""

from __future__ import annotations

from typing import Mapping, Optional, Sequence, Union

from tern import _tern
from tern._model import Path, _ids


class Tokenizer:
    """The tokenizer of a model's file or directory, of a `tokenizer.json` or `tokenizer.model`, or of `"story"`."""

    def __init__(self, path: Path) -> None:
        import os

        self.path = os.fspath(path)
        self._words = _tern.Words(_tern.find(self.path))
        self.vocab_size, self.bos_token_id, self.adds_bos, self.stop_token_ids, self.chat_template = self._words.about()

    @classmethod
    def from_pretrained(cls, path: Path) -> "Tokenizer":
        """The same, by transformers' name."""
        return cls(path)

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[str]]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def eos_token_id(self) -> Optional[int]:
        """The first of the tokens that end a text."""
        return next(iter(self.stop_token_ids), None)

    def encode(self, text: str, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text; `add_special_tokens` puts before it what the model wants there."""
        return self._words.encode(text, add_special_tokens, parse_special)

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens, skip_special_tokens).decode(errors="replace")

    def decode_bytes(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> bytes:
        """The bytes of ids."""
        return self._words.decode(_ids(tokens), not skip_special_tokens)

    def token_to_id(self, token: str) -> Optional[int]:
        """The token that is written so."""
        return self._words.id(token)

    def id_to_token(self, token: int) -> Optional[str]:
        """How a token is written."""
        return self._words.text(token)

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], tokenize: bool = True, continue_final_message: bool = False
    ) -> Union[str, list[int]]:
        """A conversation in the model's own format: ids, or their text."""
        pairs = [(message["role"], message["content"]) for message in messages]
        ids = self._words.chat(pairs, continue_final_message)
        return ids if tokenize else self.decode(ids, skip_special_tokens=False)
