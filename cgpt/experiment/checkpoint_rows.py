"""Rows of models.yaml that name a checkpoint: what they may say, and the model that its config.json describes."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import yaml

from cgpt.data import checkpoint_files
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment.entries import Workflow
from cgpt.experiment.written import BASE
from cgpt.files.csv_file import read_csv
from cgpt.files.json_object import read_object
from cgpt.files.layers import Layer, file_of, shipped_file
from cgpt.files.user_files import read_text
from cgpt.files.whole import write_whole
from cgpt.files.yaml_file import Keys, YamlFile
from cgpt.model.config import from_json
from cgpt.spec import CHECKPOINT_COMMIT, HUB_NAME, Model, PublishedModel

PINS = "workflows/pins.yaml"
PUBLISHED = "results/reference/published.csv"
ABOUT_PINS = "# Commits of models of the hub, by name; `cgpt pin <row of models.yaml>` writes them.\n"
KEY = "checkpoint"
ORIGINS = ("hub", "files", "path")
SHAPE = {f.name for f in fields(Model)} - {"name"}


def note_shape(row: Mapping[str, object], written: Mapping[str, object], keys: Keys, file: YamlFile) -> None:
    """Note keys of a shape beside a checkpoint, whose config.json says what they are: those that are `written`, and
    those that the whole row has from its base."""
    shape = [key for key in row if key in SHAPE]
    for key in (key for key in shape if key in written):
        file.problem((*keys, key), f"stands beside `{KEY}`, whose config.json says it; leave it out")
    if of_base := [key for key in shape if key not in written]:
        file.problem((*keys, BASE), f"has a shape (`{of_base[0]}`), and config.json of the `{KEY}` says it; leave it "
                     "out")  # fmt: skip


def check(row: PublishedModel, root: Path, keys: Keys, file: YamlFile) -> None:
    """Note what is wrong with a row that names a checkpoint: one origin, a folder that exists, names of files."""
    where, keys = row.checkpoint, (*keys, KEY)
    given = [key for key in ORIGINS if getattr(where, key)]
    if len(given) != 1:
        named = " and ".join(f"`{key}`" for key in given) or "no origin"
        file.problem(keys, f"has {named}; write exactly one of " + ", ".join(f"`{key}`" for key in ORIGINS))
    if where.revision and not where.hub:
        file.problem((*keys, "revision"), "is a commit of the hub, and there is no `hub:`; leave it out")
    if where.path is not None and not (root / Path(where.path).expanduser()).is_dir():
        file.problem((*keys, "path"), f"there is no folder {where.path}; write a path from the study's folder")
    names = [file_.url.partition("?")[0].rpartition("/")[2] for file_ in where.files]
    if where.files and checkpoint_files.CONFIG not in names:
        file.problem((*keys, "files"), f"has no {checkpoint_files.CONFIG}; name it, the weights and the tokenizer")
    if twice := sorted({name for name in names if names.count(name) > 1 or not name.strip(".")}):
        file.problem((*keys, "files"), f"has several files, or none, of the name '{twice[0]}'; write one address each")


def pinned(row: PublishedModel, pins: Mapping[str, str]) -> PublishedModel:
    """The row with the commit that is pinned for it, where it has none itself."""
    where = row.checkpoint
    if where.hub is None or where.revision is not None or where.hub not in pins:
        return row
    return replace(row, checkpoint=replace(where, revision=pins[where.hub]))


def model_of(row: PublishedModel, root: Path, file: str) -> Model:
    """The model that the checkpoint's config.json describes. Raises UserError, which names the row's `file`, where that
    is not here, where it is not known which commit is meant, and for a model that is not this GPT."""
    where = f"{file}: models.{row.name}.{KEY}"
    if row.checkpoint.hub is not None and row.checkpoint.revision is None:
        raise UserError(f"{where}.revision: is not known yet; run `cgpt pin {row.name}`, which writes it into {PINS}, "
                        "or write `revision: <commit>`")  # fmt: skip
    path = checkpoint_files.find_config(row, root, where)
    return replace(from_json(read_object(path), row.name, str(path)), name=row.name)


def fetch_configs(workflow: Workflow, experiments: Iterable[str], root: Path) -> bool:
    """Fetch the config.json of each checkpoint that these experiments name and that has none here; returns whether
    there was one. Raises UserError."""
    named = {name for experiment in experiments for name in workflow.named.get(experiment, {}).get("models", ())}
    absent = [workflow.published[name] for name in sorted(named & workflow.models.absent.keys())]
    known = [row for row in absent if row.checkpoint.hub is None or row.checkpoint.revision is not None]
    for row in known:
        checkpoint_files.fetch_config(row, root)
    return bool(known)


def published_names(rows: Iterable[PublishedModel]) -> dict[str, str]:
    """By the names of rows, those of the models in published.csv whose printed scores are theirs. Raises UserError for
    one that nothing was printed of."""
    names = {row.name: row.published_as for row in rows if row.published_as is not None}
    if names:
        lines = read_csv(shipped_file(PUBLISHED))
        known = {name for line in lines for name in (line["model"], f"{line['model']}, {line['variant']}")}
        wrong = {row: name for row, name in names.items() if name not in known}
        if wrong:
            raise UserError(*(f"{file_of('models', row)}: models.{row}.published_as: {PUBLISHED} has no '{name}'; "
                              f"{did_you_mean(name, known)}" for row, name in wrong.items()))  # fmt: skip
    return names


def read_pins(layer: Layer) -> dict[str, str]:
    """The commits of the study's pins.yaml, by name of the hub. Raises UserError where it is none."""
    path = layer.root / PINS
    if not path.is_file() or _is_blank(path):
        return {}
    file = layer.read(path)
    for name, commit in file.value.items():
        if problem := HUB_NAME.wrong(str(name)):
            file.problem((name,), problem)
        elif not isinstance(commit, str) or CHECKPOINT_COMMIT.wrong(commit):
            file.problem((name,), f"is no commit; delete the line and run `cgpt pin` again, not {commit!r}")
    if file.problems:
        raise UserError(*file.problems)
    return dict(file.value)


def _is_blank(path: Path) -> bool:
    """Whether a file holds comments at most, as one whose last pin was deleted."""
    try:
        return not any(line.partition("#")[0].strip() for line in read_text(path).splitlines())
    except (OSError, ValueError):  # of which the reader of YAML says what is wrong
        return False


def pins_of(root: Path) -> dict[str, str]:
    """The commits of the pins.yaml of the study at `root`."""
    return read_pins(Layer(root))


def write_pin(hub: str, commit: str, root: Path) -> None:
    """Write the commit of a model of the hub into the study's pins.yaml, in the place of another."""
    pins = pins_of(root) | {hub: commit}
    write_whole(root / PINS, (ABOUT_PINS + yaml.safe_dump(pins)).encode())
