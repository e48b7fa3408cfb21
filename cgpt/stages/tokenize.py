"""The stage `tokenize`: train or load a byte-level BPE, then write the train and validation shards in one pass."""

import hashlib
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tqdm import tqdm

from cgpt.data import content
from cgpt.data.content import GPT2_DATASET, GPT2_FILES, SPLITS
from cgpt.data.documents import Met, Piece, check_separator, pieces, wrong_kind
from cgpt.data.encode import encode, is_like_gpt2
from cgpt.data.end_tokens import END_OF_TEXT
from cgpt.data.shards import ShardWriter
from cgpt.data.special_tokens import end_tokens
from cgpt.data.tokenizer import _byte_level, byte_level_bpe, read_tokenizer
from cgpt.errors import UserError
from cgpt.files.layers import file_of
from cgpt.files.whole import write_whole
from cgpt.jobs import Job
from cgpt.spec import SMALLEST_VOCABULARY

LARGEST_VOCABULARY = 1 << 20  # the trainer takes memory for as many before it begins


def tokenize(job: Job) -> dict[str, Any]:
    """Write tokenizer.json, train.bin, validation.bin and, last, tokens.json; return the last.

    The spec has corpus (names of data sets), datasets (name -> its entry as plan.py gives it), tokenizer (bpe, gpt2,
    or a checkpoint whose import is upstream), vocab_size (bpe only) and validation_fraction. Documents keep their
    order, each is followed by one end-of-text token, and its spelling in a document is plain text. Runs on all cores
    (or RAYON_NUM_THREADS). Raises UserError for an unfetched, empty or binary corpus and for a vocabulary that is not
    for it.
    """
    spec, data_root, out = job.spec, job.data, job.folder
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    tokenizer, end_of_text = _tokenizer(job)
    written = tokenizer.to_str(pretty=True).encode()
    digest, size = hashlib.sha256(written).hexdigest(), tokenizer.get_vocab_size()
    inputs = content.of_corpora(spec, data_root)
    if whose := job.upstream.get("import"):
        written = (whose / "tokenizer.json").read_bytes()  # so that it is the checkpoint's byte by byte
        digest = hashlib.sha256(written).hexdigest()
        inputs["import/tokenizer.json"] = digest
    write_whole(out / "tokenizer.json", written)
    train, validation = (ShardWriter(out / f"{split}.bin", size, digest) for split in SPLITS)
    met = Met()
    with train, validation:
        corpus = _corpus(spec, data_root, "tokenize", met)
        encode(tokenizer, end_of_text, corpus, {"train": train, "validation": validation})
        if train.header["n_documents"] == 0:
            raise UserError(_nothing_to_train_on(spec))
        if validation.header["n_documents"] == 0:
            n = train.header["n_documents"]
            raise UserError(
                f"data.validation_fraction: {spec['validation_fraction']} of {n} documents is none; "
                f"write {math.ceil(1e4 / n) / 1e4} or more, or name a data set with a validation file"
            )
    record = {
        "corpus": list(spec["corpus"]), "tokenizer": spec["tokenizer"], "vocab_size": size, "tokenizer_sha256": digest,
        "end_of_text_id": end_of_text, "n_replaced_characters": met.n_replaced,
        "train": train.header, "validation": validation.header, "inputs": inputs,
    }  # fmt: skip
    _warn(met)
    write_whole(out / "tokens.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


def _warn(met: Met) -> None:
    """Say what of the text is not as its files have it, or hardly as it was meant."""
    if met.n_replaced:
        print(f"tokenize: {met.n_replaced:,} halves of characters (lone surrogates) became U+FFFD", file=sys.stderr)
    if met.n_end_of_text:
        print(
            f"tokenize: the documents spell {END_OF_TEXT} {met.n_end_of_text:,} times, which is text like any other; "
            f"if it tells them apart, write `documents: {END_OF_TEXT}` in its entry of data.yaml",
            file=sys.stderr,
        )


def _tokenizer(job: Job) -> tuple[Tokenizer, int]:
    """The tokenizer that the spec names, and its token that ends a document. Raises UserError."""
    if whose := job.upstream.get("import"):
        return _of_checkpoint(whose, job.spec["tokenizer"])
    gpt2 = job.spec["tokenizer"] == "gpt2"
    tokenizer = _gpt2(job.data / GPT2_DATASET) if gpt2 else _train_bpe(job.spec, job.data)
    return tokenizer, tokenizer.get_vocab()[END_OF_TEXT]


def _of_checkpoint(folder: Path, name: str) -> tuple[Tokenizer, int]:
    tokenizer = read_tokenizer(folder)
    end = end_tokens(folder, tokenizer, None).end
    if end is None:
        raise UserError(f"data.tokenizer: that of '{name}' has no token that ends a text; take another checkpoint's")
    if not is_like_gpt2(tokenizer):
        raise UserError(f"data.tokenizer: that of '{name}' is no byte-level BPE that cuts texts as GPT-2's does; take "
                        "a checkpoint with such a one")  # fmt: skip
    return tokenizer, end


def _gpt2(folder: Path) -> Tokenizer:
    """Return the tokenizer of GPT-2 from its published files encoder.json and vocab.bpe."""
    vocabulary, merges = (folder / name for name in GPT2_FILES)
    for path in (vocabulary, merges):
        if not path.is_file():
            raise UserError(f"{path}: is missing; run `cgpt fetch {GPT2_DATASET}` first")
    return byte_level_bpe(vocabulary, merges)


def _train_bpe(spec: dict[str, Any], data_root: Path) -> Tokenizer:
    """Train a byte-level BPE on the training documents. The same text gives the same tokenizer on every machine."""
    asked = spec["vocab_size"]
    if asked < SMALLEST_VOCABULARY:
        raise UserError(
            f"data.vocab_size: {asked} is too small: 256 bytes and the end-of-text token need {SMALLEST_VOCABULARY}; "
            f"write {SMALLEST_VOCABULARY} or more"
        )
    if asked > LARGEST_VOCABULARY:
        raise UserError(f"data.vocab_size: {asked} is more than is trained; write {LARGEST_VOCABULARY} or less")
    corpus = _corpus(spec, data_root, "train tokenizer", Met())
    texts = (piece.text for split, piece in corpus if split == "train")
    first = next(texts, None)
    if first is None:
        raise UserError(_nothing_to_train_on(spec))
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=asked,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain([first], texts), trainer)
    if (size := tokenizer.get_vocab_size()) < asked:
        raise UserError(
            f"data.vocab_size: {asked} is more than this corpus gives; write {size} or less, or take a larger corpus"
        )
    return tokenizer


