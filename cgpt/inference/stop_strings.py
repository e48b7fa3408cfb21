"""Strings that end a continuation, looked for in the text of its tokens."""

from collections.abc import Sequence

from tokenizers import Tokenizer

ANCHOR = "."  # a text that every tokenizer for prose has a token of


def text_after(tokenizer: Tokenizer, before: Sequence[int], new: Sequence[int], special: bool = False) -> str:
    """The text that tokens add to those before them, with the blank that some decoders drop at a text's start.

    Special tokens are left out where `special` is not set.
    """
    start, whole = (tokenizer.decode(tokens, skip_special_tokens=not special) for tokens in (before, [*before, *new]))
    return whole[next((at for at, (a, b) in enumerate(zip(start, whole)) if a != b), min(len(start), len(whole))) :]


def _anchor(tokenizer: Tokenizer) -> list[int]:
    """Tokens to decode others after."""
    try:
        return tokenizer.encode(ANCHOR, add_special_tokens=False).ids
    except Exception:  # the tokenizers library raises plain Exception, of a vocabulary that lacks it
        return []


class StopStrings:
    """`stop(tokens)` tells whether the text of a continuation holds, near its end, one of the strings that end it."""

    def __init__(self, tokenizer: Tokenizer, strings: Sequence[str]):
        self.tokenizer, self.strings = tokenizer, [string for string in strings if string]
        self.n_tokens = max((len(string.encode()) for string in self.strings), default=0)  # a token is a byte or more
        self._before = _anchor(tokenizer) if self.strings else []

    def __call__(self, tokens: Sequence[int]) -> bool:
        if not self.strings:
            return False
        end = text_after(self.tokenizer, self._before, tokens[-self.n_tokens :], special=True)
        return any(string in end for string in self.strings)

    def cut(self, text: str) -> str:
        """The text before the first stop string."""
        return text[: min((at for string in self.strings if (at := text.find(string)) >= 0), default=len(text))]
