"""Tokenizers of every kind that transformers has: encoded, decoded, streamed and evaluated as it does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from tokenizer_kinds import KINDS, TEXTS, peer_of, written

from cgpt import checkpoint
from cgpt.__main__ import main
from cgpt.checkpoint import transformers_folder as hf_folder
from cgpt.commands.generate import Stream
from cgpt.inference.stop_strings import StopStrings, text_after

PROBES = [
    *TEXTS, "", " the", "the ", "THE Film", "cafe\u0301 is good", "a</s>b <s> c", "the film<|user|> is  <mask>  good",
    "  three", "\n", "film.film", "don't",
]  # fmt: skip


@pytest.fixture(params=KINDS)
def folder(request, tmp_path) -> Path:
    return written(tmp_path, KINDS[request.param]())


def test_a_tokenizer_of_any_kind_encodes_and_decodes_as_that_of_transformers(folder):
    peer = peer_of(folder)
    _, _, tokenizer = hf_folder.read(folder)
    for text in PROBES:
        for special in (True, False):
            wanted = peer.encode(text, add_special_tokens=special)
            assert tokenizer.encode(text, add_special_tokens=special).ids == wanted, text
            for skipped in (True, False):
                ours = tokenizer.decode(wanted, skip_special_tokens=skipped)
                assert ours == peer.decode(wanted, skip_special_tokens=skipped)


def test_what_is_imported_and_exported_is_the_same_tokenizer_to_transformers(folder, tmp_path):
    peer = peer_of(folder)
    model, tokenizer = checkpoint.import_hf(folder, tiny.CPU, tiny.THREADS)
    checkpoint.export_hf(model, tokenizer, tmp_path / "back")
    back = peer_of(tmp_path / "back")
    assert (back.eos_token, back.bos_token) == ("</s>", "<s>")
    for text in PROBES:
        assert back.encode(text) == peer.encode(text), text


def test_a_streamed_continuation_is_the_text_that_its_tokens_add_to_the_prompts(folder, capsys):
    _, _, tokenizer = hf_folder.read(folder)
    rng = np.random.default_rng(0)
    for prompt in ("the film", "a café", "no yes ."):
        before = tokenizer.encode(prompt).ids
        for n in (1, 3, 12, 30):
            new = [*rng.integers(3, tokenizer.get_vocab_size(), n).tolist()]
            stream = Stream(prompt, before, tokenizer)
            for token in new:
                stream.add(token)
            stream.end()
            text = text_after(tokenizer, before, new)
            assert capsys.readouterr().out == f"{prompt}{text}\n"
            assert tokenizer.decode([*before, *new]) == tokenizer.decode(before) + text


def test_a_word_after_a_prompt_keeps_the_blank_before_it(folder):
    _, _, tokenizer = hf_folder.read(folder)
    text = "the film is good"
    whole, blanks = tokenizer.encode(text, add_special_tokens=False).ids, 0
    for n in range(1, len(whole)):
        before, new = whole[:n], whole[n:]
        added = text_after(tokenizer, before, new)
        assert (tokenizer.decode(before) + added).strip() == text
        stops = [StopStrings(tokenizer, [" is"])(new[:end]) for end in range(1, len(new) + 1)]
        there = [" is" in text_after(tokenizer, before, new[:end]) for end in range(1, len(new) + 1)]
        assert True not in there or stops[: there.index(True) + 1] == there[: there.index(True) + 1]
        blanks += added[0] == " "
    assert blanks


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=args) for args in arguments]


def test_an_evaluation_asks_the_model_what_that_of_lm_evaluation_harness_asks(folder):
    """Log-likelihoods, rolling ones and greedy answers, with tokens added to texts and with the folder's end token."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    from cgpt.inference.lm_eval_model import Adapter

    torch.set_num_threads(1)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 1]}))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    peer = HFLM(pretrained=theirs, tokenizer=peer_of(folder), backend="causal", batch_size=1, device="cpu")
    model, tokenizer = checkpoint.import_hf(folder, tiny.CPU, tiny.THREADS)
    ours = Adapter(model, tokenizer)
    assert (ours.eot_token_id, ours.prefix_token_id) == (peer.eot_token_id, peer.prefix_token_id)
    pairs = [
        ("the film is", " good"),
        ("", "the film"),
        ("<s> no", " film"),
        ("who was here ? ", "no yes"),
        ("a", " b"),
    ]
    for one, other in zip(ours.loglikelihood(requests(*pairs)), peer.loglikelihood(requests(*pairs))):
        assert one[0] == pytest.approx(other[0], abs=1e-3) and one[1] == other[1]
    texts = requests(*((text,) for text in TEXTS))
    assert ours.loglikelihood_rolling(texts) == pytest.approx(peer.loglikelihood_rolling(texts), abs=2e-3)
    contexts = [(text, {"until": [".", " film"], "max_gen_toks": 20, "do_sample": False}) for text in TEXTS]
    assert ours.generate_until(requests(*contexts)) == peer.generate_until(requests(*contexts))


def test_a_greedy_continuation_has_the_tokens_of_transformers_and_ends_where_its_does(folder, capsys):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    own = folder.parent / "own"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(TEXTS[0], return_tensors="pt")
    prompt.pop("token_type_ids", None)
    n, options = prompt.input_ids.shape[1], {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    free = model.generate(**prompt, **options)[0, n:].tolist()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [free[9], 1]}))
    assert main(["import-hf", str(folder), "--out", str(own)]) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    wanted = model.generate(**prompt, **options)[0, n:].tolist()
    capsys.readouterr()
    arguments = ["--greedy", "--max-new-tokens", "20", "--threads", str(tiny.THREADS), "--json"]
    assert main(["generate", "--checkpoint", str(own), "--prompt", TEXTS[0], *arguments]) == 0
    (made,) = json.loads(capsys.readouterr().out)["continuations"]
    assert wanted[-1] in (free[9], 1) and [*made["tokens"], wanted[-1]] == wanted
