"""A plan's runs: each one's identity, the runs that it needs, and how it is carried out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgpt.hardware import Hardware
from cgpt.spec import Model
from cgpt.tasks.groups import TaskGroup

RESULTS = Path("results")
RUNS_FOLDER = RESULTS / "runs"
LOGS, BENCHMARKS, LOCKS, STATES = (RUNS_FOLDER / name for name in ("logs", "benchmarks", "locks", "state"))
EARLY = RUNS_FOLDER / "early"  # scores by the hash of the code that made them and by the run that will take them
LAST_FILE = {  # of each stage: the file written last, so that a run which has it is finished
    "fetch": "data/{}/fetched.json",
    "import": "import/{}/run.json",
    "tokenize": "tokens/{}/tokens.json",
    "pretrain": "pretrain/{}/run.json",
    "finetune": "finetune/{}/run.json",
    "meter": "meter/{}/run.json",
    "baseline": "baseline/{}/scores.json",
    "evaluate": "evaluate/{}/scores.json",
}
STAGES = tuple(LAST_FILE)
Key = tuple[str, str]  # a run's stage and id


@dataclass(frozen=True)
class Execution:
    """How a run is carried out and what it may cost; never part of its identity. None: not known beforehand."""

    hardware: Hardware | None = None
    model: Model | None = None  # that is trained or scored
    threads: int = 1
    checkpoint_every_steps: int = 200
    n_parameters: int | None = None
    flops_per_token: float | None = None  # of training, attention included, PaLM convention
    tokens: int | None = None
    flops_6nd: float | None = None
    flops: float | None = None  # PaLM convention
    minutes: float | None = None  # that `planned_time` fills in
    memory_bytes: int | None = None
    label: str = ""  # the run's values of what its experiment varies, for people
    shared_steps: int = 0  # that `shares_with` has done of this run
    shares_with: str | None = None  # the next shorter run that does the same up to there
    shorter: tuple[str, ...] = ()  # all such runs, the longest first; what one of them left saves steps, none is needed
    is_shared: bool = False  # a longer run may go on from this one


@dataclass(frozen=True)
class Run:
    """One job. `id` is a readable name and the hash of `spec` and `needs`; `needs` maps stage to upstream id.

    Both parts of an id come from spec and needs alone, so that the same run has the same id in every experiment.
    A tokenize run also needs the fetch of every dataset of `spec["corpus"]`.
    """

    stage: str
    id: str
    spec: dict[str, Any]
    needs: dict[str, str]
    execution: Execution = field(default=Execution(), compare=False)

    @property
    def key(self) -> Key:
        """Stage and id, by which a run is found among all runs."""
        return self.stage, self.id

    def upstream(self) -> list[Key]:
        """Stage and id of all runs that this one directly needs."""
        corpus = self.spec["corpus"] if self.stage == "tokenize" else []
        return [("fetch", name) for name in corpus] + list(self.needs.items())


@dataclass(frozen=True)
class Plan:
    """The runs of one experiment, upstream before downstream, each once."""

    experiment: str
    runs: tuple[Run, ...]
    groups: tuple[TaskGroup, ...] = ()  # of its tasks, whose scores are computed of theirs
    published_as: Mapping[str, str] = field(default_factory=dict)  # by model, its name in published.csv
    not_tuned: tuple[str, ...] = ()  # tasks with a `finetune:` block, where the experiment has none

    def of(self, stage: str) -> tuple[Run, ...]:
        """The runs of one stage."""
        return tuple(run for run in self.runs if run.stage == stage)

    def first_trained(self) -> tuple[Run, ...]:
        """The first pretraining run of each model, of those on a machine that measures where there is one."""
        in_order = sorted(self.of("pretrain"), key=lambda run: run.spec["hardware"]["timing"] != "measured")
        first: dict[str, Run] = {}
        for run in in_order:
            first.setdefault(run.spec["model"]["name"], run)
        return tuple(run for run in self.runs if run in first.values())


def last_file(stage: str, run_id: str) -> Path:
    """The file that shows a run is finished; it stands in the run's folder."""
    return RUNS_FOLDER / LAST_FILE[stage].format(run_id)


def early_folders(run_id: str) -> list[Path]:
    """Where the process that trained a model may have left its scores for an evaluation to take, as EARLY has them."""
    return [of_code / run_id for of_code in EARLY.glob("*")]
