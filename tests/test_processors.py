"""Every processor from 2013 on: levels, what is compiled for them, and caches that belong to one of them."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny
from process import run
from tinygrad import Device, Tensor, dtypes

from cgpt import host
from cgpt.__main__ import main
from cgpt.commands import doctor
from cgpt.errors import UserError
from cgpt.kernels import compiler
from cgpt.kernels.native import blas, engine
from cgpt.kernels.plain import renderer

HERE = Path(__file__).parent
RUNNABLE = host.runnable_levels()
X86_ALONE = pytest.mark.skipif(not RUNNABLE, reason="this processor has no level of x86-64")
AVX = re.compile(r"\b[yz]mm\d|\bv[a-z0-9]+\s+%?xmm")


def disassembled(path: Path) -> str:
    tool = shutil.which("objdump") or shutil.which("llvm-objdump")
    if not tool:
        pytest.skip("there is no objdump to look into machine code with")
    return subprocess.run([tool, "-d", str(path)], capture_output=True, text=True, check=True).stdout


def of_flags(monkeypatch, *flags: str, machine: str = "x86_64") -> None:
    """A processor of another kind."""
    monkeypatch.setattr(host, "cpu_flags", lambda: " ".join(flags))
    monkeypatch.setattr(host.platform, "machine", lambda: machine)


# ---- levels ----


def test_a_processor_has_the_levels_whose_instructions_it_has_all_of(monkeypatch):
    second, third, fourth = host.LEVELS.values()
    cases = (
        (set(), ()), (second - {"popcnt"}, ()), (second, ("x86-64-v2",)), (second | fourth, ("x86-64-v2",)),
        (second | third | fourth - {"avx512dq"}, ("x86-64-v2", "x86-64-v3")),
        (second | third | fourth, tuple(host.LEVELS)),
    )  # fmt: skip
    for flags, levels in cases:
        of_flags(monkeypatch, "fpu", *flags)
        assert host.runnable_levels() == levels
        assert host.machine_level() == (levels[-1] if levels else "x86-64")


@pytest.mark.parametrize("asked", ["x86-64-v4", "x86-64-v3", "x86-64-v9", "AVX2"])
def test_a_level_that_cannot_run_here_is_refused_in_one_line(monkeypatch, asked):
    of_flags(monkeypatch, *host.LEVELS["x86-64-v2"])
    monkeypatch.setenv("CGPT_CPU", asked)
    with pytest.raises(UserError, match=rf"CGPT_CPU: .*'{asked}'; write one of native, x86-64-v2$"):
        host.level()


def test_what_is_compiled_for_names_this_processor_in_the_compilers_own_words(monkeypatch):
    clang, zig = (compiler.Compiler(name, (name,), "") for name in ("clang", "zig"))
    of_flags(monkeypatch)
    assert clang.processor_arguments("native") == ["-march=native"]
    assert clang.processor_arguments("x86-64-v3") == ["-march=x86-64-v3"]
    assert zig.processor_arguments("x86-64-v3") == ["-mcpu=x86_64_v3"]
    for machine in ("aarch64", "arm64"):  # Linux and macOS
        of_flags(monkeypatch, machine=machine)
        assert [each.processor_arguments("native") for each in (clang, zig)] == [["-mcpu=native"]] * 2
        assert zig.object_arguments() == ["-target", "aarch64-linux-gnu"]
        assert clang.object_arguments() == ["--target=aarch64-none-unknown-elf"]


def test_an_unknown_processor_has_a_name_and_flags_and_nothing_forced(monkeypatch, fresh, unforced):
    monkeypatch.setattr(host, "cpu_info", lambda: {})
    monkeypatch.setattr(host.platform, "machine", lambda: "riscv64")
    assert host.cpu_model() and host.cpu_flags() == host.machine_level() == "riscv64"
    assert host.runnable_levels() == () and host.level() == "native" and blas._core() is None
    assert compiler.find_compiler().processor_arguments("native") == []


def test_an_arm_processor_is_known_by_its_numbers_and_features(monkeypatch, fresh, unforced):
    info = {"Features": "fp asimd sve", "CPU implementer": "0x41", "CPU part": "0xd40"}
    monkeypatch.setattr(host, "cpu_info", lambda: info)
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    assert "(0x41/0xd40)" in host.cpu_model() and host.cpu_flags() == "fp asimd sve"
    assert blas._core() is None


def test_cores_are_those_of_the_affinity_and_at_most_the_quotas_of_all_groups_around(monkeypatch, tmp_path):
    monkeypatch.setattr(host.os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(host, "CGROUPS", tmp_path)
    entries = Path("/proc/self/cgroup")
    (tmp_path / "outer/inner").mkdir(parents=True)
    read = Path.read_text
    text = "0::/outer/inner\n"
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: text if path == entries else read(path, *a, **k))
    assert host.granted_cores() == 8
    for file, content, cores in (("cpu.max", "max 100000", 8), ("outer/inner/cpu.max", "650000 100000", 6),
                                 ("outer/cpu.max", "250000 100000", 2), ("cpu.max", "50000 100000", 1)):  # fmt: skip
        (tmp_path / file).write_text(content)
        assert host.granted_cores() == cores
    text = "4:memory:/outer\n3:cpu,cpuacct:/outer\n"
    (tmp_path / "cpu/outer").mkdir(parents=True)
    (tmp_path / "cpu/outer/cpu.cfs_period_us").write_text("100000")
    for quota, cores in (("-1", 8), ("300000", 3)):
        (tmp_path / "cpu/outer/cpu.cfs_quota_us").write_text(quota)
        assert host.granted_cores() == cores


def test_doctor_names_levels_compiler_openblas_and_cores(monkeypatch):
    report = doctor.examine()
    assert report["cpu_level"] == host.machine_level() and report["cores"] == host.granted_cores()
    assert report["cpu_level_in_use"] == host.level_in_use() and report["openblas"] == blas.blas_core()
    assert report["products"] == engine.engine() and report["packed_speed_up"] == engine.speed_up()
    assert report["compiler"]["version"] == compiler.find_compiler().version
    lines = doctor.as_text(report).splitlines()
    assert any(line.startswith("level") and host.machine_level() in line for line in lines)
    assert any(f"{host.granted_cores()} cores granted" in line for line in lines)
    monkeypatch.setenv("CGPT_CPU", "x86-64-v9")
    problem = "environment: CGPT_CPU: there is no 'x86-64-v9'"
    assert any(line.startswith(problem) for line in doctor.examine()["problems"])


def test_doctor_ends_in_lines_where_an_engine_is_named_and_nothing_can_be_compiled(monkeypatch):
    def refuse() -> float:
        raise UserError("hardware profile: kernels: no C compiler was found")

    monkeypatch.setattr(doctor, "speed_up", refuse)
    monkeypatch.setenv("CGPT_BLAS", "openblas")
    assert "products   none" in doctor.as_text(doctor.examine()).splitlines()


@pytest.mark.parametrize("threads", ["-1", "0", "1000000000"])
@pytest.mark.parametrize("verb", [
    ["generate", "--checkpoint", "nowhere", "--prompt", "a"], ["coordinate-check"], ["bench", "pretrain"],
    *([stage, "a"] for stage in ("fetch", "tokenize", "pretrain", "finetune", "meter", "baseline", "evaluate")),
], ids=lambda verb: verb[0])  # fmt: skip
def test_numbers_of_threads_that_no_machine_has_are_refused_by_every_verb(monkeypatch, capsys, verb, threads):
    monkeypatch.chdir(HERE.parent)
    assert main([*verb, "--threads", threads]) == 1
    assert re.fullmatch(rf".*threads: must be .*not '?{threads}'?; .*\n", capsys.readouterr().err)


def test_a_core_of_openblas_that_cannot_run_here_or_does_not_exist_is_refused():
    of_no_processor = (
        "import sys; from cgpt import host; from cgpt.kernels.native import blas; host.cpu_flags = lambda: 'sse2'; "
    )
    done = run(of_no_processor + "blas.blas_core()", CGPT_BLAS_CORE="SkylakeX", CGPT_CPU="")
    assert "CGPT_BLAS_CORE: kernels for 'SkylakeX' need avx512vl, which this processor has not" in done.stderr
    done = run("from cgpt.kernels.native import blas; blas.blas_core()", CGPT_BLAS_CORE="Pentium9", CGPT_CPU="")
    assert "CGPT_BLAS_CORE: OpenBLAS has no kernels for 'Pentium9' here" in done.stderr


# ---- what is compiled ----


@functools.cache
def needs_zig() -> str:
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        pytest.skip("zig, which compiles for other machines, is not installed")
    return str(Path(package.origin).parent / "zig")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [
    ["-target", "x86_64-linux-gnu", "-mcpu=x86_64_v2"], ["-target", "x86_64-linux-gnu", "-mcpu=x86_64_v3"],
    ["-target", "x86_64-linux-gnu", "-mcpu=x86_64_v4"], ["-target", "x86_64-linux-gnu", "-mcpu=znver4"],
    ["-target", "x86_64-linux-gnu", "-mcpu=sapphirerapids"], ["-target", "aarch64-linux-gnu"],
    ["-target", "aarch64-macos"],
], ids=lambda arguments: arguments[-1])  # fmt: skip
def test_the_kernels_compile_for_every_processor_without_a_warning(monkeypatch, tmp_path, arguments):
    source, out = HERE.parent / "cgpt/kernels/native/c/gpt.c", tmp_path / "kernels.so"
    zig = compiler.Compiler("zig", (needs_zig(), "cc"), "")
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")  # what is left out is 0 on purpose
    zig.run(*compiler.FLAGS, *warnings, *arguments, "-o", str(out), str(source), "-lm", "-lpthread")
    if arguments[-1] == "-mcpu=x86_64_v2":
        assert not AVX.search(disassembled(out))
    if arguments[-1] == "-mcpu=x86_64_v3":
        text = disassembled(out)
        assert re.search(r"\bymm\d", text) and not re.search(r"\bzmm\d", text)


BOTH_KINDS = """
import tiny
from process import run
from tinygrad import Device
from cgpt.kernels import compiler
from cgpt.training.trainer import AdamW, Trainer
for kind in ("native", "tinygrad"):
    trainer = Trainer(tiny.model(config=tiny.ONE_LAYER, kind=kind), AdamW())
    print(trainer.step([tiny.batch(0)], 0.01)[0])
