"""How long the runs of a plan take: at this machine's own rates where there are any, and on so many cores."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from cgpt.cost import memory
from cgpt.data import task_rows
from cgpt.errors import UserError
from cgpt.experiment import rates
from cgpt.experiment.run import RUNS_FOLDER, Key, Plan, Run, last_file
from cgpt.hardware import Hardware
from cgpt.host import cpu_model
from cgpt.tasks.documents import select_documents

BYTES_PER_TOKEN = 3.0  # of a task's file, roughly, with any tokenizer
SHORTEST_PADDING = 32  # tokens that the length of a short example is rounded up to a multiple of
SCORING_SHARE = 1 / 3  # of a training token's FLOPs: the forward pass


@dataclass(frozen=True)
class TimedPlan:
    """A plan with its minutes. `wall_minutes` is of the runs that are left, on `cores`; None where none is named.
    `sources`: a line for each hardware profile and number of threads, of where its rate comes from."""

    plan: Plan
    finished: frozenset[Key]
    sources: tuple[str, ...]
    with_starts: bool = False  # whether minutes are with what a job takes to start
    cores: int | None = None
    wall_minutes: float | None = None

    def left(self) -> list[Run]:
        """The runs that are not finished."""
        return [run for run in self.plan.runs if run.key not in self.finished]


def time_plan(plan: Plan, cores: int | None = None) -> TimedPlan:
    """The plan with minutes at this machine's rates. Raises UserError where a run names more threads than `cores`."""
    if cores is not None:
        _refuse_few(plan, cores)
    finished = frozenset(run.key for run in plan.runs if last_file(*run.key).is_file())
    measured = rates.read()
    known = [*measured.rates, *_rates_of_finished(plan, finished)]
    runs = tuple(_with_minutes(run, known, measured.start_s.get(run.stage, 0.0)) for run in plan.runs)
    wall_minutes = None
    if cores is not None:
        wall_minutes = _wall_minutes([run for run in runs if run.key not in finished], cores)
    return TimedPlan(replace(plan, runs=runs), finished, _rate_sources(plan, known), bool(measured.start_s), cores,
                     wall_minutes)  # fmt: skip


def minutes_left(runs: Sequence[Run], under_way: Mapping[Key, float], done: Mapping[Key, float], cores: int) -> float:
    """Minutes until the last of some runs ends. `under_way` and `done` have the seconds that runs took so far.

    A run takes what it takes at this machine's rates, and what those of its stage that are done took on top of that.
    """
    known = [*rates.read().rates, *_rates_of_finished(Plan("", tuple(runs)), frozenset(done))]
    planned_s = {run.key: 60 * (_with_minutes(run, known, 0.0).execution.minutes or 0.0) for run in runs}
    on_top: dict[str, list[float]] = {}
    for key, seconds in done.items():
        on_top.setdefault(key[0], []).append(seconds - planned_s[key])
    start_s = rates.read().start_s | {stage: max(0.0, mean(seconds)) for stage, seconds in on_top.items()}
    left_s = {key: max(0.0, seconds + start_s.get(key[0], 0.0) - under_way.get(key, 0.0))
              for key, seconds in planned_s.items()}  # fmt: skip
    left = [replace(run, execution=replace(run.execution, minutes=left_s[run.key] / 60))
            for run in runs if run.key not in done]  # fmt: skip
    return _wall_minutes(left, cores)


def _refuse_few(plan: Plan, cores: int) -> None:
    most = max((run.execution.threads for run in plan.runs), default=1)
    if cores < most:
        wanted = "must be at least 1" if cores < 1 else f"is fewer than the {most} threads that a run names"
        raise UserError(f"--cores: {cores} {wanted}; write {most} or more")


def _rates_of_finished(plan: Plan, finished: frozenset[Key]) -> list[rates.Rate]:
    runs = [run for run in plan.of("pretrain") if run.key in finished]
    read = [rates.of_record(last_file(*run.key), run.execution.hardware) for run in runs if run.execution.hardware]
    return [rate for rate in read if rate]


def _with_minutes(run: Run, known: list[rates.Rate], start_s: float) -> Run:
    """The run with minutes for what it does itself: steps that it shares with a shorter one are that one's."""
    cost, hardware = run.execution, run.execution.hardware
    if hardware is None or run.stage == "meter":
        return run
    assert cost.model is not None and cost.flops_per_token is not None
    work = cost.flops if run.stage == "pretrain" else _task_flops(run, cost.model.seq_len, cost.flops_per_token)
    if cost.shares_with and work:
        work *= 1 - cost.shared_steps / run.spec["train"]["steps"]
    rate = _rate(known, hardware, cost.threads, cost.flops_per_token)
    minutes = (work / rate + start_s) / 60 if work and rate else None
    return replace(run, execution=replace(cost, minutes=minutes, memory_bytes=_memory_bytes(run)))


def _rate(known: list[rates.Rate], hardware: Hardware, threads: int, per_token: float) -> float | None:
    """FLOPs a second: measured on this machine, else what the profile says, which is of all its threads."""
    measured = rates.flops_per_s(known, hardware, threads, per_token)
    if measured or hardware.sustained_flops_per_s is None:
        return measured
    return hardware.sustained_flops_per_s * min(1.0, threads / hardware.resources.threads)


