"""The sentences that answer an experiment's question: their numbers against ones computed in another way."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import results_fixture as made
import vary_fixture
from scipy import stats

from cgpt.errors import UserError
from cgpt.report.conclusions.conclude import conclude
from cgpt.report.conclusions.laws import fitted_laws
from cgpt.report.rows import collect

REFERENCE = Path(__file__).parent.parent / "results" / "reference"


def conclusions(results: Path, experiment, plan, fits=None) -> list:
    return conclude(experiment, collect(experiment, plan, results), results, fits, ())


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


def accuracies(results: Path, run: str) -> np.ndarray:
    lines = (results / "runs/evaluate" / run / "samples.jsonl").read_text().splitlines()
    return np.array([float(json.loads(line)["correct"]) for line in lines])


def test_fine_tuned_against_scratch_gives_count_range_and_mean_with_their_paired_interval(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    made.add_samples(tmp_path, plan)
    gains = np.array([[accuracies(tmp_path, f"{model}.world.s0.{task}.pretrained.{task}-e")
                       - accuracies(tmp_path, f"{model}.world.s0.{task}.scratch.{task}-e")
                       for model in made.SIZES] for task in made.TASKS])  # fmt: skip
    values, of_task = gains.mean(axis=2), gains.mean(axis=1)  # (tasks, models) and (tasks, documents)
    n = gains.shape[2] + 2
    middle = of_task.sum(axis=1) / n
    variance = ((of_task**2).sum(axis=1) + 1) / n - middle**2
    se = np.sqrt((variance / n).sum()) / 3
    freedom = (variance.sum()) ** 2 / (variance**2 / (n - 3)).sum()
    half = stats.t.ppf(0.975, freedom) * se
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert f"Fine-tuned beats from scratch on {(values > 0).sum()} of 9 (3 models, 3 tasks)" in first.sentence
    shown = numbers(first.sentence)
    better = values[values > 0]
    assert shown[:2] == pytest.approx([better.min(), better.max()], abs=6e-4)
    assert shown[-3:] == pytest.approx([values.mean(), middle.mean() - half, middle.mean() + half], abs=6e-4)
    assert "One seed, so the error is of the test set alone" in " ".join(first.basis)
    assert sorted(bar.value for bar in first.bars) == pytest.approx(sorted(values.ravel()))


def test_what_fine_tuning_loses_against_zero_shot_is_named(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    made.add_samples(tmp_path, plan)
    zero = {model: accuracies(tmp_path, f"{model}.world.s0.topic-e").mean() for model in made.SIZES}
    tuned = {model: accuracies(tmp_path, f"{model}.world.s0.topic.pretrained.topic-e").mean() for model in made.SIZES}
    (first, *_) = conclusions(tmp_path, experiment, plan)
    lines = [[cell.text for cell in row] for row in first.evidence.rows]
    shown = {line[1]: float(line[5]) for line in lines if line[0] == "topic" and line[3] == "zero-shot"}
    assert shown == pytest.approx({model: tuned[model] - zero[model] for model in made.SIZES}, abs=6e-4)
    assert any("zero-shot" in sentence for sentence in first.more)


def test_several_seeds_widen_the_interval_and_are_named(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0, 1, 2))
    made.add_samples(tmp_path, plan)
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert "variance between 3 training seeds" in " ".join(first.basis) and "One seed" not in " ".join(first.basis)


def test_without_samples_the_two_standard_errors_are_used_and_that_is_what_is_written(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert "root of the sum of the two squared standard errors" in " ".join(first.basis)
    half = 1.96 * 0.015 * np.sqrt(2)
    line = next([cell.text for cell in row] for row in first.evidence.rows if row[3].text == "from scratch")
    assert numbers(line[6]) == pytest.approx([0.2 - half, 0.2 + half], abs=6e-4)


def test_without_models_from_scratch_fine_tuning_is_compared_with_zero_shot(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    made.add_samples(tmp_path, plan)
    kept = replace(plan, runs=tuple(run for run in plan.runs if ".scratch" not in run.id))
    (first, *_) = conclusions(tmp_path, experiment, kept)
    gains = []
    for base, task in ((f"{model}.world.s0", task) for model in made.SIZES for task in made.TASKS):
        tuned = accuracies(tmp_path, f"{base}.{task}.pretrained.{task}-e")
        gains.append((tuned - accuracies(tmp_path, f"{base}.{task}-e")).mean())
    assert first.sentence.startswith("Fine-tuned beats zero-shot on 9 of 9 (3 models, 3 tasks)")
    assert numbers(first.sentence)[:2] == pytest.approx([min(gains), max(gains)], abs=6e-4)


@pytest.mark.parametrize("models", [("gpt-90k",), tuple(made.SIZES)])
def test_differences_within_their_error_are_not_called_better(tmp_path, models) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    for path in (tmp_path / "runs/evaluate").glob("*/scores.json"):
        record = json.loads(path.read_text())
        record["scores"][1]["value"] = 0.5 + 0.001 * (len(path.parent.name) % 3)
        path.write_text(json.dumps(record))
    tasks = made.TASKS if len(models) > 1 else ("topic",)
    kept = [run for run in plan.runs if run.id.split(".")[0] in models and (run.stage == "pretrain" or any(
        f".{task}" in run.id for task in tasks))]  # fmt: skip
    (first, *_) = conclusions(tmp_path, experiment, replace(plan, runs=tuple(kept)))
    assert first.sentence.startswith("Fine-tuned and from scratch cannot be told apart"), first.sentence
    assert "beats" not in first.sentence


def test_a_task_whose_metric_has_no_direction_is_not_compared(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    for path in (tmp_path / "runs/evaluate").glob("*/scores.json"):
        record = json.loads(path.read_text())
        for score in record["scores"]:
            score["higher_is_better"] = None
        path.write_text(json.dumps(record))
    (only,) = conclusions(tmp_path, experiment, plan)
    assert "validation loss" in only.sentence


@pytest.mark.parametrize(("n_shot", "condition"), [(0, "Zero-shot"), (3, "Few-shot")])
def test_pretrained_models_alone_are_compared_with_chance(tmp_path, n_shot, condition) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    for path in (tmp_path / "runs/evaluate").glob("*/scores.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"n_shot": n_shot}))
    kept = tuple(
        run for run in plan.runs if run.stage == "pretrain" or ("pretrain" in run.needs and run.stage == "evaluate")
    )
    made.add_samples(tmp_path, replace(plan, runs=kept))
    (first,) = conclusions(tmp_path, experiment, replace(plan, runs=kept))
    values = [accuracies(tmp_path, run.id).mean() - 0.25 for run in kept if run.stage == "evaluate"]
    assert f"{condition} beats chance on {sum(value > 0 for value in values)} of 9" in first.sentence
    assert numbers(first.sentence)[-3] == pytest.approx(np.mean(values), abs=6e-4)


@pytest.mark.parametrize(("seeds", "words"), [((0,), "one seed each"), ((0, 1, 2), "mean of 3 seeds")])
def test_without_tasks_the_least_loss_is_the_answer(tmp_path, seeds, words) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=seeds)
    kept = replace(plan, runs=plan.of("pretrain"))
    (only,) = conclusions(tmp_path, experiment, kept)
    losses = [json.loads((tmp_path / f"runs/pretrain/gpt-1m.world.s{seed}/run.json").read_text())["validation_loss"]
              for seed in seeds]  # fmt: skip
    assert only.sentence.startswith("gpt-1m reaches a validation loss") and words in only.sentence
    assert numbers(only.sentence)[0] == pytest.approx(np.mean(losses), abs=6e-4)
    if len(seeds) > 1:
        half = stats.t.ppf(0.975, len(seeds) - 1) * np.std(losses, ddof=1) / np.sqrt(len(seeds))
        assert numbers(only.sentence)[1:] == pytest.approx([np.mean(losses) - half, np.mean(losses) + half], abs=6e-4)


def test_of_what_varies_the_best_is_named_with_its_lead_and_whether_seeds_explain_it(tmp_path) -> None:
    rates = [0.001, 0.004, 0.016]
    experiment, plan = vary_fixture.make_varied(tmp_path, {"train.lr": rates}, models=("gpt-90k",))
    (first, *_) = conclusions(tmp_path, experiment, plan)
    rows = [row for row in collect(experiment, plan, tmp_path).runs if row["stage"] == "pretrain"]
    means = {
        rate: np.mean([row["validation_loss"] for row in rows if row["point"]["train.lr"] == rate]) for rate in rates
    }
    assert first.sentence.startswith("Of 3 values of train.lr, 0.004 is best")
    assert "more than seeds explain" in first.sentence
    assert numbers(first.sentence)[1] == pytest.approx(means[0.004], abs=6e-4)
    assert any(
        value == pytest.approx(sorted(means.values())[1] - means[0.004], abs=6e-4) for value in numbers(first.sentence)
    )


def test_where_less_is_better_the_difference_is_by_how_much_the_first_is_better(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    for path in (tmp_path / "runs/evaluate").glob("*/scores.json"):
        record, value = json.loads(path.read_text()), 13.0 if ".scratch" in path.parent.name else 10.0
        record["scores"] = [{"metric": "perplexity", "value": value, "higher_is_better": False, "chance": None,
                             "filter": "none", "stderr": 0.3}]  # fmt: skip
        path.write_text(json.dumps(record))
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert first.sentence.startswith("Fine-tuned beats from scratch on 9 of 9")
    line = next([cell.text for cell in row] for row in first.evidence.rows if row[3].text == "from scratch")
    assert line[2:6] == ["10", "from scratch", "13", "+3.000"] and first.evidence.header[5].text == "better by"
    assert first.legend.startswith("By how much fine-tuned scores better than from scratch")


@pytest.mark.parametrize("gain", [0.01, -0.01])
def test_a_single_difference_within_its_error_says_which_is_ahead(tmp_path, gain) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    kept = [run for run in plan.runs if "gpt-90k" in run.id and (run.stage == "pretrain" or ".topic." in run.id)]
    for run in kept:
        path = tmp_path / "runs/evaluate" / run.id / "scores.json"
        if path.is_file():
            record = json.loads(path.read_text())
            record["scores"][1]["value"] = 0.5 + (gain if ".pretrained" in run.id else 0)
            path.write_text(json.dumps(record))
    (first, *_) = conclusions(tmp_path, experiment, replace(plan, runs=tuple(kept)))
    ahead = "ahead" if gain > 0 else "behind"
    assert f"cannot be told apart on topic: fine-tuned is {ahead} by 0.010 of acc (95 % interval -" in first.sentence


def test_seeds_of_one_side_alone_are_not_called_those_of_both(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0, 1, 2))
    kept = [run for run in plan.runs if not (".scratch" in run.id and ".s0" not in run.id)]
    (first, *_) = conclusions(tmp_path, experiment, replace(plan, runs=tuple(kept)))
    assert "between up to 3 training seeds is part of the interval, of a side that has several" in " ".join(first.basis)


def test_a_machine_alone_is_not_called_best(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    plan = made.add_metered(tmp_path, replace(plan, runs=plan.of("pretrain")), "cpu")
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert first.sentence.startswith("Which machine is best cannot be told: no two have")


def test_of_settings_that_are_the_same_none_is_called_best(tmp_path) -> None:
    experiment, plan = vary_fixture.make_varied(tmp_path, {"train.lr": [0.001, 0.004]}, (0,), ("gpt-90k",))
    for path in (tmp_path / "runs/pretrain").glob("*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"validation_loss": 3.0}))
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert first.sentence.startswith("Of 2 values of train.lr, 0.001 is no better than 0.004: both validation loss")


def test_settings_that_seeds_cannot_tell_apart_are_not_called_better(tmp_path) -> None:
    experiment, plan = vary_fixture.make_varied(tmp_path, {"train.lr": [0.001, 0.002, 0.004]}, models=("gpt-90k",),
                                                loss=lambda point, model: 3.0)  # fmt: skip
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert "seeds cannot tell it from" in first.sentence and "more than seeds explain" not in first.sentence


def test_one_seed_a_setting_tells_nothing_beyond_noise(tmp_path) -> None:
    experiment, plan = vary_fixture.make_varied(tmp_path, {"train.lr": [0.001, 0.004]}, seeds=(0,))
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert "By validation loss (nats per token), the best train.lr is 0.004 on 3 of 3" in first.sentence
    assert "one seed each, so whether that is more than noise cannot be told" in first.sentence


def test_of_a_length_the_change_is_given_and_not_a_best(tmp_path) -> None:
    experiment, plan = vary_fixture.make_varied(
        tmp_path,
        {"train.steps": [20, 40]},
        models=("gpt-90k",),
        loss=lambda point, model: 4 - point["train.steps"] / 40,
    )
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert "as train.steps goes from 20 to 40: a change of -0.4" in first.sentence and "95 % interval" in first.sentence


def test_losses_of_different_texts_are_not_compared(tmp_path) -> None:
    experiment, plan = vary_fixture.make_varied(tmp_path, {"data.corpus": [["world"], ["notes"]]}, models=("gpt-90k",))
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert first.sentence.startswith("Nothing can be told of data.corpus")


def test_modeled_machines_are_ranked_with_a_tilde_and_without_an_interval(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    plan = made.add_metered(tmp_path, replace(plan, runs=plan.of("pretrain")), "fast", seconds=2.5)
    plan = made.add_metered(tmp_path, plan, "slow", seconds=900.0, energy_j=5e5)
    (first, *_) = conclusions(tmp_path, experiment, plan)
    fastest = "Of 3 machines, fast is the fastest for all 3 models (gpt-1m: ~2.5 s, against 61.5 s on cpu)"
    assert first.sentence.startswith(fastest)
    assert "slow takes the least energy for all 3 models (gpt-1m: ~139 Wh, against ~20 kWh on fast)" in first.sentence
    assert "no interval" in first.basis[0]


def test_one_model_on_several_machines_is_called_one(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    plan = made.add_metered(tmp_path, replace(plan, runs=plan.of("pretrain")[:1]), "fast", seconds=2.5)
    (first, *_) = conclusions(tmp_path, experiment, plan)
    assert "fast is the fastest for the one model (" in first.sentence


def test_machines_and_fine_tuning_in_one_experiment_are_answered_together(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    (fine_tuned, *_) = conclusions(tmp_path, experiment, plan)
    first, second, *_ = conclusions(tmp_path, experiment, made.add_metered(tmp_path, plan, "fast", seconds=2.5))
    assert first.sentence.startswith("Of 2 machines, fast is the fastest")
    assert list(first.more) == [fine_tuned.sentence] and second == fine_tuned


@pytest.mark.parametrize("name", ["scaling", "isoflop", "lr-transfer", "overtraining", "scaling-rates"])
def test_the_laws_of_our_kept_studies_are_told_as_their_fits_have_them(name) -> None:
    fits = json.loads((REFERENCE / name / "fits.json").read_text())
    conclusion = fitted_laws(fits)
    sentence = " ".join([conclusion.sentence, *conclusion.more])

    def shown(constant) -> str:
        low, high = constant["ends"]
        return f"{constant['value']:.3g} (95 % interval {low:.3g} to {high:.3g})"

    for series, study in fits["series"].items():
        assert not series or f"nder {series}, " in sentence
        laws = {fit["form"]: fit for fit in study.get("compute", ())
                if (fit["flops"], fit["unit"]) == ("palm", "nats_per_token")}  # fmt: skip
        if laws:
            assert laws["offset"]["constants"]["e"]["ends"][0] == 0  # so that the runs do not tell an offset
            assert all(f"alpha {shown(law['constants']['alpha'])}" in sentence.replace("alpha is", "alpha")
                       for law in laws.values())  # fmt: skip
            assert ("miss by more than seeds explain" in sentence) == (laws["power"]["lack_of_fit"]["p"] < 0.05)
        if "learning_rate" in study:
            assert f"to the power {study['learning_rate']['power_of_width']['value']:.2f}" in sentence
        if "isoflop" in study:
            assert shown(study["isoflop"]["laws"]["palm"]["n_exponent"]) in sentence
        if "hardware" in study:
            cheapest = next(way for way in study["cheapest"] if way["cheapest"] and way["cost"] == "usd")
            assert f"{cheapest['hardware']} in US dollars, ~{cheapest['steps'][0]:.3g}" in sentence


def test_a_way_to_a_loss_whose_interval_has_no_end_is_told_so() -> None:
    fits = json.loads((REFERENCE / "scaling/fits.json").read_text())
    for way in fits["series"]["SP"]["cheapest"]:
        way["steps"][2] = None  # as JSON has what is infinite
    conclusion = fitted_laws(fits)
    assert "(95 % interval 0.804 to inf)" in " ".join([conclusion.sentence, *conclusion.more])


def test_a_law_that_cannot_be_told_says_why() -> None:
    study = {"primary_flops": "palm", "compute": [{"form": "offset", "flops": "palm", "unit": "nats_per_token",
                                                   "problem": "too few budgets"}]}  # fmt: skip
    assert fitted_laws({"series": {"": study}}).sentence == "No law of loss in compute can be told (too few budgets)."


def test_samples_that_are_damaged_are_one_line(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    rows = collect(experiment, plan, tmp_path)
    (tmp_path / "runs/evaluate/gpt-1m.world.s0.topic.scratch.topic-e/samples.jsonl").write_text("{\n")
    with pytest.raises(UserError, match="samples.jsonl: cannot be read .* delete its folder"):
        conclude(experiment, rows, tmp_path, None, ())
