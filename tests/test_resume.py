"""The state that a stopped run may go on from: its own data, code, compiler and processor, whole, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from cgpt import records
from cgpt.data import shards
from cgpt.errors import UserError
from cgpt.jobs import Job
from cgpt.stages import pretrain as stage
from cgpt.training.resume import load_first
from cgpt.training.trainer import Trainer


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def job(tokens: Path, root: Path) -> Job:
    """Twenty steps, with a state after every five."""
    return tiny.job(tiny.pretrain_spec(), root / "pretrain" / "run", tokens, checkpoint_every_steps=5)


def pretrain(tokens: Path, root: Path) -> records.PretrainRecord:
    stage.pretrain(job(tokens, root))
    return records.read_run(root / "pretrain" / "run" / "run.json")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return tiny.token_folder(tmp_path_factory.mktemp("tokens") / "count-0")


@pytest.fixture(scope="module")
def half_done(tokens, tmp_path_factory) -> Path:
    """A run that ended in its step 14."""
    root, step = tmp_path_factory.mktemp("stopped"), Trainer.step
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", lambda self, *a: interrupt() if self.n_updates == 13 else step(self, *a))
        pretrain(tokens, root)
    return root


@pytest.fixture
def stopped(half_done, tmp_path) -> Path:
    return Path(shutil.copytree(half_done, tmp_path / "stopped"))


def steps_behind(tokens: Path, root: Path) -> int:
    """Where the run below `root` would begin."""
    started = stage.PretrainRun(job(tokens, root))
    assert len(started.log.rows) == started.trainer.n_updates
    return started.trainer.n_updates


def test_a_stopped_run_goes_on_without_a_word(stopped, tokens, capsys):
    assert steps_behind(tokens, stopped) == 10
    assert capsys.readouterr().err == ""


def altered_tokens(tokens: Path, root: Path) -> Path:
    """The same tokenizer and as many tokens, one of them another."""
    folder = Path(shutil.copytree(tokens, root / "tokens"))
    shard = np.array(shards.open_shard(folder / "train.bin"))
    shard[100] = (shard[100] + 1) % 50
    header = shards.read_header(folder / "train.bin")
    with shards.ShardWriter(folder / "train.bin", header["vocab_size"], header["tokenizer_sha256"]) as written:
        written.append(shard, header["n_bytes"], header["n_documents"])
    return folder


def test_a_run_never_goes_on_with_other_data_and_says_so(stopped, tokens, tmp_path, capsys):
    assert steps_behind(altered_tokens(tokens, tmp_path), stopped) == 0
    assert (
        capsys.readouterr().err
        == f"run: {stopped}/state/run/state.safetensors is of another corpus or tokenizer, so it is not used\n"
    )


@pytest.mark.parametrize(
    ("of", "name", "says"),
    [
        (stage.backend, "describe_kernels", "compiler"),
        (stage.provenance, "processor", "processor"),
        (stage.provenance, "installed_version", "version of tinygrad or NumPy"),
    ],
)
def test_a_resume_belongs_to_its_compiler_and_processor(stopped, tokens, monkeypatch, capsys, of, name, says):
    monkeypatch.setattr(of, name, lambda *_: "another")
    assert steps_behind(tokens, stopped) == 0
    assert f"is of another {says}, so it is not used" in capsys.readouterr().err


def rewritten(path: Path, metadata: dict[str, str] | None = None, **arrays: np.ndarray) -> None:
    """The state file with other metadata or arrays, well-formed, its own hash not made again."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, framework="numpy") as file:
        written = file.metadata()
    known = load_file(path)
    save_file(known | arrays, path, metadata=written if metadata is None else {**written, **metadata})


def test_a_state_whose_number_of_updates_is_not_that_of_its_log_is_not_used(stopped, tokens, capsys):
    path = stopped / "state" / "run" / "state.safetensors"
    rewritten(path, n_updates=np.array([19], np.int64))
    assert steps_behind(tokens, stopped) == 0
    assert "is damaged, so it is not used" in capsys.readouterr().err


def test_a_state_of_more_steps_than_the_run_has_is_not_used(stopped, tokens, capsys):
    run = stage.PretrainRun(job(tokens, stopped))
    assert run.trainer.n_updates == 10
    assert load_first([run.state], 9, "run") is None
    assert "has more than the run's 9 steps, so it is not used" in capsys.readouterr().err


@pytest.mark.parametrize(
    "metadata",
    [{"log": "step\n"}, {"key": "{}"}, {"key": "[1]"}, {"measured": "7"}, {"measured": "[1, 2]"}, {"sha256": ""}],
)
def test_a_state_with_metadata_of_another_kind_is_not_used(stopped, tokens, metadata, capsys):
    rewritten(stopped / "state" / "run" / "state.safetensors", metadata)
    assert steps_behind(tokens, stopped) == 0
    assert capsys.readouterr().err.count("so it is not used\n") == 1


def test_a_state_without_a_log_is_not_used(stopped, tokens):
    from safetensors.numpy import save_file

    path = stopped / "state" / "run" / "state.safetensors"
    save_file(load_file(path), path)
    assert steps_behind(tokens, stopped) == 0


def test_every_flipped_bit_of_a_state_is_noticed(stopped, tokens):
    path = stopped / "state" / "run" / "state.safetensors"
    content = path.read_bytes()
    state = stage.PretrainRun(job(tokens, stopped)).state
    path.write_bytes(content)
    assert state.load()[0] is not None
    for at in np.random.RandomState(0).choice(len(content), 60, replace=False):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        assert state.load()[0] is None, at


def test_a_run_killed_after_its_last_step_still_knows_its_speed(tokens, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "write_record", interrupt)
        pretrain(tokens, tmp_path)
    record = pretrain(tokens, tmp_path)
    assert record.tokens_per_s > 0 and record.compile_s is not None and record.seconds > 0


def test_what_the_device_metered_outlives_a_stop(tokens, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "write_record", interrupt)
        pretrain(tokens, tmp_path)
    before = stage.PretrainRun(job(tokens, tmp_path))
    assert before.trainer.n_updates == 20
    before.metered = {"metered_flops": 5.0, "metered_bytes": 7.0}
    before.state.save(before.saved())
    record = pretrain(tokens, tmp_path)
    assert (record.metered_flops, record.metered_bytes) == (5.0, 7.0)


def test_a_tokens_json_that_is_damaged_is_one_line_before_anything_is_trained(tmp_path):
    folder = tiny.token_folder(tmp_path / "tokens")
    for text, says in (("", "is not JSON"), ("[]", "holds list"), ('{"corpus": "x"}', "corpus: is no list of names")):
        (folder / "tokens.json").write_text(text)
        with pytest.raises(UserError) as caught:
            pretrain(folder, tmp_path)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{folder}/tokens.json: {says}") and problem.endswith("so that tokenize runs again")
        assert not (tmp_path / "state").exists()
