"""The settings by which the next token is picked, under the names that transformers has for them."""

from dataclasses import dataclass
from typing import Annotated

from cgpt.bounds import Positive, Range, problems
from cgpt.errors import UserError


@dataclass(frozen=True)
class GenerationConfig:
    """The settings of `transformers.GenerationConfig` that we have, with their names, meaning and defaults."""

    do_sample: bool = False
    """Draw each token; false: the most likely one, or beam search."""
    temperature: Annotated[float, Positive()] = 1.0
    """What logits are divided by before a token is drawn."""
    top_k: Annotated[int, Range(0)] = 50
    """Draw among so many of the most likely tokens; 0: off."""
    top_p: Annotated[float, Positive(1)] = 1.0
    """Draw among the most likely tokens that together have this probability."""
    num_return_sequences: Annotated[int, Range(1)] = 1
    """Continuations of each prompt."""
    num_beams: Annotated[int, Range(1)] = 1
    """Continuations that beam search keeps; 1: no search."""
    length_penalty: float = 1.0
    """Of beam search: the power of its length that a continuation's score is divided by."""
    early_stopping: bool | str = False
    """Of beam search: true stops with as many ended continuations as beams, never only when none can become better."""
    no_repeat_ngram_size: Annotated[int, Range(0)] = 0
    """No run of so many tokens comes twice; 0: off."""
    repetition_penalty: Annotated[float, Positive()] = 1.0
    """What logits of tokens that came before are divided by; 1: off."""
    seed: Annotated[int, Range(0)] = 0
    """What tokens are drawn from."""

    def __post_init__(self) -> None:
        wrong = [f"{keys[0]}: {problem}" for keys, problem in problems(GenerationConfig, self)]
        if self.early_stopping not in (True, False, "never"):
            wrong.append(f"early_stopping: is {self.early_stopping}; write true, false or never")
        if self.num_beams > 1 and self.do_sample:
            wrong.append("num_beams: beam search draws no samples; leave out do_sample, or num_beams")
        elif self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            wrong.append(f"num_return_sequences: is {self.num_return_sequences}; {self.num_beams} beams give no more")
        elif self.num_beams == 1 and self.num_return_sequences > 1 and not self.do_sample:
            wrong.append("num_return_sequences: greedy decoding gives one sequence; sample, or search with num_beams")
        if wrong:
            raise UserError(*wrong)

    @property
    def rows(self) -> int:
        """How many sequences of a prompt are decoded side by side."""
        return max(self.num_beams, self.num_return_sequences)
