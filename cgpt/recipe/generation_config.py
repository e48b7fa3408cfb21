"""The settings by which the next token is picked, under the names that transformers has for them."""

from dataclasses import dataclass
from typing import Annotated

from cgpt.bounds import Positive, Range, problems
from cgpt.errors import UserError


@dataclass(frozen=True)
class GenerationConfig:
    """The settings of `transformers.GenerationConfig` that we have, with their names, meaning and defaults."""

    do_sample: bool = False  # else the most likely token, or beam search
    temperature: Annotated[float, Positive()] = 1.0
    top_k: Annotated[int, Range(0)] = 50  # 0: off
    top_p: Annotated[float, Positive(1)] = 1.0
    num_return_sequences: Annotated[int, Range(1)] = 1
    num_beams: Annotated[int, Range(1)] = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False  # True, False or "never"
    no_repeat_ngram_size: Annotated[int, Range(0)] = 0  # 0: off
    repetition_penalty: Annotated[float, Positive()] = 1.0  # 1: off
    seed: Annotated[int, Range(0)] = 0

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
