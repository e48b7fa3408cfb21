"""Files that are whole or absent whatever other processes do, and locks that end with their process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cgpt.__main__ import main
from cgpt.errors import UserError
from cgpt.files import whole
from cgpt.files.csv_file import write_csv

ROOT = Path(__file__).parent.parent
WRITER = """
import sys
from pathlib import Path
from cgpt.files.whole import write_whole
for n in range(100):
    write_whole(Path(sys.argv[1]), (sys.argv[2] * 100_000).encode())
"""
HOLDER = """
import sys, time
from pathlib import Path
from cgpt.files.whole import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_write_one_file_at_once_leave_it_whole_at_every_moment(tmp_path):
    path = tmp_path / "run.json"
    writers = [start(WRITER, path, letter) for letter in "abc"]
    torn = []
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes() if path.exists() else b""
        if content and content not in (b"a" * 100_000, b"b" * 100_000, b"c" * 100_000):
            torn.append(content)
    assert not torn and [writer.communicate()[1] for writer in writers] == ["", "", ""]
    assert [found.name for found in tmp_path.iterdir()] == ["run.json"]


def test_threads_that_write_one_table_at_once_leave_it_whole(tmp_path):
    rows = [{"a": n, "b": "x" * 1000} for n in range(200)]
    problems: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(20):
                write_csv(tmp_path / "runs.csv", ("a", "b"), rows)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and [found.name for found in tmp_path.iterdir()] == ["runs.csv"]
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 201


def test_what_a_killed_write_left_is_removed_by_the_next_one_and_a_living_ones_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        kind: f"a.json.{whole.HOST}.{pid}.0123abcd.part" for kind, pid in (("dead", dead.pid), ("own", os.getpid()))
    }
    for name in names.values():
        (tmp_path / name).write_text("half")
    whole.write_whole(tmp_path / "a.json", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", names["own"]}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_write_that_fails_leaves_what_was_there_and_is_one_line(tmp_path, monkeypatch, number):
    (tmp_path / "table.md").write_text("before")

    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(UserError) as caught:
        whole.write_whole(tmp_path / "table.md", b"after")
    assert len(caught.value.problems) == 1 and str(tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    assert (tmp_path / "table.md").read_text() == "before"


def test_a_file_and_its_folder_are_on_the_disk_before_a_write_returns(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.readlink(f"/proc/self/fd/{file}")) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda part, path: done.append("moved") or replace(part, path))
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("there is no /proc here")
    whole.write_whole(tmp_path / "run.json", b"{}")
    assert done[0].endswith(".part") and done[1:] == ["moved", str(tmp_path)]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), whole.whole_folder(tmp_path / "new") as part:
        (part / "config.json").write_text("{}")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with whole.whole_folder(tmp_path / "new") as part:
        (part / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_second_process_on_a_run_gets_one_line_and_a_killed_one_holds_nothing(tmp_path):
    path = tmp_path / "pretrain" / "small-1"
    holder = start(HOLDER, path)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert whole.is_locked(path)
    with pytest.raises(UserError) as caught, whole.lock(path):
        pass
    assert str(caught.value) == (
        f"pretrain small-1: process {holder.pid} on {whole.HOST} is at it; wait until it ends, or end it"
    )
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert not whole.is_locked(path)
    with whole.lock(path):
        assert whole.is_locked(path)


def test_a_second_process_on_a_table_waits(tmp_path):
    holder = start(HOLDER.replace("sleep(60)", "sleep(1)"), tmp_path / "lock")
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    began = time.monotonic()
    with whole.lock(tmp_path / "lock", wait=True):
        assert time.monotonic() - began > 0.3
    assert holder.communicate()[1] == ""


def test_a_stage_that_another_process_is_at_is_refused_with_one_line(tmp_path, monkeypatch, capsys):
    from project import write_project

    monkeypatch.chdir(write_project(tmp_path))
    path = Path("results/runs/locks/fetch/notes")
    edited = Path("workflows/experiments/quickstart.yaml")
    edited.write_text(edited.read_text().replace("[world]", "[notes]"))
    with whole.lock(path):
        assert main(["fetch", "notes"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fetch notes: process {os.getpid()} on ") and error.count("\n") == 1
    assert main(["fetch", "notes"]) == 0


FULL = """
import resource, sys
from pathlib import Path
from cgpt.errors import UserError
from cgpt.files.csv_file import write_csv
from cgpt.files.whole import write_whole
from cgpt.data.shards import ShardWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # as a full disk, but for a name of its own
out = Path(sys.argv[1])

def shard():
    with ShardWriter(out / "train.bin", 300, "abc") as writer:
        writer.append([1] * 5000, 1, 1)

for write in (shard, lambda: write_whole(out / "table.md", bytes(5000)),
              lambda: write_csv(out / "runs.csv", ("a",), [{"a": "x" * 5000}])):
    try:
        write()
    except UserError as error:
        print(len(error.problems), str(error).startswith(str(out)))
"""


def test_where_there_is_no_room_shards_and_tables_are_absent_and_that_is_one_line(tmp_path):
    said, error = start(FULL, tmp_path / "out").communicate()
    assert (said, error) == ("1 True\n" * 3, "")
    assert not list((tmp_path / "out").iterdir())
