"""Few calls lie between the command line and the model: whoever follows one reads few functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_finetune
import tiny

from cgpt import __main__ as command_line
from cgpt.jobs import Job
from cgpt.kernels.native import capture
from cgpt.kernels.native import ops as native_ops
from cgpt.kernels.plain import ops as plain_ops
from cgpt.model.gpt import GPT
from cgpt.stages.finetune import finetune
from cgpt.stages.pretrain import pretrain

PACKAGE = Path(command_line.__file__).parent


class Seen(BaseException):
    """The first product has been reached; what a stage does after it is no part of these tests."""


# Of each kind of kernels, the function that makes the node of a product, and the most functions from `main` to
# `GPT.hidden` and to that one, both counted. tinygrad's jit takes a function of its own.
KINDS = {"native": (native_ops, "native_call", 6, 9), "tinygrad": (plain_ops, "_product", 7, 10)}


def noting(owner: Any, name: str, stacks: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a function note, at its first call, the functions of this package that called it, `main` first. The first
    product ends the command."""
    function: Callable = getattr(owner, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        functions, frame = [function.__qualname__], sys._getframe(1)
        while frame.f_code is not command_line.main.__code__:
            if PACKAGE in Path(frame.f_code.co_filename).parents:
                functions.insert(0, frame.f_code.co_qualname)
            frame = frame.f_back
        if owner is GPT or {"GPT.hidden", "linear"} <= {*functions}:
            stacks.setdefault(function.__qualname__, ["main", *functions])
            if owner is not GPT:
                raise Seen
        return function(*arguments, **named)

    monkeypatch.setattr(owner, name, noted)


def stacks_of(stage: Callable, job: Job, kind: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The functions on the stack when `main`, which runs a job, first comes to `GPT.hidden` and to a product there."""
    stacks: dict[str, list[str]] = {}
    noting(GPT, "hidden", stacks, monkeypatch)
    noting(*KINDS[kind][:2], stacks, monkeypatch)
    monkeypatch.setattr(command_line.run_stage, "prepared", lambda arguments: nullcontext((stage, job)))
    with pytest.raises(Seen):
        command_line.main([stage.__name__, job.id])
    return stacks


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with tokens and a task's data, and a cache in which no step is recorded yet."""
    tiny.operations("native")  # the kernels, which the cache holds too, are compiled before it is changed
    monkeypatch.setattr(capture, "cache_folder", lambda: tmp_path / "cache")
    tiny.token_folder(tmp_path / "tokens")
    test_finetune.write_rows(tmp_path / "data" / "toy")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", [pretrain, finetune])
def test_from_the_command_line_to_the_forward_pass_and_its_first_product_are_few_calls(stage, kind, root, monkeypatch):
    spec = tiny.pretrain_spec(steps=1) if stage is pretrain else test_finetune.spec(epochs=1)
    hardware = replace(tiny.CPU, kernels=kind)
    job = tiny.job(spec, root / "stage" / "run", root / "tokens", data=root / "data", hardware=hardware)
    stacks = stacks_of(stage, job, kind, monkeypatch)
    _, product, most_to_hidden, most_to_product = KINDS[kind]
    assert len(stacks["GPT.hidden"]) <= most_to_hidden, stacks
    assert len(stacks[product]) <= most_to_product, stacks


def test_a_step_of_several_micro_batches_takes_no_more_calls(root, monkeypatch):
    job = tiny.job(tiny.pretrain_spec(steps=1, micro_batch_size=2), root / "stage" / "run", root / "tokens")
    stacks = stacks_of(pretrain, job, "native", monkeypatch)
    assert stacks["GPT.hidden"] == ["main", "pretrain", "Trainer.step", "Captured.__call__",
                                    "Trainer._forward_backward", "GPT.hidden"]  # fmt: skip
