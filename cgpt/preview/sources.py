"""The files of a data set where they are now: fetched, in the mirror, or in the study's own folder."""

from pathlib import Path

from cgpt.data.content import fetched_files, local_files
from cgpt.errors import UserError
from cgpt.experiment.chain import is_of_entry
from cgpt.experiment.plan import dataset_identity
from cgpt.experiment.run import last_file
from cgpt.files.json_object import read_object
from cgpt.spec import Dataset
from cgpt.stages.fetch import find_mirrored_file, find_mirrored_split


def find_files(dataset: Dataset) -> dict[str, Path] | None:
    """Paths of a data set's files by the names that they are fetched under; None where they are not here.

    A builtin data set has no files until it is made, which takes no time.
    """
    if dataset.builtin is not None:
        return {}
    if dataset.path is not None:
        return {path.name.removesuffix(".gz"): path for path in local_files(dataset.path)}
    return _find_fetched(dataset) or _find_mirrored(dataset)


def file_names(dataset: Dataset) -> list[str]:
    """Names under which the files of `files` and the splits of `hub` are fetched."""
    splits = dataset.hub.splits if dataset.hub else ()
    return [Path(file.path).name.removesuffix(".gz") for file in dataset.files] + [f"{split}.jsonl" for split in splits]


def _find_fetched(dataset: Dataset) -> dict[str, Path] | None:
    record = last_file("fetch", dataset.name)
    try:
        paths = {file["name"]: record.with_name(file["name"]) for file in fetched_files(record)}
        is_current = is_of_entry(read_object(record), dataset_identity(dataset))
    except UserError:
        return None
    return paths if is_current and all(path.is_file() for path in paths.values()) else None


def _find_mirrored(dataset: Dataset) -> dict[str, Path] | None:
    copies = [find_mirrored_file(file) for file in dataset.files]
    copies += [find_mirrored_split(dataset.hub, split) for split in dataset.hub.splits] if dataset.hub else []
    paths = {name: copy for name, copy in zip(file_names(dataset), copies) if copy}
    return paths if len(paths) == len(copies) else None
