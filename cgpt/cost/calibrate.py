"""Fits the constants of the hardware profiles to published measurements, and says how far off rows left out are.

Every fit minimises the logarithm of predicted over measured, so that errors are relative; soft_l1 keeps one odd row
from pulling a constant. No constant belongs to a row.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cgpt.cost import gpu, wafer_inference, wafer_training
from cgpt.cost.measurements import Measurement
from cgpt.hardware import Hardware

RELEASES_BEFORE_2 = {"1.8": 2, "1.9": 1}  # software releases of Cerebras; from 2.0 on no gain shows in the rows
GAIN = "gain_per_release"  # the one fitted constant that no profile holds: profiles are of today's software
ODD_ROW = 0.05  # relative error from which a row's pull on a fit no longer grows
Constants = dict[str, float]


@dataclass(frozen=True)
class Fit:
    """Constants that one set of rows decides: `block` and `profiles` say where they stand."""

    name: str
    groups: tuple[str, ...]
    block: str
    profiles: tuple[str, ...]
    start: Mapping[str, float]


WAFERS = ("cs2", "cs3")
FITS = (
    Fit("wafer training", ("CS-2 training", "CS-3 training"), "wafer", WAFERS,
        {"matmul_efficiency": 0.3, "attention_efficiency": 0.1, "pass_latency_s": 0.002, GAIN: 1.1}),
    Fit("decode", ("decode",), "wafer", WAFERS,
        {"decode_cycles_per_layer": 4e3, "decode_cycles_per_hop": 10.0, "decode_cycles_per_element": 1.0}),
    Fit("prefill", ("prefill",), "wafer", WAFERS,
        {"prefill_cycles_per_hop": 4e3, "prefill_cycles_per_flop": 0.5}),
    *(Fit(f"{name.upper()} training", (f"{name.upper()} training",), "gpu", (name,),
          {"matmul_efficiency": 0.6, "half_width": 400.0, "attention_efficiency": 0.4, "recompute_cost": 0.2,
           "loss_per_doubling": 0.02}) for name in ("a100", "h100")),
    Fit("A100 decode", ("A100 decode",), "gpu", ("a100", "h100"),
        {"decode_bandwidth_efficiency": 0.8, "decode_layer_latency_s": 5e-5, "network_all_reduce_latency_s": 1e-4}),
    Fit("A100 prefill", ("A100 prefill",), "gpu", ("a100", "h100"),
        {"prefill_efficiency": 0.7, "prefill_all_reduce_s": 4e-3}),
)  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """One row used: what the model says with all rows fitted, with this row left out, with its model left out."""

    row: Measurement
    fitted: float
    row_left_out: float
    model_left_out: float

    def error(self, kind: str = "row_left_out") -> float:
        """Relative error, signed: 0.1 is 10 % too fast."""
        return getattr(self, kind) / float(self.row.value) - 1


@dataclass(frozen=True)
class Calibration:
    """The constants of each fit by its name, and a prediction of every row that is used."""

    constants: dict[str, Constants]
    predictions: tuple[Prediction, ...]

    def of(self, *groups: str, use: str = "fit") -> list[Prediction]:
        """The predictions of these groups."""
        return [p for p in self.predictions if p.row.group in groups and p.row.use == use]


def calibrate(rows: Iterable[Measurement], hardware: Mapping[str, Hardware]) -> Calibration:
    """Fit all constants, then again without each row and without each model."""
    used = [row for row in rows if row.use != "excluded"]
    constants, predictions = {}, []
    for fit in FITS:
        rows_of_fit = [row for row in used if row.group in fit.groups and row.use == "fit"]
        constants[fit.name] = whole = fitted(fit, rows_of_fit, hardware, fit.start)
        without_model = {model: fitted(fit, [row for row in rows_of_fit if row.model != model], hardware, whole)
                         for model in {row.model for row in rows_of_fit}}  # fmt: skip
        for row in rows_of_fit:
            without_row = fitted(fit, [other for other in rows_of_fit if other is not row], hardware, whole)
            predictions.append(Prediction(row, *(_predicted(row, hardware, fit, values) for values in
                                                 (whole, without_row, without_model[row.model]))))  # fmt: skip
    calibrated = {name: _with_constants(profile, constants) for name, profile in hardware.items()}
    for row in used:
        if row.use == "check":
            value = predict(row, calibrated, constants["wafer training"][GAIN])
            predictions.append(Prediction(row, value, value, value))
    return Calibration(constants, tuple(predictions))


def shape_errors(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Relative error of each row of a sweep over batch size, by id, once the level of the other rows is taken out."""
    logs = {p.row.id: math.log(1 + p.error("fitted")) for p in predictions}
    return {name: math.exp(log - (sum(logs.values()) - log) / (len(logs) - 1)) - 1 for name, log in logs.items()}


