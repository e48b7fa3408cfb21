"""When a continuation holds one of the strings that end it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class StopStrings:
    """`stop(tokens)` tells whether the text of a continuation holds, near its end, one of the strings that end it."""

    def __init__(self, tokenizer: Tokenizer, strings: Sequence[str]):
        self.tokenizer, self.strings = tokenizer, [string for string in strings if string]
        self.n_tokens = max((len(string.encode()) for string in self.strings), default=0)  # a token is a byte or more

    def __call__(self, tokens: Sequence[int]) -> bool:
        if not self.strings:
            return False
        end = self.tokenizer.decode(tokens[-self.n_tokens :], skip_special_tokens=False)
        return any(string in end for string in self.strings)

    def cut(self, text: str) -> str:
        """The text before the first stop string."""
        return text[: min((at for string in self.strings if (at := text.find(string)) >= 0), default=len(text))]
