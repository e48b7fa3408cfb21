"""Import from and export to Hugging Face transformers: the same logits, the same bits back, and nothing ignored."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from project import write_project
from results_fixture import run_json, scores_json, write_json
from safetensors.numpy import load_file, save_file
from tinygrad import Tensor
from tokenizers import AddedToken, Tokenizer

from cgpt import checkpoint
from cgpt.__main__ import main
from cgpt.checkpoint import transformers_folder as hf_folder
from cgpt.checkpoint.torch_file import read_torch_file
from cgpt.checkpoint.weights import read_weights
from cgpt.errors import UserError
from cgpt.experiment import load, plan
from cgpt.recipe import flops
from cgpt.spec import Model

MUP = replace(tiny.CONFIG, name="mup", parametrization="mup", mup_base_width=8.0, mup_output_alpha=1.5, init_std=0.08)
UNTIED = replace(tiny.CONFIG, name="untied", tie_embeddings=False, activation="relu")


def written(folder: Path, config: Model = tiny.CONFIG) -> Path:
    """An own checkpoint with a tokenizer."""
    tiny.write_tokenizer(folder / "tokenizer.json", config.vocab_size)
    checkpoint.save(folder, config, tiny.rough_parameters(config), folder / "tokenizer.json")
    return folder


def exported(folder: Path, config: Model = tiny.CONFIG) -> Path:
    ours = written(folder / "own", config)
    model, tokenizer = checkpoint.load(ours, tiny.CPU, tiny.THREADS)
    checkpoint.export_hf(model, tokenizer, folder / "hf")
    return folder / "hf"


def logits(model, tokens: np.ndarray) -> np.ndarray:
    return model(Tensor(tokens, device="CPU")).numpy()


def edit_config(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def problems(folder: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        hf_folder.read(folder)
    return [problem.replace(f"{folder}/", "").replace(f"{folder}:", "folder:") for problem in caught.value.problems]


@pytest.fixture
def folder(tmp_path) -> Path:
    return exported(tmp_path)


@pytest.mark.parametrize("config", [tiny.CONFIG, UNTIED], ids=lambda config: config.name)
def test_import_export_import_gives_the_same_bits(tmp_path, config):
    first = exported(tmp_path, config)
    model, tokenizer = checkpoint.import_hf(first, tiny.CPU, tiny.THREADS)
    assert model.config == config and tokenizer.encode("w7").ids == [7]
    checkpoint.export_hf(model, tokenizer, tmp_path / "again")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes(), name
    for name, value in tiny.rough_parameters(config).items():
        np.testing.assert_array_equal(model.params[name].numpy(), value)


def test_a_mup_checkpoint_comes_back_with_its_multipliers_and_exports_as_plain_weights(tmp_path):
    ours, tokens = written(tmp_path / "own", MUP), tiny.batch(0)[0]
    assert checkpoint.read_config(ours) == MUP
    model, tokenizer = checkpoint.load(ours, tiny.CPU, tiny.THREADS)
    imported, _ = checkpoint.import_hf(ours, tiny.CPU, tiny.THREADS)
    np.testing.assert_array_equal(logits(imported, tokens), logits(model, tokens))
    checkpoint.export_hf(model, tokenizer, tmp_path / "hf")
    plain, _ = checkpoint.import_hf(tmp_path / "hf", tiny.CPU, tiny.THREADS)
    assert plain.config == replace(MUP, parametrization="sp", mup_base_width=256.0, mup_output_alpha=1.0)
    wanted = logits(model, tokens)
    np.testing.assert_allclose(logits(plain, tokens), wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
    assert "maximal update parametrization" in (tmp_path / "hf/README.md").read_text()


def test_published_mup_keys_without_a_width_scale_load_as_transformers_code_for_them_reads_them(tmp_path):
    """Cerebras-GPT's muP checkpoints name the embedding's scale and 1 / d_head alone; their own head holds the rest."""
    ours = written(tmp_path / "own", replace(tiny.CONFIG, tie_embeddings=False))
    edit_config(ours, model_type="btlm", mup_embeddings_scale=10, mup_scale_qk_dot_by_d=True)
    config, _, _ = hf_folder.read(ours)
    assert (config.parametrization, config.mup_embedding_scale) == ("mup", 10.0)
    assert config.mup_base_width == config.d_model and config.mup_output_alpha == 1.0


def test_the_keys_of_a_model_without_a_head_and_the_masks_of_old_versions_are_understood(folder):
    params = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): value for name, value in params.items()}
    old |= {f"h.{i}.attn.bias": np.ones((1, 1, 20, 20), np.uint8) for i in range(2)}
    old |= {f"h.{i}.attn.masked_bias": np.full((), -1e4, np.float32) for i in range(2)}
    old["lm_head.weight"] = old["wte.weight"].copy()
    save_file(old, folder / "model.safetensors")
    _, params_read, _ = hf_folder.read(folder)
    assert set(params_read) == set(params)
    assert all(np.array_equal(params_read[name], params[name]) for name in params)


def test_weights_in_shards_are_read_by_their_index(folder):
    params = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    weight_map = {name: files[i % 3] for i, name in enumerate(params)}
    for file in files:
        save_file({name: params[name] for name in params if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    _, params_read, _ = hf_folder.read(folder)
    assert all(np.array_equal(params_read[name], params[name]) for name in params)
    (folder / files[1]).unlink()
    assert problems(folder) == [f"model.safetensors.index.json: weight_map: '{files[1]}' is no file of this folder; "
                                "get it, or correct the index"]  # fmt: skip


def test_an_index_cannot_name_files_of_other_folders(folder):
    weight_map = {"transformer.wte.weight": "../own/model.safetensors"}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "'../own/model.safetensors' is no file of this folder" in problems(folder)[0]


def test_half_and_brain_floats_become_the_same_numbers_in_float32(folder):
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    params = load_file(folder / "model.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        low = {name: torch.from_numpy(value).to(dtype) for name, value in params.items()}
        safetensors_torch.save_file(low, folder / "model.safetensors")
        torch.save(low, folder / "pytorch_model.bin")
        by_kind = {
            "safetensors": read_weights(folder, tiny.CONFIG),
            "bin": read_torch_file(folder / "pytorch_model.bin"),
        }
        for name, value in low.items():
            for params_read in by_kind.values():
                np.testing.assert_array_equal(params_read[name].astype(np.float32), value.float().numpy())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_torch_is_read_without_torch(folder, legacy):
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
    params = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state = OrderedDict((name, torch.from_numpy(value)) for name, value in params.items())
    state["transformer.wpe.weight"] = state["transformer.wpe.weight"].t().contiguous().t()  # other strides
    state["transformer.ln_f.bias"] = torch.nn.Parameter(torch.cat([torch.zeros(5), state["transformer.ln_f.bias"]])[5:])
    state["lm_head.weight"] = state["transformer.wte.weight"]  # one storage, twice
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    _, params_read, _ = hf_folder.read(folder)
    assert all(np.array_equal(params_read[name], params[name]) for name in params)
    content = (folder / "pytorch_model.bin").read_bytes()
    for kept in (0, 100, len(content) // 2, len(content) - 1000):
        (folder / "pytorch_model.bin").write_bytes(content[:kept])
        (problem,) = problems(folder)
        assert problem.startswith("pytorch_model.bin: is truncated or no PyTorch file (")


class Runs:
    """What a pickle does when it is opened."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("module", ["os", "numpy", "collections", "torch"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, module, legacy):
    trace, path = tmp_path / "trace", tmp_path / "pytorch_model.bin"
    call = {
        "os": pickle.dumps(Runs(os.system, f"touch {trace}"), 2),
        "numpy": b"cnumpy.f2py.diagnose\nrun_command\n(V" + f"touch {trace}".encode() + b"\ntR.",
        "collections": pickle.dumps(Runs(eval, f"open({str(trace)!r}, 'w')"), 2),
        "torch": b"ctorch.serialization\nload\n(V" + str(trace).encode() + b"\ntR.",
    }[module]
    if legacy:
        path.write_bytes(call)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", call)
    with pytest.raises(UserError, match=r"would run [\w.]+ when it is opened, so it is not; get the weights as safet"):
        read_torch_file(path)
    assert not trace.exists()


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(8)}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data[:16] if name.endswith("data/0") else data)
    with pytest.raises(UserError, match="a tensor reaches beyond its storage"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "values, problem",
    [
        ({"model_type": "llama"}, "model_type: 'llama' is not implemented; take a checkpoint of gpt2, or of btlm with "
                                  "learned positions"),
        ({"model_type": "gpt_neo", "n_head": 5, "attention_types": [[["global"], 2]]},
         "model_type: 'gpt_neo' is not implemented; take a checkpoint of gpt2, or of btlm with learned positions"),
        ({"activation_function": "swiglu"}, "activation_function: 'swiglu' is not implemented; take a checkpoint with "
                                            "one of gelu, gelu_new, gelu_pytorch_tanh, relu"),
        ({"add_cross_attention": True}, "add_cross_attention: is True, only False is implemented; take a checkpoint "
                                        "without it"),
        ({"model_type": "btlm", "position_embedding_type": "alibi"},
         "position_embedding_type: is 'alibi', only 'learned' is implemented; take a checkpoint without it"),
        ({"rope_theta": 1e4}, "rope_theta: is no option that is implemented; remove it if the model computes the same "
                              "without it"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: is no option that is implemented; remove it if "
                                               "the model computes the same without it"),
        ({"mup_embeddings_scale": 10}, "mup_scale_qk_dot_by_d: is False beside other mup_* keys, only true is "
                                       "implemented there; take a checkpoint that has it"),
        ({"mup_width_scale": "a", "mup_scale_qk_dot_by_d": True}, "mup_width_scale: is 'a', a number above 0 is "
                                                                  "expected; get the file again"),
        ({"n_head": 5}, "n_embd: 24 is not divisible by n_head 5; get the file again"),
        ({"n_inner": 0}, "n_inner: is 0, a whole number or null is expected; get the file again"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: is 'yes', true or false is expected; get the file "
                                         "again"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_implemented_is_refused_by_name(folder, values, problem):
    edit_config(folder, **values)
    assert problems(folder) == [f"config.json: {problem}"]


def test_keys_that_change_nothing_are_accepted_and_dropout_is_mentioned(folder, capsys):
    edit_config(folder, attn_pdrop=0.1, resid_pdrop=0.25, gradient_checkpointing=False, pruned_heads={}, n_ctx=20,
                summary_type="cls_index", reorder_and_upcast_attn=True, transformers_version="4.27.2")  # fmt: skip
    config, _, _ = hf_folder.read(folder)
    assert config == tiny.CONFIG
    assert "attn_pdrop 0.1, resid_pdrop 0.25: trained on here, the model has no dropout" in capsys.readouterr().err


def test_names_that_transformers_takes_too_and_keys_left_out_have_transformers_meaning(folder):
    config = json.loads((folder / "config.json").read_text())
    others = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
              "n_positions": "max_position_embeddings"}  # fmt: skip
    for theirs, other in others.items():
        config[other] = config.pop(theirs)
    for key in ("activation_function", "tie_word_embeddings", "layer_norm_epsilon", "model_type", "name"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    assert hf_folder.read(folder)[0] == replace(tiny.CONFIG, name=folder.name, activation="gelu_new")


def test_a_head_of_its_own_under_a_tied_configuration_is_refused(folder):
    params = load_file(folder / "model.safetensors")
    params["lm_head.weight"] = params["transformer.wte.weight"] + 1
    save_file(params, folder / "model.safetensors")
    assert problems(folder) == ["model.safetensors: lm_head.weight: is not transformer.wte.weight, though "
                                "tie_word_embeddings of config.json is true; write false there if the head is its "
                                "own"]  # fmt: skip


def test_missing_weights_unknown_weights_and_types_are_named(folder):
    params = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in params.items() if name != "transformer.ln_f.bias"}
    save_file(kept | {"transformer.h.0.attn.rotary": np.zeros(2, np.float32)}, folder / "model.safetensors")
    assert problems(folder) == [
        "model.safetensors: transformer.ln_f.bias: is missing; get the file again",
        "model.safetensors: transformer.h.0.attn.rotary: is no parameter of this model; get the file again",
    ]
    save_file(params | {"transformer.ln_f.bias": np.zeros(24, np.int64)}, folder / "model.safetensors")
    assert problems(folder) == [
        "model.safetensors: transformer.ln_f.bias: has the type int64; convert the weights to float32"
    ]
    (folder / "model.safetensors").write_bytes(b"\x80\x02")
    assert problems(folder)[0].startswith("model.safetensors: is truncated or no safetensors file (")
    (folder / "model.safetensors").unlink()
    assert problems(folder) == ["folder: has neither model.safetensors nor pytorch_model.bin, nor an index of their "
                                "shards; put the weights there"]  # fmt: skip


def test_a_tokenizer_of_two_files_gives_the_tokens_of_transformers(folder, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install .[peer])")
    (folder / "tokenizer.json").unlink()
    assert problems(folder) == ["folder: has neither tokenizer.json nor vocab.json and merges.txt; put the tokenizer "
                                "there"]  # fmt: skip
    letters = [chr(c) for c in range(ord("a"), ord("a") + 26)]
    words = [*letters, "Ġ", "th", "the", "Ġthe", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\nĠ the\n")
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": len(words)}))
    _, _, tokenizer = hf_folder.read(folder)
    peer = transformers.GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    for text in ("the other", "a thesis on the moth", "<|endoftext|>the end", " "):
        assert tokenizer.encode(text).ids == peer(text)["input_ids"], text
    assert tokenizer.token_to_id("[PAD]") == len(words)
    (folder / "merges.txt").write_text("#version: 0.2\nx yy\n")
    assert problems(folder)[0].startswith("vocab.json: is no tokenizer with merges.txt (")


def test_the_verbs_import_and_export_and_write_whole_folders_or_none(tmp_path, capsys):
    folder = written(tmp_path / "own")
    assert main(["export-hf", str(folder), "--out", str(tmp_path / "hf"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_evaluations"] == 0
    assert main(["import-hf", str(tmp_path / "hf"), "--out", str(tmp_path / "back")]) == 0
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    ours, back = (Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")) for name in ("own", "back"))
    # As transformers does, which tokenizer_config.json tells the end token.
    ours.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    assert ours.to_str() == back.to_str()
    capsys.readouterr()
    assert main(["export-hf", str(folder), "--out", str(tmp_path / "hf")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/hf: is there already and not empty; name a new folder\n"
    shutil.rmtree(tmp_path / "back")
    (tmp_path / "hf/model.safetensors").unlink()
    assert main(["import-hf", str(tmp_path / "hf"), "--out", str(tmp_path / "back")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "own"]


def test_the_model_card_says_what_the_records_of_a_run_say_and_no_more(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where no experiment is
    ours = written(tmp_path / "runs/pretrain/one")
    record = run_json("one", "pretrain", "gpt-90k", 3, commit="abc1234", energy_j=1234.0, outputs={})
    (ours / "run.json").write_text(json.dumps(record))
    for name, checkpoint_name, stage in (("a", "one", "pretrain"), ("b", "two", "pretrain"), ("c", "one", "finetune")):
        scores = scores_json(name, f"task_{name}", stage, 0.625, checkpoint=checkpoint_name)
        write_json(tmp_path, "evaluate", name, "scores.json", scores)
    assert main(["export-hf", str(ours), "--out", "hf"]) == 0
    assert "evaluations in its model card: 1" in capsys.readouterr().out
    card = (tmp_path / "hf/README.md").read_text()
    for sentence in (
        "Corpus: world.",
        "20 optimizer steps, 1,802,240 tokens, seed 3, AdamW. Its experiment was not at hand",
        f"| FLOPs (6 N D) | {record['flops_6nd']:.3e} |",
        "| energy | 1,234 J |",
        "| seconds | 62 |",
        "| task_a | 0 | acc | 0.625 | 0.015 | 0.25 | 400 |",
        "| commit | abc1234 |",
        f"validation loss {record['validation_loss']:.4f}",
    ):
        assert sentence in card, sentence
    assert "task_b" not in card and "task_c" not in card


def test_the_model_card_of_a_run_in_its_project_has_its_settings_and_the_licences_of_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(write_project(tmp_path))
    workflow = load.load_workflow(tmp_path)
    runs = plan.make_plan(workflow.experiments["quickstart"], workflow)
    (pretrain,) = runs.of("pretrain")
    finetune = next(run for run in runs.of("finetune") if run.spec["start"] == "pretrained")
    for run in (pretrain, finetune):
        ours = written(tmp_path / "results/runs" / run.stage / run.id)
        (ours / "run.json").write_text(json.dumps(run_json(run.id, run.stage, "gpt-90k", 0, seconds=None, outputs={})))
        assert main(["export-hf", str(ours), "--out", run.stage]) == 0
    card, tuned = ((tmp_path / stage / "README.md").read_text() for stage in ("pretrain", "finetune"))
    assert "| lr | 0.003 |" in card and "| world |  |  |  |" in card and "| seconds | not known |" in card
    assert "Fine-tuned on the task topic (the whole training split)" in tuned and "| epochs | 2 |" in tuned
    assert "Of the fine-tuning alone" in tuned and "Of the fine-tuning alone" not in card


def test_a_model_without_records_has_a_card_that_says_so(folder):
    card = (folder / "README.md").read_text()
    assert card.count("Not known: the folder that this was exported from has no record of its run.") == 4
    assert "None: no evaluation" in card and f"| parameters | {flops.n_parameters(tiny.CONFIG):,} |" in card
