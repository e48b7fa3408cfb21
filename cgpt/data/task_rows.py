"""The data files of a task, as rows: JSON, CSV or TSV, Parquet, or plain text. No network, no cache folder.

Files, splits and options are written as for the `datasets` library. An empty CSV cell is empty text here, not 'nan'.
"""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import re
import sys
import zlib
from pathlib import Path
from typing import Any

from cgpt.errors import UserError, did_you_mean, first_line
from cgpt.files.digest import sha256_of
from cgpt.files.encoding import without_lone_surrogates

Row = dict[str, Any]
SLICE = re.compile(r"(?P<name>[^\[]+)\[(?P<start>\d*%?):(?P<stop>\d*%?)\]")
ONE_SPLIT = "train"  # what `datasets` calls the split of files that are given without one
WILDCARDS = frozenset("*?[")
UNPACK = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
# Options that say where the files are, or change no row of a local file.
NOT_OF_A_FORMAT = ("data_files", "data_dir", "trust_remote_code", "revision", "streaming", "chunksize")


def in_files(task: dict[str, Any]) -> bool:
    """Whether the task's data are files that this module reads: of a data set, or of the study's own folder."""
    return task.get("data") is not None or task.get("dataset_path") in tuple(READERS)


def split_files(task: dict[str, Any], where: str) -> dict[str, list[str]]:
    """The file names or patterns of each split, in every form that `datasets` takes. Raises UserError.

    One name, or a list of names, is the split `train`; a mapping or a list of {split, path} names its splits.
    """
    options = task.get("dataset_kwargs") or {}
    given = options.get("data_files")
    if isinstance(given, list) and given and all(isinstance(part, dict) for part in given):
        if any(set(part) != {"split", "path"} for part in given):
            raise UserError(f"{where}: dataset_kwargs.data_files: an entry is not {{split: <name>, path: <file>}}")
        given = {part["split"]: part["path"] for part in given}
    splits = given if isinstance(given, dict) else {ONE_SPLIT: given} if given else {}
    listed = {str(split): names if isinstance(names, list) else [names] for split, names in splits.items()}
    if not listed or not all(names and all(isinstance(name, str) for name in names) for names in listed.values()):
        raise UserError(f"{where}: dataset_kwargs.data_files: is missing or no file; write one line `<split>: <file>` "
                        "per split")  # fmt: skip
    below = options.get("data_dir")
    return {split: [f"{below}/{name}" if below else name for name in names] for split, names in listed.items()}


def read_split(task: dict[str, Any], data_root: Path, split: str, where: str) -> list[Row]:
    """Return the rows of one split of a task.

    `split` is one of the task's `dataset_kwargs.data_files`, or a slice of one: `train[:90%]`, `train[5000:]`.
    The files are those of the data set in `data_root`, or, without `data`, of the study's folder, the current one.
    Raises UserError (each line starts with `where`) for a split or file that is missing, empty, or does not parse.
    """
    files = split_files(task, where)
    sliced = SLICE.fullmatch(split)
    name = sliced["name"] if sliced else split
    if name not in files:
        hint = f"files without a split are '{ONE_SPLIT}'" if list(files) == [ONE_SPLIT] else did_you_mean(name, files)
        raise UserError(f"{where}: dataset_kwargs.data_files: has no split '{name}'; {hint}")
    reader = READERS.get(task.get("dataset_path", ""))
    if reader is None:
        raise UserError(
            f"{where}: dataset_path: '{task.get('dataset_path')}' is not a file format; write {', '.join(READERS)}"
        )
    options = {key: value for key, value in task["dataset_kwargs"].items() if key not in NOT_OF_A_FORMAT}
    folder = data_root / task["data"] if task.get("data") is not None else Path()
    rows: list[Row] = []
    for path in find_files(files[name], folder, task.get("data"), f"{where}: dataset_kwargs.data_files.{name}"):
        rows += reader(_content(path, task, where), options, f"{where}: {path.name}")
    if sliced:
        bounds = [_bound(sliced[end], len(rows), default) for end, default in (("start", 0), ("stop", len(rows)))]
        if max(bounds) > len(rows):
            raise UserError(f"{where}: split '{split}': '{name}' has {len(rows)} documents; write bounds within them")
        rows = rows[slice(*bounds)]
    if not rows:
        raise UserError(f"{where}: split '{split}' holds no documents; name a file or a slice that is not empty")
    return rows