def _nothing_to_train_on(spec: dict[str, Any]) -> str:
    names = ", ".join(spec["corpus"])
    return f"data.corpus: {names} has no training text; name a data set whose files of split train or all hold text"


def _corpus(spec: dict[str, Any], data_root: Path, title: str, met: Met) -> Iterator[tuple[str, Piece]]:
    """Yield (split, piece) for the data sets in their order, with a progress bar; `met` counts over all of them.

    Raises UserError for `documents` that is no kind of them, and at a data set's end for a separator without a place.
    """
    kinds = {name: spec["datasets"][name]["documents"] for name in spec["corpus"]}
    wrong = {name: problem for name, kind in kinds.items() if (problem := wrong_kind(kind))}
    if wrong:
        raise UserError(
            *(f"{file_of('datasets', name)}: {name}: documents: {problem}" for name, problem in wrong.items())
        )
    files = {name: _fetched_files(data_root / name, spec["datasets"][name]) for name in spec["corpus"]}
    total = sum(path.stat().st_size for by_split in files.values() for paths in by_split.values() for path in paths)
    with tqdm(total=total, unit="B", unit_scale=True, desc=title) as bar:
        for name, by_split in files.items():
            of_set = Met()
            for split, piece in _split(by_split, kinds[name], spec["validation_fraction"], bar.update, of_set):
                met.n_end_of_text += piece.text.count(END_OF_TEXT)
                yield split, piece
            check_separator(kinds[name], of_set, f"{file_of('datasets', name)}: {name}")
            met.n_replaced += of_set.n_replaced


def _fetched_files(folder: Path, entry: dict[str, Any]) -> dict[str, list[Path]]:
    """Return a data set's corpus files by split; all other splits (test, task files, labels) are never read."""
    record = folder / "fetched.json"
    again = f"run `cgpt fetch {folder.name}` again"
    listed, fetched = content.fetched_files(record), content.read_object(record, again)
    wanted = sorted(str(file["sha256"]) for file in entry["files"])
    if any(fetched.get(key) != entry[key] for key in ("builtin", "seed", "path")) or (
        wanted and wanted != sorted(file["sha256"] for file in listed)
    ):
        raise UserError(f"{record}: is of an earlier entry of data.yaml; {again}")
    by_split: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in listed:
        split, path = {"all": "train"}.get(file["split"], file["split"]), folder / file["name"]
        if split not in SPLITS:
            continue
        same_size = path.is_file() and path.stat().st_size == file["bytes"]
        if not same_size or file["sha256"] not in ("", content.sha256_of(path)):  # "": the hash is not known
            raise UserError(f"{path}: is missing or not as it was fetched; {again}")
        by_split[split].append(path)
    return by_split


def _split(
    by_split: dict[str, list[Path]], documents: str, fraction: float, progress: Callable[[int], object], met: Met
) -> Iterator[tuple[str, Piece]]:
    """Yield (split, piece) of one data set.

    With a validation file of its own, that is the validation split. Otherwise every (1 / fraction)-th document is, or,
    where there are too few files with documents `file` for that, the last `fraction` of each file.
    """
    for path in by_split["validation"]:
        for piece in pieces(path, documents, 0.0, progress, met):
            yield "validation", piece
    fraction = 0.0 if by_split["validation"] else fraction
    tail = fraction if documents == "file" and len(by_split["train"]) * fraction < 1 else 0.0
    n_before = 0
    for path in by_split["train"]:
        for piece in pieces(path, documents, tail, progress, met):
            held_out = piece.in_tail if tail else _is_held_out(n_before, fraction)
            yield ("validation" if held_out else "train"), piece
            n_before += piece.ends_document


def _is_held_out(n_before: int, fraction: float) -> bool:
    """True for a `fraction` of the documents, evenly spread: where round(n x fraction) steps up."""
    return math.floor((n_before + 1) * fraction + 0.5) > math.floor(n_before * fraction + 0.5)
