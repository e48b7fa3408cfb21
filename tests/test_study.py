"""A study in a folder of its own: names are looked up there and then in cgpt, and `base:` takes others' keys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import EXPERIMENT, TASK

from cgpt import SHIPPED
from cgpt.__main__ import GROUPS, main, make_parser
from cgpt.errors import UserError
from cgpt.experiment import load, plans, rule_values
from cgpt.experiment.entries import Workflow
from cgpt.experiment.plan import make_plan
from cgpt.files import declarations, layers
from cgpt.tasks import functions

ROOT = Path(__file__).parent.parent
MODELS, DATA, EXPERIMENTS = "workflows/models.yaml", "workflows/data.yaml", "workflows/experiments"


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """The working directory: a study that holds nothing but its folder for workflows."""
    root = tmp_path / "meine Studie é"
    (root / "workflows").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def ids(workflow: Workflow, experiment: str) -> list[str]:
    return [run.id for run in make_plan(workflow.asked(experiment), workflow).runs]


def written_out(name: str) -> dict:
    return yaml.safe_load((SHIPPED / EXPERIMENTS / f"{name}.yaml").read_text())


def test_a_study_needs_no_file_and_has_all_that_comes_with_cgpt(study):
    workflow, checkout = load.read_workflow(study), load.load_workflow(ROOT)
    for kind in ("models", "datasets", "tasks", "hardware", "experiments"):
        assert dict(getattr(workflow, kind)) == dict(getattr(checkout, kind))
        of_published = set(checkout.published) if kind == "models" else set()  # whose shapes are not known yet
        assert workflow.shipped[kind] == set(getattr(checkout, kind)) | of_published
    assert ids(workflow, "quickstart") == ids(checkout, "quickstart")


def test_the_checkout_is_one_layer(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert layers.layers_of(Path()).below is None
    assert not any(load.read_workflow(Path()).shipped.values())
    assert layers.shipped_file("results/reference") == Path("results/reference")


def test_names_of_the_study_come_before_those_of_cgpt(study):
    write(study, MODELS, "models:\n  gpt-tiny: {n_layer: 3, d_model: 48, n_head: 3, seq_len: 32}\n")
    write(study, DATA, "datasets:\n  world: {builtin: world, seed: 5, documents: 'jsonl:text'}\n")
    write(study, "hardware_profiles/cpu.yaml", "description: mine\ndevice: CPU\n")
    write(study, "workflows/tasks/world_topic.yaml", TASK.replace("task: topic", "task: world_topic"))
    workflow = load.read_workflow(study)
    assert workflow.models["gpt-tiny"].n_layer == 3 and workflow.datasets["world"].seed == 5
    assert workflow.hardware["cpu"].description == "mine" and workflow.tasks["world_topic"]["finetune"] == {"epochs": 2}
    assert not [kind for kind, name in (("models", "gpt-tiny"), ("hardware", "cpu")) if workflow.is_shipped(kind, name)]
    (pretraining,) = make_plan(workflow.asked("smoke"), workflow).of("pretrain")
    assert pretraining.spec["model"]["n_layer"] == 3  # an experiment of cgpt uses what the study calls by that name


@pytest.mark.parametrize("rows", ["models: {}\n", "models:\n", "models:\n  # none yet\n"])
def test_a_file_without_rows_is_as_none(study, rows):
    write(study, MODELS, rows)
    assert "gpt-tiny" in load.read_workflow(study).models


@pytest.mark.parametrize(("kind", "name", "text", "expected"), [
    ("models", MODELS, "models:\n  gpt-tiny: {base: gpt-tiny, n_layer: 4}\n", {"n_layer": 4, "d_model": 32}),
    ("models", MODELS, "models:\n  gpt-tiny: {base: mine, n_layer: 4}\n  mine: {base: gpt-0.1m, n_layer: 5}\n",
     {"n_layer": 4, "d_model": 64}),
    ("models", MODELS, "models:\n  gpt-tiny: {base: gpt-46k-mup, parametrization: sp}\n",
     {"parametrization": "sp", "mup_base_width": 256.0}),
    ("datasets", DATA, "datasets:\n  world: {base: world, seed: 7}\n", {"builtin": "world", "seed": 7}),
    ("datasets", DATA, "datasets:\n  world: {base: world, path: workflows}\n",
     {"builtin": None, "seed": 0, "documents": "jsonl:text"}),
    ("hardware", "hardware_profiles/cpu.yaml", "base: cpu\ndescription: mine\n",
     {"description": "mine", "kernels": "native"}),
    ("hardware", "hardware_profiles/cs3.yml", "base: cs3-16\nsystems: 2\n", {"systems": 2, "device": "WSE"}),
])  # fmt: skip
def test_a_base_is_looked_up_as_names_are_and_that_of_an_entry_of_its_name_is_cgpts(study, kind, name, text, expected):
    write(study, name, text)
    workflow = load.read_workflow(study)
    workflow.refuse_broken()
    name = Path(name).stem if kind == "hardware" else next(iter(yaml.safe_load(text)[kind]))
    assert {key: getattr(getattr(workflow, kind)[name], key) for key in expected} == expected


def test_an_experiment_on_a_base_has_the_runs_of_one_that_is_written_out(study):
    write(study, f"{EXPERIMENTS}/mine.yaml", "base: quickstart\n")
    write(
        study,
        f"{EXPERIMENTS}/smaller.yaml",
        "base: mine\nmodels: [gpt-0.1m]\ntrain: {steps: 30}\ndata: {vocab_size: 600}\n",
    )
    out = written_out("quickstart")
    out["train"] = {key: value for key, value in out["train"].items() if key != "tokens"} | {"steps": 30}
    out["data"]["vocab_size"] = 600
    write(study, f"{EXPERIMENTS}/out.yaml", yaml.safe_dump(out | {"models": ["gpt-0.1m"]}))
    workflow = load.read_workflow(study)
    assert ids(workflow, "mine") == ids(workflow, "quickstart")
    assert ids(workflow, "smaller") == ids(workflow, "out")


@pytest.mark.parametrize(("base", "written", "left"), [
    ("tokens: 640", "tokens_per_parameter: 2", {"tokens_per_parameter": 2.0, "tokens": None}),
    ("steps: 10, warmup_fraction: 0.3", "warmup_tokens: 64", {"warmup_tokens": 64, "warmup_fraction": 0.1}),
    ("steps: 10, warmup_tokens: 64", "warmup_fraction: 0.3", {"warmup_tokens": None, "warmup_fraction": 0.3}),
    ("steps: 10, schedule: wsd, decay_fraction: 0.4", "schedule: cosine", {"decay_fraction": 0.2}),
    ("steps: 10, schedule: wsd, decay_fraction: 0.4", "lr: 0.5", {"decay_fraction": 0.4, "lr": 0.5}),
])  # fmt: skip
def test_of_alternatives_the_one_that_is_written_holds(study, base, written, left):
    text = EXPERIMENT.replace("steps: 10", base).replace("[small]", "[gpt-tiny]").replace("[topic]", "[world_topic]")
    write(study, f"{EXPERIMENTS}/first.yaml", text)
    write(study, f"{EXPERIMENTS}/second.yaml", f"base: first\ntrain: {{{written}}}\n")
    workflow = load.read_workflow(study)
    workflow.refuse_broken()
    train = workflow.experiments["second"].train
    assert {key: getattr(train, key) for key in left} == left and train.batch_size == 4


@pytest.mark.parametrize(("base", "written", "out"), [
    ("train: {steps: 10}", "vary: {train.tokens: [640, 1280]}", "train: {}\nvary: {train.tokens: [640, 1280]}"),
    ("train: {steps: 10}\nvary: {train.lr: [0.1, 0.2]}", "train: {lr: 0.3}", "train: {steps: 10, lr: 0.3}"),
    ("train: {}\nvary: {train.tokens: [640, 1280]}", "train: {steps: 20}", "train: {steps: 20}"),
    ("train: {steps: 10}\nvary: {train.lr: [0.1, 0.2]}", "seeds: [4]",
     "train: {steps: 10}\nvary: {train.lr: [0.1, 0.2]}\nseeds: [4]"),
    ("train: {steps: 10}\nper_model: {gpt-tiny: {seeds: [3], train: {lr: 0.1}}}", "train: {lr: 0.3}",
     "train: {steps: 10, lr: 0.3}\nseeds: [3]"),
])  # fmt: skip
def test_what_is_written_holds_against_what_the_base_varies_or_says_of_one_model(study, base, written, out):
    common = yaml.safe_load(EXPERIMENT) | {"models": ["gpt-tiny"], "tasks": ["world_topic"]}

    def whole(text: str) -> str:
        parts = yaml.safe_load(text)
        return yaml.safe_dump(common | parts | {"train": {"lr": 0.003, "batch_size": 4} | parts["train"]})

    for name, text in (("first", whole(base)), ("second", f"base: first\n{written}\n"), ("out", whole(out))):
        write(study, f"{EXPERIMENTS}/{name}.yaml", text)
    workflow = load.read_workflow(study)
    workflow.refuse_broken()
    assert ids(workflow, "second") == ids(workflow, "out")


def test_an_entry_of_cgpt_is_on_a_base_of_cgpt(study):
    write(study, "hardware_profiles/cs3.yaml", "base: cs2\npower_w: 1.0\n")
    hardware = load.read_workflow(study).hardware
    assert hardware["cs3"].power_w == 1.0
    assert hardware["cs3-16"] == load.load_workflow(ROOT).hardware["cs3-16"]


def test_a_task_includes_the_studys_file_else_cgpts_and_of_its_own_name_cgpts(study):
    write(study, "workflows/tasks/world_topic.yaml", "include: world_topic.yaml\nsample: 7\n")
    write(study, "workflows/tasks/mine.yaml", "include: [world_qa.yaml, _more.yaml]\ntask: mine\n")
    write(study, "workflows/tasks/_more.yaml", "sample: 9\n")
    tasks, shipped = load.read_workflow(study).tasks, load.load_workflow(ROOT).tasks
    assert tasks["world_topic"] == shipped["world_topic"] | {"sample": 7}
    assert tasks["mine"] == shipped["world_qa"] | {"task": "mine", "sample": 9}


def test_a_function_is_that_of_the_file_that_was_planned(study):
    write(study, "workflows/tasks/utils.py", "def one(dataset):\n    return dataset\n")
    written = functions.locate("utils.one", study / "workflows/tasks", study)
    assert functions.resolve(written, "task")([1]) == [1]
    with pytest.raises(UserError, match=r"workflows/tasks/utils\.py has changed since the run was planned"):
        functions.resolve(written | {"sha256": "0" * 64}, "task")


BROKEN = [
    (f"{EXPERIMENTS}/x.yaml", "base: quickstat\n", "workflows/experiments/x.yaml:1: base: 'quickstat' is no "
     "experiment; did you mean 'quickstart'?"),
    (f"{EXPERIMENTS}/x.yaml", "base: x\n", "workflows/experiments/x.yaml:1: base: 'x' leads back to this experiment; "),
    (f"{EXPERIMENTS}/x.yaml", "base: quickstart\ntrain: {steps: 1, tokens: 640}\n", "workflows/experiments/x.yaml:2: "
     "train.steps: `steps` and `tokens` are lengths beside each other"),
    (f"{EXPERIMENTS}/x.yaml", "base: quickstart\nmodls: [gpt-tiny]\n", "x.yaml:2: modls: unknown key; did you mean"),
    (MODELS, "models:\n  mine: {base: gpt-tin}\n", "workflows/models.yaml:2: models.mine.base: 'gpt-tin' is no model; "
     "did you mean 'gpt-tiny'?"),
    (MODELS, "models:\n  a: {base: b}\n  b: {base: a}\n", "models.a.base: 'a' leads back to this model; "),
    (MODELS, "models:\n  a: {base: b}\n  b: [1]\n", "models.a.base: 'b' is wrong itself (it is no mapping); mend that"),
    (MODELS, "models:\n  a: {base: gpt-tiny, d_model: 33}\n", "models.a.d_model: d_model 33 is not divisible by"),
    (MODELS, "modls: {}\nmodels: {}\n", "workflows/models.yaml:1: modls: unknown key; did you mean 'models'?"),
    (DATA, "datasets:\n  mine: {base: world, path: texts}\n", "workflows/data.yaml:2: datasets.mine.path: there is no"),
    ("hardware_profiles/mine.yaml", "base: cpus\n", "mine.yaml:1: base: 'cpus' is no hardware profile; did you mean"),
    ("workflows/tasks/mine.yaml", "include: nothing.yaml\n", "workflows/tasks/mine.yaml:1: include: there is no file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), BROKEN)
def test_a_wrong_entry_of_a_study_is_one_line_that_names_its_file(study, name, text, expected):
    write(study, name, text)
    with pytest.raises(UserError) as caught:
        load.read_workflow(study).refuse_broken()
    assert any(expected in line for line in caught.value.problems), caught.value.problems


def test_an_entry_of_cgpt_that_a_study_makes_wrong_stops_only_what_asks_for_it_and_is_named_as_cgpts(study, capsys):
    write(study, MODELS, "models:\n  gpt-tiny: {n_layer: 1, d_model: 32, n_head: 2, seq_len: 16, vocab_size: 300}\n")
    workflow = load.read_workflow(study)
    workflow.refuse_broken()
    workflow.warn_of_others()
    assert capsys.readouterr().err == ""
    with pytest.raises(
        UserError, match=r"^cgpt's workflows/experiments/smoke\.yaml:6: models\.0: 'gpt-tiny' has vocab"
    ):
        workflow.asked("smoke")


def test_messages_name_the_file_that_an_entry_is_in(study):
    write(study, DATA, "datasets:\n  mine: {builtin: world}\n")
    write(study, "workflows/tasks/toy.yml", TASK)
    assert layers.file_of("datasets", "mine") == layers.file_of("datasets", "nothing") == DATA
    assert layers.file_of("datasets", "world") == f"cgpt's {DATA}"
    assert layers.file_of("tasks", "toy") == "workflows/tasks/toy.yml"
    assert layers.file_of("hardware", "cpu") == "cgpt's hardware_profiles/cpu.yaml"
    assert layers.file_of("experiments", "draft") == "workflows/experiments/draft.yaml"


def test_a_running_workflow_reads_the_studys_files_that_it_started_with(study):
    write(study, f"{EXPERIMENTS}/mine.yaml", "base: smoke\n")
    kept = declarations.keep(declarations.contents(study), study)
    write(study, f"{EXPERIMENTS}/mine.yaml", "base: nothing\n")
    assert ids(load.read_workflow(study, kept), "mine") == ids(load.read_workflow(study, kept), "smoke")


def default_files(root: Path) -> list[str]:
    workflow = load.read_workflow(root)
    return rule_values.default_files(workflow, plans.make_plans(workflow))


def test_snakemake_alone_makes_all_experiments_of_a_study_and_in_the_checkout_the_quickstart(study, monkeypatch):
    with pytest.raises(UserError, match="workflows/experiments: holds no experiment; write one, or name a file"):
        default_files(study)
    for name in ("one", "two"):
        write(study, f"{EXPERIMENTS}/{name}.yaml", "base: smoke\n")
    assert {Path(file).parts[1] for file in default_files(study)} == {"one", "two"}
    write(study, f"{EXPERIMENTS}/two.yaml", "base: smok\n")
    with pytest.raises(UserError, match="'smok' is no experiment"):
        default_files(study)
    monkeypatch.chdir(ROOT)
    assert {Path(file).parts[1] for file in default_files(ROOT)} == {"quickstart"}


def test_init_makes_a_study_that_plans_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "meine Studie é"]) == 0
    assert capsys.readouterr().out.endswith("next:\n  cd 'meine Studie é' && cgpt plan days\n  snakemake --cores 2\n")
    root = tmp_path / "meine Studie é"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert main(["init", "meine Studie é"]) == 1
    assert capsys.readouterr().err == (
        "meine Studie é: has .gitignore already, and nothing is overwritten; name a new folder\n"
    )
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    monkeypatch.chdir(root)
    load.read_workflow(root).refuse_broken()
    assert main(["plan", "days"]) == 0 and "good_day: 200 documents" in capsys.readouterr().out
    answers = (root / "data/good_day_test.csv").read_text().splitlines()[1:]
    assert 70 <= sum(line.endswith(",1") for line in answers) <= 130
    corpus = (root / "data/days.txt").read_text()
    assert not [line for line in answers if line.rpartition(",")[0] in corpus]  # no day that is asked for was read


def test_init_takes_a_folder_with_other_files_and_no_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "notes.txt"]) == 1
    assert capsys.readouterr().err == "notes.txt: is a file; name a folder\n"
    assert main(["init", "."]) == 0 and (tmp_path / "notes.txt").read_text() == "mine"
    assert "next:\n  cgpt plan days\n" in capsys.readouterr().out


def test_a_command_outside_a_study_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["plan", "days"], ["list"], ["forecast", "--model", "gpt-tiny", "--hardware", "cpu"]):
        assert main(words) == 1
        assert capsys.readouterr().err == ("workflows: there is no such folder here; run from the study's folder, or "
                                           "make one with `cgpt init <folder>`\n")  # fmt: skip


def test_list_says_of_each_entry_whose_it_is_and_what(study, capsys):
    write(study, f"{EXPERIMENTS}/mine.yaml", "base: smoke\nquestion: Mine?\n")
    write(study, f"{EXPERIMENTS}/draft.yaml", "base: smok\n")
    write(study, MODELS, "models:\n  tiny: {base: gpt-tiny, vocab_size: 512}\n")
    write(study, "notes.txt", "a note\n" * 100)
    write(study, DATA, "datasets:\n  notes: {path: notes.txt, licence: mine}\n")
    shown = {}
    for kind in ("experiments", "runs", "models", "tasks", "hardware", "data"):
        assert main(["list", kind]) == 0
        shown[kind] = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert shown["experiments"][1] == ["mine", "study", "Mine?"]
    assert shown["experiments"][2][:2] == ["draft", "study"] and "'smok' is no experiment" in shown["experiments"][2][2]
    assert ["quickstart", "cgpt", written_out("quickstart")["question"]] in shown["experiments"]
    assert shown["models"][1] == ["tiny", "study", "33.2 K parameters: n_layer 1, d_model 32, seq_len 128"]
    assert ["world_topic", "cgpt", "multiple_choice, on world"] in shown["tasks"]
    assert ["cpu", "cgpt", "CPU, measured: This machine's processor, with native kernels"] in shown["hardware"]
    assert shown["data"][1] == ["notes", "study", "notes.txt, mine, 700 B"]
    assert len(shown["runs"]) == 1 + len(ids(load.read_workflow(study), "mine"))
    assert main(["list"]) == 0
    assert "experiments of the study: mine, draft; of cgpt: cerebras-gpt," in capsys.readouterr().out


def verbs() -> dict:
    (action,) = [each for each in make_parser()._actions if each.dest == "verb"]
    return action.choices


@pytest.mark.parametrize("name", sorted(verbs()))
def test_the_help_of_a_verb_ends_with_an_example_that_parses(name, capsys):
    import shlex

    with pytest.raises(SystemExit):
        make_parser().parse_args([name, "--help"])
    last = capsys.readouterr().out.rstrip().splitlines()[-1].split()
    text = verbs()[name].epilog.removeprefix("example: cgpt ")
    assert " ".join(last) and text.split()[-1] == last[-1]
    assert make_parser().parse_args(shlex.split(text)).verb == name


def test_help_names_every_verb_once_in_a_group_and_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(text.count(f"\n  {name} ") == 1 for name in verbs())
    starts = [text.index(f"\n{group}:\n") for group in GROUPS if f"\n{group}:\n" in text]
    assert starts == sorted(starts)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "cgpt 0.1.0\n"


@pytest.mark.parametrize(("line", "expected"), [
    ("cgpt pl", {"plan", "plot", "plot-vary", "plot-hardware"}),
    ("cgpt plan quick", {"quickstart"}),
    ("cgpt plan mi", {"mine"}),
    ("cgpt list ex", {"experiments"}),
    ("cgpt forecast --hardware h100", {"h100", "h100-8"}),
    ("cgpt bench pretrain --model bench-7", {"bench-7m"}),
])  # fmt: skip
def test_a_shell_completes_verbs_and_names(study, line, expected):
    write(study, f"{EXPERIMENTS}/mine.yaml", "base: smoke\n")
    answer = study / "answer"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n",
             "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "PYTHONPATH": str(ROOT)}  # fmt: skip
    subprocess.run([sys.executable, "-m", "cgpt"], env=os.environ | asked, check=False, capture_output=True)
    assert {word.strip() for word in answer.read_text().splitlines()} == expected
