"""lm-evaluation-harness with our adapter and with its own Hugging Face model: one exported checkpoint, real data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from cgpt import checkpoint
from cgpt.data.tokenizer import byte_level_bpe
from cgpt.experiment import load
from cgpt.spec import Model
from cgpt.stages.evaluate import score_task
from cgpt.stages.fetch import MIRROR
from cgpt.stages.fetch import fetch_dataset as fetch
from cgpt.tasks import lm_eval_tasks

torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
pytest.importorskip("transformers", reason="transformers is not installed (pip install .[peer])")
ROOT = Path(__file__).parent.parent
FOLDER = Path(os.environ.get(MIRROR) or ROOT.parent / "shared" / "data")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "gpt2_tokenizer").is_dir(), reason=f"needs the real data sets: set {MIRROR}"),
]
# Prompts of five shots, and some texts, are longer than the context, which either side cuts in its own code.
CONFIG = Model("exported", n_layer=2, d_model=48, n_head=3, seq_len=192, vocab_size=50257, init_std=0.02)
ROLLING = {
    "task": "wikitext_lines", "data": "wikitext2_eval", "dataset_path": "text", "test_split": "test",
    "dataset_kwargs": {"data_files": {"test": "test.txt"}}, "output_type": "loglikelihood_rolling", "doc_to_text": "",
    "doc_to_target": "{{text}}", "metadata": {"version": 1.0},
    "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
}  # fmt: skip
GENERATION = {
    "task": "gsm8k_answers", "data": "gsm8k", "dataset_path": "json", "test_split": "test",
    "dataset_kwargs": {"data_files": {"test": "test.jsonl"}}, "output_type": "generate_until",
    "doc_to_text": "Question: {{context}}\nAnswer:", "doc_to_target": "{{answer}}", "metadata": {"version": 1.0},
    "generation_kwargs": {"until": ["Question:", "\n\n"], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
CASES = [("sciq", 0), ("arc_easy", 0), ("piqa", 5), ("hellaswag", 0), ("boolq", 0), ("lambada_openai", 5),
         ("wikitext_lines", 0), ("gsm8k_answers", 0), ("gsm8k_answers", 5)]  # fmt: skip
DOCUMENTS = {0: 50, 5: 20}


@pytest.fixture(scope="module")
def workflow():
    return load.load_workflow(ROOT)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory, workflow) -> Path:
    root, patch = tmp_path_factory.mktemp("data"), pytest.MonkeyPatch()
    patch.setenv(MIRROR, str(FOLDER))
    for name in ("gpt2_tokenizer", "sciq", "arc_easy", "piqa", "hellaswag", "boolq", "lambada_openai", "wikitext2_eval",
                 "gsm8k"):  # fmt: skip
        fetch(workflow.datasets[name], root / name)
    patch.undo()
    return root


@pytest.fixture(scope="module")
def sides(tmp_path_factory, data_root):
    """Our adapter and lm-evaluation-harness's own model, on one folder."""
    lm_eval_tasks.prepare_environment(data_root)
    from lm_eval.models.huggingface import HFLM

    from cgpt.inference.lm_eval_model import Adapter

    tokenizer = byte_level_bpe(data_root / "gpt2_tokenizer/encoder.json", data_root / "gpt2_tokenizer/vocab.bpe")
    folder = tmp_path_factory.mktemp("checkpoint") / "hf"
    model = tiny.model(tiny.rough_parameters(CONFIG), CONFIG)
    checkpoint.export_hf(model, tokenizer, folder)
    torch.set_num_threads(tiny.THREADS)
    peer = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    return Adapter(model, tokenizer), peer


@pytest.mark.parametrize("name, n_shot", CASES)
def test_every_loglikelihood_and_metric_is_that_of_the_hugging_face_model(sides, data_root, workflow, name, n_shot):
    own = {"wikitext_lines": ROLLING, "gsm8k_answers": GENERATION}
    task = {key: value for key, value in (own.get(name) or workflow.tasks[name]).items() if key != "sample"}
    task |= {"limit": DOCUMENTS[n_shot], "num_fewshot": n_shot}
    (ours, our_samples), (theirs, their_samples) = (
        score_task(task, lm_eval_tasks.build(task, data_root), side) for side in sides
    )
    assert len(our_samples) == len(their_samples) == DOCUMENTS[n_shot]
    for one, other in zip(our_samples, their_samples):
        assert one["target"] == other["target"] and other["prompt"].endswith(one["prompt"].lstrip("\ufffd"))
        assert (one["prompt"] == other["prompt"]) == (one["n_tokens_cut"] == 0)
        assert one["loglikelihoods"] == pytest.approx(other["loglikelihoods"], abs=1e-3)
        assert one["prediction"] == other["prediction"]
    if n_shot or name == "wikitext_lines":
        assert max(len(str(sample["prompt"] or sample["target"])) for sample in their_samples) > 5 * CONFIG.seq_len
    for score, wanted in zip(ours, theirs):
        exact = score.metric in ("acc", "acc_norm", "exact_match")
        assert score.value == (wanted.value if exact else pytest.approx(wanted.value, rel=1e-5)), score.metric
        assert replace(score, value=0, stderr=0) == replace(wanted, value=0, stderr=0)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 3},
        {"max_tokens": 5, "until": "."},
        {"max_completion_tokens": 4, "until": []},
        {"max_gen_toks": 8, "num_beams": 3},
        {"max_gen_toks": 8, "num_beams": 4, "length_penalty": 0.5, "early_stopping": True},
        {"max_gen_toks": 8, "repetition_penalty": 1.4},
        {"max_gen_toks": 8, "no_repeat_ngram_size": 2},
        {"max_gen_toks": 6, "temperature": 0.7, "top_k": 1},
        {"max_gen_toks": 6, "do_sample": True, "temperature": 1.0, "top_p": 1e-6},
        {"max_gen_toks": 6, "do_sample": False, "temperature": 1, "top_p": 0.5},
    ],
)
def test_answers_under_every_option_are_those_of_the_hugging_face_model(sides, data_root, options):
    task = GENERATION | {"limit": 8, "generation_kwargs": options}
    (_, ours), (_, theirs) = (score_task(task, lm_eval_tasks.build(task, data_root), side) for side in sides)
    assert [sample["prediction"] for sample in ours] == [sample["prediction"] for sample in theirs]
    assert any(sample["prediction"] for sample in ours)
