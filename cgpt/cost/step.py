"""The cost model's answer: one training step, or one stretch of inference, on one profile."""

from dataclasses import dataclass, field

from cgpt.hardware import Hardware


def outside(measured: tuple[int, ...], value: int) -> bool:
    """Whether a value is beyond the smallest and largest that were measured, or nothing was."""
    return not measured or not measured[0] <= value <= measured[-1]


def training_extrapolated(hardware: Hardware, d_model: int, systems: int) -> bool:
    """Whether no training rate of a modeled profile's own machine is public for so many systems or such a width."""
    constants = hardware.wafer or hardware.gpu
    return not constants or systems > constants.measured_systems or outside(constants.measured_d_model, d_model)


@dataclass(frozen=True)
class Step:
    """One optimizer step on all systems together, or one pass of inference.

    `parts_s` add up to `step_s`; `bound_by` names the part that limits. `memory_bytes` says what lies where, of one
    system; `problem` why the memory does not hold it, else None. Such a step has the seconds that it would take were
    memory no limit, or none (no parts) where no way to share the work is left.
    """

    samples: float
    tokens: float
    model_flops: float
    parts_s: dict[str, float]
    bound_by: str | None
    extrapolated: bool
    memory_bytes: dict[str, float] = field(default_factory=dict)
    layout: dict[str, int | bool] = field(default_factory=dict)  # micro-batches, how systems share the work
    problem: str | None = None

    @property
    def step_s(self) -> float | None:
        """Seconds of the whole step."""
        return sum(self.parts_s.values()) if self.parts_s else None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second on all systems together."""
        return None if self.step_s is None else self.tokens / self.step_s

    @property
    def samples_per_s(self) -> float | None:
        """Sequences a second on all systems together."""
        return None if self.step_s is None else self.samples / self.step_s