def find_files(names: list[str], folder: Path, data: str | None, where: str) -> list[Path]:
    """The files of `folder` that the names and patterns (`*`, `?`, `[]`, `**`) mean, each pattern's in order.

    A data set's files lie in it unpacked, so that `test.jsonl.gz` is its `test.jsonl`. Raises UserError.
    """
    paths: list[Path] = []
    problems = []
    for name in names:
        if data is not None and (Path(name).is_absolute() or ".." in Path(name).parts):
            problems.append(f"{where}: '{name}' is no file of data set '{data}'; write a name within it")
            continue
        try:
            path = next((p for p in (folder / name, folder / name.removesuffix(".gz")) if p.is_file()), None)
            matching = [path] if path else _matching(folder, name) if WILDCARDS & set(name) else []
        except (OSError, ValueError) as error:  # no name of a file, or no pattern
            problems.append(f"{where}: '{name[:60]}' names no file ({str(error)[:60]}); correct it")
            continue
        paths += matching
        if not matching:
            whose = f"data set '{data}' has no file '{name}'" if data is not None else \
                f"the study's folder has no file '{name}', and `data` names no data set"  # fmt: skip
            problems.append(f"{where}: {whose}; {did_you_mean(Path(name).name, _present((folder / name).parent))}")
    if problems:
        raise UserError(*problems)
    return paths


def local_hashes(task: dict[str, Any], root: Path, where: str) -> dict[str, str]:
    """SHA-256 of each file of the study's folder `root` that the task reads, by its path there. Raises UserError."""
    hashes: dict[str, str] = {}
    problems: list[str] = []
    for split, names in split_files(task, where).items():
        try:
            for path in find_files(names, root, None, f"{where}: dataset_kwargs.data_files.{split}"):
                name = path.relative_to(root) if path.is_relative_to(root) else path
                hashes[name.as_posix()] = sha256_of(path)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return dict(sorted(hashes.items()))


def _matching(folder: Path, pattern: str) -> list[Path]:
    base = Path(Path(pattern).anchor) if Path(pattern).is_absolute() else folder
    paths = base.glob(Path(pattern).relative_to(base).as_posix() if base is not folder else pattern)
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))


