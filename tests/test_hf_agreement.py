"""The same logits, top tokens, perplexities and continuations as in transformers, for checkpoints of either side."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from tinygrad import Tensor

from cgpt import checkpoint
from cgpt.inference.generate import Generator
from cgpt.model.loglikelihood import score
from cgpt.spec import Model

torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install .[peer])")
torch.set_num_threads(1)  # for such small products more only wait for each other

TOLERANCE = 2e-4
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


def settings_of(n_head: int) -> dict:
    """A configuration in transformers' words: as many as there are numbers of heads, with widths of every kind."""
    n_embd = n_head * (1 + 2 * (n_head % 5))  # heads of 3, 5, 7, 9 and 1: an odd width where their number is odd
    return {
        "n_head": n_head, "n_embd": n_embd, "n_layer": 1 + n_head % 3, "n_positions": 9 + 7 * n_head,
        "n_inner": None if n_head % 4 == 1 else n_embd + n_head, "vocab_size": 40 + 13 * n_head,
        "activation_function": ACTIVATIONS[n_head % 4], "tie_word_embeddings": n_head % 2 == 0,
        "layer_norm_epsilon": 1e-5 if n_head % 3 else 1e-3, "scale_attn_weights": n_head != 7,
        "scale_attn_by_inverse_layer_idx": n_head in (3, 8), "initializer_range": 0.3,
    }  # fmt: skip


def peer_of(folder: Path, **settings):
    """A model of transformers, written as it writes them, with a tokenizer."""
    torch.manual_seed(settings["n_head"])
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            if parameter.ndim == 1:  # biases and LayerNorms that count
                parameter += 0.3 * torch.randn(parameter.shape)
    peer.save_pretrained(folder)
    tiny.write_tokenizer(folder / "tokenizer.json", settings["vocab_size"])
    return peer


