"""Checks of what the keys of one entry say of each other: of a model's row, a data set or a hardware profile."""

from pathlib import Path

from cgpt.data.documents import wrong_kind
from cgpt.files.yaml_file import Keys, YamlFile
from cgpt.hardware import Hardware, unsupported
from cgpt.spec import Dataset, Model

ORIGINS = ("builtin", "path", "files", "hub")


def uneven_heads(model: Model) -> str | None:
    """The problem of a width that a model's heads cannot share, and what to write; None where they can."""
    width, heads = model.d_model, model.n_head
    if width % heads == 0:
        return None
    near = [multiple for multiple in (width // heads * heads, (width // heads + 1) * heads) if multiple]
    return f"d_model {width} is not divisible by n_head {heads}; write e.g. {' or '.join(map(str, near))}"


def check_dataset(entry: Dataset, root: Path, keys: Keys, file: YamlFile) -> None:
    """Note what is wrong with an entry of data.yaml: exactly one origin, a local path that exists, and a way to tell
    documents apart."""
    origins = [key for key in ORIGINS if getattr(entry, key)]
    if len(origins) != 1:
        named = " and ".join(f"`{key}`" for key in origins) or "no origin"
        file.problem(keys, f"has {named}; write exactly one of " + ", ".join(f"`{key}`" for key in ORIGINS))
    if not entry.builtin and (*keys, "seed") in file.lines:
        file.problem((*keys, "seed"), "is of a `builtin` data set, and this one is none; leave it out")
    if entry.path:
        _check_local(entry.path, root, (*keys, "path"), file)
    if problem := wrong_kind(entry.documents):
        file.problem((*keys, "documents"), problem)
    for i, part in enumerate(entry.files):
        if part.url and not part.sha256:
            file.problem((*keys, "files", i, "sha256"), "is missing, and a download needs it; write the file's SHA-256")


def _check_local(path: str, root: Path, keys: Keys, file: YamlFile) -> None:
    """A local file or folder. One that holds the project would be copied into itself."""
    try:
        source = (root / Path(path).expanduser()).resolve()
        exists = source.exists()
    except (OSError, RuntimeError):  # a name that is too long, a loop of links, no such user
        exists = False
    if not exists:
        file.problem(keys, f"there is no {path}; write a path from the study's folder")
    elif not source.is_file() and not source.is_dir():
        file.problem(keys, f"{path} is neither a file nor a folder; write the path of one")
    elif source in [root.resolve(), *root.resolve().parents]:
        file.problem(keys, f"{path} holds this study itself; write a folder that holds texts alone")


def check_hardware(profile: Hardware, file: YamlFile) -> None:
    """Note what is wrong with a hardware profile, and what the cost model needs of one that is modeled."""
    if profile.sustained_on and profile.sustained_flops_per_s is None:
        file.problem(("sustained_on",), "says where nothing was measured; write sustained_flops_per_s, or remove it")
    if profile.timing == "measured" and (problem := unsupported(profile)):
        file.problem((problem[0],), problem[1])
    if profile.wafer and profile.gpu:
        file.problem(("gpu",), "stands beside `wafer`; write one of the two")
    for block in ("wafer", "gpu"):
        if constants := getattr(profile, block):
            precision = getattr(constants, "precision", profile.dtype)
            for key in ("memory_bytes", "bandwidth_bytes_per_s"):
                if getattr(profile, key) is None:
                    file.problem((key,), f"is missing, and `{block}` needs it; write `{key}: <a number>`")
            if precision not in profile.peak_flops_per_s:
                file.problem(("peak_flops_per_s", precision), f"is missing, and `{block}` needs it; write "
                             f"`peak_flops_per_s: {{{precision}: <a number>}}`")  # fmt: skip
