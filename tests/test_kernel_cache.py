"""Caches of compiled kernels: their owners, and when they are made anew; memory and threads of a process."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from process import run
from tinygrad import helpers

from cgpt import host
from cgpt.errors import UserError
from cgpt.kernels import backend, compiler
from cgpt.kernels.plain import renderer

RUNNABLE = host.runnable_levels()


# ---- caches ----


def test_tinygrads_cache_lies_below_ours_and_belongs_to_compiler_and_processor(fresh, unforced, monkeypatch):
    monkeypatch.setattr(helpers, "_db_connection", None)
    monkeypatch.setattr(helpers, "CACHEDB", "tinygrad's own")
    monkeypatch.delenv("CACHEDB", raising=False)

    def file() -> str:
        renderer.set_cache()
        return helpers.CACHEDB

    first = file()
    assert file() == first and Path(first).parent == fresh
    with monkeypatch.context() as changed:
        changed.setattr(compiler, "cpu_flags", lambda: "other flags")
        assert file() != first and Path(helpers.CACHEDB).parent == fresh
    if RUNNABLE:
        with monkeypatch.context() as changed:
            changed.setenv("CGPT_CPU", RUNNABLE[0])
            assert file() != first
    monkeypatch.setattr(helpers, "CACHEDB", "what a user named")
    monkeypatch.setenv("CACHEDB", "what a user named")
    assert file() == "what a user named"


def test_tinygrads_cache_lies_below_ours_also_where_tinygrad_is_imported_first(tmp_path):
    code = "from tinygrad import helpers; import tiny; tiny.operations('tinygrad'); print(helpers.CACHEDB)"
    assert Path(run(code, CGPT_CACHE=str(tmp_path)).stdout.strip()).parent == tmp_path


@pytest.mark.parametrize("how", ["cut", "emptied", "flipped", "no hash", "foreign hash"])
def test_a_damaged_kernel_library_is_compiled_anew(fresh, how, monkeypatch):
    compiled = []

    def compile_library(*arguments):
        compiled.append(arguments)
        return b"machine code"

    monkeypatch.setattr(compiler, "compile_library", compile_library)
    library = compiler.build_library()
    assert compiler.build_library() == library and len(compiled) == 1
    whole, beside = library.read_bytes(), library.with_suffix(".sha256")
    damage = {"cut": lambda: library.write_bytes(whole[:5]), "emptied": lambda: library.write_bytes(b""),
              "flipped": lambda: library.write_bytes(bytes([whole[0] ^ 1]) + whole[1:]),
              "no hash": beside.unlink, "foreign hash": lambda: beside.write_bytes(b"\xff\x00")}  # fmt: skip
    damage[how]()
    assert compiler.build_library() == library and library.read_bytes() == whole and len(compiled) == 2
    assert compiler.build_library() == library and len(compiled) == 2


@pytest.mark.parametrize("how", ["cut", "emptied", "flipped"])
def test_a_damaged_kernel_of_tinygrads_is_compiled_anew(fresh, how):
    made = renderer.Compiler()
    source = "void test(float* restrict a) { a[0] = 7.0f; }"
    code = made.compile_cached(source)
    (path,) = made.folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:40], "emptied": b"", "flipped": whole[:-1] + bytes([whole[-1] ^ 1])}[how])
    assert made.compile_cached(source) == code and path.read_bytes() == whole


def test_what_decides_the_machine_code_decides_where_it_is_kept(fresh, monkeypatch, unforced):
    folders = {renderer.Compiler().folder}
    zig = compiler.Compiler("zig", ("zig",), "another version")
    with monkeypatch.context() as changed:
        changed.setattr(compiler, "find_compiler", lambda: zig)
        folders.add(renderer.Compiler().folder)
    with monkeypatch.context() as changed:
        changed.setattr(compiler, "cpu_model", lambda: "another processor")
        folders.add(renderer.Compiler().folder)
    with monkeypatch.context() as changed:
        changed.setattr(compiler, "cpu_flags", lambda: "other flags")
        folders.add(renderer.Compiler().folder)
    if RUNNABLE:
        monkeypatch.setenv("CGPT_CPU", RUNNABLE[0])
        folders.add(renderer.Compiler().folder)
    assert len(folders) == 4 + bool(RUNNABLE) and all(folder.parent == fresh for folder in folders)


def test_two_environments_share_a_cache_without_writing_over_each_other(fresh, monkeypatch):
    """Nothing in it names where a compiler is."""
    monkeypatch.setattr(compiler, "compile_library", lambda *arguments: b"machine code")
    compiler.build_library()
    renderer.Compiler().compile_cached("void test(float* restrict a) { a[0] = 1.0f; }")
    names = {path.name for path in fresh.iterdir()}
    assert all(re.fullmatch(r"kernels-\w+\.(so|sha256)|tinygrad-\w+|zig", name) for name in names), names


def test_a_forced_level_is_part_of_what_compiled_a_run(monkeypatch, unforced):
    native_text = backend.describe_kernels(backend.CPU)
    if RUNNABLE:
        monkeypatch.setenv("CGPT_CPU", RUNNABLE[0])
        assert backend.describe_kernels(backend.CPU) != native_text
        assert f" for {RUNNABLE[0]}, OpenBLAS " in (backend.describe_kernels(backend.CPU) or "")


# ---- memory and threads ----

LENGTHS = """
import json, sys
import numpy as np, tiny
from cgpt.model.loglikelihood import score
from cgpt.spec import Model
def resident():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))
config = Model("m", n_layer=2, d_model=128, n_head=2, seq_len=256, vocab_size=4096)
model, sizes, bits = tiny.model(config=config), [], []
for length in (64, 32, 96, 128, 192, 256, 64):
    answers = score(model, [((np.arange(length + 1) * 7 + i) % 4096).astype(np.int32) for i in range(64)], [1] * 64)
    bits.append(sum(float(logprobs.sum(dtype=np.float64)) for logprobs, _ in answers))
    sizes.append(resident())
