"""The rows of an experiment: its plan's runs joined with the records they left. Tables and figures both start here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.errors import UserError
from cgpt.experiment.chain import Chain
from cgpt.experiment.run import LAST_FILE
from cgpt.files.csv_file import read_csv
from cgpt.records import DIVERGED_FILE, Score, ScoresRecord, read_diverged, read_import, read_run, read_scores
from cgpt.report.axes import as_value
from cgpt.report.columns import BASELINE, Row
from cgpt.report.printed import add_printed
from cgpt.report.scales import scale_of
from cgpt.scaling.points import RUN_COLUMNS
from cgpt.spec import LENGTHS, SCRATCH, Experiment
from cgpt.tasks import functions
from cgpt.tasks.groups import group_rows

if TYPE_CHECKING:
    from cgpt.experiment.run import Plan, Run

SCORED = ("evaluate", "baseline")  # stages that leave scores
PARTIAL = "partial"  # the folder of tables and figures that lack some record, so that none is taken for the whole


@dataclass(frozen=True)
class Rows:
    """`runs`: RUN_COLUMNS, one row per trained model; `scores`: SCORE_COLUMNS, one row per evaluation and metric;
    `metered`: the fields of MeterRecord, one row per pretrained model and modeled profile.

    Rows of runs and scores have a `point` too, the values of the axes that the experiment varies, and those of scores
    the metric's `scale` and the model's commonest answer. `diverged` are as runs, with nothing measured but the `step`
    that the run stopped at. `missing` names the records that are not there, as `stage id`, of `n_records`.
    """

    runs: list[Row]
    scores: list[Row]
    metered: list[Row] = field(default_factory=list)
    diverged: list[Row] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    n_records: int = 0


def collect(experiment: Experiment, plan: Plan, results: Path, partial: bool = False) -> Rows:
    """Read every record that the plan names. Raises UserError with all problems of all files, or with one line where
    records are missing; `partial` reads those that are there, and raises only where there is none."""
    wanted = [run for run in plan.runs if run.stage not in ("fetch", "tokenize")]
    missing = [run for run in wanted if not _path(run, results).is_file()]
    if missing and (not partial or len(missing) == len(wanted)):
        _refuse_missing(experiment, wanted, missing, results)
    by_id = {(run.stage, run.id): run for run in plan.runs}
    lacking, refused = {run.id for run in missing}, set[str]()
    problems = _stale(experiment, plan, results)
    rows = Rows([], [], missing=tuple(f"{run.stage} {run.id}" for run in missing), n_records=len(wanted))
    runs: dict[str, Row] = {}
    for run in sorted(wanted, key=lambda run: run.stage in SCORED):  # after what they score
        chain = chain_of(run, by_id)
        setting, point = setting_of(experiment, chain), _point(experiment, chain)
        common = {"experiment": experiment.name, "setting": setting, "point": point}
        try:
            if run.id in lacking:
                rows.diverged.extend(_diverged_rows(run, chain, common, results))
            elif run.stage not in SCORED:
                record = _read(run, results)
                if run.stage == "meter":
                    trained = chain.get("pretrain") or chain["finetune"]
                    task = run.spec.get("task", {}).get("task")
                    rows.metered.append(asdict(record) | common | {"trained_run": trained.id, "task": task})
                else:
                    runs[run.id] = dict.fromkeys(RUN_COLUMNS) | asdict(record) | common
            else:
                scored = chain.get(run.spec.get("checkpoint_stage", ""))
                if scored is None or scored.id not in lacking | refused:
                    rows.scores.extend(_score_rows(_read(run, results), chain, common, runs))
        except UserError as error:
            problems += error.problems
            refused.add(run.id)
    if problems:
        raise UserError(*problems)
    rows.runs.extend(runs.values())
    rows.scores.extend(group_rows(plan.groups, rows.scores))
    add_printed(rows.scores, plan.published_as)
    for kind in (rows.runs, rows.scores, rows.metered, rows.diverged):
        kind.sort(key=_size_order)
    return rows


def refuse_stale(experiment: Experiment, plan: Plan, results: Path) -> None:
    """Raise UserError where an experiment's runs.csv is not of the records that are there, or these do not belong
    together. Records that are missing are not looked for."""
    table = results / experiment.name / "runs.csv"
    problems = _stale(experiment, plan, results)
    try:
        rows = read_csv(table)
    except (OSError, ValueError):
        rows = []  # those that read it say why
    for row in rows:
        record = results / "runs" / str(row.get("stage")) / str(row.get("run")) / "run.json"
        if record.is_file() and row.get("stage") != "import":
            made = read_run(record)
            if (row.get("date"), row.get("validation_loss")) != (made.date, str(made.validation_loss)):
                remedy = _redo(experiment, results)
                problems.append(f"{table}: {made.run}: is of an earlier run than {record}; {remedy}")
    if problems:
        raise UserError(*problems)


def _stale(experiment: Experiment, plan: Plan, results: Path) -> list[str]:
    by_id = {(run.stage, run.id): run for run in plan.runs}
    return Chain(by_id, results / "runs", lambda run: _redo(experiment, results, run)).problems(plan.runs)


def _redo(experiment: Experiment, results: Path, stale: Run | None = None) -> str:
    """The command that makes a table again, and first a stale run, which Snakemake may take for done by the times of
    its files."""
    forced = f" --forcerun {_path(stale, results)}" if stale else ""
    table = results / experiment.name / "table.md"
    return f"run `snakemake --cores 2 {table}{forced}`, which does again what follows"


def output_folder(experiment: Experiment, rows: Rows, results: Path) -> Path:
    """Where the tables and figures of these rows belong: apart from whole ones where a record is missing."""
    return results / experiment.name / PARTIAL if rows.missing else results / experiment.name


def _path(run: Run, results: Path) -> Path:
    return results / "runs" / LAST_FILE[run.stage].format(run.id)


def _refuse_missing(experiment: Experiment, wanted: list[Run], missing: list[Run], results: Path) -> None:
    more = f", and so are {len(missing) - 1} more of {len(wanted)} records" if len(missing) > 1 else ""
    diverged = [run.id for run in missing if (_path(run, results).parent / DIVERGED_FILE).is_file()]
    stopped = f" ({', '.join(diverged[:3])}{', ...' if len(diverged) > 3 else ''} diverged)" if diverged else ""
    some = len(missing) < len(wanted)
    rest = f", or `cgpt tabulate {experiment.name} --partial` for a table of the rest" if some else ""
    raise UserError(f"{_path(missing[0], results)}: is missing{more}{stopped}; run `snakemake "
                    f"--cores 2 {results / experiment.name / 'table.md'}`, which makes them{rest}")  # fmt: skip


def _read(run: Run, results: Path) -> Any:
    read = read_scores if run.stage in SCORED else read_import if run.stage == "import" else read_run
    record = read(_path(run, results))
    if record.run != run.id:
        where = f"runs/{run.stage}/{run.id}"
        raise UserError(f"{where}: run: is '{record.run}'; delete the folder, so that it is done again")
    return record


def chain_of(run: Run, by_id: dict[tuple[str, str], Run]) -> dict[str, Run]:
    """The run and what it was made from, by stage."""
    chain = {run.stage: run}
    for stage, upstream in run.needs.items():
        if (stage, upstream) in by_id:
            chain = {**chain_of(by_id[stage, upstream], by_id), **chain}
    return chain


def setting_of(experiment: Experiment, chain: dict[str, Run]) -> str:
    """`train.lr=0.001, ...`: this run's values of the keys that the experiment varies.

    A pretraining run knows its length in tokens only, whichever way the experiment gave it.
    """
    values = {}
    for axis in experiment.vary:
        block, _, key = ("train.tokens" if axis.removeprefix("train.") in LENGTHS else axis).partition(".")
        for value in _values(chain, block, key):
            values[f"{block}.{key}"] = "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _point(experiment: Experiment, chain: dict[str, Run]) -> dict[str, Any]:
    """This run's value of each axis, as the experiment writes it; an axis that does not touch the run is left out.

    A length is the one that the run comes nearest to, since steps are whole and a run knows its tokens only.
    """
    point = {}
    for axis, given in experiment.vary.items():
        block, _, key = axis.partition(".")
        if key in LENGTHS and block == "train":
            for tokens in _values(chain, block, "tokens"):
                per_unit = _tokens_per(key, chain)
                point[axis] = min(given, key=lambda value: abs(math.log(value * per_unit / tokens)))
        else:
            for value in _values(chain, block, key):
                point[axis] = as_value(value)
    return point


def _values(chain: dict[str, Run], block: str, key: str) -> list[Any]:
    """The values of a key in the specs of a chain of runs, upstream first."""
    blocks = [run.spec if (block, run.stage) == ("data", "tokenize") else run.spec.get(block) for run in chain.values()]
    if (block, key) == ("train", "start"):  # which a spec leaves out where it is scratch
        blocks = [{key: SCRATCH} | values for values in blocks if isinstance(values, dict)]
    return [values[key] for values in blocks if isinstance(values, dict) and key in values]


def _tokens_per(length: str, chain: dict[str, Run]) -> float:
    """Training tokens of one step, token, token per parameter or FLOP of a pretraining run."""
    run = chain["pretrain"]
    tokens, cost = run.spec["train"]["tokens"], run.execution
    if length == "steps":
        return tokens / run.spec["train"]["steps"]
    if length == "tokens_per_parameter":
        return float(cost.n_parameters or 1)
    return tokens / cost.flops if length == "flops" and cost.flops else 1.0


def _diverged_rows(run: Run, chain: dict[str, Run], common: Row, results: Path) -> list[Row]:
    """The row of a run that left no record since it diverged; none where it has not run."""
    record = read_diverged(_path(run, results).parent / DIVERGED_FILE)
    if record is None:
        return []
    hardware = run.spec["hardware"]
    corpus = [name for names in _values(chain, "data", "corpus") for name in names]
    return [dict.fromkeys(RUN_COLUMNS) | common | {
        "run": run.id, "stage": run.stage, "model": run.spec["model"]["name"], "data": "+".join(corpus),
        "seed": run.spec["seed"], "hardware": hardware["name"], "timing": hardware["timing"],
        "n_parameters": run.execution.n_parameters, "step": record.step,
    }]  # fmt: skip


def _score_rows(record: ScoresRecord, chain: dict[str, Run], common: Row, runs: dict[str, Row]) -> list[Row]:
    """A row for each metric; `runs` are the rows of the models, by run."""
    if record.stage == "baseline":
        trained: Row = {"model": BASELINE, "n_labels": chain["baseline"].spec.get("n_labels")}
    else:
        checkpoint = chain.get(record.stage)
        if checkpoint is None or checkpoint.id not in runs:
            checkpoint_id = f"{record.stage} '{record.checkpoint}'"
            raise UserError(f"{record.run}: checkpoint: no record of {checkpoint_id}; run it first")
        trained = runs[checkpoint.id]
    spec = chain.get("evaluate", chain.get("baseline")).spec  # type: ignore[union-attr]
    primary = primary_metric(spec["task"], record.scores)
    aggregations = {entry["metric"]: entry.get("aggregation") for entry in spec["task"].get("metric_list") or ()
                    if isinstance(entry["metric"], str)}  # fmt: skip
    of_model = {key: trained.get(key) for key in ("model", "n_parameters", "data", "seed", "timing", "n_labels")}
    if record.stage == "import":
        of_model["timing"] = spec["hardware"]["timing"]
    stages = ("evaluate", "finetune", "pretrain", "import")
    ids = {f"{stage}_run": chain[stage].id if stage in chain else None for stage in stages}
    shared = asdict(record) | common | of_model | ids | {"condition": _condition(record, trained)}
    return [
        shared | asdict(score) | {
            "primary": score is primary, "scale": scale_of(score.metric, aggregations.get(score.metric)),
        }
        for score in record.scores
    ]  # fmt: skip


def _condition(record: ScoresRecord, trained: Row) -> str:
    if record.stage == "baseline":
        return BASELINE
    if record.stage == "finetune":
        return "fine-tuned" if trained["start"] == "pretrained" else "from scratch"
    return "few-shot" if record.n_shot else "zero-shot"


def primary_metric(task: dict[str, Any], scores: list[Score]) -> Score:
    """The metric that stands in the table: the first of the task's `metric_list`, else `acc`, else the first."""
    listed = [functions.name_of(entry["metric"]) for entry in task.get("metric_list") or ()]
    wanted = [*listed, "acc", scores[0].metric]
    return next(score for name in wanted for score in scores if score.metric == name)


def _size_order(row: Row) -> tuple:
    """Models from small to large; the rest only so that files come out the same every time."""
    keys = ("model", "setting", "hardware", "timing", "data", "task", "start", "condition", "metric", "filter")
    return (
        row.get("n_parameters") or 0,
        *(str(row.get(key) or "") for key in keys),
        math.inf if row.get("n_labels") is None else row["n_labels"],
        row["seed"] if row["seed"] is not None else -1,
    )
