"""Corpora as people have them: separators anywhere, foreign encodings, half characters, and shards with odd headers."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_tokenize import corpus, decoded, problem, run, sentences

from cgpt.data import documents, shards
from cgpt.errors import UserError
from cgpt.spec import Dataset
from cgpt.stages.fetch import fetch_dataset as fetch
from cgpt.stages.tokenize import END_OF_TEXT


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    with shards.ShardWriter(tmp_path / "train.bin", 300, "abc") as writer:
        writer.append(range(300), 500, 3)
    return tmp_path / "train.bin"


@pytest.mark.parametrize("kind", ["line", "<|endoftext|>", "=====", "jsonl:text", "\n\n", "o"])
def test_documents_are_the_same_wherever_the_file_is_cut_into_lines_and_pieces(kind, tmp_path, monkeypatch) -> None:
    """Against splitting the whole text at once."""
    monkeypatch.setattr(documents, "PIECE_CHARS", 20)
    random = np.random.RandomState(3)
    parts = ["one", "two", " ", "\n", "\n\n", "=", "=====", "<|endoftext|>", "<|end", "of", "text|>", "  ", "\u2028"]
    for _ in range(50):
        text = "".join(random.choice(parts, 60))
        separator = "\n" if kind == "line" else kind
        content, wanted = text, text.split(separator)
        if kind == "jsonl:text":
            wanted = ["".join(random.choice(parts, 20)) for _ in range(5)]
            content = "\n".join(json.dumps({"text": part}) for part in wanted)
        (tmp_path / "x").write_text(content, encoding="utf-8")
        texts = "".join(
            piece.text + "\0" * piece.ends_document
            for piece in documents.pieces(tmp_path / "x", kind, 0.0, lambda n: None)
        )
        stripped = [part.rstrip() for part in wanted]
        leading = [part[: len(part) - len(part.lstrip())] for part in stripped]
        wanted = [part[blank.rfind("\n") + 1 :] for part, blank in zip(stripped, leading) if part]
        assert texts.split("\0")[:-1] == wanted


def test_half_a_character_in_json_becomes_the_replacement_character_and_is_counted(tmp_path: Path, capsys) -> None:
    lines = [json.dumps({"text": f"{line} \ud83d x \U0001f600"}) for line in sentences(60)]
    assert all("\\ud83d x \\ud83d\\ude00" in line for line in lines)
    record = run(tmp_path, corpus(tmp_path, "jsonl:text", train="\n".join(lines)))
    assert record["n_replaced_characters"] == 60
    assert "tokenize: 60 halves of characters (lone surrogates) became U+FFFD" in capsys.readouterr().err
    assert all(text.endswith(" \ufffd x \U0001f600") for text in decoded(tmp_path, "train"))


def test_markers_at_line_ends_part_the_documents_and_none_is_learnt(tmp_path: Path) -> None:
    lines = sentences(200)
    record = run(tmp_path, corpus(tmp_path, END_OF_TEXT, train="".join(f"{line}{END_OF_TEXT}\n" for line in lines)))
    assert record["train"]["n_documents"] + record["validation"]["n_documents"] == 200
    assert sorted(decoded(tmp_path, "train") + decoded(tmp_path, "validation")) == sorted(lines)


def test_a_separator_that_never_occurs_is_refused_and_one_that_some_files_lack_is_not(tmp_path: Path) -> None:
    texts = {"train": "===".join(sentences(40)), "validation": "one document\n"}
    message = problem(tmp_path, corpus(tmp_path, "+++", **texts))
    assert message.startswith(
        "workflows/data.yaml: x: documents: '+++' never occurs in its files; write the text that "
    )
    run(tmp_path, corpus(tmp_path, "===", **texts))
    assert decoded(tmp_path, "validation") == ["one document"] and len(decoded(tmp_path, "train")) == 40


def test_a_corpus_file_whose_name_is_no_text_is_fetched_and_read(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "caf\udce9.txt").write_text("\n".join(sentences(60)))
    dataset = Dataset("x", path=str(tmp_path / "texts"), documents="line")
    fetch(dataset, tmp_path / "data" / "x")
    entry = {"builtin": None, "seed": 0, "path": dataset.path, "files": [], "documents": "line"}
    spec = corpus(tmp_path, name="other", train="a\n") | {"corpus": ["x"], "datasets": {"x": entry}}
    assert run(tmp_path, spec)["train"]["n_documents"] == 54


def test_a_corpus_in_utf16_or_utf32_is_named_so(tmp_path: Path) -> None:
    for encoding in ("UTF-16", "UTF-32"):
        message = problem(tmp_path, corpus(tmp_path, train="one\ntwo\n".encode(encoding)))
        remedy = "convert the file to UTF-8, or leave it out of the corpus"
        assert message.endswith(f"train.txt: is {encoding} text; {remedy}")
    message = problem(tmp_path, corpus(tmp_path, train=b"\xef\xbb\xbfab\xff"))
    assert "byte 5: is not UTF-8 text (0xff)" in message


def test_end_of_text_that_nobody_named_a_separator_is_mentioned(tmp_path: Path, capsys) -> None:
    run(tmp_path, corpus(tmp_path, train="\n".join(f"{line} {END_OF_TEXT}" for line in sentences(60))))
    assert f"the documents spell {END_OF_TEXT} 60 times, which is text like any other" in capsys.readouterr().err
    run(tmp_path, corpus(tmp_path, train="\n".join(sentences(60))))
    assert END_OF_TEXT not in capsys.readouterr().err


@pytest.mark.parametrize(
    "key", ["n_tokens", "n_bytes", "n_documents", "vocab_size", "dtype", "sha256", "format_version"]
)
def test_a_header_with_values_of_another_kind_is_refused_by_name(shard: Path, key: str) -> None:
    body = shard.read_bytes()[1024:]
    good = shards.read_header(shard)
    for value in (None, True, -1, 1.5, [1], {}, "object", 1 << 60, "uint8", float("nan")):
        if key == "sha256" and isinstance(value, str):
            continue
        header = json.dumps(good | {key: value}).encode()
        shard.write_bytes(b"CGPTSHRD" + header.ljust(1016) + body)
        with pytest.raises(UserError) as caught:
            shards.open_shard(shard)
        message = str(caught.value)
        assert f"{shard}: " in message and f"{key}: is " in message and message.endswith("so that tokenize runs again")


@pytest.mark.parametrize("header", ["[]", "3", "null", "[" * 1000, '{"format_version": 1}'])
def test_a_header_that_is_no_mapping_of_a_shards_keys_is_refused(shard: Path, header: str) -> None:
    shard.write_bytes(b"CGPTSHRD" + header.encode().ljust(1016) + shard.read_bytes()[1024:])
    with pytest.raises(UserError, match=r"header: (cannot be read|has other keys)"):
        shards.open_shard(shard)


def test_a_vocabulary_too_large_for_any_memory_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    spec = corpus(tmp_path, train="\n".join(sentences(40)))
    assert "data.vocab_size: 10000000000 is more than is trained; write 1048576 or less" in problem(
        tmp_path, spec | {"vocab_size": 10**10}
    )
    assert "is more than this corpus gives; write " in problem(tmp_path, spec | {"vocab_size": 1 << 20})


def test_a_corpus_of_one_short_document_is_refused_before_a_window_is_cut(tmp_path: Path) -> None:
    message = problem(tmp_path, corpus(tmp_path, "line", train="one\n") | {"vocab_size": 257})
    assert "data.validation_fraction: 0.1 of 1 documents is none" in message
    record = run(tmp_path, corpus(tmp_path, "file", train="one two\n", validation="three\n") | {"vocab_size": 257})
    tokens = shards.open_shard(tmp_path / "out" / "train.bin")
    assert len(tokens) == record["train"]["n_tokens"] == 8
    with pytest.raises(UserError, match="seq_len: 16 needs at least 17 tokens, the shard has 8"):
        shards.batches(tokens, 16, 2, 0, 0)


@pytest.mark.parametrize("separator", ["\r", "\r===\r", "\r\n===\r\n"])
def test_a_separator_with_line_ends_of_any_system_occurs_where_the_file_has_any(separator, tmp_path) -> None:
    (tmp_path / "x").write_bytes(f"one{separator}two{separator}three".encode())
    texts = documents.pieces(tmp_path / "x", separator, 0.0, lambda n: None)
    assert [piece.text for piece in texts] == ["one", "two", "three"]


def test_a_corpus_that_is_a_json_list_is_told_what_to_write(tmp_path) -> None:
    (tmp_path / "x").write_text('[{"text": "one"}]\n')
    with pytest.raises(UserError, match="line 1: is no JSON object; write one object per line, without a list around"):
        list(documents.pieces(tmp_path / "x", "jsonl:text", 0.0, lambda n: None))
