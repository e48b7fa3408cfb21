"""Data sets of the Hugging Face hub, by name and commit, through the `datasets` library and its cache."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cgpt.errors import UserError, first_line
from cgpt.imports import import_when_used
from cgpt.spec import Hub

if TYPE_CHECKING:
    import datasets


def prepare_environment(data_root: Path, online: bool = False) -> None:
    """Keep Hugging Face's libraries offline, quiet and out of the home folder; call before `lm_eval` is imported.

    What that imports and only some tasks use waits: `datasets`, with pandas and pyarrow, is for data sets of the hub,
    `requests` for models behind a server, and of its loggers, all of which send results elsewhere, none.
    """
    os.environ.setdefault("HF_HOME", str((data_root / "_hub").absolute()))
    os.environ.setdefault("TQDM_DISABLE", "1")
    # A process pool for bootstrapping would outgrow the granted threads.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    if not online:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    import_when_used("datasets")
    import_when_used("requests")
    import_when_used("lm_eval.loggers", submodules_wait=False)  # its `utils` is used, which is none of them


def mirror_path(hub: Hub, split: str) -> Path:
    """Where a mirror has the rows of a split, as JSON lines, below its folder."""
    return Path(hub.dataset, hub.revision, *([hub.config] if hub.config else []), f"{split}.jsonl")


def load_split(hub: Hub, split: str, data_root: Path, where: str, remedy: str) -> datasets.Dataset:
    """The rows of a split, from the cache in `data_root` or the network. Raises UserError, which `remedy` ends."""
    prepare_environment(data_root, online=True)
    import datasets

    name = f"{hub.dataset}{f' ({hub.config})' if hub.config else ''} at {hub.revision[:12]}"
    print(f"fetch: {name}, split {split}, from the Hugging Face hub", file=sys.stderr)
    try:
        return datasets.load_dataset(hub.dataset, hub.config, split=split, revision=hub.revision)
    except Exception as error:  # not there, not reached, no such split, no rows: each in a form of some library's own
        reason = first_line(error)
        raise UserError(f"{where}: {name}, split '{split}', is not cached and cannot be had ({reason}); {remedy}"
                        ) from None  # fmt: skip
