"""The coordinate check: what it records against NumPy's GPT, its slopes against SciPy's, and what muP promises."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy_gpt
import pytest
import tiny
from scipy.stats import linregress
from test_model import by_hand, reference_losses

from cgpt.__main__ import main
from cgpt.model.gpt import init_parameters
from cgpt.recipe import parametrization
from cgpt.report.laws import coordinate_check
from cgpt.training import coordinate_check as coordinates
from cgpt.training.coordinate_check import PARAMETRIZATIONS, Settings, activations, byte_batches, measure, slopes

REFERENCE = Path(__file__).parent.parent / "results/reference/coordinate_check"
SMALL = Settings(widths=(16, 32, 64), base_width=32, d_head=8, seq_len=16, batch_size=4, steps=3, seeds=(0, 1))
NORMED = "hidden"  # of one size under either parametrization, as a norm makes it


def slopes_of(rows: list[dict], kind: str, value: str, step: int) -> dict[str, coordinates.Slope]:
    """Slopes by activation."""
    return {s.activation: s for s in slopes(rows) if (s.parametrization, s.value, s.step) == (kind, value, step)}


def read(path: Path) -> list[dict]:
    """Rows of a coordinate_check.csv."""
    numbers = {"width": int, "seed": int, "step": int, "mean_abs": float, "mean_abs_change": float}
    with open(path, encoding="utf-8", newline="") as file:
        return [{key: numbers.get(key, str)(text) for key, text in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_recorded_activations_equal_those_of_the_numpy_gpt(kind):
    config = replace(tiny.CONFIG, parametrization=kind, mup_base_width=8.0)
    params, seen = tiny.rough_parameters(config), {}
    scores, embedding, logits = by_hand(config)["scales"]
    tokens, _ = tiny.batch(1, 3, 13)
    numpy_gpt.run(params, tokens, None, config.n_head, scales=(scores, embedding, logits), seen=seen)
    recorded = activations(tiny.model(params, config), tokens)
    assert set(recorded) == set(seen)
    for name, x in recorded.items():
        np.testing.assert_allclose(x, seen[name], rtol=0, atol=3e-6 * np.abs(seen[name]).max(), err_msg=name)


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_the_rows_of_a_check_equal_those_of_numpys_training(kind):
    settings = replace(SMALL, widths=(32,), base_width=16, steps=2, seeds=(5,))
    config, (watched, *batches) = settings.model(kind, 32), byte_batches(settings, 5)
    rows = [row for row in measure(settings, tiny.THREADS) if row["parametrization"] == kind]
    measured = {(row["step"], row["activation"]): row for row in rows}
    initial: dict = {}
    for step in range(3):
        params, seen = init_parameters(config, 5), {}
        _, params = reference_losses(config, params, batches[:step], [settings.lr] * step)
        numpy_gpt.run(params, watched[0], None, config.n_head, **by_hand(config), seen=seen)
        initial = initial or seen
        for name, x in seen.items():
            row = measured[step, name]
            # AdamW makes a step out of rounding in the keys' bias, which counts in qkv.
            rel = 0.02 if step and name.startswith("qkv") else 1e-3
            assert row["mean_abs"] == pytest.approx(np.abs(x).mean(), rel=rel), (step, name)
            assert row["mean_abs_change"] == pytest.approx(np.abs(x - initial[name]).mean(), rel=rel), (step, name)


def test_slopes_and_their_standard_errors_are_those_of_scipy():
    rng = np.random.default_rng(0)
    rows = [{"parametrization": "sp", "width": width, "seed": seed, "step": 1, "activation": "logits",
             "mean_abs": width**0.5 * rng.lognormal(0, 0.1), "mean_abs_change": 3 * width**-1.5}
            for width in (32, 64, 256) for seed in (0, 1)]  # fmt: skip
    noisy, exact = slopes(rows)
    wanted = linregress(*(np.log([row[key] for row in rows]) for key in ("width", "mean_abs")))
    assert (noisy.slope, noisy.standard_error) == pytest.approx((wanted.slope, wanted.stderr))
    assert (exact.slope, exact.standard_error) == pytest.approx((-1.5, 0), abs=1e-6)


def test_batches_are_text_whose_targets_are_the_next_bytes_and_differ_by_seed():
    batches = byte_batches(SMALL, 0)
    assert len(batches) == SMALL.steps + 1
    for tokens, targets in batches:
        assert tokens.shape == targets.shape == (SMALL.batch_size, SMALL.seq_len)
        assert (tokens[:, 1:] == targets[:, :-1]).all() and tokens.min() >= 10 and tokens.max() < 128
    assert (byte_batches(SMALL, 1)[0][0] != batches[0][0]).any()


def test_sp_grows_with_width_and_mup_does_not_at_small_widths():
    rows = measure(replace(SMALL, widths=(32, 64, 128), seeds=(0, 1, 2)), tiny.THREADS)
    sp, mup = (slopes_of(rows, kind, "mean_abs_change", SMALL.steps) for kind in PARAMETRIZATIONS)
    for name in ("qkv 0", "qkv 1", "attention 1", "logits"):
        assert sp[name].slope - 2 * sp[name].standard_error > 0.4, name
    for name, slope in mup.items():
        assert abs(slope.slope) < 0.2, name
        assert slope.standard_error < 0.1, name


@pytest.mark.parametrize("broken", ["learning_rate_factor", "init_std"])
def test_a_mup_that_lacks_one_of_its_rules_is_found_out(monkeypatch, broken):
    monkeypatch.setattr(parametrization, broken, lambda config, name: 1.0 if "rate" in broken else 0.08)
    rows = measure(replace(SMALL, widths=(32, 64, 128)), tiny.THREADS)
    step = SMALL.steps if "rate" in broken else 0
    assert slopes_of(rows, "mup", "mean_abs", step)["qkv 1"].slope > 0.3


@pytest.mark.slow
def test_sp_grows_with_width_and_mup_does_not_over_a_factor_of_16():
    assert_mup_holds(measure(Settings(steps=4, seeds=(3, 4)), tiny.THREADS), 4)  # seeds that the reference has not


def test_the_reference_shows_that_mup_holds_and_its_table_has_the_slopes_of_its_csv():
    rows = read(REFERENCE / "coordinate_check.csv")
    assert_mup_holds(rows, Settings().steps)
    made = {"commit": "", "date": "", "host_cpu": "", "versions": {"tinygrad": "", "numpy": ""}}
    fresh = coordinate_check.as_text(Settings(), rows, made)
    kept = (REFERENCE / "coordinate_check.md").read_text()
    assert fresh.partition("- **Models**")[2] == kept.partition("- **Models**")[2] != ""


def assert_mup_holds(rows: list[dict], step: int) -> None:
    """Intervals of two standard errors: those of muP within 0.2 of 0, those of SP, norms apart, above a root's 0.5."""
    for value in coordinates.VALUES:
        for name, slope in slopes_of(rows, "mup", value, step).items():
            assert abs(slope.slope) + 2 * slope.standard_error < 0.2, (value, name)
        for name, slope in slopes_of(rows, "sp", value, step).items():
            if name not in ("embedding", NORMED):
                assert slope.slope - 2 * slope.standard_error > 0.5, (value, name)


def test_the_verb_writes_table_and_figure_and_prints_slopes_as_json(tmp_path, monkeypatch, capsys):
    rows = measure(replace(SMALL, widths=(16, 32), steps=1), tiny.THREADS)
    monkeypatch.setattr(coordinates, "measure", lambda settings, threads: rows)
    assert main(["coordinate-check", "--json", "--out", str(tmp_path), "--threads", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["slopes"] == [slope._asdict() for slope in slopes(rows)]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"coordinate_check.{kind}" for kind in ("csv", "md", "png", "svg")
    }
    assert read(tmp_path / "coordinate_check.csv") == rows
    assert "| mup | logits |" in (tmp_path / "coordinate_check.md").read_text()
