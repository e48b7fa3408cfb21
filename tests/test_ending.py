"""A command ends with its result or with one line; never with a traceback for what a user or the machine can cause."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cgpt.commands import ending
from cgpt.csv_columns import LOSS_COLUMNS
from cgpt.errors import UserError
from cgpt.records import read_loss, read_run
from cgpt.scaling import fitted_law

ROOT = Path(__file__).parent.parent


def ended(capsys, verb: str, exception: BaseException) -> tuple[int, str]:
    """The exit code and standard error of a verb that raises."""

    with ending.reported(verb) as end:
        raise exception
    return end.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("exception", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device; free some disk space, "
         "then run again\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied; change its permissions, "
         "or name another place\n"),
        (OSError(errno.ENAMETOOLONG, "File name too long", b"a\nb"), "a b: File name too long; write a shorter name\n"),
        (OSError("odd"), "plot: odd; check that it is there and what it should be\n"),
        (MemoryError("48 GiB"), "plot: the memory of this machine is not enough (48 GiB); ask for a smaller model, "
         "batch or file\n"),
        (MemoryError(), "plot: the memory of this machine is not enough; ask for a smaller model, batch or file\n"),
        (RecursionError(), "plot: a file is nested too deep to be read; write it flatter\n"),
        (UserError("one", "two\n\x1b[31m"), "one\ntwo \\x1b[31m\n"),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_machine_or_a_user_causes_is_one_line(capsys, exception, expected):
    assert ended(capsys, "plot", exception) == (1, expected)


def test_what_nobody_foresaw_keeps_its_traceback(capsys):
    with pytest.raises(ZeroDivisionError):
        ended(capsys, "plot", ZeroDivisionError())


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("pretrain", "stopped; the same command goes on from the last checkpoint\n"),
        ("finetune", "stopped; the same command starts it again\n"),
        ("fetch", "stopped; the same command gets what is still missing\n"),
        ("generate", "stopped\n"),
        ("bench", "stopped\n"),
    ],
)
def test_what_is_said_after_ctrl_c_fits_the_verb(capsys, verb, expected):
    assert ended(capsys, verb, KeyboardInterrupt()) == (130, expected)
    assert ended(capsys, verb, KeyboardInterrupt(signal.SIGTERM)) == (143, expected)


@pytest.mark.parametrize(("verb", "code"), [("plan", 0), ("evaluate", 128 + signal.SIGPIPE)])
@pytest.mark.parametrize("redirection", ["", "2>&1"])
def test_a_reader_that_has_seen_enough_ends_a_command_in_silence(verb, code, redirection):
    program = (f"import sys\nfrom cgpt.commands import ending\nwith ending.reported('{verb}') as end:\n"
               " print('x' * 10**6, file=sys.stderr if sys.argv[1:] else sys.stdout)\nsys.exit(end.code)")  # fmt: skip
    line = f'set -o pipefail; {sys.executable} -c "{program}" {"err" if redirection else ""} {redirection} | head -c 1'
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "x", "")


@pytest.mark.parametrize(
    ("redirection", "code", "error"),
    [
        ("> /dev/full", 1, "plan: No space left on device; free some disk space, then run again\n"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_output_that_is_full_or_closed_leaves_no_traceback(redirection, code, error):
    line = f"{sys.executable} -m cgpt plan smoke {redirection} | cat > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, error)


def test_a_second_signal_changes_nothing():
    code = ("import os, signal, sys, time\nfrom cgpt.commands import ending\nwith ending.reported('evaluate') as end:\n"
            " try:\n  print('on', flush=True)\n"
            "  time.sleep(60)\n finally:\n  os.kill(os.getpid(), signal.SIGTERM)\n  print('tidied', flush=True)\n"
            "sys.exit(end.code)")  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (130, "tidied\n", "stopped; the same command starts it again\n")


def test_a_file_of_fits_that_is_none_is_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "list").write_text('{"series": [1]}')
    (tmp_path / "odd").write_text('{"series": {"x": {"tokens_per_parameter": {}, "compute": [5]}}}')
    constants = ", ".join(f'"{name}": {{"value": 1{"0" * 400}}}' for name in ("A", "B", "E", "alpha", "beta"))
    (tmp_path / "huge").write_text(
        '{"series": {"x": {"tokens_per_parameter": 20, "vocab_size": 512, "seq_len": 64, "parametric": '
        f'{{"n_parameters": {{"draws": [], "constants": {{{constants}}}}}}}}}}}}}'
    )
    (tmp_path / "latin").write_bytes(b'{"series": "caf\xe9"}')
    for name in ("folder", "pipe", "deep", "list", "odd", "huge", "latin", "none"):
        with pytest.raises(UserError) as caught:
            fitted_law.read(tmp_path / name)
        (line,) = caught.value.problems
        assert line.startswith(f"{tmp_path / name}: ")


def test_a_result_that_is_none_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text('{"stage": ' + "[" * 100_000)
    with pytest.raises(UserError, match=r"run.json: is not JSON \(is nested too deep\)"):
        read_run(tmp_path / "run.json")
    for content in ("step\n", ",".join(LOSS_COLUMNS) + "\n1,2\n", ",".join(LOSS_COLUMNS) + '\n"1\n'):
        (tmp_path / "loss.csv").write_text(content)
        with pytest.raises(UserError, match="loss.csv: "):
            read_loss(tmp_path / "loss.csv")
