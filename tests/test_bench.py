"""Benchmarks: what they report, that they take turns, that their peers compute the same, and what is refused."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from project import edit, write_project

from cgpt import __main__ as command_line
from cgpt import host
from cgpt.bench import inputs
from cgpt.bench.measure import WARMUP_STEPS, Steps
from cgpt.files.csv_file import write_csv
from cgpt.spec import Model

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "workflows/bench"
sys.path.insert(0, str(SCRIPTS))

import columns  # noqa: E402
import compare  # noqa: E402
import plot_scaling  # noqa: E402
import processors  # noqa: E402
import sides  # noqa: E402
import startup  # noqa: E402
import table  # noqa: E402

CONFIG = Model("tiny", n_layer=2, d_model=24, n_head=3, seq_len=48, vocab_size=61)
STEPS = {"benchmark", "threads", "n_steps", "step_s", "tokens_per_s", "first_step_s", "compile_s", "cpu_step_s",
         "peak_memory_bytes"}  # fmt: skip
OF_MODEL = {"model", "n_parameters", "n_layer", "vocab_size", "seq_len", "tie_embeddings", "hardware", "timing"} | STEPS
KEYS = {
    "pretrain": OF_MODEL | {"batch_size", "flops_per_token", "losses", "shard_read_share", "gemm_share",
                            "sgemm_tokens_per_s"},
    "evaluate": OF_MODEL | {"n_requests", "requests_per_s", "first_call_s"},
    "generate": OF_MODEL | {"batch_size", "prompt_tokens", "max_new_tokens", "first_token_s", "tokens"},
    "tokenize": STEPS | {"vocab_size", "n_bytes", "n_tokens", "megabytes_per_s"},
}  # fmt: skip
ASKED = {
    "pretrain": ["--batch-size", "2"],
    "evaluate": ["--n-requests", "6"],
    "generate": ["--batch-size", "2", "--max-new-tokens", "5"],
    "tokenize": ["--n-bytes", "20000"],
}
TOKENS_PER_STEP = {"pretrain": 2 * 48, "generate": 2 * 5}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with the model `tiny`, as the current folder."""
    root = write_project(tmp_path)
    edit(root, "workflows/models.yaml", "models:\n",
         "models:\n  tiny: {n_layer: 2, d_model: 24, n_head: 3, seq_len: 48, vocab_size: 61}\n")  # fmt: skip
    edit(root, "hardware_profiles/cpu.yaml", "device: CPU\n", "device: CPU\nkernels: native\n")
    monkeypatch.chdir(root)
    return root


def bench(*arguments: str) -> int:
    return command_line.main(["bench", *arguments, "--threads", str(tiny.THREADS), "--json"])


@pytest.mark.parametrize("benchmark", KEYS)
def test_a_benchmark_reports_exactly_its_columns_and_they_fit_each_other(benchmark, project, capsys):
    assert bench(benchmark, "--model", "tiny", "--steps", "2", *ASKED[benchmark]) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record) == KEYS[benchmark]
    assert record["benchmark"] == benchmark and record["threads"] == tiny.THREADS and record["n_steps"] == 2
    n_tokens = TOKENS_PER_STEP.get(benchmark, record.get("n_tokens"))
    if n_tokens:
        assert record["tokens_per_s"] * record["step_s"] == pytest.approx(n_tokens)
    assert all(value >= 0 for value in record.values() if isinstance(value, (int, float)))
    if benchmark == "pretrain":
        assert len(record["losses"]) == 10 and record["losses"][0] == pytest.approx(math.log(61), rel=0.02)
        assert record["losses"][-1] < record["losses"][0]
        assert 0 < record["gemm_share"] < 1 and record["sgemm_tokens_per_s"] > 0
    if benchmark == "generate":
        assert [len(tokens) for tokens in record["tokens"]] == [5, 5]


def test_a_person_sees_one_line_a_number(project, capsys):
    arguments = ["bench", "pretrain", "--model", "tiny", "--batch-size", "2", "--steps", "1", "--threads", "2"]
    assert command_line.main(arguments) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(shown) == KEYS["pretrain"] - {"losses"} and shown["model"] == "tiny"


def test_a_burst_is_the_same_number_of_steps_each_time_and_the_warm_up_is_in_none(monkeypatch, capsys):
    calls: list[int] = []
    steps = Steps(lambda: calls.append(len(calls)) or time.sleep(0.01), 7)
    monkeypatch.setattr(sys, "stdin", io.StringIO("run\nrun\nrun\nend\nrun\n"))
    steps.answer_bursts(0.03)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    n = answers[0]["steps"]
    assert [set(answer) for answer in answers] == [{"steps", "tokens", "seconds"}] * 3
    assert [answer["steps"] for answer in answers] == [n] * 3 and 1 <= n <= 3
    assert [answer["tokens"] for answer in answers] == [7 * n] * 3
    assert all(answer["seconds"] >= 0.01 * n for answer in answers)
    assert len(calls) == WARMUP_STEPS + 1 + 3 * n
    assert steps.result()["n_steps"] == 1 + 3 * n


