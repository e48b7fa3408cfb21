"""How many functions of ours lie between a command and the model when it generates or evaluates."""

from __future__ import annotations

import sys
from pathlib import Path

import bigram
import pytest
import tiny
from test_tasks import ROWS, write_task

import cgpt
from cgpt import checkpoint
from cgpt.__main__ import main
from cgpt.jobs import Job
from cgpt.model.gpt import GPT
from cgpt.spec import Model
from cgpt.stages.evaluate import evaluate

PACKAGE = Path(cgpt.__file__).parent
TOKENIZER = bigram.make_tokenizer()
CONFIG = Model("counted", n_layer=1, d_model=32, n_head=2, seq_len=64, vocab_size=TOKENIZER.get_vocab_size())
FROM_MAIN, FROM_STAGE = 7, 7  # frames to GPT.hidden, both ends counted
MORE_TO_A_PRODUCT = 3  # _block, linear, native_call


def frames() -> list[str]:
    """Names of the functions of the package that are being called, the first one first."""
    names, frame = [], sys._getframe(1)
    while frame:
        if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names[::-1]


@pytest.fixture
def checkpoint_folder(tmp_path, monkeypatch) -> Path:
    """A checkpoint, and a cache without recordings, which would be replayed without the model's own code."""
    tiny.operations("native")  # compiled kernels are known from here on
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    checkpoint.save(tmp_path / "gpt", CONFIG, tiny.rough_parameters(CONFIG), tmp_path / "tokenizer.json")
    return tmp_path / "gpt"


@pytest.fixture
def seen(monkeypatch) -> dict[str, list[list[str]]]:
    """The frames at every call of GPT.hidden, that one included, and at every product that it asks for."""
    stacks: dict[str, list[list[str]]] = {"hidden": [], "product": []}
    hidden = GPT.hidden
    from cgpt.kernels.native import ops

    native_call = ops.native_call

    def noted_hidden(self, *arguments, **options):
        stacks["hidden"].append([*frames(), "hidden"])
        return hidden(self, *arguments, **options)

    def noted_call(name, *arguments, **options):
        if name.startswith("linear"):
            stacks["product"].append([*frames(), "native_call"])
        return native_call(name, *arguments, **options)

    monkeypatch.setattr(GPT, "hidden", noted_hidden)
    monkeypatch.setattr(ops, "native_call", noted_call)
    return stacks


def most_between(stacks: list[list[str]], name: str) -> int:
    """The most frames from the function of that name on."""
    return max(len(stack) - stack.index(name) for stack in stacks)


def test_few_frames_lie_between_the_command_generate_and_the_model(checkpoint_folder, seen, capsys):
    options = ["--prompt", "the film is", "--max-new-tokens", "2", "--threads", str(tiny.THREADS)]
    assert main(["generate", "--checkpoint", str(checkpoint_folder), *options]) == 0
    assert {stack[-2] for stack in seen["hidden"]} == {"_prefill", "_step"}
    assert most_between(seen["hidden"], "main") == FROM_MAIN
    assert most_between(seen["product"], "main") == FROM_MAIN + MORE_TO_A_PRODUCT


@pytest.mark.parametrize(
    "changes",
    [{}, {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{sentence}}",
          "doc_to_choice": None, "metric_list": None}],
    ids=["choices", "whole texts"],
)  # fmt: skip
def test_few_frames_lie_between_the_stage_evaluate_and_the_model(checkpoint_folder, seen, tmp_path, changes):
    spec = {"task": write_task(tmp_path / "data", ROWS, **changes), "checkpoint_stage": "pretrain"}
    evaluate(Job(spec, tmp_path / "scored", {"pretrain": checkpoint_folder}, tmp_path / "data", tiny.CPU, tiny.THREADS))
    assert most_between(seen["hidden"], "evaluate") == FROM_STAGE
    assert most_between(seen["product"], "evaluate") == FROM_STAGE + MORE_TO_A_PRODUCT


def test_a_model_knows_nothing_of_those_that_generate_with_it():
    assert not [path for path in (PACKAGE / "model").glob("*.py") if "cgpt.inference" in path.read_text()]
