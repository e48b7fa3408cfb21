"""The pages of the reference, made of the code that reads what they list: keys, verbs, columns, variables.

A sentence stands in the code once, as the string below what it is about: a field of a dataclass, or a constant.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from cgpt import __main__, csv_columns, records, spec
from cgpt.bounds import Documents, KeysOf, field_types
from cgpt.cost import cerebras_gpt
from cgpt.experiment.load import VARIED
from cgpt.experiment.written import BASE
from cgpt.hardware import Gpu, Hardware, Resources, Wafer
from cgpt.recipe.generation_config import GenerationConfig
from cgpt.report.tables import SCORE_COLUMNS
from cgpt.scaling.machines import HARDWARE_COLUMNS
from cgpt.scaling.points import RUN_COLUMNS
from cgpt.tasks import definition, keys
from cgpt.training.coordinate_check import CoordinateRow

PACKAGE = Path(spec.__file__).parent
EXTENDED = (spec.Experiment, spec.Model, spec.Dataset, Hardware)  # an entry of these may have a `base`
TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value", dict: "mapping",
         list: "list", types.NoneType: ""}  # fmt: skip
# Units by the end of a name, the longest first.
UNITS = {
    "bytes_per_core": "bytes", "bytes_per_s": "bytes/s", "flops_per_s": "FLOP/s", "tokens_per_s": "tokens/s",
    "per_hour_usd": "US dollars/hour", "energy_j_per_token": "J/token", "energy_j": "J", "usd": "US dollars",
    "_hz": "1/s", "_w": "W", "_s": "s", "seconds": "s", "_bytes": "bytes", "bytes_read": "bytes",
    "bytes_written": "bytes", "mem_mb": "MB", "runtime_minutes": "minutes", "flops": "FLOPs", "flops_6nd": "FLOPs",
    "tokens": "tokens", "seq_len": "tokens", "vocab_size": "tokens", "steps": "steps", "batch_size": "sequences",
    "eval_batches": "batches", "batch_per_system": "sequences", "epochs": "epochs", "patience": "epochs",
    "n_labels": "examples", "max_validation": "examples", "sample": "documents", "n_samples": "documents",
    "n_prompts_cut": "documents", "loss": "nats/token", "bits_per_byte": "bits/byte",
}  # fmt: skip
EXAMPLES = {  # of a page, what a reader may copy
    "models": "models:\n  gpt-20m: {n_layer: 8, d_model: 448, n_head: 7, seq_len: 512}\n",
    "data": "datasets:\n  my_novels: {path: texts/novels, documents: file}\n",
    "experiments": (
        "question: Does a higher learning rate help the small model?\n"
        "data: {corpus: [world], vocab_size: 512}\n"
        "models: [gpt-0.1m]\n"
        "seeds: [0, 1, 2]\n"
        "train: {tokens: 1_000_000, batch_size: 16, lr: 0.004}\n"
        "tasks: [world_topic]\n"
        "vary: {train.lr: [0.002, 0.004, 0.008]}\n"
    ),
    "tasks": (
        "task: reviews\n"
        "dataset_path: json\n"
        "dataset_kwargs: {data_files: {train: my/train.jsonl, validation: my/dev.jsonl, test: my/test.jsonl}}\n"
        "training_split: train\n"
        "validation_split: validation\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        'doc_to_text: "{{text}}\\nSentiment:"\n'
        "doc_to_choice: [negative, positive]\n"
        "doc_to_target: label\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
        "metadata: {version: 1.0}\n"
        "finetune: {lr: 0.0005, epochs: 5}\n"
    ),
    "hardware": "base: cs2\ndescription: four CS-2\nsystems: 4\n",
}


@dataclass(frozen=True)
class Table:
    """The columns of one CSV file, and the classes whose fields say what they are, the nearest first."""

    file: str
    about: str
    columns: Sequence[str]
    classes: Sequence[type]


OF_A_SCORE = (records.Score, records.ScoresRecord, records.FinetuneRecord, csv_columns.OfTables)
TABLES = (
    Table("runs.csv", "results/&lt;experiment&gt;/runs.csv: a row for each trained model.", RUN_COLUMNS,
          (records.FinetuneRecord, csv_columns.OfTables)),
    Table("scores.csv", "results/&lt;experiment&gt;/scores.csv: a row for each metric of each evaluation.",
          SCORE_COLUMNS, OF_A_SCORE),
    Table("hardware.csv", "results/&lt;experiment&gt;/hardware.csv: a row for each model on each machine.",
          HARDWARE_COLUMNS, (records.MeterRecord, csv_columns.OfTables)),
    Table("loss.csv", "Beside each trained model: a row for each optimizer step.", csv_columns.LOSS_COLUMNS,
          (csv_columns.LossRow,)),
    Table("kernels.csv", "Beside each metered run: a row for each kernel, layer and phase of one optimizer step.",
          csv_columns.KERNEL_COLUMNS, (csv_columns.KernelRow,)),
    Table("cerebras-gpt.csv", "Of `forecast-family`: a row for each model on each machine.", cerebras_gpt.COLUMNS,
          (csv_columns.OfFamily, records.MeterRecord)),
    Table("model_fidelity.csv", "Of `calibrate`: a row for each published measurement.", csv_columns.FIDELITY_COLUMNS,
          (csv_columns.FidelityRow,)),
    Table("coordinate_check.csv", "Of `coordinate-check`: a row for each model, step and activation.",
          [field.name for field in fields(CoordinateRow)], (CoordinateRow,)),
)  # fmt: skip
RECORDS = {
    "run.json": (records.FinetuneRecord, "of a pretrained or fine-tuned model"),
    "run.json of a modeled machine": (records.MeterRecord, "what the same training would take there"),
    "run.json of an import": (records.ImportRecord, "of a published model, whose training nobody here knows"),
    "scores.json": (records.ScoresRecord, "of an evaluation; `scores` holds the keys below"),
    "each of its scores": (records.Score, "one metric"),
    "diverged.json": (records.DivergedRecord, "of a training that stopped; it has no run.json"),
}


def pages() -> dict[str, str]:
    """The Markdown of each page by its file's name."""
    return {
        "experiments.md": experiments_page(),
        "models.md": _page("Models", "Rows of workflows/models.yaml, each below its name under `models:`.", "models",
                           [("", "", keys_table(spec.Model)),
                            ("Of published weights", "Instead of a shape.", keys_table(spec.PublishedModel)),
                            _block("checkpoint", spec.Checkpoint), _block("files", spec.CheckpointFile)]),
        "data.md": _page("Data sets", "Entries of workflows/data.yaml, each below its name under `datasets:`.", "data",
                         [("", "", keys_table(spec.Dataset)), _block("files", spec.DataFile), _block("hub", spec.Hub)]),
        "tasks.md": tasks_page(),
        "hardware.md": _page("Hardware profiles", "Files of hardware_profiles/, one a machine.", "hardware", [
            ("", "", keys_table(Hardware)), _block("resources", Resources), _block("wafer", Wafer),
            _block("gpu", Gpu)]),
        "commands.md": commands_page(),
        "results.md": results_page(),
        "environment.md": environment_page(),
    }  # fmt: skip


