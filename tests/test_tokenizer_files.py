"""What a tokenizer's files say beside its vocabulary: state, ids, special tokens and the tokens that end a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from safetensors.numpy import load_file, save_file
from tokenizer_kinds import SETTINGS, TEXTS, byte_level, peer_of, word_piece, words, written
from tokenizers import Tokenizer

from cgpt import checkpoint
from cgpt.__main__ import main
from cgpt.checkpoint import transformers_folder as hf_folder
from cgpt.data.tokenizer import read_tokenizer
from cgpt.errors import UserError
from cgpt.files import json_object


def edited(folder: Path, edit) -> Path:
    """Change what a folder's tokenizer.json says."""
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))
    return folder


def padded(raw: dict) -> None:
    raw["padding"] = {"strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
                      "pad_type_id": 0, "pad_token": "<s>"}  # fmt: skip


def truncated(raw: dict) -> None:
    raw["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}


def dropping(raw: dict) -> None:
    raw["model"]["dropout"] = 0.9


@pytest.mark.parametrize("edit", [padded, truncated, dropping])
@pytest.mark.parametrize("read", [read_tokenizer, lambda folder: hf_folder.read(folder)[2]])
def test_padding_truncation_and_dropout_of_a_saved_tokenizer_are_off(edit, read, tmp_path):
    tokenizer = byte_level(add_prefix_space=False)
    folder = edited(written(tmp_path, tokenizer), edit)
    for _ in range(5):
        assert read(folder).encode(TEXTS[0]).ids == tokenizer.encode(TEXTS[0]).ids
    kept = json.loads(read(folder).to_str())
    assert kept["padding"] is kept["truncation"] is kept["model"]["dropout"] is None


def test_a_tokenizer_saved_by_transformers_with_padding_and_truncation_gives_whole_texts(tmp_path):
    folder = written(tmp_path, word_piece())
    peer = peer_of(folder)
    wanted = peer.encode(TEXTS[0])
    peer.pad_token = "<s>"
    peer(TEXTS, padding="max_length", truncation=True, max_length=4)  # which transformers keeps in the tokenizer
    peer.save_pretrained(folder)
    saved = json.loads((folder / "tokenizer.json").read_text())
    assert saved["padding"] and saved["truncation"]["max_length"] == 4
    assert hf_folder.read(folder)[2].encode(TEXTS[0]).ids == wanted == peer.encode(TEXTS[0])


def in_vocabulary(id_: int):
    return lambda raw: raw["model"]["vocab"].update({"zzz": id_})


def in_template(id_: int):
    def edit(raw: dict) -> None:
        raw["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<x>": {"id": "<x>", "ids": [id_], "tokens": ["<x>"]}},
        }

    return edit


@pytest.mark.parametrize("make", [in_vocabulary, in_template])
@pytest.mark.parametrize("id_", [2_000_000_000, 600])
def test_a_token_id_beyond_the_embedding_is_refused_at_load(make, id_, tmp_path):
    folder = edited(written(tmp_path, byte_level()), make(id_))
    n = json.loads((folder / "config.json").read_text())["vocab_size"]
    for read in (checkpoint.load, checkpoint.import_hf):
        with pytest.raises(UserError) as caught:
            read(folder)
        assert str(caught.value) == (
            f"{folder}/tokenizer.json: vocabulary: has the token id {id_}, the model's are 0 to {n - 1}; "
            "take the model's own tokenizer"
        )


def undefined_template(raw: dict) -> None:
    in_template(1)(raw)
    raw["post_processor"]["special_tokens"] = {}
    raw["post_processor"] = {"type": "Sequence", "processors": [raw["post_processor"]]}