def test_our_side_answers_a_driver_and_ends_with_its_record(project):
    command = sides.ours("pretrain", "--bursts", "--burst-s", 0, "--model", "tiny", "--batch-size", 2)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input="run\nrun\nend\n", capture_output=True, text=True, env=environment, check=True)
    first, second, record = map(json.loads, done.stdout.splitlines())
    assert first["steps"] == second["steps"] == 1 and first["tokens"] == 96
    assert set(record) == KEYS["pretrain"] and record["n_steps"] == 3


def test_seconds_since_the_start_of_a_process_are_between_what_it_slept_and_what_its_parent_saw():
    code = "import time; time.sleep(0.3); from cgpt.bench.measure import process_age_s; print(process_age_s())"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert 0.3 <= float(done.stdout) <= time.monotonic() - start + tick


def test_the_peak_memory_of_a_process_is_not_that_of_the_one_that_started_it():
    ballast = np.ones(400 << 20, np.uint8)
    code = "from cgpt.training.resume import peak_memory_bytes; print(peak_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert 10 << 20 < int(done.stdout) < ballast.nbytes / 2


def test_tokens_are_zipf_distributed_and_the_same_every_time(tmp_path):
    tokens = inputs.write_tokens(tmp_path, 61)
    share = np.bincount(tokens, minlength=61) / len(tokens)
    expected = 1 / np.arange(1, 62) / (1 / np.arange(1, 62)).sum()
    np.testing.assert_allclose(share, expected, atol=0.002)
    (tmp_path / "again").mkdir()
    np.testing.assert_array_equal(inputs.write_tokens(tmp_path / "again", 61), tokens)


def test_requests_fit_the_model_and_are_of_mixed_length():
    made = inputs.requests(CONFIG, 200)
    assert {len(continuation) for _, _, continuation in made} == set(range(1, 17))
    assert all(len(context) >= 8 and len(context) + len(continuation) <= 48 for _, context, continuation in made)
    assert len({len(context) for _, context, _ in made}) > 10
    assert made == inputs.requests(CONFIG, 200)


@pytest.mark.parametrize(("arguments", "message"), [
    (["pretrain", "--model", "tini"],
     "workflows/models.yaml: there is no model 'tini'; did you mean 'tiny'?"),
    (["pretrain", "--hardware", "cpo"],
     "hardware_profiles: there is no hardware profile 'cpo'; did you mean 'cpu'?"),
    (["pretrain", "--model", "tiny", "--batch-size", "0"],
     "bench: --batch-size: must be a whole number above 0, not '0'; write e.g. 8"),
    (["generate", "--model", "tiny", "--batch-size", "-1", "--steps", "many"],
     "bench: --batch-size: must be a whole number above 0, not '-1'; write e.g. 8\n"
     "bench: --steps: must be a whole number above 0, not 'many'; write e.g. 8"),
    (["generate", "--model", "tiny"],
     "bench: --seq-len: 48 has no room for the 160 tokens of this benchmark; write 160 or more"),
    (["evaluate", "--model", "tiny", "--seq-len", "16"],
     "bench: --seq-len: 16 has no room for the 24 tokens of this benchmark; write 24 or more"),
    (["evaluate", "--checkpoint", "nowhere"],
     "nowhere/config.json: is missing; name a checkpoint folder, or run its stage first"),
])  # fmt: skip
def test_what_cannot_be_measured_is_one_line(arguments, message, project, capsys):
    assert bench(*arguments) == 1
    assert capsys.readouterr().err.strip() == message


def test_the_ratio_is_the_median_over_rounds_of_ours_to_the_best_peer_of_each_round():
    rates = [{"cgpt": 6.0, "A": 3.0, "B": 2.0}, {"cgpt": 8.0, "A": 1.0, "B": 4.0}, {"cgpt": 9.0, "A": 3.0, "B": 2.0}]
    results = {name: {"losses": [1.0, 2.0], "batch_size": 4} for name in rates[0]}
    made = {row["side"]: row for row in compare.rows("pretrain", rates, results)}
    assert [made["cgpt"][key] for key in ("ratio", "ratio_min", "ratio_max", "tokens_per_s")] == [2, 2, 3, 8]
    assert [made["A"][key] for key in ("ratio", "ratio_min", "ratio_max", "tokens_per_s")] == [3, 2, 8, 3]
    assert [made[name]["difference"] for name in made] == [None, 0, 0]