def experiments_page() -> str:
    """Every key of an experiment, block by block."""
    axes = ", ".join(f"`{axis}`" for axis in varied_keys())
    vary = ("vary", "Axes: a list of values for each of these keys. Every combination is a setting.", axes + "\n")
    blocks = [
        _block("data", spec.Data), _block("train", spec.Train), _block("finetune", spec.Finetune),
        _block("per_model", spec.PerModel), vary,
    ]  # fmt: skip
    return _page("Experiments", "Files of workflows/experiments.", "experiments",
                 [("", "", keys_table(spec.Experiment)), *blocks])  # fmt: skip


def varied_keys() -> list[str]:
    """The keys that `vary:` takes, such as `train.lr`."""
    return [f"{block}.{f.name}" for block, cls in VARIED.items() for f in fields(cls)
            if f.name != "name" and f.name not in getattr(cls, "EXECUTION", ())
            and f"{block}.{f.name}" != "finetune.num_fewshot"]  # fmt: skip


def tasks_page() -> str:
    """Every key of a task, of a group, and of how answers are written."""
    include = f"`{definition.INCLUDE}`: {constant_sentences()[definition.INCLUDE]}"
    generation = ("`until` holds texts that end an answer, `max_gen_toks` is its length in tokens (default 256, or "
                  "half of the window if that is less).")  # fmt: skip
    return _page("Tasks", f"Files of workflows/tasks, in lm-evaluation-harness's keys and a few of ours. {include}",
                 "tasks", [
                     ("Keys of ours", "", keys_table(keys.OurKeys)),
                     ("Keys of lm-evaluation-harness", "", keys_table(keys.LmEvalKeys)),
                     _block("finetune", spec.Finetune),
                     ("generation_kwargs", generation, keys_table(GenerationConfig, {"num_return_sequences"})),
                     ("Groups", inspect.getdoc(keys.GroupKeys) or "", keys_table(keys.GroupKeys)),
                 ])  # fmt: skip


