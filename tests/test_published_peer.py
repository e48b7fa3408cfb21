"""A checkpoint that transformers wrote, in an experiment: its logits, and the scores of the harness with its model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from published_fixture import byte_level_tokenizer, write_study
from tinygrad import Tensor

from cgpt import checkpoint
from cgpt.__main__ import main
from cgpt.experiment import load, plan
from cgpt.experiment.run import last_file
from cgpt.records import read_scores

torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install .[peer])")
torch.set_num_threads(1)
SHAPE = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64, "vocab_size": 304}


def write_peer(folder: Path) -> None:
    """A GPT-2 of random weights whose vocabulary is padded beyond its tokenizer's, as transformers saves both."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SHAPE, **ends, initializer_range=0.3))
    peer.save_pretrained(folder)
    tokenizer = byte_level_tokenizer(["the sea is calm", "the hill is loud"], 290)
    end = "<|endoftext|>"
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end)
    fast.save_pretrained(folder)


def test_an_imported_checkpoint_has_transformers_logits_and_the_harness_own_scores(tmp_path, monkeypatch):
    root = write_study(tmp_path / "study")
    monkeypatch.chdir(root)
    for path in (root / "hf").iterdir():
        path.unlink()
    write_peer(root / "hf")
    workflow = load.read_workflow(Path.cwd())
    runs = plan.make_plan(workflow.asked("alone"), workflow).runs
    assert all(main([run.stage, run.id]) == 0 for run in runs)
    imported, *evaluations = runs
    model, _ = checkpoint.load(last_file(*imported.key).parent, tiny.CPU, tiny.THREADS)
    peer = transformers.AutoModelForCausalLM.from_pretrained(root / "hf").eval()
    tokens = np.random.default_rng(0).integers(0, 290, (3, 64)).astype(np.int32)
    with torch.no_grad():
        wanted = peer(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()
    np.testing.assert_allclose(model(Tensor(tokens, device="CPU")).numpy(), wanted, rtol=0, atol=2e-4)

    from lm_eval.models.huggingface import HFLM

    from cgpt.stages.evaluate import score_task
    from cgpt.tasks import lm_eval_tasks

    theirs = HFLM(pretrained=str(root / "hf"), device="cpu", dtype="float32", batch_size=4)
    for run in evaluations:
        task = run.spec["task"]
        scores, _ = score_task(task, lm_eval_tasks.build(task, Path("data")), theirs)
        ours = {score.metric: score.value for score in read_scores(last_file(*run.key)).scores}
        assert ours == pytest.approx({score.metric: score.value for score in scores}, rel=1e-4)