programs = model.captured._programs.values()
print(json.dumps([sizes, bits, max(p.arena_bytes for p in programs), sum(p.arena_bytes for p in programs)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read the memory from")
def test_memory_does_not_grow_with_every_new_length():
    done = run(LENGTHS)
    assert done.returncode == 0, done.stderr
    sizes, bits, largest, together = json.loads(done.stdout)
    assert together > 3 * largest  # what it would be without sharing
    assert sizes[-1] - sizes[0] < largest
    assert bits[0] == bits[-1]  # the arena has moved and was written by others meanwhile


def test_outputs_stay_as_they_are_when_another_length_is_computed():
    model = tiny.model(tiny.rough_parameters())
    short, long = (np.arange(n, dtype=np.int32)[None] for n in (4, 17))
    targets = [np.ones((1, n, 1), np.int32) for n in (4, 17)]
    kept = model.captured(model.token_logprobs, short, targets[0])[0]
    before = kept.copy()
    model.captured(model.token_logprobs, long, targets[1])
    np.testing.assert_array_equal(kept, before)


def test_a_number_of_threads_is_checked_also_where_it_is_asked_for_in_code():
    for threads in (0, -1, 10**9):
        with pytest.raises(UserError, match=f"threads: must be from 1 to 1024, not {threads}"):
            backend.prepare(backend.CPU, threads)


TOO_MANY = """
import resource, tiny
from cgpt.errors import UserError
from cgpt.kernels.native import blas, call
call.library(), blas.openblas()
size = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20), resource.RLIM_INFINITY))
try:
    call.start(1000)
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
tiny.THREADS = call.n_threads
print(1 < call.n_threads < 1000, tiny.model()(tiny.batch(0)[0]).numpy().shape)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read the memory from")
def test_where_fewer_threads_can_be_started_than_asked_for_one_line_says_so_and_those_compute():
    done = run(TOO_MANY)
    assert re.fullmatch(r"kernels: threads: 1000 threads could not be started; ask for \d+ or fewer\n"
                        r"True \(3, 13, 50\)\n", done.stdout), done.stderr  # fmt: skip
