"""The committed fidelity is what the command gives, within the errors promised, and the profiles hold its constants."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from cgpt.cost import calibrate, gpu, measurements
from cgpt.errors import UserError
from cgpt.experiment.load import load_workflow
from cgpt.report.machines import fidelity

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results/reference"
ROWS = measurements.read(REFERENCE / "accelerator_measurements.csv")
HARDWARE = load_workflow(ROOT).hardware


def committed() -> dict[str, dict[str, str]]:
    with open(REFERENCE / "model_fidelity.csv", encoding="utf-8", newline="") as file:
        return {line["id"]: line for line in csv.DictReader(file)}


def mean_left_out_error(*groups: str, model: str | None = None) -> float:
    errors = [abs(float(line["row_left_out"]) / float(line["measured"]) - 1) for line in committed().values()
              if line["use"] == "fit" and line["group"] in groups and model in (None, line["model"])]  # fmt: skip
    return sum(errors) / len(errors)


@pytest.mark.parametrize(("groups", "model", "target"), [
    (("CS-2 training", "CS-3 training"), "GPT-J 6B", 0.10), (("CS-2 training", "CS-3 training"), None, 0.20),
    (("decode",), None, 0.05), (("prefill",), None, 0.12), (("A100 training",), None, 0.10),
    (("H100 training",), None, 0.10)])  # fmt: skip
def test_rows_left_out_are_met_within_the_target(groups, model, target):
    assert mean_left_out_error(*groups, model=model) <= target


def test_the_profiles_give_the_fitted_value_of_every_row():
    """So the constants that stand in the profiles are those of the last calibration."""
    lines = committed()
    for row in ROWS:
        if row.use == "fit" and row.release not in calibrate.RELEASES_BEFORE_2:
            value = calibrate.predict(row, HARDWARE, 1.0)
            assert value == pytest.approx(float(lines[row.id]["fitted"]), rel=2e-3), row.id


def test_prompt_and_answer_together_follow_from_decode_and_prefill_alone():
    """WaferLLM, table 2: rows that no constant was fitted to."""
    predicted = {row.id: calibrate.predict(row, HARDWARE, 1.0) for row in ROWS if row.group == "end to end"}
    assert predicted == pytest.approx({"W01": 764.4, "W02": 604.4, "W03": 2370.3, "W04": 2459.0}, rel=0.08)


@pytest.mark.parametrize("group", ["A100 training", "H100 training"])
def test_rates_hold_with_the_layout_left_to_the_model(group):
    """The rows say how many sequences at a time and whether activations were recomputed; a forecast has to choose."""
    errors = []
    for row in (row for row in ROWS if row.group == group and row.use == "fit"):
        step = gpu.training_step(row.shape, HARDWARE[row.hardware], row.batch_sequences / row.systems, row.systems)
        assert step.problem is None and step.layout["data"] == row.systems, row.id
        errors.append(abs(step.tokens_per_s / float(row.value) - 1))
    assert sum(errors) / len(errors) < 0.06


@pytest.mark.parametrize("name", ["cs2", "cs3", "a100", "h100"])
def test_the_widths_of_a_profile_are_those_of_its_training_rows(name):
    groups = (f"{name.upper()[:2]}-{name[2:]} training", f"{name.upper()} training")
    widths = {row.d_model for row in ROWS if row.use == "fit" and row.group in groups}
    constants = HARDWARE[name].wafer or HARDWARE[name].gpu
    assert constants.measured_d_model == (min(widths), max(widths))


@pytest.mark.parametrize("name", ["cs2", "a100"])
@pytest.mark.parametrize("task", ["decode", "prefill"])
def test_the_widths_of_a_profiles_inference_are_those_of_its_rows(name, task):
    widths = {row.d_model for row in ROWS if row.use == "fit" and row.hardware == name and row.group.endswith(task)}
    constants = HARDWARE[name].wafer or HARDWARE[name].gpu
    assert constants.inference_d_model == (min(widths), max(widths))


def test_a_fit_recovers_the_constants_that_made_the_rows():
    """Rows computed with the profile's constants; the fit starts from others."""
    fit = next(fit for fit in calibrate.FITS if fit.name == "decode")
    made = [replace(row, value=str(calibrate.predict(row, HARDWARE, 1.0))) for row in ROWS if row.group == "decode"]
    constants = calibrate.fitted(fit, made, HARDWARE, fit.start)
    assert constants == pytest.approx({name: getattr(HARDWARE["cs2"].wafer, name) for name in fit.start}, rel=1e-4)


def test_every_row_is_used_or_has_a_reason():
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert set(committed()) == {row.id for row in ROWS}
    text = (REFERENCE / "model_fidelity.md").read_text()
    assert not [row.id for row in ROWS if row.use != "fit" and not row.reason]
    assert not [row.id for row in ROWS if row.id not in text]
    assert not [row.id for row in ROWS if not row.source]


def test_no_fit_has_more_constants_than_a_third_of_its_rows():
    for fit in calibrate.FITS:
        rows = [row for row in ROWS if row.group in fit.groups and row.use == "fit"]
        assert 2.5 * len(fit.start) <= len(rows), fit.name


@pytest.mark.parametrize(("old", "new", "problem"), [
    ("494.1", "494.1", None), (",fit,", ",fitted,", "use: 'fitted' is not one of fit, check, excluded"),
    (",12,768,3072,", ",,768,3072,", "n_layer: missing"),
    (",12,768,3072,", ",-12,768,3072,", "T01: n_layer: no number above 0"),
    ("494.1", "nan", "T01: value: no number above 0"), ("494.1", "about 494", "T01: value: no number above 0"),
    (",12,768,3072,", ",a,768,3072,", "T01: invalid literal")])  # fmt: skip
def test_a_wrong_row_is_refused_by_name(tmp_path, old, new, problem):
    text = (REFERENCE / "accelerator_measurements.csv").read_text()
    path = tmp_path / "rows.csv"
    path.write_text(text.replace(old, new, 1))
    if problem is None:
        assert len(measurements.read(path)) == len(ROWS)
    else:
        with pytest.raises(UserError, match=problem):
            measurements.read(path)


@pytest.mark.slow
def test_the_command_writes_what_is_committed(tmp_path):
    calibration = calibrate.calibrate(ROWS, HARDWARE)
    fidelity.write(calibration, ROWS, tmp_path)
    again = {line["id"]: line for line in csv.DictReader((tmp_path / "model_fidelity.csv").open(encoding="utf-8"))}
    for name, line in committed().items():
        if line["row_left_out"]:
            assert float(again[name]["row_left_out"]) == pytest.approx(float(line["row_left_out"]), rel=1e-3), name
    for group in fidelity.groups(calibration):
        assert group.target is None or group.row_left_out <= group.target, group.name
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".csv", ".svg", ".png"}
