"""Model files that anybody may have written: wrong, damaged or made to do harm, they end in one line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from test_hf import edit_config, exported, problems, written

from cgpt import checkpoint
from cgpt.__main__ import main
from cgpt.checkpoint import transformers_folder as hf_folder
from cgpt.checkpoint.torch_file import read_torch_file
from cgpt.errors import UserError
from cgpt.kernels import tensors
from cgpt.model import config as hf_config

NO_MAP = "has no `weight_map` of tensors to files"


@pytest.fixture
def folder(tmp_path) -> Path:
    return exported(tmp_path)


def zipped(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """A file in the form of torch's, of 8 numbers and a pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", bytes(32))
    return path


def pickled_view(size: int, stride: int) -> bytes:
    """What torch.save writes of {"a": tensor} with that size and stride, by hand."""
    storage = b"(V" + b"storage\nctorch\nFloatStorage\nV0\nVcpu\nI8\ntQ"
    return b"(Va\nctorch._utils\n_rebuild_tensor_v2\n(" + storage + f"I0\n(I{size}\nt(I{stride}\nttRd.".encode()


def test_a_torch_file_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    assert read_torch_file(zipped(path, pickled_view(8, 1)))["a"].tolist() == [0] * 8
    large = b"\x80\x02" + b"N0" * 5 + b"Nr" + (2**31).to_bytes(4, "little") + b"."  # puts an object at place 2^31
    for content, compression, message in (
        (pickled_view(10**9, 0), zipfile.ZIP_STORED, "a tensor repeats its storage"),
        (pickled_view(2**62, 4), zipfile.ZIP_STORED, "a tensor reaches beyond its storage"),
        (pickled_view(8, 1), zipfile.ZIP_DEFLATED, "archive/data.pkl is compressed"),
        (large, zipfile.ZIP_STORED, "it counts more objects than it has"),
        (b"(" * 10**5 + b"t" * 10**5 + b".", zipfile.ZIP_STORED, "holds other things than tensors by name"),
    ):
        with pytest.raises(UserError, match=message):
            read_torch_file(zipped(path, content, compression))
    path.write_bytes(large)
    with pytest.raises(UserError, match="it counts more objects than it has"):
        read_torch_file(path)


@pytest.mark.parametrize("content, says", [
    ("[]", "holds list, no JSON object"), ("[" * 100_000, "is not JSON (is nested too deep)"), ("{}", NO_MAP),
    ('{"weight_map": [1]}', NO_MAP), ('{"weight_map": {"a": 5}}', NO_MAP),
])  # fmt: skip
def test_an_index_of_shards_that_is_none_is_refused(folder, content, says):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    assert problems(folder) == [f"model.safetensors.index.json: {says}; get the file again"]


def test_weights_of_a_torch_file_are_copied_to_a_device_though_they_are_read_only(tmp_path):
    values = read_torch_file(zipped(tmp_path / "pytorch_model.bin", pickled_view(8, 1)))["a"]
    assert not values.flags.writeable
    assert tensors.held(values, "CPU").tolist() == [0] * 8


def test_weights_of_nothing_but_zeros_are_refused_before_they_are_read(folder, monkeypatch):
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(3 << 30)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"read {path}"))
    assert problems(folder) == [
        "model.safetensors: is truncated or no safetensors file (its header would take 0 bytes); get the file again"
    ]


def test_of_thousands_of_wrong_parameters_twenty_are_named(folder):
    edit_config(folder, n_layer=9000)
    lines = problems(folder)
    assert len(lines) == 21
    assert lines[-1] == "model.safetensors: 107,956 more parameters are wrong; get the file again"


WRONG = ({}, [], {"a": [1]}, "x", True, -1, 1.5, float("inf"), float("nan"), 10**30, "\ud83d")


@pytest.mark.parametrize("key", [*hf_config.NAMES.values(), *hf_config.DROPOUTS, *hf_config.MUP_DEFAULTS,
                                 "mup_scale_qk_dot_by_d", "model_type", "residual_init_std", "name", "eos_token_id",
                                 "position_embedding_type", "another"])  # fmt: skip
def test_a_wrong_value_in_a_configuration_is_refused_in_one_line_or_is_none(folder, key):
    known = json.loads((folder / "config.json").read_text()).get(key)
    for value in WRONG:
        edit_config(folder, **{key: value})
        for read in (hf_folder.read, checkpoint.read_config, checkpoint.import_hf):
            try:
                read(folder)
            except UserError as error:
                assert all(problem.count("\n") == 0 and len(problem) < 400 for problem in error.problems)
                named = "mup_scale_qk_dot_by_d" if key in hf_config.MUP_DEFAULTS else key  # which is missing
                assert any(f"{key}: " in problem or f"{named}: " in problem for problem in error.problems)
            else:
                continue
    edit_config(folder, **{key: known})


def test_an_activation_that_is_no_word_and_a_dropout_that_is_no_number_are_refused_by_name(folder):
    edit_config(folder, activation_function={}, attn_pdrop="x", resid_pdrop=1.5, name=3, n_layer=10**30)
    assert problems(folder) == [
        f"config.json: n_layer: is {10**30}, a whole number above 0 is expected; get the file again",
        "config.json: attn_pdrop: is 'x', a share from 0 to 1 is expected; get the file again",
        "config.json: resid_pdrop: is 1.5, a share from 0 to 1 is expected; get the file again",
        "config.json: name: is 3, a text is expected; get the file again",
        "config.json: activation_function: {} is not implemented; take a checkpoint with one of gelu, gelu_new, "
        "gelu_pytorch_tanh, relu",
    ]


def test_a_folder_whose_name_is_no_text_is_imported_under_one_that_is(tmp_path):
    ours = written(tmp_path / "own").rename(tmp_path / "caf\udce9")
    config = json.loads((ours / "config.json").read_text())
    del config["name"]
    (ours / "config.json").write_text(json.dumps(config))
    assert main(["import-hf", str(ours), "--out", str(tmp_path / "new")]) == 0
    assert checkpoint.read_config(tmp_path / "new").name == "caf\ufffd"
