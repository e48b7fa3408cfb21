"""Published models in experiments: rows that name a checkpoint, their plan, their stages and their tables."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from project import edit
from published_fixture import CONFIG, write_hf, write_study, write_texts
from safetensors.numpy import load_file

import cgpt
from cgpt.__main__ import main
from cgpt.errors import UserError
from cgpt.experiment import checkpoint_rows, load, plan
from cgpt.experiment.run import Plan, last_file
from cgpt.files.csv_file import read_csv
from cgpt.records import read_import, read_run
from cgpt.report import printed

ROOT = Path(__file__).parents[1]
ALONE, BOTH, MODELS = "workflows/experiments/alone.yaml", "workflows/experiments/both.yaml", "workflows/models.yaml"
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    study = write_study(tmp_path / "study")
    monkeypatch.chdir(study)
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CGPT_DATA_MIRROR", raising=False)
    return study


def planned(name: str) -> Plan:
    workflow = load.read_workflow(Path.cwd())
    return plan.make_plan(workflow.asked(name), workflow)


def problems(name: str) -> str:
    with pytest.raises(UserError) as caught:
        planned(name)
    return "\n".join(caught.value.problems)


def run_all(name: str) -> None:
    for run in planned(name).runs:
        assert main([run.stage, run.id]) == 0, run.id


def test_a_plan_reads_the_shape_from_config_json_before_any_weight_is_there(root):
    (root / "hf/model.safetensors").unlink()
    runs = planned("alone").runs
    assert [run.stage for run in runs] == ["import", "evaluate", "evaluate"]
    assert runs[0].spec["model"] == asdict(replace(CONFIG, d_ffn=64, init_std=0.02))
    assert {run.needs.get("import") for run in runs[1:]} == {runs[0].id}


def test_what_its_files_hold_is_a_folders_identity_and_not_where_it_lies(root):
    before = planned("alone").runs[0].id
    shutil.move(root / "hf", root / "elsewhere")
    edit(root, MODELS, "path: hf", "path: elsewhere")
    assert planned("alone").runs[0].id == before
    shutil.rmtree(root / "elsewhere")
    shutil.rmtree(root / "mood")
    write_hf(root / "elsewhere", write_texts(root), seed=1)
    assert planned("alone").runs[0].id != before


@pytest.mark.parametrize(
    "row, problem",
    [
        ("{checkpoint: {hub: a/b, revision: main}}", "checkpoint.revision: 'main' is no commit, and what it stands for "
         "may change; write 40 hexadecimal digits, or leave it out and run `cgpt pin`"),
        (f"{{checkpoint: {{hub: a/b, revision: {COMMIT}, path: hf}}}}", "has `hub` and `path`; write exactly one of"),
        ("{checkpoint: {}}", "checkpoint: has no origin; write exactly one of `hub`, `files`, `path`"),
        ("{checkpoint: {path: hf}, n_layer: 2}", "n_layer: stands beside `checkpoint`, whose config.json says it"),
        ("{checkpoint: {path: none}}", "checkpoint.path: there is no folder none; write a path"),
        (f"{{checkpoint: {{path: hf, revision: {COMMIT}}}}}", "revision: is a commit of the hub, and there is no"),
        (f"{{checkpoint: {{files: [{{url: 'http://x/a.bin', sha256: {64 * 'a'}}}]}}}}", "has no config.json; name it"),
        ("{checkpoint: {path: mood}}", "checkpoint.path: mood has no config.json; write the folder of a checkpoint"),
        ("{checkpoint: {hub: a/b}}", "revision: is not known yet; run `cgpt pin theirs`, which writes it into "
         "workflows/pins.yaml, or write `revision: <commit>`"),
        (f"{{checkpoint: {{hub: a/b, revision: {COMMIT}}}}}", "config.json is not here yet; connect to the network"),
        ("{base: small, checkpoint: {path: hf}}", "base: has a shape (`n_layer`), and config.json of the `checkpoint`"),
        ("{checkpoint: {path: hf}, published_as: Cerebras-GPT-112M}", "published_as: "
         "results/reference/published.csv has no 'Cerebras-GPT-112M'; did you mean 'Cerebras-GPT-111M'?"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_one_line_with_the_remedy_to_who_asks_for_it(root, row, problem):
    edit(root, MODELS, "{checkpoint: {path: hf}}", row)
    line = problems("alone")
    assert problem in line and "models.theirs" in line and "\n" not in line
    edit(root, BOTH, "models: [small, theirs]", "models: [small]")
    assert planned("both").of("pretrain")  # which does not name it


@pytest.mark.parametrize(
    "experiment, old, new, problem",
    [
        (BOTH, "train: {lr: 0.003, batch_size: 4, steps: 3}\n", "", "train: is missing, and small is pretrained"),
        (ALONE, "tasks:", "data: {corpus: [notes]}\ntasks:", "data: is of no use: each of `models` has a `checkpoint"),
        (ALONE, "tasks:", "vary: {train.lr: [0.1, 0.2]}\ntasks:", "vary.train.lr: is of no use: each of `models`"),
        (ALONE, "tasks:", "seeds: [0, 1]\ntasks:", "seeds: changes nothing where nothing is trained"),
        (ALONE, "tasks:", "hardware: [cpu, h100]\nweights_from: cpu\ntasks:",
         "hardware: 'h100' is modeled: it says what training takes, and nothing is trained; write a `finetune:` block"),
        (BOTH, "tasks:", "per_model: {theirs: {train: {lr: 0.1}}}\ntasks:", "per_model.theirs.train: 'theirs' has a"),
        (BOTH, "tasks:", "vary: {model.d_model: [16, 32]}\ntasks:", "'theirs' has the shape of its `checkpoint:`; "),
        (BOTH, "steps: 3}", "steps: 3, start: their}", "train.start: 'their' is no choice; did you mean 'theirs'?"),
        (BOTH, "steps: 3}", "steps: 3, start: small}", "train.start: 'small' is a shape without weights; name a row"),
        (BOTH, "steps: 3}", "steps: 3, start: theirs}", "'theirs' has a tokenizer of its own, which is not bpe; write "
         "`tokenizer: theirs` in `data:`"),
        (BOTH, "vocab_size: 300}", "tokenizer: gtp2}", "data.tokenizer: 'gtp2' is no choice; did you mean 'gpt2'?"),
        (BOTH, "vocab_size: 300}", "vocab_size: 400, tokenizer: theirs}", "vocab_size: is that of theirs's tokenizer"),
        (ALONE, "num_fewshot: [0, 2]", "num_fewshot: [0, 0]", "num_fewshot: names 0 twice; remove one of the two"),
        (ALONE, "num_fewshot: [0, 2]", "num_fewshot: []", "num_fewshot: is empty; write a number, several, or leave"),
        (ALONE, "tasks:", "per_model: {theirs: {seeds: [1]}}\ntasks:", "per_model.theirs.seeds: 'theirs' has a"),
        (ALONE, "num_fewshot: [0, 2]", "num_fewshot: -1", "num_fewshot: must be at least 0, not -1"),
    ],
)  # fmt: skip
def test_a_key_that_a_published_model_has_no_use_for_is_refused(root, experiment, old, new, problem):
    edit(root, experiment, old, new)
    assert problem in problems(Path(experiment).stem)


def test_a_training_that_starts_from_another_shape_is_refused_with_the_row_to_write(root):
    edit(root, BOTH, "vocab_size: 300}", "tokenizer: theirs}")
    edit(root, BOTH, "steps: 3}", "steps: 3, start: theirs}")
    assert problems("both").endswith("'theirs' has not the shape of 'small'; write in that one's row: "
                                     "activation: gelu_new")  # fmt: skip


def test_a_commit_that_is_pinned_stands_for_the_one_a_row_leaves_out(root, monkeypatch, capsys):
    edit(root, MODELS, "{checkpoint: {path: hf}}", "{checkpoint: {hub: some/model}}")
    monkeypatch.setattr("cgpt.commands.huggingface.resolve_commit", lambda hub, revision, where: COMMIT)
    assert main(["pin", "theirs"]) == 0
    assert COMMIT in (root / checkpoint_rows.PINS).read_text() and COMMIT in capsys.readouterr().out
    monkeypatch.setenv("CGPT_DATA_MIRROR", str(root / "mirror"))
    shutil.copytree(root / "hf", root / "mirror/some/model" / COMMIT)
    assert planned("alone").runs[0].spec["source"] == {"hub": "some/model", "revision": COMMIT}
    assert (
        main(["pin", "small"]) == 1
        and "'small' is no row of models.yaml with a model of the hub" in capsys.readouterr().err
    )
    edit(root, checkpoint_rows.PINS, COMMIT, "main")
    assert main(["plan", "alone"]) == 1 and "delete the line and run `cgpt pin` again" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["pin", "theirs"], ["import-hf", "theirs", "--out", "new"]])
def test_a_command_that_names_a_wrong_row_says_what_is_wrong_with_it(root, verb, capsys):
    edit(root, MODELS, "{checkpoint: {path: hf}}", "{checkpoint: {folder: hf}}")
    assert main(verb) == 1
    line = capsys.readouterr().err
    assert "models.theirs.checkpoint.folder: unknown key" in line and line.count("\n") == 1


def test_a_published_model_is_imported_and_writes_in_a_folder_that_is_no_study(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CGPT_DATA_MIRROR", str(root / "mirror"))
    shutil.copytree(root / "hf", root / "mirror/openai-community/gpt2" / COMMIT)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["import-hf", "gpt2", "--out", "checkpoints/gpt2"]) == 0
    assert capsys.readouterr().out.startswith("checkpoints/gpt2: gpt2, ")
    assert main(["generate", "--checkpoint", "checkpoints/gpt2", "--prompt", "sea", "--max-length", "9"]) == 0
    assert main(["generate", "--checkpoint", "checkpoints/gpt2", "--prompt", "sea", "--hardware", "cpu-int8"]) == 0
    capsys.readouterr()
    assert main(["import-hf", "gtp2", "--out", "new"]) == 1
    assert "there is no folder 'gtp2', and no row" in capsys.readouterr().err


def test_a_pin_can_be_made_again_where_the_last_line_of_the_pins_was_deleted(root, monkeypatch):
    edit(root, MODELS, "{checkpoint: {path: hf}}", "{checkpoint: {hub: some/model}}")
    monkeypatch.setattr("cgpt.commands.huggingface.resolve_commit", lambda hub, revision, where: COMMIT)
    for rest in ("", checkpoint_rows.ABOUT_PINS):
        (root / checkpoint_rows.PINS).write_text(rest)
        assert main(["pin", "theirs"]) == 0 and checkpoint_rows.pins_of(root) == {"some/model": COMMIT}


def test_one_number_of_shots_is_a_list_of_one_and_makes_the_runs_that_it_made(root):
    two = {run.id for run in planned("alone").of("evaluate")}
    edit(root, ALONE, "[0, 2]", "2")
    (one,) = planned("alone").of("evaluate")
    assert one.id in two and one.spec["task"]["num_fewshot"] == 2


def test_own_and_published_models_stand_in_one_table_with_shots_fine_tuning_and_modeled_cost(root, monkeypatch):
    line = (
        "model,variant,task,n_shot,metric,value,source\nPaper-1,SP,mood,0,acc,{},a paper\nPaper-1,SP,mood,5,acc,1,it\n"
    )
    (root / "published.csv").write_text(line.format("0.500"))
    for module in (printed, checkpoint_rows):
        monkeypatch.setattr(module, "PUBLISHED", str(root / "published.csv"))
    edit(root, MODELS, "{checkpoint: {path: hf}}", "{checkpoint: {path: hf}, published_as: Paper-1}")
    run_all("both")
    assert main(["tabulate", "both"]) == 0 and main(["plot", "both"]) == 0 and main(["plot-hardware", "both"]) == 0
    scores = [row for row in read_csv(root / "results/both/scores.csv") if row["primary"] == "true"]
    conditions = {(row["model"], row["condition"], row["n_shot"]) for row in scores if row["model"] != "bag of words"}
    kinds = {("zero-shot", "0"), ("few-shot", "2"), ("fine-tuned", "0")}
    assert conditions == {(model, *kind) for model in ("small", "theirs") for kind in kinds}
    (beside,) = [row for row in scores if row["published"]]
    z = (float(beside["value"]) - 0.5) / float(beside["stderr"])
    assert beside["condition"] == "zero-shot" and float(beside["published_z"]) == pytest.approx(z)
    assert beside["reproduced"] == str(abs(z) <= 2).lower()
    frame = cgpt.results("both").scores
    assert frame.published.dtype == "float64" and frame.reproduced.dtype == "boolean" and frame.reproduced.count() == 1
    table = (root / "results/both/table.md").read_text()
    assert "## Beside what was published" in table and "printed in a paper." in table
    _, _, tuning = table.partition("## Machines, fine-tuning")
    assert "| theirs | mood (fine-tuned) | h100" in tuning and "~" in tuning and "modeled (weights of cpu)" in tuning
    (root / "published.csv").write_text(line.format("0.0"))
    assert main(["tabulate", "both"]) == 0
    assert [row["reproduced"] for row in read_csv(root / "results/both/scores.csv") if row["published"]] == ["false"]


def test_a_modeled_machine_alone_scores_tunes_and_meters_a_published_model_from_scratch_too(root):
    edit(root, ALONE, "num_fewshot: [0, 2]", "hardware: [cs3]\nfinetune: {}\nvary: {finetune.lr: [0.001, 0.01]}")
    run_all("alone")
    for verb in ("plot", "plot-hardware", "plot-vary", "tabulate"):
        assert main([verb, "alone"]) == 0, verb
    rows = [row for row in read_csv(root / "results/alone/scores.csv") if row["primary"] == "true"]
    kinds = [(row["condition"], row["setting"]) for row in rows if row["model"] == "theirs"]
    settings = [f"finetune.lr={rate}" for rate in ("0.001", "0.01")]
    tuned = [(condition, setting) for condition in ("fine-tuned", "from scratch") for setting in settings]
    assert sorted(kinds) == sorted([*tuned, ("zero-shot", "")])
    metered = [read_run(last_file(*run.key)) for run in planned("alone").of("meter")]
    assert len(metered) == 4 and all(record.seconds > 0 and record.timing == "modeled" for record in metered)


def test_experiments_of_published_models_alone_have_tables_figures_and_a_report(root):
    run_all("alone")
    for verb in ("plot", "tabulate", "report"):
        assert main([verb, "alone"]) == 0, verb
    assert "theirs" in (root / "results/alone/report.html").read_text()
    table = (root / "results/alone/table.md").read_text()
    assert "one seed" not in table and "**2-shot**: scored with as many examples" in table
    page = (root / "results/alone/report.html").read_text()
    assert "One seed" not in page and "seed None" not in page
    (imported,) = planned("alone").of("import")
    record = read_import(last_file(*imported.key))
    assert record.data == "hf" and set(record.inputs) >= {"checkpoint/config.json", "checkpoint/model.safetensors"}


def test_an_imported_checkpoint_has_the_weights_of_its_folder_and_is_refused_once_that_changed(root, capsys):
    (imported, *_) = planned("alone").runs
    assert main(["import", imported.id]) == 0
    weights, theirs = (
        load_file(folder / "model.safetensors") for folder in (last_file(*imported.key).parent, root / "hf")
    )
    assert weights.keys() == theirs.keys() and all(np.array_equal(weights[name], theirs[name]) for name in theirs)
    edit(root, "hf/config.json", '"n_layer": 1', '"n_layer": 3')
    again = planned("alone").runs[0]
    capsys.readouterr()
    assert again.id != imported.id and main(["import", again.id]) == 1
    assert "transformer.h.1" in capsys.readouterr().err


def test_pretraining_goes_on_from_a_checkpoint_with_its_tokens_and_the_plan_says_so(root, capsys):
    edit(root, BOTH, "vocab_size: 300}", "tokenizer: theirs}")
    edit(root, BOTH, "models: [small, theirs]", "models: [alike]")
    edit(root, BOTH, "steps: 3}", "steps: 1, warmup_fraction: 0}\nvary: {train.start: [scratch, theirs]}")
    edit(root, BOTH, "lr: 0.003", "lr: 1.0e-9")
    edit(root, BOTH, "hardware: [cpu, h100]\nweights_from: cpu\n", "")
    edit(root, BOTH, "finetune: {start: [pretrained]}\n", "")
    assert main(["plan", "both"]) == 0
    assert "pretraining of alike starts from the weights of theirs, with a fresh optimizer" in capsys.readouterr().out
    run_all("both")
    scratch, going_on = sorted(planned("both").of("pretrain"), key=lambda run: "import" in run.needs)
    assert "start" not in scratch.spec["train"] and going_on.spec["train"]["start"] == "theirs"
    theirs = load_file(root / "hf/model.safetensors")
    for run, near in ((going_on, True), (scratch, False)):
        ours = load_file(last_file(*run.key).with_name("model.safetensors"))
        assert all(np.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs) == near
    assert read_run(last_file(*going_on.key)).inputs.keys() >= {"import/model.safetensors", "tokenize/train.bin"}
    tokenizers = [(folder / "tokenizer.json").read_bytes() for folder in (last_file(*going_on.key).parent, root / "hf")]
    assert json.loads(tokenizers[0])["model"] == json.loads(tokenizers[1])["model"]
    assert main(["tabulate", "both"]) == 0
    settings = {row["setting"] for row in read_csv(root / "results/both/runs.csv") if row["stage"] == "pretrain"}
    assert settings == {"train.start=scratch", "train.start=theirs"}


def test_the_rows_of_cgpt_name_commits_and_those_without_say_how_to_get_one():
    workflow = load.load_workflow(ROOT)
    rows = workflow.published
    assert {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"} <= rows.keys()
    sizes = ("111m", "256m", "590m", "1.3b", "2.7b", "6.7b", "13b")
    assert {f"cerebras-gpt-{size}-published" for size in sizes} <= rows.keys()
    assert checkpoint_rows.published_names(rows.values()).keys() == {f"cerebras-gpt-{size}-published" for size in sizes}
    without = [name for name, row in rows.items() if row.checkpoint.revision is None]
    assert all(f"cgpt pin {name}" in workflow.models.absent[name][0] for name in without)