def test_a_peer_that_rounds_is_compared_with_our_side_that_does_and_has_no_answers():
    rates = [{"cgpt": 6.0, "cgpt int8": 9.0, "CTranslate2": 3.0, "CTranslate2 int8": 12.0}]
    results = {name: {"tokens": [[1, 3]] if "int8" in name else [[1, 2]]} for name in rates[0]}
    made = {row["side"]: row for row in compare.rows("generate", rates, results)}
    ratios = [(made[name]["ratio"], made[name]["difference"], made[name]["target"]) for name in made]
    assert ratios == [(2, None, 1.5), (0.75, None, 1.0), (2, 0, 1.5), (0.75, None, 1.0)]


@pytest.mark.parametrize(("benchmark", "theirs", "mine"), [
    ("pretrain", [5.0, 4.0], [5.0, 4.002]),
    ("pretrain", [5.0, float("nan")], [5.0, 4.0]),
    ("evaluate", [-3.0], [-3.01]),
    ("generate", [[1, 2]], [[1, 3]]),
    ("tokenize", 100, 101),
])  # fmt: skip
def test_a_peer_that_computes_something_else_ends_the_comparison(benchmark, theirs, mine):
    key = compare.ANSWERS[benchmark]
    with pytest.raises(SystemExit, match="so there is no comparison"):
        compare.difference(benchmark, "peer", {key: theirs}, {key: mine})


def test_more_layers_may_take_half_as_long_again_to_start():
    keys = ("side", "n_layer", "caches", "first_step_s")
    starts = (
        ("cgpt", 4, "empty", 10.0),
        ("cgpt", 4, "warm", 2.0),
        ("PyTorch", 4, "warm", 5.0),
        ("cgpt", 12, "warm", 2.5),
    )
    rows = [dict(zip(keys, start)) for start in starts]
    assert [startup.target_s(row, rows) for row in rows] == [15.0, 3.0, None, 3.0]


MADE_BY = {"host_cpu": "a CPU", "level": "native", "n_cores": 2, "versions": {"torch": "2"},
           "date": "2026-01-02T03:04:05"}  # fmt: skip


def comparison(side: str, ratio: float, **cells) -> dict:
    """A row of a comparison's CSV."""
    known = MADE_BY | {
        "benchmark": "pretrain", "model": "tiny", "batch_size": 2, "threads": 2, "side": side, "tokens_per_s": 100.0,
        "ratio": ratio, "ratio_min": ratio - 0.1, "ratio_max": ratio + 0.1, "target": 1.2, "rounds": 5,
        "first_step_s": 2.5, "cpu_step_s": 0.1, "peak_memory_bytes": 300 << 20, "busy_elsewhere_share": 0.02,
    }  # fmt: skip
    return {key: (known | cells).get(key) for key in columns.COMPARISON}


def start(caches: str, first_step_s: float, target_s: float) -> dict:
    """A row of startup.csv."""
    known = MADE_BY | {"model": "tiny", "n_layer": 4, "side": "cgpt", "threads": 2, "caches": caches,
                       "first_step_s": first_step_s, "target_s": target_s}  # fmt: skip
    return {key: known.get(key) for key in columns.STARTUP}


