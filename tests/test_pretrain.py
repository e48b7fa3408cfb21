"""Small real pretraining runs: the same bits every time, whatever stops them, and one line for what goes wrong."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy_gpt
import pytest
import tiny
from safetensors.numpy import load_file

from cgpt import __main__ as command_line
from cgpt import records
from cgpt.csv_columns import LOSS_COLUMNS
from cgpt.data import shards
from cgpt.errors import UserError
from cgpt.model.gpt import init_parameters
from cgpt.recipe.schedule import Schedule
from cgpt.stages import pretrain as stage
from cgpt.training.trainer import Trainer

CC = os.environ.get("CC")  # the user's; later this process names the compiler that it found there
EVERY = 5  # steps between saved states
TIMES = ("tokens_per_s", "seconds")
MOMENTS = {  # when a process ends -> steps left for the next one
    "SIGTERM in step 13": 7,
    "SIGKILL in step 3": 20,
    "SIGKILL in step 14": 10,
    "SIGKILL in half of the second state": 15,
    "SIGKILL in the second state, whole but not in place": 15,
    "SIGKILL in a line of loss.csv": 10,
    "SIGKILL in the record": 0,
}
# Starts a process per moment (forked, so that the imports are paid once) and prints how each ended.
DRIVER = """
import json, os, signal, sys
from contextlib import nullcontext
from pathlib import Path
import tiny
from cgpt import __main__ as command_line
from cgpt.stages import pretrain as stage
from cgpt.training import resume
from cgpt.training.trainer import Trainer

