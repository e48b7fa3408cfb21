"""What becomes of the scoring that the process of a fine-tuning does before it ends."""

from pathlib import Path

from cgpt.commands import run_stage
from cgpt.jobs import Job


def test_a_signal_stops_all_scoring_of_a_finished_training_and_an_error_only_its_own(monkeypatch, capsys):
    scored: list[str] = []

    def evaluate(job: Job) -> None:
        scored.append(job.id)
        raise {"a": ValueError("no"), "b": KeyboardInterrupt(15)}[job.id]

    monkeypatch.setattr("cgpt.stages.evaluate.evaluate", evaluate)
    run_stage._score_early(Job({}, Path(name)) for name in "abc")
    assert scored == ["a", "b"] and len(capsys.readouterr().err.splitlines()) == 2