def _present(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []


def _bound(text: str, n_rows: int, default: int) -> int:
    """A share is rounded to the nearest document, as `datasets` does."""
    if not text:
        return default
    return round(n_rows * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def _content(path: Path, task: dict[str, Any], where: str) -> bytes:
    """The file's bytes, unpacked; refused where they are not those that the run was planned with."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: {path.name}: cannot be read ({error.strerror}); check its permissions") from None
    planned = task.get("files_sha256", {}).get(path.as_posix())
    if planned not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(f"{where}: {path}: has changed since this run was planned; ask for the table again")
    unpack = next((function for magic, function in UNPACK.items() if content.startswith(magic)), None)
    try:
        return unpack(content) if unpack else content
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{where}: {path.name}: cannot be unpacked ({error}); get the file again") from None


def _known(options: Row, known: tuple[str, ...], where: str) -> None:
    if unknown := [key for key in options if key not in known]:
        raise UserError(*(f"{where}: dataset_kwargs.{key}: is no option of this format; {did_you_mean(key, known)}"
                          for key in unknown))  # fmt: skip


def _text(content: bytes, options: Row, where: str) -> str:
    """The text in its encoding, without a byte order mark."""
    encoding = options.get("encoding") or "utf-8"
    try:
        return content.decode(encoding, options.get("encoding_errors") or "strict").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{where}: line {line}: is not {encoding} text ({error.reason}); convert the file to UTF-8, or "
                        "write dataset_kwargs.encoding") from None  # fmt: skip
    except (LookupError, TypeError):
        options_text = f"{encoding!r}, with encoding_errors {options.get('encoding_errors')!r},"
        raise UserError(f"{where}: dataset_kwargs.encoding: {options_text} is not known; write e.g. utf-8") from None


def _read_json(content: bytes, options: Row, where: str) -> list[Row]:
    """JSON lines, or one list of objects; with `field`, one object that holds the list under that key."""
    _known(options, ("field", "encoding", "encoding_errors"), where)
    text = _text(content, options, where)
    field = options.get("field")
    if not isinstance(field, str | None):
        raise UserError(f"{where}: dataset_kwargs.field: {field!r} is no key; write the name of the list of objects")
    if field is not None or text.lstrip().startswith("["):
        entries = _parse(text, where if field is None else f"{where}: field '{field}'")
        if field is not None:
            entries = entries.get(field) if isinstance(entries, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{where}: field '{field}': holds no list; give one object with a list of objects there")
        numbered, unit = list(enumerate(entries, 1)), "entry"
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        numbered, unit = [(number, _parse(line, f"{where}: line {number}")) for number, line in lines], "line"
    for number, row in numbered:
        if not isinstance(row, dict) and not (unit == "entry" and isinstance(row, str)):
            raise UserError(f"{where}: {unit} {number}: is not an object; write one JSON object per {unit}")
    rows = [row if isinstance(row, dict) else {"text": row} for _, row in numbered]
    return _without_surrogates(rows, where) if "\\ud" in text.lower() else rows


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as error:
        hint = "write one JSON object per line, or a list of objects"
        raise UserError(f"{where}: {error}; {hint}") from None
    except RecursionError:
        raise UserError(f"{where}: is nested too deeply; write flat objects") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON, write null or text")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), -float("inf")):
        raise ValueError(f"{text} is larger than a number can be, write text")
    return number


def _without_surrogates(rows: list[Row], where: str) -> list[Row]:
    """Halves of a character that an escape left alone are no text; each becomes U+FFFD, and how many is said."""
    count = 0

    def mend(value: Any) -> Any:
        nonlocal count
        if isinstance(value, str):
            value, n = without_lone_surrogates(value)
            count += n
        elif isinstance(value, list):
            value = [mend(item) for item in value]
        elif isinstance(value, dict):
            value = {mend(key): mend(item) for key, item in value.items()}
        return value

    mended = mend(rows)
    if count:
        print(f"{where}: {count} lone surrogates, which are no text, were read as U+FFFD", file=sys.stderr)
    return mended


def _read_csv(content: bytes, options: Row, where: str) -> list[Row]:
    """CSV by pandas, with the option names of the `csv` loader of `datasets`."""
    import pandas

    text = _text(content, options, where)
    if "iterator" in options:
        raise UserError(f"{where}: dataset_kwargs.iterator: gives no rows; leave it out")
    arguments = {"keep_default_na": False, "na_filter": False, "low_memory": False} | options
    for key in ("encoding", "encoding_errors"):
        arguments.pop(key, None)
    if "column_names" in arguments:
        arguments["names"] = arguments.pop("column_names")
    if arguments.get("engine") in ("python", "pyarrow") or arguments.get("skipfooter"):
        del arguments["low_memory"]
    hint = "check dataset_kwargs (sep, names, quoting)"
    try:
        table = pandas.read_csv(io.StringIO(text, newline=""), **arguments)
        if "index_col" not in arguments and not isinstance(table.index, pandas.RangeIndex):
            raise ValueError("its lines have more cells than its header")
    except pandas.errors.EmptyDataError:
        return []
    except (ValueError, TypeError, IndexError, csv.Error) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}; {hint}") from None
    table.columns = [str(column) for column in table.columns]
    values = table.astype(object).where(table.notna(), None)
    return [dict(zip(table.columns, row)) for row in values.itertuples(index=False, name=None)]


def _read_parquet(content: bytes, options: Row, where: str) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    _known(options, ("columns",), where)
    try:
        return parquet.read_table(io.BytesIO(content), columns=options.get("columns")).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{where}: is not Parquet ({first_line(error)}); get the file again") from None


def _read_text(content: bytes, options: Row, where: str) -> list[Row]:
    """One row {"text": ...} per line, paragraph or file that is not empty."""
    _known(options, ("encoding", "encoding_errors", "sample_by", "keep_linebreaks"), where)
    text = _text(content, options, where).replace("\r\n", "\n").replace("\r", "\n")
    by = options.get("sample_by", "line")
    if by not in ("line", "paragraph", "document"):
        raise UserError(f"{where}: dataset_kwargs.sample_by: '{by}' is unknown; write line, paragraph or document")
    parts = {"line": text.split("\n"), "paragraph": text.split("\n\n"), "document": [text]}[by]
    end = "\n" if by == "line" and options.get("keep_linebreaks") else ""
    return [{"text": part + end} for part in parts if part.strip()]


READERS = {"json": _read_json, "csv": _read_csv, "parquet": _read_parquet, "text": _read_text}