def test_the_table_has_every_side_and_says_whether_targets_are_met_unless_the_machine_was_busy(tmp_path, monkeypatch):
    files = []
    for ratio, busy in ((1.25, 0.02), (1.15, 0.02), (9.0, 0.3)):
        ours = comparison("cgpt", ratio, gemm_share=0.75, sgemm_tokens_per_s=133.0, busy_elsewhere_share=busy)
        files.append(str(tmp_path / f"{ratio}.csv"))
        write_csv(Path(files[-1]), columns.COMPARISON, [ours, comparison("PyTorch eager", ratio)])
    starts = [start("empty", 14.0, target_s=15.0), start("warm", 3.5, target_s=3.0)]
    write_csv(tmp_path / "startup.csv", columns.STARTUP, starts)
    command = ["table.py", *files, "--startup", str(tmp_path / "startup.csv"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    table.main()
    page = (tmp_path / "out/table.md").read_text()
    row = "| cgpt | 100 | 1.25 (1.15 to 1.35) | 1.2 (met) |  | 2.5 | 300 | 75 % (133 tokens/s) |  |"
    assert f"| pretrain tiny batch 2 {row}" in page and "| 1.15 (1.05 to 1.25) | 1.2 (not met) |" in page
    assert "| cgpt | 4 | 14.0 (target 15.0, met) | 3.5 (target 3.0, not met) |" in page
    assert "| 9.00 (8.90 to 9.10) | 1.2 (not known, machine busy) |" in page
    assert len(columns.read_rows(tmp_path / "out/table.csv", columns.COMPARISON)) == 6


def test_one_table_has_a_column_per_processor_and_per_level_that_all_are_held_to():
    rows = [comparison("cgpt", 1.25), comparison("PyTorch eager", 1.25), comparison("cgpt", 1.5, level="x86-64-v3"),
            comparison("cgpt", 3.0, level="x86-64-v3", batch_size=4)]  # fmt: skip
    assert processors.as_text(rows).splitlines() == [
        "| tokens/s: against the best of the others | a CPU | a CPU held to x86-64-v3 |",
        "| --- | --- | --- |",
        "| pretrain tiny batch 2 | 100: 1.25 (1.15 to 1.35) | 100: 1.50 (1.40 to 1.60) |",
        "| pretrain tiny batch 4 | - | 100: 3.00 (2.90 to 3.10) |",
    ]


def test_peers_are_held_to_the_level_that_ours_is_held_to(monkeypatch):
    monkeypatch.setenv("CGPT_CPU", "x86-64-v2")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    environment = sides.run_alone([sys.executable, "-c", code])
    assert (environment["ATEN_CPU_CAPABILITY"], environment["MKL_ENABLE_INSTRUCTIONS"]) == ("default", "SSE4_2")
    assert sides.HELD.keys() == {"native", *host.LEVELS} and not sides.HELD["native"]


def test_a_file_with_other_columns_is_refused(tmp_path):
    write_csv(tmp_path / "old.csv", ("model", "speed"), [{"model": "tiny", "speed": 1.0}])
    with pytest.raises(SystemExit, match=r"old\.csv: has no column benchmark"):
        columns.read_rows(tmp_path / "old.csv", columns.COMPARISON)


def test_the_scaling_figure_has_a_line_per_model_and_per_number_of_threads_and_one_that_grows_as_the_flops():
    def point(model: str, flops: float, seq_len: int, threads: int, speed: float) -> dict:
        return {"model": model, "n_parameters": flops / 6, "flops_per_token": flops, "seq_len": seq_len,
                "threads": threads, "tokens_per_s": speed}  # fmt: skip

    rows = [point("gpt-2m", 1e7, 256, 1, 900.0), point("gpt-2m", 1e7, 256, 2, 1600.0),
            point("bench-7m", 4e7, 256, 1, 250.0), point("bench-7m", 4e7, 256, 2, 500.0),
            point("bench-7m", 5e7, 512, 2, 450.0)]  # fmt: skip
    threads, sizes, lengths, times = plot_scaling.scaling_figure(rows).axes
    assert [line.get_label() for line in threads.lines] == ["gpt-2m", "bench-7m"]
    assert [line.get_label() for line in sizes.lines] == ["1 thread", "2 threads"]
    assert [list(line.get_ydata()) for line in lengths.lines] == [[500.0, 450.0]]
    np.testing.assert_allclose(times.lines[0].get_ydata(), [1e6 / 1600, 1e6 / 500])
    np.testing.assert_allclose(times.lines[2].get_ydata(), [1e6 / 1600, 5e6 / 1600])


@pytest.mark.slow
def test_the_page_of_speed_shows_the_tables_of_all_processors_that_are_kept():
    kept = [ROOT / f"results/reference/bench/{name}/table.csv" for name in ("zen5", "xeon")]
    assert sorted(kept) == sorted((ROOT / "results/reference/bench").glob("*/table.csv"))
    rows = [row for path in kept for row in columns.read_rows(path, columns.COMPARISON)]
    assert processors.as_text(rows) in (ROOT / "docs/results/speed.md").read_text()


@pytest.mark.parametrize(("benchmark", "peer", "needs"), [
    ("pretrain", "PyTorch eager", "torch"),
    ("evaluate", "lm-eval, batch 8", "accelerate"),
    ("generate", "transformers", "transformers"),
    ("generate", "CTranslate2", "ctranslate2"),
    ("generate", "CTranslate2 int8", "ctranslate2"),
    ("tokenize", "tokenizers", "tokenizers"),
])  # fmt: skip
def test_a_peer_computes_the_same_as_we_do(benchmark, peer, needs, project):
    pytest.importorskip(needs)
    out = project / "compared.csv"
    options = ["--peer", peer, "--rounds", "2", "--burst-s", "0.05", "--threads", "2", "--out", str(out)]
    command = [sys.executable, SCRIPTS / "compare.py", benchmark, "--model", "tiny", *ASKED[benchmark], *options]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    *ours, theirs = columns.read_rows(out, columns.COMPARISON)
    mine = ours[-1]
    assert (mine["side"], theirs["side"]) == (compare.LIKE.get(peer, "cgpt"), peer) and mine["rounds"] == 2
    if "int8" in peer:
        assert theirs["difference"] is None and theirs["ratio"] == mine["ratio"] > 0
    else:
        assert theirs["difference"] <= {"pretrain": 1e-4, "evaluate": 1e-3}.get(benchmark, 0)
