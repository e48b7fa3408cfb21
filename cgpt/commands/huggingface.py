"""The verbs `import-hf`, `export-hf` and `pin`: checkpoints from and to folders of transformers, commits of the hub."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.data.checkpoint_files import fetch_checkpoint, resolve_commit
from cgpt.data.content import verified
from cgpt.data.special_tokens import end_tokens
from cgpt.data.tokenizer import read_tokenizer
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import checkpoint_rows, load, plans
from cgpt.files.layers import file_of
from cgpt.files.whole import whole_folder
from cgpt.recipe import flops
from cgpt.records import PretrainRecord, read_run, read_scores
from cgpt.spec import Dataset, PublishedModel

if TYPE_CHECKING:
    from cgpt.checkpoint.model_card import Facts


def add_verbs(add_verb: Any) -> None:
    """Add the verbs to a command line."""
    verb = add_verb("import-hf", import_hf, "make a checkpoint of a published model", group="models",
                    example="gpt2 --out checkpoints/gpt2")  # fmt: skip
    verb.add_argument("source", help="a folder as transformers has it, or a row of models.yaml with a `checkpoint:`, "
                                     "which is fetched")  # fmt: skip
    verb.add_argument("--out", type=Path, required=True, metavar="CHECKPOINT", help="a new folder")
    verb = add_verb("export-hf", export_hf, "write a checkpoint so that transformers opens it", group="models",
                    example="results/runs/pretrain/RUN --out my-model")  # fmt: skip
    verb.add_argument("checkpoint", type=Path, help="the folder of a model and its tokenizer")
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    verb.add_argument("--no-verify", action="store_true",
                      help="export files that are not those that the checkpoint's run wrote")  # fmt: skip
    verb = add_verb("pin", pin, "write the commit that a model of the hub is at into workflows/pins.yaml",
                    group="models", example="cerebras-gpt-111m-published")  # fmt: skip
    verb.add_argument("row", help="a row of models.yaml whose `checkpoint:` names a model of the hub")
    verb.add_argument("--revision", default="main", metavar="BRANCH", help="a branch or a tag there; default: main")


def pin(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The hub's name of a row's model and its commit, which is written. Raises UserError."""
    workflow, name = load.read_workflow(Path.cwd()), arguments.row
    row = _row(name, workflow)
    if row is None or row.checkpoint.hub is None:
        names = [each for each, known in workflow.published.items() if known.checkpoint.hub]
        raise UserError(f"pin: '{name}' is no row of models.yaml with a model of the hub; {did_you_mean(name, names)}")
    hub, written = row.checkpoint.hub, checkpoint_rows.pins_of(workflow.root).get(row.checkpoint.hub)
    if row.checkpoint.revision not in (None, written):
        raise UserError(f"{file_of('models', name)}: models.{name}.checkpoint.revision: is {row.checkpoint.revision} "
                        "already; write another there, or remove it first")  # fmt: skip
    commit = resolve_commit(hub, arguments.revision, f"{file_of('models', name)}: models.{name}.checkpoint.hub")
    checkpoint_rows.write_pin(hub, commit, workflow.root)
    return {"hub": hub, "revision": commit}, f"{checkpoint_rows.PINS}: {hub}: {commit}"


def import_hf(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write a folder of Hugging Face transformers, or of a row's checkpoint, as one of ours. Raises UserError."""
    from cgpt import checkpoint
    from cgpt.checkpoint import transformers_folder as hf_folder

    folder = _source(arguments.source)
    config, params, tokenizer = hf_folder.read(folder)
    if not Path(arguments.source).is_dir():
        config = replace(config, name=arguments.source)  # a row's files may lie in a folder called by a commit
    with whole_folder(arguments.out) as part:
        ends = end_tokens(folder, tokenizer, config.vocab_size)
        hf_folder.write_tokenizer(part, tokenizer, ends, config.seq_len)
        checkpoint.save(part, config, params, part / "tokenizer.json")
    n = flops.n_parameters(config)
    answer = {"checkpoint": str(arguments.out), "model": config.name, "n_parameters": n}
    return answer, f"{arguments.out}: {config.name}, {n:,} parameters"


def _source(source: str) -> Path:
    """A folder that is there, or that of the checkpoint which a row names, fetched where it is not here. Outside a
    study the rows are cgpt's."""
    if Path(source).is_dir():
        return Path(source)
    workflow = load.read_anywhere()
    row = _row(source, workflow)
    if row is None:
        raise UserError(f"import-hf: there is no folder '{source}', and no row of models.yaml of that name with a "
                        f"`checkpoint:`; {did_you_mean(source, workflow.published)}")  # fmt: skip
    if row.checkpoint.hub is not None and row.checkpoint.revision is None:
        raise UserError(*workflow.models.problems(source))
    return fetch_checkpoint(row, workflow.root)


def _row(name: str, workflow: load.Workflow) -> PublishedModel | None:
    """The row of that name that names a checkpoint; None where there is none. Raises UserError for a wrong one."""
    if name in workflow.models.broken:
        raise UserError(*workflow.models.broken[name])
    return workflow.published.get(name)


def export_hf(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write a checkpoint as a folder that transformers opens, with a model card of its run. Raises UserError."""
    from cgpt import checkpoint
    from cgpt.checkpoint import transformers_folder as hf_folder
    from cgpt.checkpoint.model_card import model_card

    folder: Path = arguments.checkpoint
    if not arguments.no_verify:
        verified(folder)
    config = checkpoint.read_config(folder)
    params = checkpoint.read_params(folder, config)
    tokenizer = read_tokenizer(folder, config.vocab_size)
    ends, facts = end_tokens(folder, tokenizer, config.vocab_size), facts_of(folder)
    hf_folder.write(arguments.out, config, params, tokenizer, ends, model_card(config, facts))
    n, n_evaluations = flops.n_parameters(config), len(facts.scores)
    answer = {"folder": str(arguments.out), "model": config.name, "n_parameters": n, "n_evaluations": n_evaluations}
    return answer, f"{arguments.out}: {config.name}, {n:,} parameters; evaluations in its model card: {n_evaluations}"


def facts_of(folder: Path) -> Facts:
    """Facts that lie beside a checkpoint: its run.json, the evaluations that name it, and its experiment's settings."""
    from cgpt.checkpoint.model_card import Facts

    if not (folder / "run.json").is_file():
        return Facts()
    run = read_run(folder / "run.json")
    beside = sorted((folder.resolve().parent.parent / "evaluate").glob("*/scores.json"))
    scores = [each for each in map(read_scores, beside) if (each.checkpoint, each.stage) == (run.run, run.stage)]
    return Facts(run, *_spec(run), scores)


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