def mean_error(predictions: Iterable[Prediction], kind: str = "row_left_out") -> float:
    """Mean absolute percentage error as a fraction."""
    errors = [abs(p.error(kind)) for p in predictions]
    return sum(errors) / len(errors)


def predict(row: Measurement, hardware: Mapping[str, Hardware], gain_per_release: float) -> float:
    """The model's prediction of a row, in the row's unit, whether or not the memory would hold it."""
    profile, shape, systems, context = hardware[row.hardware], row.shape, row.systems or 1, row.context or 0
    batch_per_system = (row.batch_sequences or 0) / systems
    match row.group:
        case "CS-2 training" | "CS-3 training" | "batch shape":
            slowdown = gain_per_release ** RELEASES_BEFORE_2.get(row.release, 0)
            step = wafer_training.training_step(shape, profile, batch_per_system, systems, slowdown=slowdown)
            rate = step.samples_per_s
        case "A100 training" | "H100 training":
            layout = gpu.Layout(systems, 1, 1, row.micro_batch_sequences or 0, bool(row.recompute))
            rate = gpu.training_step(shape, profile, batch_per_system, systems, layout=layout).tokens_per_s
        case "decode":
            rate = wafer_inference.decode(shape, profile, context, row.grid).tokens_per_s
        case "prefill":
            rate = wafer_inference.prefill(shape, profile, row.grid).tokens_per_s
        case "A100 decode":
            rate = gpu.decode(shape, profile, context, systems).tokens_per_s
        case "A100 prefill":
            rate = gpu.prefill(shape, profile, systems).tokens_per_s
        case "end to end":  # the prompt once, then each token with the cache that is full half of the way
            prompt_s = wafer_inference.prefill(shape, profile).step_s
            token_s = wafer_inference.decode(shape, profile, shape.seq_len + context // 2).step_s
            rate = context / ((prompt_s or 0.0) + context * (token_s or 0.0))
        case _:
            raise ValueError(f"{row.id}: no prediction of the group '{row.group}'")
    assert rate is not None
    return rate


def fitted(fit: Fit, rows: list[Measurement], hardware: Mapping[str, Hardware], start: Mapping[str, float]
            ) -> Constants:  # fmt: skip
    """The constants, all positive, that minimise the relative errors of `rows`."""
    from scipy.optimize import least_squares

    names = list(start)

    def residuals(logs: Iterable[float]) -> list[float]:
        constants = dict(zip(names, map(math.exp, logs)))
        return [math.log(_predicted(row, hardware, fit, constants) / float(row.value)) for row in rows]

    solution = least_squares(residuals, [math.log(start[name]) for name in names], loss="soft_l1", f_scale=ODD_ROW)
    return {name: math.exp(value) for name, value in zip(names, solution.x)}


def _predicted(row: Measurement, hardware: Mapping[str, Hardware], fit: Fit, constants: Constants) -> float:
    profile = _with_constants(hardware[row.hardware], {fit.name: constants})
    return predict(row, {row.hardware: profile}, constants.get(GAIN, 1.0))


def _with_constants(profile: Hardware, constants: Mapping[str, Constants]) -> Hardware:
    """The profile with the constants of the fits that it belongs to."""
    for fit in FITS:
        if profile.name in fit.profiles and fit.name in constants:
            values = {name: value for name, value in constants[fit.name].items() if name != GAIN}
            profile = replace(profile, **{fit.block: replace(getattr(profile, fit.block), **values)})
    return profile