def their_logits(peer, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return peer(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()


def assert_agree(model, peer, n_positions: int, vocab_size: int) -> None:
    """Logits within the tolerance and the same top token everywhere, for lengths from 1 to the longest."""
    for rows, length in ((2, 1), (1, n_positions // 2), (2, n_positions)):
        tokens = np.random.default_rng(length).integers(0, vocab_size, (rows, length)).astype(np.int32)
        wanted, logits = their_logits(peer, tokens), model(Tensor(tokens, device="CPU")).numpy()
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(logits.argmax(-1), wanted.argmax(-1))


@pytest.mark.parametrize("n_head", range(1, 17))
def test_a_checkpoint_of_transformers_has_its_logits_and_comes_back_as_it_was(tmp_path, n_head):
    settings = settings_of(n_head)
    peer = peer_of(tmp_path / "theirs", **settings)
    model, tokenizer = checkpoint.import_hf(tmp_path / "theirs", tiny.CPU, tiny.THREADS)
    assert_agree(model, peer, settings["n_positions"], settings["vocab_size"])
    checkpoint.export_hf(model, tokenizer, tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    for name, value in peer.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    tokens = np.arange(settings["n_positions"], dtype=np.int32)[None]
    np.testing.assert_allclose(their_logits(back, tokens), their_logits(peer, tokens), rtol=0, atol=TOLERANCE)


def test_the_perplexity_is_that_of_transformers_to_six_digits(tmp_path):
    settings = settings_of(6)
    peer = peer_of(tmp_path, **settings)
    model, _ = checkpoint.import_hf(tmp_path, tiny.CPU, tiny.THREADS)
    tokens = np.random.default_rng(0).integers(0, settings["vocab_size"], (8, settings["n_positions"])).astype(np.int32)
    nats = -np.concatenate([logprobs for logprobs, _ in score(model, list(tokens), [1] * 8)]).mean(dtype=np.float64)
    with torch.no_grad():
        ids = torch.from_numpy(tokens.astype(np.int64))
        wanted = peer(ids, labels=ids).loss.item()
    assert math.exp(nats) == pytest.approx(math.exp(wanted), rel=1e-6)


@pytest.mark.parametrize("n_head", [3, 6])
def test_greedy_continuations_are_those_of_transformers_whatever_the_activation_head_or_scale(tmp_path, n_head):
    settings = settings_of(n_head)
    peer = peer_of(tmp_path, **settings)
    model, _ = checkpoint.import_hf(tmp_path, tiny.CPU, tiny.THREADS)
    prompt = [3, 1, 4, 1, 5]
    out = peer.generate(torch.tensor([prompt]), max_new_tokens=15, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert Generator(model).generate([prompt], 15) == [out[0, len(prompt) :].tolist()]


@pytest.mark.parametrize("tied", [True, False])
def test_a_mup_model_opens_in_transformers_with_the_same_logits(tmp_path, tied):
    config = Model("mup", n_layer=3, d_model=40, n_head=5, seq_len=33, vocab_size=77, tie_embeddings=tied,
                   activation="gelu_new", parametrization="mup", mup_base_width=16.0)  # fmt: skip
    model = tiny.model(tiny.rough_parameters(config), config)
    tiny.write_tokenizer(tmp_path / "tokenizer.json", 77)
    from tokenizers import Tokenizer

    checkpoint.export_hf(model, Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tmp_path / "hf")
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert_agree(model, peer, 33, 77)


def test_what_is_exported_opens_with_its_tokenizer_and_its_settings_of_generation(tmp_path):
    model = tiny.model(tiny.rough_parameters())
    tiny.write_tokenizer(tmp_path / "tokenizer.json")
    from tokenizers import Tokenizer

    checkpoint.export_hf(model, Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer("w3 w7 <|endoftext|>")["input_ids"] == [3, 7, 49]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.model_max_length) == (49, 49, 20)
    pipeline = transformers.pipeline("text-generation", model=str(tmp_path / "hf"), tokenizer=tokenizer, device="cpu")
    (made,) = pipeline("w3 w7", max_new_tokens=6, do_sample=False, return_tensors=True)
    assert made["generated_token_ids"][2:] == Generator(model).generate([[3, 7]], 6)[0]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_what_is_exported_converts_to_ctranslate2_and_has_its_greedy_tokens(tmp_path, activation, tied):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed (pip install .[peer])")
    from tokenizers import Tokenizer

    config = replace(tiny.CONFIG, seq_len=60, activation=activation, tie_embeddings=tied)
    model = tiny.model(tiny.rough_parameters(config), config)
    tiny.write_tokenizer(tmp_path / "tokenizer.json")
    checkpoint.export_hf(model, Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tmp_path / "hf")
    ctranslate2.converters.TransformersConverter(str(tmp_path / "hf")).convert(str(tmp_path / "converted"))
    peer = ctranslate2.Generator(str(tmp_path / "converted"), compute_type="float32", intra_threads=tiny.THREADS)
    words = json.loads((tmp_path / "converted/vocabulary.json").read_text())
    prompts = [[3, 7, 9], [5, 4, 1], [8, 8, 8]]
    options = {"max_length": 40, "end_token": [], "include_prompt_in_result": False}
    answers = peer.generate_batch([[words[token] for token in prompt] for prompt in prompts], **options)
    assert [answer.sequences_ids[0] for answer in answers] == Generator(model).generate(prompts, 40)


def test_a_checkpoint_in_the_form_of_the_published_cerebras_gpt_loads(tmp_path):
    """A short config.json, masks and a head among the weights of a torch file, and a tokenizer of two files."""
    settings = settings_of(4) | {"activation_function": "gelu", "vocab_size": 60, "n_inner": 40}
    peer = peer_of(tmp_path, **settings)
    for name in ("model.safetensors", "tokenizer.json", "generation_config.json"):
        (tmp_path / name).unlink()
    short = ("n_embd", "n_layer", "n_head", "n_positions", "n_inner", "vocab_size", "activation_function")
    config = {key: settings[key] for key in short} | {
        "attn_pdrop": 0.0, "scale_attn_weights": True, "resid_pdrop": 0.0, "layer_norm_epsilon": 1e-05,
        "tie_word_embeddings": True, "embd_pdrop": 0.0, "model_type": "gpt2",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config, indent=4) + "\n")
    state = dict(peer.state_dict())
    n = settings["n_positions"]
    for i in range(settings["n_layer"]):
        state[f"transformer.h.{i}.attn.bias"] = torch.tril(torch.ones(n, n, dtype=torch.uint8)).view(1, 1, n, n)
        state[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(state, tmp_path / "pytorch_model.bin")
    letters = [chr(c) for c in range(ord("a"), ord("a") + 26)]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate([*letters, "<|endoftext|>"])}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    model, tokenizer = checkpoint.import_hf(tmp_path, tiny.CPU, tiny.THREADS)
    assert replace(model.config, name="") == Model(
        "", n_layer=settings["n_layer"], d_model=settings["n_embd"], n_head=4, seq_len=n, d_ffn=40, vocab_size=60,
        layer_norm_epsilon=1e-5, init_std=0.02,
    )  # fmt: skip
    assert tokenizer.encode("cab<|endoftext|>").ids == [2, 0, 1, 26]
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert_agree(model, peer, n, 60)
