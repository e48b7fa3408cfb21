"""The example of docs/checkpoints.md, run line by line: models of the hub by name, and texts drawn from them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve
from published_fixture import WORDS, byte_level_tokenizer

from cgpt.__main__ import main
from cgpt.data import hub

ROOT = Path(__file__).parent.parent
GPT2_COMMIT, CEREBRAS_COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e", "c" * 40
GPT2, CEREBRAS = "openai-community/gpt2", "cerebras/Cerebras-GPT-111M"


def lines_of_the_page() -> list[list[str]]:
    """The commands of the page's first two blocks, without `cgpt`."""
    page = (ROOT / "docs/checkpoints.md").read_text()
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)[:2]
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [shlex.split(line)[1:] for line in lines]


LINES = lines_of_the_page()


@pytest.fixture
def study(tmp_path: Path, monkeypatch) -> Path:
    """A new study with an empty cache and no mirror, in which commands run."""
    assert main(["init", str(tmp_path / "study")]) == 0
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))
    for name in ("CGPT_DATA_MIRROR", hub.TOKEN, hub.OFFLINE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "study"


def write_by_transformers(folder: Path, activation: str, as_pickle: bool) -> Path:
    """A small model as the hub has GPT-2 (safetensors, tokenizer.json) or Cerebras-GPT (a pickle, vocab.json)."""
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install .[peer])")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install .[peer])")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=400, n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=0,
                                     eos_token_id=0, activation_function=activation, initializer_range=0.2)  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    tokenizer = byte_level_tokenizer(["I enjoy walking with my cute dog", " ".join(WORDS)], 400)
    if as_pickle:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        tokenizer.model.save(str(folder))
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def theirs(study: Path, tmp_path: Path, monkeypatch) -> Iterator[Hub]:
    models = {
        GPT2: (GPT2_COMMIT, write_by_transformers(tmp_path / "gpt2", "gelu_new", as_pickle=False)),
        CEREBRAS: (CEREBRAS_COMMIT, write_by_transformers(tmp_path / "cerebras", "gelu", as_pickle=True)),
    }
    with serve(Hub(models)) as running:
        monkeypatch.setenv(hub.ENDPOINT, running.address)
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
        yield running


def draw(line: list[str], capsys) -> list[dict]:
    """The continuations of a line with `generate`."""
    capsys.readouterr()
    assert main([*line, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["continuations"]


def run_the_example(capsys, context: int) -> None:
    for line in LINES:
        if line[0] != "generate":
            assert main(line) == 0, capsys.readouterr().err
            continue
        samples = draw(line, capsys)
        texts = {each["text"] for each in samples}
        assert len(samples) == len(texts) == 5 and all(each["prompt"].startswith("I enjoy") for each in samples)
        assert all(1 <= len(each["tokens"]) < 100 <= context for each in samples)


def test_the_example_fetches_both_models_by_name_and_draws_five_texts_from_each(theirs, capsys):
    assert [line[0] for line in LINES] == ["import-hf", "generate", "pin", "import-hf", "generate"]
    run_the_example(capsys, context=128)
    assert f"{CEREBRAS}: {CEREBRAS_COMMIT}" in Path("workflows/pins.yaml").read_text()
    asked = {each.path.rpartition("/")[2] for each in theirs.asked if each.method == "GET"}
    assert {"pytorch_model.bin", "vocab.json", "merges.txt"} <= asked


def test_what_the_imported_models_write_is_what_transformers_writes(theirs, capsys):
    import torch
    import transformers

    for line in LINES:
        if line[0] != "generate":
            assert main(line) == 0
            continue
        folder = theirs.models[GPT2 if "checkpoints/gpt2" in line else CEREBRAS][1]
        peer = transformers.GPT2LMHeadModel.from_pretrained(folder)
        (ours,) = draw(
            ["generate", *line[1:3], "--greedy", "--prompt", "walking with", "--max-new-tokens", "20"], capsys
        )
        prompt = (
            byte_level_tokenizer(["I enjoy walking with my cute dog", " ".join(WORDS)], 400).encode("walking with").ids
        )
        wanted = peer.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0)
        assert ours["tokens"] == wanted[0, len(prompt) :].tolist()


def test_a_name_that_is_neither_a_folder_nor_a_row_is_one_line(study, capsys):
    assert main(["import-hf", "gtp2", "--out", "new"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("import-hf: there is no folder 'gtp2', and no row of models.yaml of that name with a ")
    assert line.endswith("; did you mean 'gpt2'?\n") and line.count("\n") == 1


def test_a_row_whose_commit_is_not_known_yet_names_the_command_that_asks_for_it(study, capsys):
    assert main(["import-hf", "cerebras-gpt-111m-published", "--out", "new"]) == 1
    assert "is not known yet; run `cgpt pin cerebras-gpt-111m-published`" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.network
def test_the_example_runs_with_the_models_that_the_hub_has(study, monkeypatch, capsys):
    import requests

    monkeypatch.delenv(hub.ENDPOINT, raising=False)
    try:
        requests.head(hub.HUB, timeout=5)
    except requests.RequestException as error:
        pytest.skip(f"{hub.HUB} cannot be reached from here ({type(error).__name__})")
    run_the_example(capsys, context=1024)
