"""What `python -m cgpt import-hf` and `export-hf` do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cgpt import checkpoint
from cgpt.checkpoint import transformers_folder as hf_folder
from cgpt.checkpoint.model_card import Facts, model_card
from cgpt.data.content import verified
from cgpt.data.special_tokens import end_tokens
from cgpt.data.tokenizer import read_tokenizer
from cgpt.errors import UserError
from cgpt.experiment import load, plans
from cgpt.files.whole import whole_folder, writing
from cgpt.recipe import flops
from cgpt.records import PretrainRecord, ScoresRecord, read_run, read_scores
from cgpt.spec import Dataset


def import_hf(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write a folder of Hugging Face transformers as a checkpoint. Raises UserError."""
    config, params, tokenizer = hf_folder.read(chosen.folder)
    with writing(chosen.out), whole_folder(chosen.out) as part:
        ends = end_tokens(chosen.folder, tokenizer, config.vocab_size)
        hf_folder.write_tokenizer(part, tokenizer, ends, config.seq_len)
        checkpoint.save(part, config, params, part / "tokenizer.json")
    n = flops.n_parameters(config)
    said = {"checkpoint": str(chosen.out), "model": config.name, "n_parameters": n}
    return said, f"{chosen.out}: {config.name}, {n:,} parameters"


def export_hf(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write a checkpoint as a folder that transformers opens, with a model card of its run. Raises UserError."""
    folder: Path = chosen.checkpoint
    if not chosen.no_verify:
        verified(folder)
    config = checkpoint.read_config(folder)
    params = checkpoint.read_params(folder, config)
    tokenizer = read_tokenizer(folder, config.vocab_size)
    ends, facts = end_tokens(folder, tokenizer, config.vocab_size), facts_of(folder)
    hf_folder.write(chosen.out, config, params, tokenizer, ends, model_card(config, facts))
    n = flops.n_parameters(config)
    said = {"folder": str(chosen.out), "model": config.name, "n_parameters": n, "n_evaluations": len(facts.scores)}
    return said, f"{chosen.out}: {config.name}, {n:,} parameters; evaluations in its model card: {len(facts.scores)}"


def facts_of(folder: Path) -> Facts:
    """What lies beside a checkpoint: its run.json, the evaluations that name it, and its experiment's settings."""
    if not (folder / "run.json").is_file():
        return Facts()
    run = read_run(folder / "run.json")
    spec, datasets = _spec(run)
    return Facts(run, spec, datasets, _scores(folder, run))


def _scores(folder: Path, run: PretrainRecord) -> list[ScoresRecord]:
    beside = sorted((folder.resolve().parent.parent / "evaluate").glob("*/scores.json"))
    return [record for record in map(read_scores, beside) if (record.checkpoint, record.stage) == (run.run, run.stage)]


def _spec(run: PretrainRecord) -> tuple[dict[str, Any] | None, list[Dataset]]:
    """The run's spec and data sets, where its experiment is in the folder that the command runs in."""
    try:
        workflow = load.read_workflow(Path.cwd())
        planned = plans.make_plans(workflow)
        spec = planned.find_run(run.stage, run.run).spec
        corpus = planned.find_run("tokenize", spec["tokenize"]).spec["corpus"]
    except UserError:
        return None, []
    return spec, [workflow.datasets[name] for name in corpus]
