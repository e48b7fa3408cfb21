"""The settings by which the next token is picked, under the names that transformers has for them."""

from __future__ import annotations

from dataclasses import dataclass

from cgpt.errors import UserError


@dataclass(frozen=True)
class GenerationConfig:
    """The settings of `transformers.GenerationConfig` that we have, with their names, meaning and defaults."""

    do_sample: bool = False  # else the most likely token, or beam search
    temperature: float = 1.0
    top_k: int = 50  # 0: off
    top_p: float = 1.0
    num_return_sequences: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False  # True, False or "never"
    no_repeat_ngram_size: int = 0  # 0: off
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature > 0, "write a number above 0, or sample nothing (greedy)"),
            "top_k": (self.top_k >= 0, "write how many tokens are kept, or 0 for all"),
            "top_p": (0 < self.top_p <= 1, "write a number above 0 and at most 1"),
            "num_return_sequences": (self.num_return_sequences >= 1, "write a whole number above 0"),
            "num_beams": (self.num_beams >= 1, "write a whole number above 0"),
            "early_stopping": (self.early_stopping in (True, False, "never"), "write true, false or never"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "write a whole number, or 0 for off"),
            "repetition_penalty": (self.repetition_penalty > 0, "write a number above 0; 1 is off"),
            "seed": (self.seed >= 0, "write a whole number from 0 on"),
        }
        problems = [
            f"{name}: is {getattr(self, name)}; {remedy}" for name, (holds, remedy) in rules.items() if not holds
        ]
        if self.num_beams > 1 and self.do_sample:
            problems.append("num_beams: beam search draws no samples; leave out do_sample, or num_beams")
        elif self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            problems.append(
                f"num_return_sequences: is {self.num_return_sequences}; {self.num_beams} beams give no more"
            )
        elif self.num_beams == 1 and self.num_return_sequences > 1 and not self.do_sample:
            problems.append(
                "num_return_sequences: greedy decoding gives one sequence; sample, or search with num_beams"
            )
        if problems:
            raise UserError(*problems)

    @property
    def rows(self) -> int:
        """How many sequences of a prompt are decoded side by side."""
        return max(self.num_beams, self.num_return_sequences)
