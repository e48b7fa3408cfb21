"""forecast --target-loss: the law asked backwards, the cheapest model found, and the budget kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cgpt.__main__ import main
from cgpt.recipe import flops
from cgpt.scaling import fitted_law, published, target_loss

ROOT = Path(__file__).parent.parent
FITS = ROOT / "results/reference/published_fits.json"


def test_the_papers_own_losses_ask_for_about_the_papers_models(forecast):
    """1.3B reached 1.997 on 26.3 B tokens, 6.7B 1.704 on 133 B."""
    for loss, n, tokens in ((1.997, 1.3157e9, 26.3e9), (1.704, 6.658e9, 133e9)):
        (training,) = forecast("--target-loss", str(loss), "--hardware", "cs2")["profiles"]
        assert training["n_parameters"] == pytest.approx(n, rel=0.2)
        assert training["tokens"][0] == pytest.approx(tokens, rel=0.2)
        assert training["tokens"][1] < training["tokens"][0] < training["tokens"][2]
        assert training["hours"][1] < training["hours"][0] < training["hours"][2]


def test_a_profile_takes_what_the_plain_forecast_says_of_that_shape(forecast):
    (training,) = forecast("--target-loss", "2.0", "--hardware", "h100-8")["profiles"]
    width, layers = training["d_model"], training["n_layer"]
    shape = f"n_layer={layers},d_model={width},n_head={width // 64},vocab=50257,seq_len=2048,tied=true"
    plain = forecast("--shape", shape, "--hardware", "h100-8", "--tokens", str(training["tokens"][0]),
                "--batch-per-system", str(training["batch_tokens"] // 2048 // 8))  # fmt: skip
    assert training["hours"][0] == pytest.approx(24 * plain["days"])
    assert training["energy_kwh"][0] == pytest.approx(plain["energy_kwh"])


def test_by_a_law_of_size_and_tokens_no_other_size_is_cheaper(forecast):
    asked = ("--target-loss", "2.4", "--series", "Chinchilla", "--hardware", "h100-8")
    (training,) = forecast(*asked)["profiles"]
    fitted = fitted_law.read(FITS, "Chinchilla")
    for model in list(target_loss.models(fitted))[20:40:2]:
        tokens = fitted.tokens_by_draw(2.4, model)[0]
        if np.isfinite(tokens):
            assert fitted.loss_of(model, tokens)[0] == pytest.approx(2.4)
            shape = (f"n_layer={model.n_layer},d_model={model.d_model},n_head={model.n_head},vocab=50257,"
                     "seq_len=2048,tied=true")  # fmt: skip
            batch = str(max(1, round(training["batch_tokens"] / 2048 / 8)))
            other = forecast(
                "--shape", shape, "--hardware", "h100-8", "--tokens", str(tokens), "--batch-per-system", batch
            )
            if other["in_memory"]:
                assert other["days"] * 24 > 0.99 * training["hours"][0]


def test_a_machine_that_holds_no_such_model_names_the_one_of_the_fewest_flops(forecast):
    (training,) = forecast("--target-loss", "1.9", "--series", "Chinchilla", "--hardware", "h100")["profiles"]
    fitted = fitted_law.read(FITS, "Chinchilla")
    spent = {flops.n_parameters(model): fitted.tokens_by_draw(1.9, model)[0] * flops.flops_per_token(model)
             for model in target_loss.models(fitted)}  # fmt: skip
    assert training["in_memory"] is False and training["hours"] == [None] * 3
    assert training["n_parameters"] == min(spent, key=lambda size: spent[size])


def test_a_budget_buys_the_loss_whose_training_fills_it(forecast):
    (training,) = forecast("--target-loss", "2.0", "--hardware", "h100-8", "--budget-hours", "20")["profiles"]
    assert training["within_budget"] is (training["hours"][0] <= 20)
    value, low, high = training["budget_loss"]
    assert low < value < high
    (again,) = forecast("--target-loss", str(value), "--hardware", "h100-8")["profiles"]
    assert again["hours"][0] == pytest.approx(20, rel=0.1)
    (less,) = forecast("--target-loss", "2.0", "--hardware", "h100-8", "--budget-kwh", "20")["profiles"]
    assert less["within_budget"] is False and less["budget_loss"][0] > 2.0


def test_each_profile_named_gets_its_answer_and_people_get_the_intervals(capsys, checkout):
    assert main(["forecast", "--target-loss", "2.2", "--hardware", "cs2", "cpu", "--budget-kwh", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "for its text and vocabulary only" in lines[0]
    assert [line.split()[0] for line in lines if not line.startswith(" ")][1:] == ["cs2", "cpu"]
    assert sum("time      ~" in line and "[~" in line for line in lines) == 2
    assert sum("model     502 M [" in line for line in lines) == 2
    assert sum(line.startswith("  batch     5") and line.endswith("] tokens") for line in lines) == 2
    assert lines[-1] == "  in budget not known: hardware_profiles/cpu.yaml has no power_w, which --budget-kwh needs"
    (bought,) = [line for line in lines if "it buys" in line]
    assert re.fullmatch(r"  it buys   nothing that the law can say: its smallest model, 1.70 M parameters, takes "
                        r"~[\d.]+ kWh for 34.0 M tokens", bought)  # fmt: skip


def test_sizes_grow_in_cerebras_gpts_proportions():
    sizes = list(target_loss.models(fitted_law.read(FITS)))
    counts = [flops.n_parameters(model) for model in sizes]
    assert counts == sorted(counts) and counts[0] < 2e6 * 2 and counts[-1] > 1e11
    assert all(model.d_model % model.n_head == 0 for model in sizes)
    near = min(sizes, key=lambda model: abs(flops.n_parameters(model) - 1_315_723_264))
    assert (near.n_layer, near.d_model) == pytest.approx((24, 2048), rel=0.1)


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--target-loss", "0.4", "--hardware", "cs2"], "is not above 0.501, the law's irreducible loss"),
    (["--target-loss", "1.0", "--hardware", "cs2"],
     "takes a model of more than 1.29 T parameters at the law's 20 tokens for each, and no larger one is tried"),
    (["--target-loss", "0.6", "--hardware", "cs2"], "takes a model of more than 1.29 T parameters"),
    (["--target-loss", "9", "--hardware", "cs2"], "takes a model of less than 1.70 M parameters at the law's 20"),
    (["--target-loss", "10.9", "--hardware", "cs2"],
     "is not below 10.825, ln 50257, which guessing among the law's vocabulary has without training; write a lower"),
    (["--target-loss", "3", "--hardware", "cpu", "--law", "results/reference/overtraining/fits.json"],
     "results/reference/overtraining/fits.json: its L(C) is of runs of a single size, and chooses no model size; take "
     "another with --law, or fit runs of several sizes and lengths with `fit: [parametric]`"),
    (["--target-loss", "1.82", "--series", "Chinchilla", "--hardware", "cs2"], "write a higher one"),
    (["--target-loss", "2", "--hardware", "cs4"], "there is no hardware profile 'cs4'; did you mean 'cs3'?"),
    (["--target-loss", "2", "--hardware", "cs2", "--budget-hours", "-1"], "--budget-hours: must be greater than 0"),
    (["--target-loss", "2", "--hardware", "cs2", "--tokens", "1e9"], "--tokens: has no meaning with --target-loss"),
    (["--target-loss", "2", "--hardware", "cs2", "--law", "missing.json"], "missing.json: is missing; run"),
    (["--target-loss", "2", "--hardware", "cs2", "--series", "Cerebras-GPT SPP"],
     "did you mean 'Cerebras-GPT SP'?"),
])  # fmt: skip
def test_a_mistake_gets_one_line(capsys, checkout, arguments, expected):
    assert main(["forecast", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def write_fits(path: Path, **changes) -> Path:
    """fits.json of runs of a vocabulary of 512, context of 128 and heads of 16, with the published law's constants."""
    study = json.loads(FITS.read_text())["series"]["Cerebras-GPT SP"]
    runs = {"vocab_size": 512, "seq_len": 128, "batch_tokens": 2048.0, "tokens_per_parameter": 20.0,
           "shapes": [[2, 32, 2], [2, 64, 4], [3, 80, 5], [4, 128, 8]]}  # fmt: skip
    path.write_text(json.dumps({"series": {"SP": study | runs | changes}}))
    return path