@pytest.mark.parametrize(
    "edit, message",
    [
        (undefined_template, "post_processor: adds '<x>' and does not say what it is; get the file again"),
        (in_vocabulary(-1), "is no tokenizer (invalid value: integer `-1`"),
        (in_vocabulary(2**40), "is no tokenizer (invalid value: integer `1099511627776`"),
        (lambda raw: raw.update(model=[]), "is no tokenizer ("),
        (lambda raw: raw.update(post_processor=3), "is no tokenizer ("),
        (lambda raw: raw.update(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
         "is no tokenizer (Oniguruma error"),
        (lambda raw: raw["model"].update(continuing_subword_prefix="x" * 99), "is no tokenizer (range end index"),
        (lambda raw: raw["model"].update(merges=["a zzzz"]), "is no tokenizer (Token `zzzz` out of vocabulary"),
    ],
)  # fmt: skip
def test_what_is_no_tokenizer_is_refused_in_one_line_that_asks_to_delete_nothing(edit, message, tmp_path, capsys):
    folder = edited(written(tmp_path, byte_level()), edit)
    assert main(["import-hf", str(folder), "--out", str(tmp_path / "new")]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and err.startswith(f"{folder}/tokenizer.json: {message}")
    assert "delete" not in err.replace(str(folder), "") and not (tmp_path / "new").exists()
    assert main(["generate", "--checkpoint", str(folder), "--prompt", "the"]) == 1
    assert capsys.readouterr() == ("", err)


def test_a_json_file_nested_without_end_or_too_large_is_refused_in_one_line(tmp_path, monkeypatch):
    folder = written(tmp_path, byte_level())
    whole = (folder / "tokenizer.json").read_bytes()
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"):
        content = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text('{"a":' * 100_000)
        with pytest.raises(UserError, match=rf"/{name}: is not JSON \(is nested too deep\); get the file again$"):
            checkpoint.load(folder)
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    monkeypatch.setattr(json_object, "MOST_BYTES", len(whole) - 1)
    with pytest.raises(UserError, match="tokenizer.json: has more than"):
        checkpoint.load(folder)


def test_a_word_that_a_vocabulary_lacks_and_has_no_token_for_is_refused_in_one_line(tmp_path, capsys):
    tokenizer = words()
    raw = json.loads(tokenizer.to_str())
    raw["model"]["unk_token"] = "[none]"
    folder = written(tmp_path, Tokenizer.from_str(json.dumps(raw)), unk_token=None)
    assert main(["generate", "--checkpoint", str(folder), "--prompt", "elephants"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tokenizer.json: cannot encode 'elephants' (WordLevel error")


def test_what_the_folder_says_of_special_tokens_counts_as_in_transformers(tmp_path):
    plain = byte_level(add_prefix_space=False)
    raw = json.loads(plain.to_str())
    raw["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    listed = {
        "330": token | {"content": "<|a|>", "special": True},
        "331": token | {"content": "<|b|>", "special": False},
    }
    maps = {"pad_token": {"content": "<pad>", "lstrip": True, **token}, "eos_token": "</s>"}
    texts = ["a</s>b", "x<|a|>y <|b|> z", "the <pad> film", "<unk>"]
    for n, (settings, names) in enumerate(
        [
            ({}, {}), ({"added_tokens_decoder": listed}, maps), ({"pad_token": "<pad>"}, {}), ({}, maps),
            ({"eos_token": {"__type": "AddedToken", "content": "</s>", **token}}, {}), ({"add_bos_token": True}, {}),
            ({"add_bos_token": True, "add_eos_token": True}, {}), ({"add_bos_token": False}, {}),
            ({"extra_special_tokens": ["<|a|>", "<|b|>"]}, {}),
        ]
    ):  # fmt: skip
        (tmp_path / str(n)).mkdir()
        folder = written(tmp_path / str(n), tokenizer, **settings)
        (folder / "special_tokens_map.json").write_text(json.dumps(names))
        peer, (_, _, ours) = peer_of(folder), hf_folder.read(folder)
        for text in texts:
            ids = peer.encode(text)
            assert ours.encode(text).ids == ids, (settings, names, text)
            assert ours.decode(ids) == peer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}, {"add_prefix_space": False}])
def test_a_blank_before_texts_is_as_transformers_class_for_gpt2_has_it(in_file, settings, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install .[peer])")
    folder = written(tmp_path, byte_level(add_prefix_space=in_file), tokenizer_class="GPT2Tokenizer", **settings)
    peer, ours = transformers.AutoTokenizer.from_pretrained(folder), hf_folder.read(folder)[2]
    assert isinstance(peer, transformers.GPT2Tokenizer)
    for text in TEXTS:
        assert ours.encode(text).ids == peer.encode(text)


@pytest.mark.parametrize("value", [3, True, [], ["</s>"], {"content": 3}, "\ud83d", {"text": "</s>"}])
@pytest.mark.parametrize("key", ["eos_token", "pad_token"])
def test_what_is_no_token_is_refused_by_name(key, value, tmp_path):
    folder = written(tmp_path, byte_level(), **{key: value})
    with pytest.raises(UserError) as caught:
        hf_folder.read(folder)
    assert f"/tokenizer_config.json: {key}: " in str(caught.value) and "is no token; write its text" in str(
        caught.value
    )


def test_two_files_without_an_end_of_text_token_have_the_tokens_that_they_say(tmp_path, capsys):
    """The end token is then the configuration's."""
    tokenizer = byte_level(add_prefix_space=False)
    folder = written(tmp_path, tokenizer)
    raw = json.loads(tokenizer.to_str())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(raw["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in raw["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    for settings in (SETTINGS, {}):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        config = json.loads((folder / "config.json").read_text()) | {"vocab_size": len(raw["vocab"]), "eos_token_id": 1}
        (folder / "config.json").write_text(json.dumps(config))
        resized = {name: value[: len(raw["vocab"])] if name.endswith("wte.weight") else value
                   for name, value in load_file(folder / "model.safetensors").items()}  # fmt: skip
        save_file(resized, folder / "model.safetensors")
        model, read = checkpoint.import_hf(folder, tiny.CPU, tiny.THREADS)
        assert read.get_vocab_size() == len(raw["vocab"]) == model.config.vocab_size
        assert read.encode(TEXTS[0]).ids == tokenizer.encode(TEXTS[0]).ids
        assert (model.ends.stop, model.ends.end) == ((1,), 1)


@pytest.mark.parametrize(
    "config, generation, stop",
    [
        (0, None, (0,)), (None, 0, (0,)), (3, 0, (0,)), (3, [0, 7], (0, 7)), ([5, 0], None, (5, 0)), (3, {}, (3,)),
        (None, None, (1,)), (50256, 50256, (1,)), (50256, [50256, 7], (7,)),
    ],
)  # fmt: skip
def test_end_tokens_are_those_of_the_checkpoint_and_come_back_from_an_export(config, generation, stop, tmp_path):
    """As transformers counts them, but that where it would never stop, the tokenizer's end token does."""
    folder = written(tmp_path, byte_level(add_prefix_space=False))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": config}))
    if generation is not None:
        content = generation if isinstance(generation, dict) else {"eos_token_id": generation}
        (folder / "generation_config.json").write_text(json.dumps(content))
    model, tokenizer = checkpoint.import_hf(folder, tiny.CPU, tiny.THREADS)
    assert (model.ends.stop, model.ends.end, model.ends.begin) == (stop, 1, 0)
    checkpoint.export_hf(model, tokenizer, tmp_path / "back")
    back = json.loads((tmp_path / "back/generation_config.json").read_text())["eos_token_id"]
    assert back == (stop[0] if len(stop) == 1 else [*stop])
    assert checkpoint.import_hf(tmp_path / "back", tiny.CPU, tiny.THREADS)[0].ends == model.ends
    assert main(["import-hf", str(folder), "--out", str(tmp_path / "own")]) == 0
    assert checkpoint.load(tmp_path / "own", tiny.CPU, tiny.THREADS)[0].ends == model.ends
    assert main(["export-hf", str(tmp_path / "own"), "--out", str(tmp_path / "again")]) == 0
    for name in ("generation_config.json", "tokenizer_config.json", "tokenizer.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "back" / name).read_bytes(), name


def test_an_export_names_an_unknown_token_as_gpt2s_does(tmp_path):
    """CTranslate2 opens nothing without one. The end token is none of a text's, and so changes nothing."""
    for n, (tokenizer, end, unknown) in enumerate(
        [(byte_level(add_prefix_space=False), "</s>", "</s>"), (words(), "</s>", "<unk>"), (byte_level(), None, None)]
    ):
        (tmp_path / str(n)).mkdir()
        folder = written(tmp_path / str(n), tokenizer, eos_token=end, bos_token=end, unk_token=None)
        model, read = checkpoint.import_hf(folder, tiny.CPU, tiny.THREADS)
        checkpoint.export_hf(model, read, tmp_path / str(n) / "back")
        settings = json.loads((tmp_path / str(n) / "back/tokenizer_config.json").read_text())
        assert (settings.get("eos_token"), settings.get("unk_token")) == (end, unknown)
        back = hf_folder.read(tmp_path / str(n) / "back")[2]
        for text in [*TEXTS, "</s>a<unk>"]:
            assert back.encode(text).ids == read.encode(text).ids


def test_an_end_token_without_a_text_is_kept(tmp_path):
    """An id of the embedding's that the tokenizer does not use."""
    folder = written(tmp_path, byte_level(add_prefix_space=False), eos_token=None, bos_token=None)
    n = json.loads((folder / "config.json").read_text())["vocab_size"]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": n - 1}))
    model, tokenizer = checkpoint.import_hf(folder, tiny.CPU, tiny.THREADS)
    assert (model.ends.stop, model.ends.end, model.ends.before_text) == ((n - 1,), n - 1, n - 1)
    checkpoint.export_hf(model, tokenizer, tmp_path / "back")
    assert checkpoint.import_hf(tmp_path / "back", tiny.CPU, tiny.THREADS)[0].ends == model.ends


@pytest.mark.parametrize("kind", [lambda: byte_level(add_prefix_space=False), word_piece])
def test_the_added_tokens_of_an_older_version_are_those_of_transformers(tmp_path, kind):
    tokenizer = kind()
    folder = written(tmp_path, tokenizer)
    n = tokenizer.get_vocab_size()
    (folder / "added_tokens.json").write_text(json.dumps({"Zebra": n + 1, "<extra>": n}))
    ours, peer = hf_folder.read(folder)[2], peer_of(folder)
    for text in ("a<extra> Zebra zebra", "<extra>", "the film"):
        assert ours.encode(text).ids == peer.encode(text), text
    assert n in ours.encode("a<extra>").ids


def test_an_added_tokens_file_without_ids_is_refused(tmp_path):
    folder = written(tmp_path, words())
    (folder / "added_tokens.json").write_text('{"<extra>": "x"}')
    with pytest.raises(UserError, match="added_tokens.json: maps no tokens to ids; get the file again"):
        hf_folder.read(folder)