def _rate_sources(plan: Plan, known: list[rates.Rate]) -> tuple[str, ...]:
    """A line for each profile and number of threads that trains: whose rate is used, and how to measure one here."""
    lines: dict[str, None] = {}
    for run in plan.of("pretrain"):
        hardware, threads = run.execution.hardware, run.execution.threads
        if hardware is None or hardware.timing == "modeled":
            continue
        if any(rate.like(hardware, threads) for rate in known):
            source = f"at the rate measured on this machine, {cpu_model()}"
        elif hardware.sustained_flops_per_s and hardware.sustained_on == cpu_model():
            source = "at the rate that its profile names, of a machine such as this"
        else:
            whose = hardware.sustained_on or "the machine in its profile"
            source = f"at the rate of {whose}, not measured here" if hardware.sustained_flops_per_s else "not known"
            source += f"; run `cgpt measure --hardware {hardware.name} --threads {threads}`"
        lines[f"minutes on {hardware.name}, {threads} thread{'s' if threads > 1 else ''}: {source}"] = None
    return tuple(lines)


def _task_flops(run: Run, longest: int, per_token: float) -> float | None:
    """FLOPs of fine-tuning on a task, or of scoring it, whose file is there, by a training token's `per_token`; an
    upper bound where a number of labels alone is known; None where nothing is."""
    task = run.spec["task"]
    if run.stage == "finetune":
        size = _size(task, task.get("training_split"))
        if size is None:
            return run.execution.flops
        documents = min(size.documents, run.spec["n_labels"] or size.documents)
        return documents * min(size.tokens, longest) * run.spec["finetune"]["epochs"] * per_token
    size = _size(task, task.get("test_split") or task.get("validation_split"))
    if size is None or task.get("output_type") == "generate_until":
        return None
    documents, choices = len(select_documents(task, size.documents)), task.get("doc_to_choice")
    n_passes = documents * (len(choices) if isinstance(choices, list) else 1)
    return n_passes * min(size.tokens, longest) * per_token * SCORING_SHARE


def _memory_bytes(run: Run) -> int | None:
    """Memory that the plan names, or of fine-tuning on a file that is there, what its longest example takes."""
    cost, size = run.execution, None
    if run.stage == "finetune":
        size = _size(run.spec["task"], run.spec["task"].get("training_split"))
    if size is None or cost.model is None or cost.hardware is None:
        return cost.memory_bytes
    longest = -(-math.ceil(size.longest) // SHORTEST_PADDING) * SHORTEST_PADDING
    return memory.finetuning_bytes(cost.model, run.spec["finetune"]["batch_size"], cost.threads, cost.hardware.kernels,
                                   longest, cost.hardware.dtype)  # fmt: skip


class _Size(NamedTuple):
    """Documents of a split, and tokens of the mean and of the longest one, roughly."""

    documents: int
    tokens: float
    longest: float


def _size(task: Mapping[str, Any], split: str | None) -> _Size | None:
    """By the lines and bytes of the split's files; None where they are not there."""
    if not split or not task_rows.in_files(dict(task)):
        return None
    data = task.get("data")
    folder = Path.cwd() if data is None else (RUNS_FOLDER / "data" / data).resolve()
    try:
        names = task_rows.split_files(dict(task), "")[split.partition("[")[0]]
        paths = task_rows.find_files(names, folder, data, "")
    except (UserError, KeyError):
        return None
    return _size_of(tuple((path, path.stat().st_mtime_ns) for path in paths))


@cache
def _size_of(files: tuple[tuple[Path, int], ...]) -> _Size | None:
    """Of files as they were when they were last written: several runs of a plan ask for the same."""
    lengths = [len(line) for path, _ in files for line in path.read_bytes().splitlines(keepends=True)]
    if not lengths:
        return None
    return _Size(len(lengths), sum(lengths) / len(lengths) / BYTES_PER_TOKEN, max(lengths) / BYTES_PER_TOKEN)


def _wall_minutes(runs: list[Run], cores: int) -> float:
    """Minutes until the last run ends: whenever threads are free, the longest run that they suffice for starts, of
    those whose needs are done (Graham 1969). Runs of unknown length take none."""
    todo = {run.key: run for run in runs}
    needed = {key: {*run.upstream(), (run.stage, run.execution.shares_with)} for key, run in todo.items()}
    open_needs: dict[Key, set[Any]] = {key: needs & todo.keys() for key, needs in needed.items()}
    waiting_for: dict[Key, list[Key]] = {}
    for key, needs in open_needs.items():
        for need in needs:
            waiting_for.setdefault(need, []).append(key)

    ready: dict[int, list[tuple[float, Key]]] = {}  # by threads, the longest first

    def start_after_needs(key: Key) -> None:
        cost = todo[key].execution
        heapq.heappush(ready.setdefault(cost.threads, []), (-(cost.minutes or 0.0), key))

    for key, needs in open_needs.items():
        if not needs:
            start_after_needs(key)
    running: list[tuple[float, Key]] = []
    now, free = 0.0, cores
    while True:
        while startable := [waiting for threads, waiting in ready.items() if waiting and threads <= free]:
            minutes, key = heapq.heappop(min(startable))
            free -= todo[key].execution.threads
            heapq.heappush(running, (now - minutes, key))
        if not running:
            return now
        now, key = heapq.heappop(running)
        free += todo[key].execution.threads
        for follower in waiting_for.get(key, ()):
            open_needs[follower].discard(key)
            if not open_needs[follower]:
                start_after_needs(follower)
