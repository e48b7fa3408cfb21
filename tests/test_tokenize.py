"""Tokenizing: exact tokens and counts, clean splits; shards that refuse what is not theirs; batches without state."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from cgpt.data import documents, shards
from cgpt.errors import UserError
from cgpt.jobs import Job
from cgpt.stages.tokenize import END_OF_TEXT, tokenize

ROOT = Path(__file__).parents[1]
MIRROR = Path(os.environ.get("CGPT_DATA_MIRROR") or ROOT.parent / "shared" / "data")
WORDS = ["the", "a", "old", "cat", "dog", "sees", "likes", "house", "river", "—", "naïve", "東京", "don't", "1984", "!"]


def sentences(n: int, seed: int = 0) -> list[str]:
    random = np.random.RandomState(seed)
    return [" ".join(random.choice(WORDS, 12)) + f" {number}" for number in range(n)]


def corpus(root: Path, kind: str = "line", name: str = "x", **files: str | bytes) -> dict[str, Any]:
    """Lay out a fetched data set; the keys of `files` are splits. Returns a spec to tokenize it."""
    folder, listed = root / "data" / name, []
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in files.items():
        content = text if isinstance(text, bytes) else text.encode()
        (folder / f"{split}.txt").write_bytes(content)
        listed.append({"name": f"{split}.txt", "bytes": len(content), "sha256": "", "split": split})
    entry = {"builtin": None, "seed": 0, "path": "x"}
    (folder / "fetched.json").write_text(json.dumps(entry | {"files": listed}))
    datasets = {name: entry | {"files": [], "documents": kind}}
    return {"corpus": [name], "datasets": datasets, "tokenizer": "bpe", "vocab_size": 300, "validation_fraction": 0.1}


def run(root: Path, spec: dict[str, Any]) -> dict[str, Any]:
    return tokenize(Job(spec, root / "out", data=root / "data"))


def problem(root: Path, spec: dict[str, Any]) -> str:
    """The one line that tokenizing ends in; no shard may be left."""
    with pytest.raises(UserError) as caught:
        run(root, spec)
    assert not list((root / "out").glob("*.bin*")) and not (root / "out" / "tokens.json").exists()
    return str(caught.value)


def decoded(root: Path, split: str) -> list[str]:
    """The documents of a shard, read back."""
    tokenizer = Tokenizer.from_file(str(root / "out" / "tokenizer.json"))
    tokens = shards.open_shard(root / "out" / f"{split}.bin", check_hash=True)
    end = tokenizer.token_to_id(END_OF_TEXT)
    ends = np.flatnonzero(tokens == end)
    assert ends[-1] == len(tokens) - 1
    return [tokenizer.decode(part[part != end].tolist()) for part in np.split(tokens, ends + 1)[:-1]]


def test_the_shards_decode_to_the_documents_and_their_counts_are_exact(tmp_path: Path) -> None:
    lines = sentences(200)
    record = run(tmp_path, corpus(tmp_path, train="\n".join(lines) + "\n\n"))
    train, validation = decoded(tmp_path, "train"), decoded(tmp_path, "validation")
    assert len(validation) == 20 and sorted(train + validation) == sorted(lines)
    for split, texts in (("train", train), ("validation", validation)):
        header = shards.read_header(tmp_path / "out" / f"{split}.bin")
        assert header == record[split] and header["dtype"] == "uint16" and header["vocab_size"] == 300
        assert header["n_documents"] == len(texts)
        assert header["n_bytes"] == sum(len(text.encode()) for text in texts)
        assert header["n_tokens"] == len(shards.open_shard(tmp_path / "out" / f"{split}.bin"))
        assert header["tokenizer_sha256"] == record["tokenizer_sha256"]
    assert json.loads((tmp_path / "out" / "tokens.json").read_text()) == record
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "tokenizer.json", "train.bin", "validation.bin", "tokens.json",
    }  # fmt: skip


def test_a_long_document_in_pieces_has_the_tokens_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blanks = ("\n", "\n\n", "  ", " \n ", "\u00a0 ", "\r\n\r\n", "   \n\n\t", "'s ", " 's")
    random = np.random.RandomState(1)
    text = "".join(word + blanks[random.randint(len(blanks))] for word in random.choice(WORDS, 6500)) + "end"
    monkeypatch.setattr(documents, "PIECE_CHARS", 100)
    run(tmp_path, corpus(tmp_path, "file", train=text, validation="some\n"))
    tokens = shards.open_shard(tmp_path / "out" / "train.bin")
    in_lines = text.replace("\r\n", "\n")  # as Python reads a text file
    whole = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode(in_lines).ids
    pieces = list(documents.pieces(tmp_path / "data" / "x" / "train.txt", "file", 0.0, lambda n: None))
    assert len(pieces) > 200 and max(len(piece.text) for piece in pieces) <= 200
    assert tokens[:-1].tolist() == whole


def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    spec = corpus(tmp_path, train="\n".join(sentences(300)))
    code = (
        "import json,sys,pathlib,cgpt.jobs as j,cgpt.stages.tokenize as t;spec,data,out=sys.argv[1:];"
        "t.tokenize(j.Job(json.loads(spec),pathlib.Path(out),data=pathlib.Path(data)))"
    )
    for number, threads in ((1, "1"), (2, "2")):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads, "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, "-c", code, json.dumps(spec), str(tmp_path / "data"), str(tmp_path / f"{number}")]
        subprocess.run(arguments, env=environment, check=True, capture_output=True)
    for name in ("tokenizer.json", "train.bin", "validation.bin", "tokens.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_test_and_task_files_never_reach_the_shards(tmp_path: Path) -> None:
    lines = sentences(100)
    run(tmp_path, corpus(tmp_path, all="\n".join(lines), test="secret\n" * 50, task="secret\n", labels="secret"))
    assert not any("secret" in text for text in decoded(tmp_path, "train") + decoded(tmp_path, "validation"))


def test_a_validation_file_is_the_validation_split_and_nothing_else_is(tmp_path: Path) -> None:
    lines = sentences(100)
    run(tmp_path, corpus(tmp_path, train="\n".join(lines[:90]), validation="\n".join(lines[90:])))
    assert decoded(tmp_path, "train") == lines[:90] and decoded(tmp_path, "validation") == lines[90:]


def test_a_single_file_gives_its_last_lines_for_validation(tmp_path: Path) -> None:
    lines = sentences(100)
    run(tmp_path, corpus(tmp_path, "file", all="\n".join(lines)))
    (train,), (validation,) = decoded(tmp_path, "train"), decoded(tmp_path, "validation")
    assert (train + "\n" + validation).split("\n") == lines and 0.07 < len(validation) / len(train) < 0.12


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("file", "\ufeff\n\n one\n\ntwo \n\n", [" one\n\ntwo"]),
        ("line", "one\r\n\n  \ntwo", ["one", "two"]),
        ("paragraph", "\none\nmore\n \n\ntwo\n", ["one\nmore", "two"]),
        (
            "wikitext",
            " \n = One = \n \n a = b \n = no ; = \n \n = = Sub = = \n \n = Two = 2 = \n \n b \n",
            [" = One = \n \n a = b \n = no ; = \n \n = = Sub = =", " = Two = 2 = \n \n b"],
        ),
        ("<|endoftext|>", "one\ntwo\n<|endoftext|>\n\n<|endoftext|>\nthree", ["one\ntwo", "three"]),
        (
            "<|endoftext|>",
            "one<|endoftext|>\ntwo <|endoftext|>  three<|endoftext|>four",
            ["one", "two", "  three", "four"],
        ),
        ("a.(b|c)+ ", "one a.(b|c)+ two\na.(b|c)+\n", ["one", "two\na.(b|c)+"]),
        ("\n---\n", "---\none\n---\n--- two\n---", ["---\none", "--- two\n---"]),
        ("==", "one====two=three=", ["one", "two=three="]),
        ("line", "one\rtwo\r\nthree", ["one", "two", "three"]),
        ("paragraph", "one\r\nmore\r\n\r\ntwo", ["one\nmore", "two"]),
        ("jsonl:text", '\ufeff{"text": "a\\r\\nb"}\r\n{"text": "c"}\r\n', ["a\r\nb", "c"]),
        ("jsonl:text", '{"text": "a\\n\\nb"}\n\n{"text": ""}\n{"text": " c ", "id": 1}\n', ["a\n\nb", " c"]),
    ],
)
def test_text_becomes_documents_as_the_entry_says(kind: str, text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text, encoding="utf-8", newline="")
    read = list(documents.pieces(tmp_path / "x", kind, 0.0, lambda n: None))
    assert [piece.text for piece in read] == expected and all(piece.ends_document for piece in read)


def test_the_end_of_text_token_written_in_a_document_is_plain_text(tmp_path: Path) -> None:
    lines = [f"{line} {END_OF_TEXT}" for line in sentences(60)]
    record = run(tmp_path, corpus(tmp_path, train="\n".join(lines)))
    tokens = shards.open_shard(tmp_path / "out" / "train.bin")
    assert np.count_nonzero(tokens == record["end_of_text_id"]) == record["train"]["n_documents"]
    assert all(text.endswith(END_OF_TEXT) for text in decoded(tmp_path, "train"))


def test_a_corpus_that_is_not_utf8_names_file_and_byte(tmp_path: Path) -> None:
    good = "naïve\n".encode()
    for bad, value in ((b"ab\xff\xfe", "0xff"), (b"ab\0c", "0x00")):
        message = problem(tmp_path, corpus(tmp_path, train=good * 3 + bad))
        assert message == (
            f"{tmp_path}/data/x/train.txt: byte {3 * len(good) + 2}: is not UTF-8 text ({value}); "
            "convert the file to UTF-8, or leave it out of the corpus"
        )


def test_an_empty_corpus_and_a_missing_fetch_are_refused(tmp_path: Path) -> None:
    for files in ({"train": " \n\n"}, {"test": "some\n"}, {"validation": "some\n"}):
        assert problem(tmp_path, corpus(tmp_path, **files)).startswith("data.corpus: x has no training text")
    spec = corpus(tmp_path, train="a\n")
    (tmp_path / "data" / "x" / "fetched.json").unlink()
    assert "run `cgpt fetch x` first" in problem(tmp_path, spec)


def test_a_fetch_of_an_earlier_entry_is_refused(tmp_path: Path) -> None:
    spec = corpus(tmp_path, train="a\n")
    spec["datasets"]["x"]["seed"] = 1
    assert "is of an earlier entry of data.yaml" in problem(tmp_path, spec)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"files": [{}]}', '{"files": []}', "[" * 100_000])
def test_a_record_of_a_fetch_that_is_none_is_refused_without_asking_to_delete_a_download(
    content, tmp_path: Path
) -> None:
    spec = corpus(tmp_path, train="a\n")
    (tmp_path / "data" / "x" / "fetched.json").write_text(content)
    message = problem(tmp_path, spec)
    assert message.endswith("run `cgpt fetch x` again") and "delete" not in message.replace(str(tmp_path), "")


def test_too_few_documents_for_validation_says_which_fraction_would_do(tmp_path: Path) -> None:
    spec = corpus(tmp_path, train="\n".join(sentences(40))) | {"validation_fraction": 0.01}
    assert "data.validation_fraction: 0.01 of 40 documents is none; write 0.025 or more" in problem(tmp_path, spec)
    run(tmp_path, spec | {"validation_fraction": 0.025})


def test_a_vocabulary_that_does_not_fit_is_refused_with_one_that_does(tmp_path: Path) -> None:
    spec = corpus(tmp_path, train="\n".join(sentences(40)))
    assert "data.vocab_size: 256 is too small" in problem(tmp_path, spec | {"vocab_size": 256})
    message = problem(tmp_path, spec | {"vocab_size": 5000})
    assert "data.vocab_size: 5000 is more than this corpus gives; write " in message
    most = int(message.split("write ")[1].split()[0])
    assert run(tmp_path, spec | {"vocab_size": most})["vocab_size"] == most


def test_a_bad_json_line_and_an_unknown_kind_are_told_what_to_write(tmp_path: Path) -> None:
    rows = '{"text": "a"}\n{"txet": "a"}\n'
    assert "train.txt: line 2: has no text field 'text'; did you mean 'txet'?" in problem(
        tmp_path, corpus(tmp_path, "jsonl:text", train=rows)
    )
    assert "line 1: is not JSON" in problem(tmp_path, corpus(tmp_path, "jsonl:text", train="{a\n"))
    for meant, kind in (("line", "lines"), ("paragraph", "Paragraphs"), ("jsonl:text", "json"), ("file", "files")):
        message = problem(tmp_path, corpus(tmp_path, kind, train=f"a {kind}\nb\n"))
        assert f"'{kind}' is no known way" in message and message.endswith(f"did you mean '{meant}'?")
    assert "'' is no known way" in problem(tmp_path, corpus(tmp_path, "", train="a\nb\n"))
    for line in ("[" * 100_000, '{"text": ' + "1" * 5000 + "}"):
        assert "line 1: is not JSON" in problem(tmp_path, corpus(tmp_path, "jsonl:text", train=line))


def test_transformers_opens_the_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    run(tmp_path, corpus(tmp_path, train="\n".join(sentences(60))))
    path = str(tmp_path / "out" / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=path, eos_token=END_OF_TEXT)
    assert theirs("the old cat").input_ids == Tokenizer.from_file(path).encode("the old cat").ids


def test_the_gpt2_vocabulary_gives_gpt2s_tokens(tmp_path: Path) -> None:
    if not (MIRROR / "gpt2_tokenizer").is_dir():
        pytest.skip("no GPT-2 vocabulary: set CGPT_DATA_MIRROR")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gpt2_tokenizer").symlink_to(MIRROR / "gpt2_tokenizer")
    texts = {"train": "Hello world", "validation": "Hello, I'm a language model,"}
    record = run(tmp_path, corpus(tmp_path, **texts) | {"tokenizer": "gpt2"})
    assert (record["vocab_size"], record["end_of_text_id"]) == (50257, 50256)
    assert shards.open_shard(tmp_path / "out" / "train.bin").tolist() == [15496, 995, 50256]
    expected = [15496, 11, 314, 1101, 257, 3303, 2746, 11, 50256]  # as published with the model
    assert shards.open_shard(tmp_path / "out" / "validation.bin").tolist() == expected


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    with shards.ShardWriter(tmp_path / "train.bin", 70_000, "abc") as writer:
        writer.append(range(66_000), 99_000, 3)
        writer.append([69_999], 1, 1)
    return tmp_path / "train.bin"


def test_a_large_vocabulary_is_written_as_uint32(shard: Path) -> None:
    tokens = shards.open_shard(shard, "abc", check_hash=True)
    assert tokens.dtype == np.uint32 and tokens.tolist() == [*range(66_000), 69_999]
    assert not tokens.flags.writeable
    header = shards.read_header(shard)
    assert (header["n_tokens"], header["n_bytes"], header["n_documents"]) == (66_001, 99_001, 4)


def test_a_foreign_truncated_or_altered_shard_is_refused(shard: Path) -> None:
    good = shard.read_bytes()
    remedy = "; delete its folder, so that tokenize runs again"
    size = 1024 + 66_001 * 4
    altered = bytearray(good)
    altered[2000] ^= 1
    for content, message in (
        (b"PK\3\4" + good[4:], "magic: is b'PK\\x03\\x04SHRD', so this is no token shard"),
        (good.replace(b'"format_version": 1', b'"format_version": 7'), "format_version: is 7, expected 1"),
        (good[:-4], f"size: is {size - 4} bytes, expected {size} (truncated or appended to)"),
        (bytes(altered), "sha256: the tokens are not those that were written"),
        (good[:100], "header: cannot be read"),
    ):
        shard.write_bytes(content)
        with pytest.raises(UserError) as caught:
            shards.open_shard(shard, check_hash=True)
        assert str(caught.value) == f"{shard}: {message}{remedy}"
    shard.write_bytes(good)
    with pytest.raises(UserError, match="belongs to another tokenizer"):
        shards.open_shard(shard, tokenizer_sha256="other")
    with pytest.raises(UserError, match="is missing; run tokenize first"):
        shards.open_shard(shard.parent / "no.bin")


def test_a_shard_that_was_not_finished_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), shards.ShardWriter(tmp_path / "x.bin", 300, "abc") as writer:
        writer.append([1], 1, 1)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_bits_per_byte_of_a_uniform_byte_model_is_eight() -> None:
    header = {"n_tokens": 50, "n_bytes": 50}
    assert shards.bits_per_byte(math.log(256), header) == pytest.approx(8)
    assert shards.bits_per_byte(math.log(256), {"n_tokens": 25, "n_bytes": 50}) == pytest.approx(4)


@pytest.mark.parametrize(("n_tokens", "seq_len", "batch_size"), [(1000, 16, 4), (997, 10, 7), (17, 16, 3), (40, 16, 5)])
def test_every_epoch_visits_each_window_once(n_tokens: int, seq_len: int, batch_size: int) -> None:
    tokens = np.arange(n_tokens, dtype=np.uint16)
    count = shards.n_windows(n_tokens, seq_len)
    rows = np.concatenate([shards.batches(tokens, seq_len, batch_size, 5, step) for step in range(3 * count)])
    assert rows.dtype == np.int32 and rows.shape[1] == seq_len + 1
    assert (np.diff(rows, axis=1) == 1).all()
    orders = []
    for epoch in range(2):
        starts = rows[epoch * count : (epoch + 1) * count, 0]
        assert (np.diff(np.sort(starts)) == seq_len).all() and len(starts) == count
        assert starts.min() < seq_len and starts.max() + seq_len < n_tokens
        orders.append(starts.tolist())
    assert count < 10 or orders[0] != orders[1]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    tokens = np.arange(5000, dtype=np.uint16)
    forward = [shards.batches(tokens, 16, 8, 1, step) for step in range(100)]
    shards._epoch.cache_clear()
    for step in (99, 3, 50):
        assert (shards.batches(tokens, 16, 8, 1, step) == forward[step]).all()
    assert (shards.batches(tokens, 16, 8, 2, 0) != forward[0]).any()
    # These numbers are those of every machine and NumPy release; a change would break resumed runs.
    assert forward[0][:4, 0].tolist() == [4213, 4293, 3285, 1205]


def test_a_shard_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(UserError, match="seq_len: 16 needs at least 17 tokens, the shard has 16"):
        shards.batches(np.arange(16), 16, 1, 0, 0)