clang = Device["CPU"].renderer.compiler
print(compiler.build_library(), clang.folder, *clang.args)
"""


@pytest.mark.slow
@X86_ALONE
def test_a_cache_that_a_newer_processor_filled_is_not_run_by_an_older_one(tmp_path):
    runs = [run(BOTH_KINDS, CGPT_CACHE=str(tmp_path), CGPT_CPU=level) for level in ("native", "x86-64-v2", "native")]
    assert [done.returncode for done in runs] == [0, 0, 0], runs[1].stderr
    lines = [done.stdout.splitlines() for done in runs]
    losses = np.array([[float(loss) for loss in of_run[:2]] for of_run in lines])
    np.testing.assert_allclose(losses, losses[0, 0], rtol=1e-5)
    newer, older, newer_again = (of_run[2].split() for of_run in lines)
    assert newer == newer_again and newer[0] != older[0] and newer[1] != older[1]
    assert {"-march=x86-64-v2", "-mcpu=x86_64_v2"} & set(older)
    assert not AVX.search(disassembled(Path(older[0])))


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest number of bfloat16, as float32."""
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)


def test_numbers_of_bfloat16_are_rounded_and_chosen_from_as_by_numpy():
    tiny.operations("tinygrad")
    values = np.array(
        [0.0, -0.0, 1.0, -2.5, 3.4e38, 1e-40, np.inf, -np.inf, np.nan, 1 + 2**-8, 1 + 3 * 2**-8], np.float32
    )
    x = Tensor(values, device="CPU").cast(dtypes.bfloat16).realize()
    rounded = to_bfloat16(values)
    np.testing.assert_array_equal(x.float().numpy(), rounded)
    selected = (x.float() > 0).where(x, Tensor.full((11,), -0.375, dtype=dtypes.bfloat16, device="CPU"))
    wanted = np.where(rounded > 0, rounded, np.float32(-0.375))
    np.testing.assert_array_equal(selected.float().numpy(), wanted)