def test_by_the_law_of_own_runs_models_and_batch_are_like_theirs(forecast, tmp_path):
    fits = write_fits(tmp_path / "fits.json")
    shapes = {model.d_model: (model.n_layer, model.n_head) for model in target_loss.models(fitted_law.read(fits))}
    for n_layer, d_model, n_head in ((2, 32, 2), (2, 48, 3), (2, 64, 4), (3, 80, 5), (4, 128, 8), (8, 256, 16)):
        assert shapes[d_model] == (n_layer, n_head)
    counts = [flops.n_parameters(model) for model in target_loss.models(fitted_law.read(fits))]
    assert counts == sorted(counts) and counts[0] < 2e4 and counts[-1] > 1e10
    for training in forecast("--target-loss", "4", "--law", str(fits), "--hardware", "cpu", "cs3", "h100")["profiles"]:
        assert training["batch_tokens"] == 2048 and training["timing"] == "modeled"
        assert training["tokens"][0] / training["n_parameters"] == pytest.approx(20, rel=0.5)
        assert training["hours"][1] < training["hours"][0] < training["hours"][2]
        assert (training["energy_kwh"][0] is None) == (training["hardware"] == "cpu")


def test_by_a_law_of_compute_no_answer_is_far_from_the_laws_tokens_per_parameter(capsys, checkout, tmp_path):
    answered = 0
    for law_file in (FITS, write_fits(tmp_path / "fits.json")):
        for loss in np.arange(0.9, 6.2, 0.3):
            asked = ["forecast", "--target-loss", f"{loss:.2f}", "--law", str(law_file), "--hardware", "cpu", "--json"]
            failed = main(asked)
            output = capsys.readouterr()
            if failed:
                assert "tokens for each, and no" in output.err
            else:
                (training,) = json.loads(output.out)["profiles"]
                assert 1 / 1.5 <= training["tokens"][0] / training["n_parameters"] / 20 <= 1.5, loss
                answered += 1
    assert answered > 20