def commands_page() -> str:
    """Every verb with its arguments."""
    intro = ("`cgpt <verb>`, or `python -m cgpt <verb>`. With `--json` each verb prints one JSON object on standard "
             "output.")  # fmt: skip
    return _page("Commands", intro, None, [_verb(*verb) for verb in verbs()])


def verbs() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, sentence and parser of each verb."""
    for action in __main__.make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, parser in action.choices.items():
                yield name, helps.get(name, ""), parser


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments of a verb but for `--help` and `--json`, which all have."""
    return [each for each in parser._actions if each.dest not in ("help", "json") and each.help != argparse.SUPPRESS]


def _verb(name: str, sentence: str, parser: argparse.ArgumentParser) -> tuple[str, str, str]:
    rows = [(f"`{_spelt(each)}`", each.help or "", _needed(each))
            for each in arguments(parser)]  # fmt: skip
    example = f"\n```text\n{parser.epilog.removeprefix('example: ')}\n```\n" if parser.epilog else ""
    return name, _sentence(sentence), (_table(("argument", "meaning", "default"), rows) if rows else "") + example


def _needed(action: argparse.Action) -> str:
    """The default of an argument, or that it is required."""
    is_required = action.required and action.nargs not in (argparse.OPTIONAL, argparse.ZERO_OR_MORE)
    return "required" if is_required else _written(action.default, None)


def _spelt(action: argparse.Action) -> str:
    """An argument as it is written: `--tokens TOKENS`."""
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.choices:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return name
    return action.option_strings[-1] + (f" {name if action.choices else name.upper()}" if action.nargs != 0 else "")


def results_page() -> str:
    """Every column of every CSV file, and every key of the records beside them."""
    tables = [(table.file, table.about, columns_table(table)) for table in TABLES]
    of_records = [(name, f"{about[0].upper()}{about[1:]}.", keys_table(cls, defaults=False))
                  for name, (cls, about) in RECORDS.items()]  # fmt: skip
    intro = "What a run and an experiment leave: tables as CSV, records as JSON. An empty cell means: not known."
    return _page("Results", intro, None, [*tables, *of_records])


def environment_page() -> str:
    """Every environment variable."""
    rows = [(f"`{name}`", sentence) for name, sentence in sorted(constant_sentences().items())
            if name.startswith(("CGPT_", "HF_"))]  # fmt: skip
    return _page("Environment variables", "Empty ones count as not set.", None,
                 [("", "", _table(("variable", "meaning"), rows))])  # fmt: skip


def sentences(cls: type) -> dict[str, str]:
    """The string below each field of a dataclass, those of its bases too, on one line."""
    by_field: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            by_field |= _strings_below(tree.body)  # type: ignore[attr-defined]
    return by_field


@cache
def constant_sentences(package: Path = PACKAGE) -> dict[str, str]:
    """The string below each constant of the package that is text, by that text: keys and environment variables."""
    by_value: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        values = {node.targets[0].id: node.value.value for node in body
                  if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                  and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)}  # fmt: skip
        by_value |= {values[name]: text for name, text in _strings_below(body).items() if name in values}
    return by_value


def _strings_below(body: Sequence[ast.stmt]) -> dict[str, str]:
    """The string that follows each assignment of a block, by the name that is assigned."""
    by_name = {}
    for node, below in pairwise(body):
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(target, ast.Name) and isinstance(text, str):
            by_name[target.id] = " ".join(text.split())
    return by_name