@pytest.mark.parametrize("constant", [0.5, -3.0, 3.14159, float("inf"), float("-inf"), float("nan")])
def test_a_constant_in_bfloat16_is_the_nearest_one(constant):
    tiny.operations("tinygrad")
    made = Tensor.full((4,), constant, dtype=dtypes.bfloat16, device="CPU").contiguous().realize()
    np.testing.assert_array_equal(made.float().numpy(), to_bfloat16(np.full(4, constant, np.float32)))


def test_every_cpu_device_takes_our_renderer_also_one_that_was_open_before():
    tiny.operations("native")
    for name in ("CPU", "CPU:1"):
        assert isinstance(Device[name].renderer, renderer.ClangJITRenderer)
        assert Device[name].renderer.type_map[dtypes.bfloat16] == "unsigned short"


def test_what_the_compiler_refuses_is_said_in_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"compiler: .*: could not build the kernels \(.*error: .*\); try `cgpt doctor`$"
    ):
        renderer.Compiler().compile_cached("void test(float* restrict a) { b[0] = 1.0f; }")
    (tmp_path / "wrong.c").write_text("int f(void) { return 1 }")
    with pytest.raises(UserError, match=r"could not build the kernels \(.*error: .*\)"):
        compiler.compile_library(tmp_path / "wrong.c", [])
