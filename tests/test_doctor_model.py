"""`cgpt doctor --model`: whether a model is held in this machine's memory, what to do else, and how long it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import Hub, serve
from published_fixture import write_hf, write_study

from cgpt import host
from cgpt.__main__ import main
from cgpt.commands import doctor_model, measure
from cgpt.cost import memory
from cgpt.data import hub
from cgpt.experiment import load, rates, uses
from cgpt.recipe import flops
from cgpt.spec import Model

ROOT = Path(__file__).parent.parent
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
SPEEDS = uses.Rates(flops_per_s=1e11, weights_bytes_per_s=1e10)
KEPT = rates.Rate("CPU", "native", "float32", 2, 1e8, 2e11)


@pytest.fixture(scope="module")
def workflow():
    return load.load_workflow(ROOT)


@pytest.fixture
def unmeasured(monkeypatch) -> list[str]:
    """What is measured is made up; the list is of what was asked to be."""
    asked: list[str] = []

    def training(model: Model, *_: object) -> tuple[rates.Rate, None]:
        asked.append(model.name)
        return KEPT, None

    monkeypatch.setattr(measure, "training_rate", training)
    monkeypatch.setattr(measure, "reading_rate", lambda hardware, threads: 1e10)
    return asked


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(write_study(tmp_path / "study"))
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "study"


def examine(name: str, capsys) -> dict:
    capsys.readouterr()
    assert main(["doctor", "--model", name, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def of(workflow, name: str, n_bytes: int | None, published: bool = False) -> dict[str, uses.Use]:
    model = replace(workflow.models[name], vocab_size=50257)
    others = [replace(other, vocab_size=50257) for other in workflow.models.values()]
    each = uses.uses_of(model, published, workflow.hardware["cpu"], n_bytes, SPEEDS, others)
    return {use.name: use for use in each}


def test_a_published_row_is_imported_and_another_pretrained_and_both_are_used_in_three_ways(workflow):
    assert list(of(workflow, "cerebras-gpt-111m", 2**40)) == ["pretraining", "evaluation", "finetuning", "generation"]
    assert next(iter(of(workflow, "cerebras-gpt-111m", 2**40, published=True))) == "import"


def test_the_needed_memory_is_that_of_the_plan(workflow):
    model, known = workflow.models["cerebras-gpt-111m"], of(workflow, "cerebras-gpt-111m", 2**40, published=True)
    assert known["import"].needs_bytes == memory.import_bytes(model)
    assert known["evaluation"].needs_bytes == memory.evaluation_bytes(model, 2)
    assert known["finetuning"].needs_bytes == memory.finetuning_bytes(model, 32, 2, longest=uses.DOCUMENT_TOKENS)


def test_a_smaller_batch_that_is_named_is_enough_and_twice_as_large_a_one_is_not(workflow):
    model, hardware = workflow.models["cerebras-gpt-111m"], workflow.hardware["cpu"]
    for kind in (kind for kind in uses.KINDS if kind.key):
        limit = (kind.needs(model, 1, hardware) + kind.needs(model, kind.batch_size, hardware)) // 2
        use = of(workflow, "cerebras-gpt-111m", limit)[kind.name]
        assert not use.in_memory and use.instead and use.instead.startswith(f"write `{kind.key}: ")
        size = int(use.instead.rpartition(" ")[2].strip("`"))
        assert kind.needs(model, size, hardware) <= limit < kind.needs(model, 2 * size, hardware)


def test_where_no_batch_is_small_enough_the_largest_model_is_named_that_is_held(workflow):
    use = of(workflow, "cerebras-gpt-13b", 16 * 2**30)["evaluation"]
    assert use.instead == "take cerebras-gpt-2.7b"
    assert of(workflow, "cerebras-gpt-2.7b", 16 * 2**30)["evaluation"].in_memory
    assert not of(workflow, "cerebras-gpt-6.7b", 16 * 2**30)["evaluation"].in_memory
    assert of(workflow, "gpt-tiny", 1000)["evaluation"].instead == "take a smaller model"


def test_memory_that_is_not_known_is_enough(workflow):
    assert all(use.in_memory and use.instead is None for use in of(workflow, "cerebras-gpt-13b", None).values())


def test_seconds_are_those_of_the_rates_a_third_of_training_to_score_and_the_weights_once_for_a_new_token(workflow):
    known, model = of(workflow, "cerebras-gpt-111m", None), workflow.models["cerebras-gpt-111m"]
    training_s = uses.DOCUMENT_TOKENS * flops.flops_per_token(model) / 1e11
    assert known["finetuning"].seconds_per_document == pytest.approx(training_s)
    assert known["evaluation"].seconds_per_document == pytest.approx(training_s / 3)
    reading_s = 100 * 4 * flops.n_parameters(model) / 1e10
    assert known["generation"].seconds_per_document == pytest.approx(reading_s)


# Peaks, in megabytes, of `cgpt generate` with 128 tokens, of one text and of five, on one Xeon.
@pytest.mark.parametrize(("name", "texts", "megabytes"), [
    ("bench-34m", 1, 264.9), ("bench-34m", 5, 282.6),
    ("cerebras-gpt-111m", 1, 599.2), ("cerebras-gpt-111m", 5, 632.9),
])  # fmt: skip
def test_the_memory_of_generating_was_met(workflow, name, texts, megabytes):
    predicted = memory.generation_bytes(workflow.models[name], texts, 128)
    assert predicted == pytest.approx(megabytes * 1e6, rel=0.2)


def test_the_memory_here_is_the_machines_and_at_most_what_the_control_groups_around_allow(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "CGROUPS", tmp_path)
    monkeypatch.setattr(host.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}[name])
    (tmp_path / "outer/inner").mkdir(parents=True)
    (tmp_path / "memory/outer").mkdir(parents=True)
    read, entries, text = Path.read_text, Path("/proc/self/cgroup"), "0::/outer/inner\n"
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: text if path == entries else read(path, *a, **k))
    for file, content, n_bytes in (("memory.max", "max", 2**32), ("outer/inner/memory.max", "3000000000", 3 * 10**9),
                                   ("outer/memory.max", "2000000000", 2 * 10**9)):  # fmt: skip
        (tmp_path / file).write_text(content + "\n")
        assert host.memory_bytes() == n_bytes
    text = "4:memory:/outer\n"
    for content, n_bytes in (("9223372036854771712", 2**32), ("1000000000", 10**9)):
        (tmp_path / "memory/outer/memory.limit_in_bytes").write_text(content + "\n")
        assert host.memory_bytes() == n_bytes


def test_a_line_says_how_long_what_is_held_takes_and_else_what_to_write(study, unmeasured, monkeypatch, capsys):
    def lines(n_bytes: int) -> list[str]:
        monkeypatch.setattr(doctor_model, "memory_bytes", lambda: n_bytes)
        assert main(["doctor", "--model", "cerebras-gpt-111m"]) == 0
        return capsys.readouterr().out.splitlines()

    few, many = lines(4 * 2**30), lines(2**40)
    assert few[0] == "model       cerebras-gpt-111m: 111,050,496 parameters, vocabulary 50,257, context 2,048"
    held = "not in memory: takes 4.8 GiB in steps of 32, and there are 4.0 GiB"
    assert few[-2] == f"finetuning  {held}; write `batch_size: 16`"
    assert few[-4].startswith("pretraining not in memory: takes ") and "; take " in few[-4]
    assert all("in memory: takes" in line and "; about " in line for line in many[-4:])


def test_a_row_whose_tokenizer_decides_the_vocabulary_gets_the_usual_one_and_says_so(study, unmeasured, capsys):
    known = examine("small", capsys)
    assert known["vocab_size"] == 4096 and known["source"] is None and "pretraining" in known["uses"]


def test_the_rate_is_the_one_that_is_kept_else_a_second_measures_one_that_changes_no_plan(study, unmeasured, capsys):
    first = examine("theirs", capsys)
    assert first["rate"]["source"].startswith("measured now for a second") and unmeasured == ["middle"]
    assert first["rate"]["flops_per_s"] == KEPT.flops_per_s and rates.read() == rates.Measured()
    rates.keep(rates.Measured((replace(KEPT, flops_per_s=3e11),)))
    second = examine("theirs", capsys)
    assert second["rate"]["source"] == "kept by `cgpt measure`" and unmeasured == ["middle"]
    assert second["rate"]["flops_per_s"] == pytest.approx(3e11)
    assert first["uses"]["import"]["in_memory"] and first["uses"]["import"]["seconds_per_document"] is None


def test_of_a_model_of_the_hub_config_json_alone_is_fetched(study, unmeasured, tmp_path, monkeypatch, capsys):
    theirs = write_hf(tmp_path / "far", ["sea land hill"])
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for name in ("CGPT_DATA_MIRROR", hub.TOKEN, hub.OFFLINE):
        monkeypatch.delenv(name, raising=False)
    with serve(Hub({"openai-community/gpt2": (COMMIT, theirs)})) as server:
        monkeypatch.setenv(hub.ENDPOINT, server.address)
        known = examine("gpt2", capsys)
        assert known["source"] == f"openai-community/gpt2@{COMMIT[:8]}" and known["vocab_size"] == 300
        assert [each.path.rpartition("/")[2] for each in server.asked] == [f"{COMMIT}?blobs=true", "config.json"]


def test_what_cannot_be_examined_is_one_line(study, unmeasured, capsys):
    for name, line in (("smal", "--model: 'smal' is no row of models.yaml; did you mean 'small'?\n"),
                       ("cerebras-gpt-111m-published", "run `cgpt pin cerebras-gpt-111m-published`")):  # fmt: skip
        assert main(["doctor", "--model", name]) == 1
        assert line in (line_of := capsys.readouterr().err) and line_of.count("\n") == 1


@pytest.mark.slow
def test_the_rates_are_measured_for_real_where_none_is_kept(study, capsys):
    known = examine("small", capsys)
    assert known["rate"]["flops_per_s"] > 1e7 and known["rate"]["weights_bytes_per_s"] > 1e7
