"""Columns of CSV files that are no keys of a record, each with its type and a sentence below it."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LossRow:
    """loss.csv of a training run: a row for each optimizer step."""

    step: int
    """Optimizer steps made, from 1."""
    tokens: int
    """Tokens trained on so far, repeats counted."""
    train_loss: float
    """Loss of the step's batch, nats per token."""
    validation_loss: float | None
    """Loss on validation text after the step, nats per token; empty where it was not evaluated."""
    validation_bits_per_byte: float | None
    """The same in bits per byte of text."""
    lr: float
    """Learning rate of the step."""
    grad_norm: float
    """Norm of the gradient before it was clipped."""
    tokens_per_s: float | None
    """Speed of the steps so far, without first ones that compile."""
    seconds: float | None
    """Time since training began, without pauses of a stopped run."""


@dataclass(frozen=True)
class KernelRow:
    """kernels.csv of a metered run: a row for each kernel, layer and phase of one optimizer step."""

    kernel: str
    """The kernel's name."""
    layer: int | None
    """The block, from 0; empty: embedding, head, optimizer, or not known."""
    phase: str
    """forward, backward or update."""
    n_calls: int
    """How often the kernel was called."""
    flops: float
    """Floating-point operations of these calls."""
    bytes_read: int
    """Bytes that these calls read."""
    bytes_written: int
    """Bytes that these calls wrote."""


@dataclass(frozen=True)
class OfTables:
    """Columns of runs.csv, scores.csv and hardware.csv that no record has."""

    experiment: str
    """The experiment's name."""
    setting: str
    """The values of the keys that the experiment varies, as `train.lr=0.001`; empty where it varies none."""
    condition: str
    """How the model came to the score: zero-shot, few-shot, from scratch, fine-tuned, or bag of words."""
    primary: bool
    """Whether this is the metric that the table shows: the task's first."""
    evaluate_run: str | None
    """The id of the evaluation; empty for a bag of words."""
    finetune_run: str | None
    """The id of the fine-tuning; empty where there was none."""
    pretrain_run: str | None
    """The id of the pretraining; empty where there was none."""
    published: float | None
    """The value that a paper printed of this model, task, metric and number of shots; empty where it printed none."""
    published_z: float | None
    """How many standard errors the value is above it."""
    reproduced: bool | None
    """Whether the two are no farther apart than 2 standard errors and half of the last printed digit."""


@dataclass(frozen=True)
class OfFamily:
    """Columns of the table of `forecast-family` that no record has."""

    batch_size: int
    """Sequences of a step, all systems together."""
    problem: str | None
    """Why the machine cannot hold the training; empty: it can."""


@dataclass(frozen=True)
class FidelityRow:
    """model_fidelity.csv of `calibrate`: a row for each published measurement."""

    id: str
    """The measurement's row of accelerator_measurements.csv."""
    group: str
    """The measurements that one error is reported of."""
    use: str
    """fit, check (predicted with constants that were not fitted to it), or excluded."""
    model: str
    """The model that was measured."""
    hardware: str
    """The hardware profile."""
    systems: int | None
    """Machines that worked together."""
    batch_sequences: int | None
    """Sequences of a step, all systems together."""
    grid: int | None
    """Side of the square of cores."""
    unit: str
    """The unit of the columns `measured` to `model_left_out`."""
    measured: float
    """The published value."""
    fitted: float | None
    """The cost model's, its constants fitted to all rows."""
    row_left_out: float | None
    """The cost model's, its constants fitted without this row."""
    model_left_out: float | None
    """The cost model's, its constants fitted without every row of this model."""
    error_row_left_out: float | None
    """row_left_out over measured, minus 1."""
    error_model_left_out: float | None
    """model_left_out over measured, minus 1."""
    reason: str
    """Why the row is excluded, or what is special about it."""
    source: str
    """Where it was published."""


LOSS_COLUMNS = tuple(field.name for field in fields(LossRow))
KERNEL_COLUMNS = tuple(field.name for field in fields(KernelRow))
FIDELITY_COLUMNS = tuple(field.name for field in fields(FidelityRow))