def test_no_size_is_far_from_the_next(tmp_path):
    for law_file in (FITS, write_fits(tmp_path / "fits.json")):
        counts = np.array([flops.n_parameters(model) for model in target_loss.models(fitted_law.read(law_file))])
        assert (counts[1:] / counts[:-1]).max() < 1.55  # so the nearest is off the ratio by no more


def test_what_lies_beyond_the_laws_runs_is_said_in_words(forecast, capsys, tmp_path):
    """Runs whose losses, and whose FLOPs by the law, are those from 3 to 5."""
    c0, alpha, e = (constant["value"] for constant in next(
        fit for fit in json.loads(FITS.read_text())["series"]["Cerebras-GPT SP"]["compute"]
        if fit["form"] == "offset" and "draws" in fit)["constants"].values())  # fmt: skip
    spent = [c0 * (loss - e) ** (-1 / alpha) for loss in (5, 3)]
    fits = str(write_fits(tmp_path / "fits.json", loss_range=[3.0, 5.0], flops_range=spent))
    (inside,) = forecast("--target-loss", "4", "--law", fits, "--hardware", "cpu")["profiles"]
    assert inside["law_extrapolated"] is None
    asked = ("--target-loss", "2", "--law", fits, "--hardware", "cpu")
    (below,) = forecast(*asked)["profiles"]
    times = ((2 - e) / (3 - e)) ** (-1 / alpha)
    assert below["law_extrapolated"] == ("loss 2 is below the lowest of the law's runs, 3; "
        f"{float(f'{times:.1g}'):,.0f} times the FLOPs of the largest run")  # fmt: skip
    assert main(["forecast", *asked, "--budget-hours", "1e9"]) == 0
    printed = capsys.readouterr().out
    assert f"  law       EXTRAPOLATED: {below['law_extrapolated']}\n" in printed
    assert re.search(r"it buys   loss .* tokens; EXTRAPOLATED: loss .* is below", printed)
    narrow = str(write_fits(tmp_path / "narrow.json", loss_range=[3.0, 3.5], flops_range=spent))
    (above,) = forecast("--target-loss", "4", "--law", narrow, "--hardware", "cpu")["profiles"]
    assert above["law_extrapolated"] == "loss 4 is above the highest of the law's runs, 3.5"


