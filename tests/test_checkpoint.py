"""Checkpoint folders: what is saved comes back bit for bit, and what is not ours is refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file
from tinygrad import Tensor
from tokenizers import Tokenizer, models

from cgpt import checkpoint
from cgpt.errors import UserError

AGAIN = "delete its folder, so that its run is done again"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    words = {f"w{i}": i for i in range(tiny.CONFIG.vocab_size - 1)} | {"<|endoftext|>": tiny.CONFIG.vocab_size - 1}
    tokenizer = folder.parent / "tokenizer.json"
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(tokenizer))
    checkpoint.save(folder, tiny.CONFIG, tiny.rough_parameters(), tokenizer)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def edit_config(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def problems(folder: Path, of_a_run: bool = True) -> list[str]:
    if of_a_run:
        (folder / "run.json").write_text('{"code_sha256": "0"}')  # the record that a run of ours leaves
    with pytest.raises(UserError) as caught:
        checkpoint.load(folder, tiny.CPU)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_checkpoint_comes_back_bit_for_bit_with_its_configuration_and_tokenizer(folder):
    model, tokenizer = checkpoint.load(folder)  # on as many threads as this process has, whatever its cores
    assert model.config == tiny.CONFIG
    for name, value in tiny.rough_parameters().items():
        np.testing.assert_array_equal(model.params[name].numpy(), value)
    assert tokenizer.encode("w7").ids == [7]
    tokens, _ = tiny.batch(0)
    logits = model(Tensor(tokens, device="CPU"))
    assert logits.dtype.name == "float" and logits.shape == (3, 13, 50)
    np.testing.assert_array_equal(logits.numpy(), tiny.model(tiny.rough_parameters())(Tensor(tokens)).numpy())


def test_saving_what_was_loaded_gives_the_same_bytes(folder, tmp_path):
    model, _ = checkpoint.load(folder, tiny.CPU)
    checkpoint.save(tmp_path / "again", model.config, model.numpy(), folder / "tokenizer.json")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_feed_forward_width_that_is_left_out_is_four_times_the_model_width(tmp_path, folder):
    config = replace(tiny.CONFIG, d_ffn=None)
    checkpoint.save(tmp_path / "wide", config, tiny.rough_parameters(config), folder / "tokenizer.json")
    assert checkpoint.read_config(tmp_path / "wide") == config
    assert checkpoint.load(tmp_path / "wide", tiny.CPU)[0].config.d_ffn == 4 * config.d_model


@pytest.mark.parametrize(
    "name, message",
    [
        ("config.json", "config.json: is missing; name a checkpoint folder, or run its stage first"),
        ("model.safetensors", "model.safetensors: is missing; run its stage first"),
        ("tokenizer.json", f"tokenizer.json: is missing; {AGAIN}"),
    ],
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    assert problems(folder) == [message]


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_refused(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    (problem,) = problems(folder)
    assert re.fullmatch(rf"model\.safetensors: is truncated or no safetensors file \(.*\); {AGAIN}", problem)


def test_foreign_weights_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"\x80\x02ctorch._utils\n" * 100)
    assert problems(folder)[0].startswith("model.safetensors: is truncated or no safetensors file (")


def test_weights_of_a_type_that_numpy_lacks_are_refused(folder):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert problems(folder) == ["model.safetensors: a: has the type F8_E4M3; convert the weights to float32"]


def test_missing_unknown_and_misshapen_parameters_are_all_named(folder):
    params = load_file(folder / "model.safetensors")
    del params["transformer.h.0.ln_1.bias"]
    params["lm_head.weight"] = np.zeros(3, np.float32)
    params["transformer.wpe.weight"] = params["transformer.wpe.weight"][:-1].copy()
    save_file(params, folder / "model.safetensors")
    assert problems(folder) == [
        f"model.safetensors: transformer.h.0.ln_1.bias: is missing; {AGAIN}",
        f"model.safetensors: lm_head.weight: is no parameter of this model; {AGAIN}",
        "model.safetensors: transformer.wpe.weight: has shape (19, 24), the configuration says (20, 24); " + AGAIN,
    ]


def test_a_configuration_that_is_no_json_object_is_refused(folder):
    for text, says in (
        ("", "is not JSON (Expecting value: line 1 column 1 (char 0))"), ("[1, 2]", "holds list, no JSON object"),
        ('{"n_layer": 2', "is not JSON (Expecting ',' delimiter: line 1 column 14 (char 13))"),
        ("\xff", "is not UTF-8 text"),
    ):  # fmt: skip
        (folder / "config.json").write_text(text, encoding="latin-1")
        assert problems(folder) == [f"config.json: {says}; {AGAIN}"]


def test_all_problems_of_a_foreign_configuration_are_named(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"n_layer": "two", "n_head": 0, "activation_function": "silu"}
    del config["n_positions"]
    path.write_text(json.dumps(config))
    assert problems(folder) == [
        f"config.json: n_positions: is missing, so this is no checkpoint of ours; {AGAIN}",
        "config.json: n_layer: is 'two', a whole number above 0 is expected; get the file again",
        "config.json: n_head: is 0, a whole number above 0 is expected; get the file again",
        "config.json: activation_function: 'silu' is not implemented; take a checkpoint with one of gelu, gelu_new, "
        "gelu_pytorch_tanh, relu",
    ]


def test_a_model_of_another_vocabulary_is_refused(folder):
    edit_config(folder, vocab_size=51)
    assert problems(folder) == [
        f"model.safetensors: transformer.wte.weight: has shape (50, 24), the configuration says (51, 24); {AGAIN}"
    ]


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder):
    words = {f"w{i}": i for i in range(tiny.CONFIG.vocab_size + 2)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    assert problems(folder) == [
        "tokenizer.json: vocabulary: has 52 tokens, the model 50; take the model's own tokenizer"
    ]


def test_a_tokenizer_that_is_none_is_refused(folder):
    (folder / "tokenizer.json").write_text("{}")
    (problem,) = problems(folder)
    assert re.fullmatch(rf"tokenizer\.json: is no tokenizer \(.*\); {AGAIN}", problem)


def test_nobody_is_told_to_delete_a_folder_that_no_run_of_ours_made(folder):
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "run.json").write_text('{"project": "of somebody else"}')
    for name, content in (
        ("config.json", b"["), ("config.json", b"{}"), ("tokenizer.json", b"{}"), ("tokenizer.json", None),
        ("model.safetensors", b"no"), ("model.safetensors", None),
    ):  # fmt: skip
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        for problem in problems(folder, of_a_run=False):
            assert problem.startswith(name) and "; " in problem and "delete its" not in problem
        (folder / name).write_bytes(whole[name])
    edit_config(folder, n_positions=21)
    (problem,) = problems(folder, of_a_run=False)
    assert problem.endswith("; get the file again")
    config = json.loads(whole["config.json"])
    del config["n_inner"]  # as files of transformers may
    (folder / "config.json").write_text(json.dumps(config))
    (problem,) = problems(folder, of_a_run=False)
    assert problem == (
        "config.json: n_inner: is missing, so this is no checkpoint of ours; make one of it: "
        f"`cgpt import-hf {folder} --out NEW`"
    )


def test_a_folder_whose_name_is_no_text_is_opened(folder, tmp_path):
    model, tokenizer = checkpoint.load(folder.rename(tmp_path / "caf\udce9"))
    assert model.config == tiny.CONFIG and tokenizer.encode("w7").ids == [7]


def test_nothing_half_written_has_a_final_name_when_saving_fails(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "new", tiny.CONFIG, tiny.rough_parameters(), tmp_path / "no-tokenizer.json")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"config.json"}


def test_transformers_opens_the_folder_and_computes_the_same_logits(folder):
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install .[dev])")
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens, _ = tiny.batch(3)
    with torch.no_grad():
        wanted = peer(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()
    logits = checkpoint.load(folder, tiny.CPU)[0](Tensor(tokens, device="CPU")).numpy()
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=2e-4)