def keys_table(cls: type, hidden: Iterable[str] = ("name",), defaults: bool = True) -> str:
    """A table of a dataclass's fields: name, type and unit, default, bounds, sentence. Raises KeyError for a field
    without a sentence."""
    texts, hints = sentences(cls), field_types(cls)
    rows = [(f"`{BASE}`", constant_sentences()[BASE], "text", "", "")] if cls in EXTENDED else []
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name in hidden or get_origin(f.type) is ClassVar:
            continue
        words = kind(hints[f.name], f.name)
        words = f"[{words}](#{f.name})" if words.endswith(("block", "blocks")) else words
        row = (f"`{f.name}`", texts[f.name], words, _default(f), ", ".join(bounds(hints[f.name])))
        rows.append(row if defaults else row[:3])
    header = ("key", "meaning", "type", "default", "allowed")
    free = ", ".join(f"`{name}`" for name in getattr(cls, "EXECUTION", ()))
    return _table(header if defaults else header[:3], rows) + (
        f"\nMay change without a rerun: {free}.\n" if free else ""
    )


def columns_table(table: Table) -> str:
    """A table of a CSV file's columns: name, type and unit, sentence. Raises KeyError for a column without one."""
    rows = []
    for column in table.columns:
        cls = next((cls for cls in table.classes if column in field_types(cls)), None)
        if cls is None:
            raise KeyError(f"{table.file}: {column}")
        rows.append((f"`{column}`", sentences(cls)[column], kind(field_types(cls)[column], column)))
    return _table(("column", "meaning", "type"), rows)


def kind(hint: Any, name: str = "") -> str:
    """The words for a type, with the unit that the name ends in: `number, s`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = {KeysOf: "mapping", Documents: "number"}.get(type(args[1])) or kind(args[0])
    elif origin in (Union, types.UnionType):
        words = " or ".join(dict.fromkeys(filter(None, (kind(arg) for arg in args))))
    elif origin in (tuple, list):
        words = f"list of {_several(kind(args[0]))}"
    elif origin is Mapping:
        words = f"mapping of {_several(kind(args[0]))} to {_several(kind(args[1]))}"
    elif is_dataclass(hint):
        words = "block"
    else:
        words = TYPES[hint]
    unit = next((UNITS[end] for end in sorted(UNITS, key=len, reverse=True) if name.endswith(end)), "")
    return f"{words}, {unit}" if unit and "number" in words else words


def _several(words: str) -> str:
    return f"{words}s" if words.endswith(("number", "block", "value", "list", "mapping")) else words


def bounds(hint: Any) -> Iterator[str]:
    """The words of a type's constraints, and then of its parts'."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from (constraint.allowed() for constraint in args[1:])
        yield from bounds(args[0])
    elif origin in (Union, types.UnionType):
        for arg in args:
            yield from bounds(arg)
    elif origin is tuple:
        yield from (f"each {words}" for words in bounds(args[0]))
    elif origin is Mapping:
        yield from (f"keys {words}" for words in bounds(args[0]))
        yield from (f"values {words}" for words in bounds(args[1]))


def _default(f: Field) -> str:
    if f.default is MISSING and f.default_factory is MISSING:
        return "required"
    return _written(f.default, f.default_factory)


def _written(default: Any, factory: Any) -> str:
    """A default as YAML has it; nothing where it is empty."""
    if default in (None, (), "", MISSING, argparse.SUPPRESS) or is_dataclass(default) or callable(default):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (tuple, list)):
        return f"`[{', '.join(map(str, default))}]`"
    if isinstance(default, str):
        return f"`{default}`" if default.strip() else f"`{default!r}`"
    return f"{default:,}" if isinstance(default, int) and default >= 10**6 else f"{default}"


def _block(name: str, cls: type) -> tuple[str, str, str]:
    return name, " ".join((inspect.getdoc(cls) or "").split()), keys_table(cls)


def _sentence(phrase: str) -> str:
    """A phrase as a sentence of its own."""
    return phrase[:1].upper() + phrase[1:] + ("" if phrase.endswith((".", "?")) else ".")


def _page(title: str, intro: str, example: str | None, sections: Iterable[tuple[str, str, str]]) -> str:
    """A page: title, words, an example, and sections of heading, words and table."""
    parts = [f"# {title}\n", f"{intro}\n"]
    parts += [f"```yaml\n{EXAMPLES[example]}```\n"] if example else []
    for heading, words, body in sections:
        parts += [part for part in (f"## {heading}\n" if heading else "", f"{words}\n" if words else "", body) if part]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    rule = " | ".join("---" for _ in header)
    return "".join(f"| {line} |\n" for line in (" | ".join(header), rule, *lines))
