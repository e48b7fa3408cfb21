"""The runs of an experiment with what made them: commit, code, seeds, hashes of what they read and wrote, and files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.experiment.run import LAST_FILE
from cgpt.report.columns import Row
from cgpt.report.rows import Rows

if TYPE_CHECKING:
    from cgpt.experiment.run import Plan

FEW_RUNS = 12  # that are shown without being asked for


@dataclass(frozen=True)
class RunLine:
    """`files` are (name, path from the page); `inputs` and `outputs` (name, SHA-256)."""

    run: str
    seed: str
    date: str
    commit: str
    code_sha256: str
    files: Sequence[tuple[str, str]]
    inputs: Sequence[tuple[str, str]]
    outputs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class StageRuns:
    """The runs of one stage."""

    stage: str
    lines: Sequence[RunLine]


def runs_by_stage(rows: Rows, plan: "Plan", results: Path, folder: Path) -> list[StageRuns]:
    """The runs that have a record, by stage in the order of the plan, with paths relative to `folder`."""
    of_runs: dict[str, Row] = {row["run"]: row for row in (*rows.runs, *rows.metered)}
    of_runs |= {row["run"]: row for row in rows.scores if row["evaluate_run"] or row["stage"] == "baseline"}
    stages: dict[str, list[RunLine]] = {}
    for run in plan.runs:
        if run.id in of_runs:
            path = results / "runs" / LAST_FILE[run.stage].format(run.id)
            stages.setdefault(run.stage, []).append(_line(of_runs[run.id], path, results, folder, run.stage))
    return [StageRuns(stage, lines) for stage, lines in stages.items()]


def _line(row: Row, record: Path, results: Path, folder: Path, stage: str) -> RunLine:
    log = results / "runs" / "logs" / stage / f"{row['run']}.log"
    beside = sorted(path for path in record.parent.iterdir() if path.is_file() and path != record)
    files = [(path.name, os.path.relpath(path, folder)) for path in (record, *beside, log) if path.is_file()]
    outputs = dict(row.get("outputs") or {})
    if row.get("samples_sha256"):
        outputs["samples.jsonl"] = row["samples_sha256"]
    return RunLine(
        row["run"], "" if row["seed"] is None else str(row["seed"]), (row.get("date") or "")[:10],
        row.get("commit") or "", row.get("code_sha256") or "", files, _hashes(row.get("inputs")), _hashes(outputs),
    )  # fmt: skip


def _hashes(hashes: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(name, str(sha256)) for name, sha256 in (hashes or {}).items()]


def made_with(rows: Rows) -> list[tuple[str, str]]:
    """Day, commit, machine, threads, compiler and versions of the trainings, each different one once."""
    runs = [row for row in rows.runs if row["timing"] == "measured"] or rows.runs
    days = sorted({row["date"][:10] for row in runs})
    versions = {f"{name} {version}": None for row in runs for name, version in row["versions"].items() if version}
    lm_eval = {f"lm_eval {row['lm_eval_version']}": None for row in rows.scores if row["lm_eval_version"]}
    facts = {
        "day": [days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"] if days else [],
        "commit": sorted({row["commit"] or "not recorded" for row in runs}),
        "machine": sorted({row["host_cpu"] for row in runs if row["host_cpu"]}),
        "threads of a run": sorted({str(row["threads"]) for row in runs if row["threads"]}),
        "compiler": sorted({row["compiler"] for row in runs if row["compiler"]}),
        "versions": list(versions | lm_eval),
    }
    return [(name, ", ".join(values)) for name, values in facts.items() if values]
