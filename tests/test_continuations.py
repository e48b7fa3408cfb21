"""continuations.json of a small study that is run for real, and the beginnings of documents of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bigram
import pytest
import tiny
from project import edit, write_project
from test_chain import make_plan, text
from test_profiles import WAFER

from cgpt import checkpoint
from cgpt.__main__ import main
from cgpt.data.content import sha256_of
from cgpt.data.shards import ShardWriter, open_shard
from cgpt.experiment.run import last_file
from cgpt.inference.generate import Generator
from cgpt.recipe.generation_config import GenerationConfig
from cgpt.report import continuations
from cgpt.report.continuations import continue_beginnings, read_beginnings
from cgpt.spec import Model

QUICKSTART = "workflows/experiments/quickstart.yaml"
EXPERIMENT = """\
question: Is it the same text?
data: {corpus: [notes], vocab_size: 300, validation_fraction: 0.1}
models: [small, large]
train: {lr: 0.1, batch_size: 4, steps: 4}
vary: {train.lr: [0.003, 0.01]}
seeds: [7, 8]
threads_per_run: 2
"""
FILE = Path("results/quickstart/continuations.json")
TOKENIZER = bigram.make_tokenizer()
END = TOKENIZER.token_to_id("<|endoftext|>")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A study whose first pretraining run of each model is done."""
    root = write_project(tmp_path_factory.mktemp("finished"))
    (root / QUICKSTART).write_text(EXPERIMENT)
    edit(root, "workflows/models.yaml", "seq_len: 16}\n  large", "seq_len: 64}\n  large")
    edit(root, "workflows/data.yaml", "{path: notes.txt}", "{path: notes.txt, documents: line}")
    edit(root, "hardware_profiles/cpu.yaml", "device: CPU", "device: CPU\nkernels: native")
    (root / "notes.txt").write_text(text(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        planned = make_plan(root)
        for run in (*planned.of("fetch"), *planned.of("tokenize"), *planned.first_trained()):
            assert main([run.stage, run.id]) == 0, run.id
    return root


@pytest.fixture
def root(finished, tmp_path, monkeypatch) -> Path:
    root = Path(shutil.copytree(finished, tmp_path / "study"))
    monkeypatch.chdir(root)
    return root


def test_each_model_goes_on_as_it_does_by_itself_beside_what_followed_in_the_document(root, capsys):
    assert main(["continuations", "quickstart"]) == 0
    assert capsys.readouterr().out == ""
    written = json.loads(FILE.read_text())
    (tokenize,) = make_plan(root).of("tokenize")
    folder = last_file(*tokenize.key).parent
    end = json.loads((folder / "tokens.json").read_text())["end_of_text_id"]
    tokens = open_shard(folder / "validation.bin").tolist()
    assert [(row["model"], row["setting"]) for row in written["models"]] == [
        ("small", "train.lr=0.003"), ("large", "train.lr=0.003")]  # fmt: skip
    for row in written["models"]:
        assert ".s7-" in row["run"] and (row["temperature"], row["seed"]) == (0.7, 0)
        model, tokenizer = checkpoint.load(Path("results/runs/pretrain") / row["run"])
        documents = tokenizer.decode(tokens, skip_special_tokens=False).split("<|endoftext|>")
        assert [entry["prompt"] for entry in row["texts"]] == written["prompts"]
        prompts = [tokenizer.encode(prompt).ids for prompt in written["prompts"]]
        config = GenerationConfig(do_sample=True, temperature=0.7, top_k=0, seed=0)
        new = Generator(model).generate(prompts, 60, config, [end])
        for entry, prompt, tokens_after in zip(row["texts"], prompts, new, strict=True):
            document = entry["prompt"] + entry["followed_by"]
            assert document in documents and not entry["followed_by"][0].isalpha() and len(prompt) <= 8
            assert entry["continuation"] == tokenizer.decode(tokens_after).rstrip("\ufffd")
            assert len(prompt) + len(tokens_after) <= model.config.seq_len


def test_the_same_models_write_the_same_file_again(root):
    assert main(["continuations", "quickstart"]) == 0
    before = FILE.read_bytes()
    FILE.unlink()
    assert main(["continuations", "quickstart"]) == 0
    assert FILE.read_bytes() == before


def test_a_model_that_is_not_there_is_refused_and_left_out_of_what_is_partial(root, capsys):
    small, large = make_plan(root).first_trained()
    record = last_file(*small.key)
    record.unlink()
    assert main(["continuations", "quickstart"]) == 1
    problem = capsys.readouterr().err
    assert problem.startswith(f"{record}: is missing; run `snakemake --cores 2 {FILE}`") and problem.count("\n") == 1
    assert "continuations quickstart --partial" in problem and not FILE.exists()
    assert main(["continuations", "quickstart", "--partial"]) == 0
    assert capsys.readouterr().out == "results/quickstart/partial\n"
    written = json.loads((FILE.parent / "partial" / FILE.name).read_text())
    assert [row["run"] for row in written["models"]] == [large.id] and len(written["prompts"]) == 3
    last_file(*large.key).unlink()
    assert main(["continuations", "quickstart", "--partial"]) == 1
    assert "--partial" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pretrain/*/model.safetensors", "tokens/*/validation.bin", "pretrain/*/config.json"])
def test_what_is_not_of_its_record_is_refused_by_name(root, capsys, name):
    path = next((root / "results/runs").glob(name))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert main(["continuations", "quickstart"]) == 1
    assert path.name in capsys.readouterr().err and not FILE.exists()


def test_a_model_that_this_machine_cannot_hold_is_left_out_and_named(root, capsys, monkeypatch):
    small, large = make_plan(root).first_trained()
    monkeypatch.setattr(continuations, "memory_bytes", lambda: 4 * large.execution.n_parameters)
    assert main(["continuations", "quickstart"]) == 0
    assert f"{large.id}: is left out: its weights take" in capsys.readouterr().err
    assert [row["run"] for row in json.loads(FILE.read_text())["models"]] == [small.id]


def test_of_several_machines_the_first_that_measures_stands_for_a_model(tmp_path):
    root = write_project(tmp_path)
    (root / "hardware_profiles/wafer.yaml").write_text(WAFER)
    (root / "hardware_profiles/other.yaml").write_text("description: another\ndevice: CPU\n")
    for machines, first in (("wafer, other, cpu", "other"), ("cpu, wafer", "cpu"), ("wafer", "wafer")):
        text_of = EXPERIMENT.replace("seeds:", f"hardware: [{machines}]\nseeds:")
        (root / QUICKSTART).write_text(text_of)
        runs = make_plan(root).first_trained()
        assert [(run.spec["model"]["name"], run.spec["hardware"]["name"], run.spec["seed"]) for run in runs] == [
            ("small", first, 7), ("large", first, 7)]  # fmt: skip


def token_folder(folder: Path, *documents: str, is_open: bool = False) -> Path:
    """A folder of tokens whose validation split holds these documents; `is_open`: the last one has no end."""
    folder.mkdir(exist_ok=True)
    TOKENIZER.save(str(folder / "tokenizer.json"))
    (folder / "tokens.json").write_text(json.dumps({"end_of_text_id": END}))
    n_tokens = TOKENIZER.get_vocab_size()
    with ShardWriter(folder / "validation.bin", n_tokens, sha256_of(folder / "tokenizer.json")) as shard:
        for number, document in enumerate(documents, start=1):
            ends = [] if is_open and number == len(documents) else [END]
            shard.append([*TOKENIZER.encode(document).ids, *ends], len(document.encode()), 1)
    return folder


def texts_of(folder: Path, context: int) -> list[tuple[str, str]]:
    return [(TOKENIZER.decode(each.prompt), TOKENIZER.decode(each.followed_by))
            for each in read_beginnings(folder, context)]  # fmt: skip


def test_documents_that_are_long_enough_come_first_else_the_longest_and_empty_ones_never(tmp_path):
    long = "the film is calm and the river is loud and the city is calm and nobody sees the tree"
    assert len(TOKENIZER.encode(long).ids) >= 32
    documents = ["a film", "", long, "no", long + "!", "", long + "?", long]
    for (prompt, followed_by), document in zip(texts_of(token_folder(tmp_path, *documents), 64), documents[2::2]):
        assert (document.startswith(prompt + followed_by)) and followed_by.startswith(" ")
    shorter = ["no", "the film is calm", "a", "it is so loud"]
    texts = texts_of(token_folder(tmp_path, *shorter), 64)
    assert {prompt + followed_by for prompt, followed_by in texts} == {"the film is calm", "it is so loud", "no"}
    assert len(texts_of(token_folder(tmp_path, "only the film", is_open=True), 64)) == 1


def test_a_prompt_is_at_most_half_of_its_document_and_of_the_context_and_one_token_at_least(tmp_path):
    folder = token_folder(tmp_path, "the film is calm and the river is loud " * 9, "一个安静的城市和一条河", "a")
    for context, most in ((1, 1), (2, 1), (7, 3), (16, 8), (64, 16), (2048, 16)):
        lengths = [len(each.prompt) for each in read_beginnings(folder, context)]
        assert min(lengths) >= 1 and max(lengths) <= most and 1 in lengths


@pytest.mark.parametrize("seq_len", [1, 2, 3, 7, 16])
def test_half_characters_at_a_cut_are_left_out_and_short_contexts_are_kept_to(tmp_path, seq_len):
    document = "一个安静的城市和一条河😀" * 9  # each character is several tokens, and no blank is a good place to cut
    folder = token_folder(tmp_path / "tokens", document)
    config = Model("short", n_layer=1, d_model=32, n_head=2, seq_len=seq_len, vocab_size=TOKENIZER.get_vocab_size())
    params = tiny.rough_parameters(config, seed=4)
    checkpoint.save(tmp_path / "model", config, params, folder / "tokenizer.json")
    beginnings = read_beginnings(folder, seq_len)
    (entry,) = continue_beginnings(tmp_path / "model", beginnings, tiny.THREADS)
    assert document.startswith(entry["prompt"]) and (entry["prompt"] + entry["followed_by"]) in document
    assert not entry["continuation"].endswith("\ufffd")
    if seq_len == 1:
        assert entry["continuation"] == ""