def arrange(moment, out):
    number = signal.SIGTERM if "SIGTERM" in moment else signal.SIGKILL
    step, write, append, saves = Trainer.step, Path.write_bytes, resume.LossLog.append, []
    def end(*_, **__):
        os.kill(os.getpid(), number)
    def stepped(self, *arguments):
        if moment.endswith(f"in step {self.n_updates + 1}"):
            end()
        return step(self, *arguments)
    def written(path, content):
        saves.extend([path] if path.name.startswith("state.safetensors") else [])
        if "second state" in moment and len(saves) == 2:
            write(path, content[: len(content) // 2] if "half" in moment else content)
            end()
        return write(path, content)
    def appended(self, **row):
        append(self, **row)
        if "loss.csv" in moment and row["step"] == 12:
            os.truncate(self.path, self.path.stat().st_size - 70)
            end()
    Trainer.step, Path.write_bytes, resume.LossLog.append = stepped, written, appended
    if "record" in moment:
        stage.write_record = end
    every = 1000 if number == signal.SIGTERM else 5
    job = tiny.job(tiny.pretrain_spec(), out, tokens, threads=1, checkpoint_every_steps=every)
    command_line.run_stage.prepared = lambda _: nullcontext((stage.pretrain, job))

tokens, root, running = Path(sys.argv[1]), Path(sys.argv[2]), {}
for moment in sys.argv[3:]:
    (root / moment).mkdir()
    if not (pid := os.fork()):
        os.dup2(os.open(root / moment / "stderr", os.O_CREAT | os.O_WRONLY), 2)
        arrange(moment, root / moment / "pretrain" / "run")
        os._exit(command_line.main(["pretrain", "run"]))
    running[moment] = pid
print(json.dumps({moment: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for moment, pid in running.items()}))
"""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return tiny.token_folder(tmp_path_factory.mktemp("tokens") / "count-0")


def run(tokens: Path, root: Path, every: int = EVERY, **train) -> Path:
    """Pretrain below `root`; return the run's folder."""
    out = root / "pretrain" / "run"
    stage.pretrain(tiny.job(tiny.pretrain_spec(**train), out, tokens, checkpoint_every_steps=every))
    return out


@pytest.fixture(scope="module")
def whole(tokens, tmp_path_factory) -> Path:
    """A run that nothing interrupted, on two threads."""
    return run(tokens, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def ended(tokens, tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """A folder with what a process stopped at each of the MOMENTS left, and the processes' exit codes."""
    root, here = tmp_path_factory.mktemp("stopped"), Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parent}:{here}"}
    environment.pop("CC", None)
    environment |= {"CC": CC} if CC else {}
    command = [sys.executable, "-c", DRIVER, tokens, root, *MOMENTS]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=120)
    return root, json.loads(done.stdout)


@pytest.fixture
def stopped(ended, tmp_path) -> Path:
    """A copy of what a process killed in step 14 left: a state of 10 steps."""
    return Path(shutil.copytree(ended[0] / "SIGKILL in step 14", tmp_path / "stopped"))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "loss.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights bit for bit, and the same loss.csv but for the clock's columns."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    first, second = ([{k: v for k, v in row.items() if k not in TIMES} for row in rows(out)] for out in (one, other))
    assert first == second


def counted_steps(monkeypatch) -> list[int]:
    """A list that gets the number of each step done from now on."""
    done, step = [], Trainer.step

    def counting(self, *arguments):
        done.append(self.n_updates + 1)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", counting)
    return done


def test_two_runs_are_equal_bit_for_bit(tokens, whole, tmp_path):
    assert_same_run(run(tokens, tmp_path, every=1000), whole)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_run_goes_on_and_ends_in_the_same_bits(moment, ended, tokens, whole, tmp_path, monkeypatch):
    root = Path(shutil.copytree(ended[0] / moment, tmp_path / "root"))
    error = (root / "stderr").read_text()
    if "SIGTERM" in moment:
        assert error.splitlines()[-1] == "stopped; the same command goes on from the last checkpoint"
        assert ended[1][moment] == 128 + signal.SIGTERM
    else:
        assert ended[1][moment] == -signal.SIGKILL, error
    assert not (root / "pretrain" / "run" / "run.json").exists()
    done = counted_steps(monkeypatch)
    out = run(tokens, root)
    assert len(done) == MOMENTS[moment]
    assert_same_run(out, whole)
    assert not (root / "state" / "run").exists()
    assert not list(root.rglob("*.part"))


def test_ctrl_c_stops_with_its_own_exit_code(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line.run_stage, "prepared", interrupted)
    assert command_line.main(["pretrain", "run"]) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on from the last checkpoint\n"


def steps_behind(tokens: Path, root: Path, **train) -> int:
    """Where a run below `root` would begin."""
    started = stage.PretrainRun(tiny.job(tiny.pretrain_spec(**train), root / "pretrain" / "run", tokens))
    assert len(started.log.rows) == len(rows(root / "state" / "run")) == started.trainer.n_updates
    return started.trainer.n_updates


def test_only_the_state_of_the_same_spec_and_code_is_used(stopped, tokens, monkeypatch):
    assert steps_behind(tokens, Path(shutil.copytree(stopped, stopped.parent / "same"))) == 10
    assert steps_behind(tokens, Path(shutil.copytree(stopped, stopped.parent / "spec")), lr=0.02) == 0
    monkeypatch.setattr(stage, "code_sha256", lambda stage: "0" * 64)
    assert steps_behind(tokens, stopped) == 0


def test_a_state_file_that_is_damaged_is_not_used(stopped, tokens):
    path = stopped / "state" / "run" / "state.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-5], content[:100], b"PK\x03\x04" * 1000, b""):
        path.write_bytes(damaged)
        assert steps_behind(tokens, stopped) == 0


def test_loss_csv_is_written_while_the_run_goes(stopped):
    lines = rows(stopped / "state" / "run")
    assert [row["step"] for row in lines] == [str(n) for n in range(1, 14)]
    assert list(lines[0]) == list(LOSS_COLUMNS)


def test_the_record_is_written_last(ended):
    left = {path.name for path in (ended[0] / "SIGKILL in the record" / "pretrain" / "run").iterdir()}
    assert left == {"config.json", "loss.csv", "model.safetensors", "tokenizer.json"}


def test_a_progress_line_names_loss_speed_memory_and_time_left(ended):
    last = (ended[0] / "SIGKILL in the record" / "stderr").read_text().splitlines()[-1]
    assert re.fullmatch(r"run: step 20/20  loss \d\.\d{4}  [\d,]+ tokens/s  [\d,]+ MiB  0:00 left", last)


def test_the_first_losses_and_rates_are_those_of_numpy_on_the_batches_of_the_seed(tokens, whole):
    params, optimizer = init_parameters(tiny.ONE_LAYER, 1), numpy_gpt.AdamW()
    shard = shards.open_shard(tokens / "train.bin")
    for step, row in enumerate(rows(whole)[:4]):
        batch = shards.batches(shard, tiny.ONE_LAYER.seq_len, 4, 1, step)
        _, loss, grads = numpy_gpt.run(params, batch[:, :-1], batch[:, 1:], tiny.ONE_LAYER.n_head)
        lr = Schedule(0.01, 20, 2).rate(step)
        params, norm = optimizer.step(params, grads, lr)
        assert (float(row["train_loss"]), float(row["grad_norm"])) == pytest.approx((loss, norm), rel=1e-5)
        assert float(row["lr"]) == lr
        assert int(row["tokens"]) == (step + 1) * 4 * tiny.ONE_LAYER.seq_len


def test_the_validation_loss_is_the_mean_nats_of_the_windows_and_gives_the_bits_per_byte(tokens, whole):
    shard = np.array(shards.open_shard(tokens / "validation.bin"), np.int32)
    windows = np.stack([shard[at : at + 21] for at in range(0, 100, 20)])
    params = load_file(whole / "model.safetensors")
    _, nats, _ = numpy_gpt.run(params, windows[:, :-1], windows[:, 1:], tiny.ONE_LAYER.n_head)
    record = records.read_run(whole / "run.json")
    assert record.validation_loss == pytest.approx(nats, rel=1e-5)
    assert record.validation_bits_per_byte == pytest.approx(
        record.validation_loss * 101 / (777 * math.log(2)), rel=1e-9
    )
    evaluated = [int(row["step"]) for row in rows(whole) if row["validation_loss"]]
    assert evaluated == [8, 16, 20]


def test_training_lowers_the_loss_and_the_record_says_what_was_done(whole):
    record = records.read_run(whole / "run.json")
    lines = rows(whole)
    assert float(lines[-1]["train_loss"]) < float(lines[0]["train_loss"]) - 0.5
    assert (record.run, record.stage, record.model, record.data) == ("run", "pretrain", "tiny", "count+noise")
    assert (record.steps, record.tokens, record.threads, record.seed) == (20, 1600, tiny.THREADS, 1)
    assert record.n_parameters == sum(value.size for value in load_file(whole / "model.safetensors").values())
    assert record.flops_6nd == 6 * record.n_parameters * 1600 < record.flops
    assert record.train_loss == float(lines[-1]["train_loss"])
    assert record.seconds > 0 and record.tokens_per_s > 0 and record.compile_s >= 0 and record.peak_memory_bytes > 1e7
    assert {path.name for path in whole.iterdir()} == {
        "config.json", "loss.csv", "model.safetensors", "run.json", "tokenizer.json",
    }  # fmt: skip


def test_micro_batches_give_the_losses_of_the_whole_batch(tokens, whole, tmp_path):
    parts = run(tokens, tmp_path, micro_batch_size=2)
    for column in ("train_loss", "grad_norm"):
        values, wanted = ([float(row[column]) for row in rows(out)] for out in (parts, whole))
        np.testing.assert_allclose(values, wanted, rtol=2e-3)
        np.testing.assert_allclose(values[:3], wanted[:3], rtol=1e-5)


@pytest.mark.parametrize(
    "loss, norm, shown",
    [
        (math.nan, math.nan, "loss nan, gradient norm nan"),
        (3.0, math.inf, "loss 3, gradient norm inf"),
    ],
)
def test_a_run_that_diverges_stops_with_one_line_that_names_step_rate_and_remedy(
    loss, norm, shown, tokens, tmp_path, monkeypatch
):
    results = iter([(4.0, 1.0), (6.0, 1.0), (4.5, 1.0), (loss, norm)])  # high while it warms up is no divergence
    monkeypatch.setattr(Trainer, "step", lambda self, *_: next(results))
    with pytest.raises(UserError) as caught:
        run(tokens, tmp_path)
    assert caught.value.problems == (
        f"run: train.lr: the run diverged at step 4 ({shown}, first loss 4); "
        "write a lower lr than 0.01, or a longer warmup_fraction",
    )
    assert not (tmp_path / "state" / "run").exists()
    out = tmp_path / "pretrain" / "run"
    assert [path.name for path in out.iterdir()] == ["diverged.json"]
    finite = loss if math.isfinite(loss) else None
    assert records.read_diverged(out / "diverged.json") == records.DivergedRecord("run", "pretrain", 4, finite)
    monkeypatch.undo()
    run(tokens, tmp_path)
    assert records.read_diverged(out / "diverged.json") is None and (out / "run.json").is_file()


def test_a_validation_loss_that_is_no_number_is_divergence_too_and_never_a_result(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "validation_loss", lambda *_: math.nan)
    with pytest.raises(UserError, match=r"the run diverged at step \d+ \(loss nan"):
        run(tokens, tmp_path)
    assert not (tmp_path / "pretrain" / "run" / "run.json").exists()


def test_a_loss_that_stays_high_is_divergence_and_one_that_comes_back_is_not(tokens, tmp_path, monkeypatch):
    step, losses = Trainer.step, [4.0, *[9.0] * 9, 4.5, *[9.0] * 9]
    monkeypatch.setattr(Trainer, "step", lambda self, *a: (losses[self.n_updates], step(self, *a)[1]))
    assert records.read_run(run(tokens, tmp_path / "back") / "run.json").train_loss == 9.0
    losses[10:12] = [9.0, 4.5]
    with pytest.raises(UserError, match=r"diverged at step 11 \(loss 9, gradient norm .*, first loss 4\)"):
        run(tokens, tmp_path / "high")


def test_a_learning_rate_that_is_far_too_high_is_found_out(tokens, tmp_path):
    with pytest.raises(UserError, match=r"run: train\.lr: the run diverged at step \d+ .*lower lr than 1000000000"):
        run(tokens, tmp_path, lr=10**9, warmup_fraction=0)


def refused(tokens: Path, root: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        run(tokens, root)
    assert not (root / "pretrain" / "run").exists()
    return [problem.replace(f"{tokens}/", "") for problem in caught.value.problems]


def test_shards_of_a_larger_vocabulary_are_refused(tmp_path):
    assert refused(tiny.token_folder(tmp_path / "tokens", vocab=60), tmp_path) == [
        "train.bin: vocab_size: has 60 tokens, model 'tiny' 50; give the model the tokenizer's vocab_size"
    ]


def test_shards_of_another_tokenizer_are_refused(tmp_path):
    folder = tiny.token_folder(tmp_path / "tokens")
    tiny.write_tokenizer(folder / "tokenizer.json", 49)
    assert refused(folder, tmp_path) == [
        "train.bin: tokenizer_sha256: belongs to another tokenizer.json; delete its folder, so that tokenize runs again"
    ]


def test_a_shard_that_was_changed_is_refused(tmp_path):
    folder = tiny.token_folder(tmp_path / "tokens")
    content = bytearray((folder / "validation.bin").read_bytes())
    content[-1] ^= 255
    (folder / "validation.bin").write_bytes(content)
    assert refused(folder, tmp_path) == [
        "validation.bin: sha256: the tokens are not those that were written; "
        "delete its folder, so that tokenize runs again"
    ]


def test_a_full_disk_is_one_line(tokens, tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError) as caught:
        run(tokens, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'state' / 'run'}: no disk space is left; free some, then run again"


def lengths(tokens: Path, root: Path, steps: int, **given) -> Path:
    """A run of schedule wsd below `root`, named after its number of steps."""
    spec = tiny.pretrain_spec(schedule="wsd", warmup_tokens=160, decay_fraction=0.4, steps=steps, tokens=80 * steps)
    out = root / "pretrain" / str(steps)
    stage.pretrain(tiny.job(spec, out, tokens, checkpoint_every_steps=EVERY, **given))
    return out


def test_a_longer_run_goes_on_from_before_a_shorter_ones_decay_to_the_bits_of_the_whole_run(
    tokens, tmp_path, monkeypatch
):
    alone = lengths(tokens, tmp_path / "alone", 20)
    lengths(tokens, tmp_path, 10, is_shared=True)
    step, updates = Trainer.step, []
    monkeypatch.setattr(Trainer, "step", lambda self, *a: updates.append(self.n_updates) or step(self, *a))
    joined = lengths(tokens, tmp_path, 20, shares_with="10")
    assert updates == list(range(6, 20))  # 10 steps decay over their last 4
    assert (joined / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()
    without_times = [[{k: v for k, v in row.items() if k not in TIMES} for row in rows(out)] for out in (joined, alone)]
    assert without_times[0] == without_times[1]
    assert not any((tmp_path / "state").iterdir())


def test_a_longer_run_trains_from_the_start_where_what_a_shorter_one_left_is_gone_or_of_another_run(tokens, tmp_path):
    alone = lengths(tokens, tmp_path / "alone", 20)
    assert (lengths(tokens, tmp_path / "gone", 20, shares_with="10") / "model.safetensors").read_bytes() == (
        alone / "model.safetensors"
    ).read_bytes()
    other = tiny.pretrain_spec(schedule="wsd", warmup_tokens=160, decay_fraction=0.4, steps=10, lr=0.02)
    stage.pretrain(tiny.job(other, tmp_path / "pretrain" / "10", tokens, checkpoint_every_steps=EVERY, is_shared=True))
    joined = lengths(tokens, tmp_path, 20, shares_with="10")
    assert (joined / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()
