"""The tokens that begin and end texts, which each checkpoint and tokenizer names for itself."""

from dataclasses import dataclass

from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class EndTokens:
    """The tokens that begin and end a checkpoint's texts, by their ids."""

    stop: tuple[int, ...] = ()  # each of them ends a continuation
    end: int | None = None  # stands between texts
    begin: int | None = None  # stands before a text; None: `end` does

    @property
    def before_text(self) -> int | None:
        """The token that a text without a context is scored after."""
        return self.end if self.begin is None else self.begin


def end_of_text_tokens(tokenizer: Tokenizer) -> EndTokens:
    """End tokens of a tokenizer whose folder names none: <|endoftext|>, where it is in the vocabulary."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    return EndTokens() if end is None else EndTokens((end,), end)