@pytest.mark.parametrize(("changes", "expected"), [
    ({"n_sizes": 1}, "SP: its L(C) is of runs of a single size, and chooses no model size; take another with --law"),
    ({"tokens_per_parameter_range": [5.0, 80.0]},
     "SP: its L(C) is of runs of 5 to 80 tokens per parameter, not of one ratio, and chooses no model size"),
])  # fmt: skip
def test_a_law_that_says_nothing_of_size_is_refused(capsys, checkout, tmp_path, changes, expected):
    fits = write_fits(tmp_path / "fits.json", **changes)
    assert main(["forecast", "--target-loss", "4", "--law", str(fits), "--hardware", "cpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{fits}: {expected}")
    write_fits(fits, n_sizes=4, tokens_per_parameter_range=[19.9, 20.3])
    assert main(["forecast", "--target-loss", "4", "--law", str(fits), "--hardware", "cpu"]) == 0


# L(C) and L(N, D), at losses of which draws of low and of high E differ
@pytest.mark.parametrize("experiment, loss", [("scaling", "2.55"), ("isoflop", "2.7")])
def test_the_ends_of_the_size_are_what_the_draws_would_choose(forecast, tmp_path, experiment, loss):
    study = next(iter(json.loads((ROOT / f"results/reference/{experiment}/fits.json").read_text())["series"].values()))
    fit = study["parametric"]["n_parameters"] if "parametric" in study else next(
        fit for fit in study["compute"] if fit["form"] == "offset" and "draws" in fit)  # fmt: skip
    both = sorted(fit["draws"], key=lambda draw: draw[-1])[25], sorted(fit["draws"], key=lambda draw: draw[-1])[-25]

    def asked(constants: list[float] | None, draws: tuple) -> dict:
        named = [name for name in fit["constants"] if name != "n_exponent"]
        changed = {name: {"value": value} for name, value in zip(named, constants or ())}
        changed_fit = fit | {"constants": fit["constants"] | changed, "draws": draws}
        parts = {"parametric": {"n_parameters": changed_fit}} if "parametric" in study else {"compute": [changed_fit]}
        path = tmp_path / "fits.json"
        path.write_text(json.dumps({"series": {"": study | parts}}))
        return forecast("--target-loss", loss, "--law", str(path), "--hardware", "cpu")["profiles"][0]

    alone = sorted(asked(draw, both)["n_parameters"] for draw in both)
    assert asked(None, both)["n_parameters_ends"] == alone and alone[0] < alone[1]


def test_a_law_of_compute_gives_a_budget_its_least_or_its_most(forecast, tmp_path):
    fits = write_fits(tmp_path / "fits.json")
    asked = ("--target-loss", "4", "--law", str(fits), "--hardware", "cpu", "--budget-hours")
    (little,) = forecast(*asked, "1e-7")["profiles"]
    assert little["budget_loss"] is None and little["within_budget"] is False
    assert "parameters, takes ~" in little["budget_problem"] and " s for " in little["budget_problem"]
    (much,) = forecast(*asked, "1e15")["profiles"]
    assert much["budget_tokens"] / much["budget_n_parameters"] == pytest.approx(20) and not much["budget_problem"]


def tokens_to(study: dict, loss: float, n_layer: int, d_model: int) -> np.ndarray:
    """Tokens that each draw of a published law takes to the loss: its FLOPs by Cerebras-GPT's count, or by L(N, D)."""
    if parametric := study.get("parametric"):
        a, b, e, alpha, beta = np.array(parametric["n_parameters"]["draws"]).T
        n = (50257 + 2048) * d_model + n_layer * (12 * d_model**2 + 13 * d_model) + 2 * d_model
        left = loss - e - a / n**alpha
        return np.where(left > 0, (b / np.maximum(left, 1e-9)) ** (1 / beta), np.inf)
    (fit,) = (fit for fit in study["compute"] if fit["form"] == "offset" and "draws" in fit)
    c0, alpha, e = np.array(fit["draws"]).T
    flops_per_token = 72 * n_layer * d_model**2 + 24 * n_layer * 2048 * d_model + 10 * 50257 * d_model
    return c0 * (loss - e) ** (-1 / alpha) / flops_per_token


@pytest.mark.parametrize(("series", "loss"), [("Cerebras-GPT SP", 1.6), ("Chinchilla", 2.3)])
def test_the_ends_of_an_interval_are_those_of_the_draws_in_tokens_and_what_they_take_in_hours(forecast, series, loss):
    (training,) = forecast("--target-loss", str(loss), "--series", series, "--hardware", "h100-8")["profiles"]
    n_layer, d_model = training["n_layer"], training["d_model"]
    drawn = tokens_to(json.loads(FITS.read_text())["series"][series], loss, n_layer, d_model)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert training["tokens"][1:] == pytest.approx([low, high], rel=0.01)
    factor, exponent = published.batch_tokens_law(published.read(FITS.parent / "published.csv"))
    model = next(each for each in target_loss.models(fitted_law.read(FITS, series)) if each.d_model == d_model)
    shape = f"n_layer={n_layer},d_model={d_model},n_head={model.n_head},vocab=50257,seq_len=2048,tied=true"
    for end, tokens in enumerate(training["tokens"]):
        batch = str(max(1, round(factor * tokens**exponent / 2048 / 8)))
        plain = forecast("--shape", shape, "--hardware", "h100-8", "--tokens", str(tokens), "--batch-per-system", batch)
        assert training["hours"][end] == pytest.approx(24 * plain["days"])
        assert training["energy_kwh"][end] == pytest.approx(plain["energy_kwh"])


def test_a_loss_is_held_against_the_irreducible_one_of_the_law_that_is_asked(capsys, checkout, tmp_path):
    fits = json.loads(write_fits(tmp_path / "fits.json").read_text())
    for fit in fits["series"]["SP"]["compute"]:
        if fit["form"] == "offset":
            fit["constants"]["e"]["value"] = 2.0
    (tmp_path / "fits.json").write_text(json.dumps(fits))
    assert fitted_law.read(tmp_path / "fits.json").lowest_loss() == 2.0
    arguments = ["--law", str(tmp_path / "fits.json"), "--hardware", "cpu"]
    assert main(["forecast", "--target-loss", "1.9", *arguments]) == 1
    assert "1.9 is not above 2.000, the law's irreducible loss" in capsys.readouterr().err
