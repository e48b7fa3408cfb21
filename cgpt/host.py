"""This machine: its processor, the instructions that compiled code may use on it, cores, memory and processes.

Code is compiled, and OpenBLAS's kernels are taken, for this processor or for an older one (`CPU`).
"""

import itertools
import os
import platform
import resource
import subprocess
import time
from functools import cache
from numbers import Integral
from pathlib import Path

from cgpt.errors import UserError

CPU = "CGPT_CPU"
"""The level that code is compiled and OpenBLAS's kernels are taken for: native (this processor, the default), or an
older one: x86-64-v2, x86-64-v3 or x86-64-v4 of the x86-64 psABI."""
BASELINE = "x86-64"
# What each level adds to the one before, in the words of /proc/cpuinfo (x86-64 psABI 1.0, table 3.1).
LEVELS = {
    "x86-64-v2": {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"},
    "x86-64-v3": {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    "x86-64-v4": {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
}
X86, ARM = "x86_64", "aarch64"
CGROUPS = Path("/sys/fs/cgroup")
MAX_THREADS = 1024


def machine() -> str:
    """The architecture, by one name on all systems: x86_64, aarch64 ..."""
    name = platform.machine().lower()
    return {"amd64": X86, "arm64": ARM}.get(name, name)


def is_macos() -> bool:
    """Whether the system is macOS."""
    return platform.system() == "Darwin"


@cache
def cpu_info() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.strip().split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


@cache
def cpu_model() -> str:
    """The CPU's name, e.g. `AMD EPYC`, with the numbers of its model where the name alone says little."""
    info = cpu_info()
    name = info.get("model name") or _darwin_name() or platform.processor() or platform.machine()
    keys = ("cpu family", "model", "CPU implementer", "CPU variant", "CPU part")
    numbers = [info[key] for key in keys if key in info]
    return f"{name} ({'/'.join(numbers)})" if numbers else name


def _darwin_name() -> str | None:
    if not is_macos():
        return None
    try:
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:
        return None


def cpu_flags() -> str:
    """The instruction-set flags that decide what `-march=native` means; the architecture where none are known."""
    info = cpu_info()
    return info.get("flags") or info.get("Features") or machine()


def runnable_levels() -> tuple[str, ...]:
    """The levels that this processor has, from low to high; none where it is no x86-64 or does not say."""
    flags = set(cpu_flags().split())
    return tuple(itertools.takewhile(lambda level: LEVELS[level] <= flags, LEVELS))


def machine_level() -> str:
    """The highest level that this processor has; its architecture where that is no x86-64."""
    if machine() != X86:
        return machine()
    return (BASELINE, *runnable_levels())[-1]


def level() -> str:
    """The level to compile for: `native`, or that of CGPT_CPU. Raises UserError where that cannot run here."""
    named = os.environ.get(CPU) or "native"
    runnable = ("native", *runnable_levels())
    if named in runnable:
        return named
    if named in LEVELS:
        raise UserError(f"environment: {CPU}: this processor is of {machine_level()} and cannot run '{named}'; "
                        f"write one of {', '.join(runnable)}")  # fmt: skip
    raise UserError(f"environment: {CPU}: there is no '{named}'; write one of {', '.join(runnable)}")


def level_in_use() -> str:
    """The level whose instructions compiled code may hold: this machine's, or the one that is forced."""
    return machine_level() if level() == "native" else level()


def granted_cores() -> int:
    """Cores that this process may use at once: its affinity, at most the whole ones of its control groups' quotas."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        cores = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas())]))


def _quotas() -> list[float]:
    """Limits, in cores, that this process's control group and those around it set."""
    limits = [_quota(*_words(folder / "cpu.max")) for folder in _group_folders("")]
    for folder in _group_folders("cpu"):
        limits.append(_quota(*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")))
    return [limit for limit in limits if limit is not None]


def _group_folders(controller: str) -> list[Path]:
    """Folders of this process's control group and of those around it: of a controller of version 1, or of version 2,
    whose controllers have no name here."""
    try:
        entries = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    return [
        folder
        for _, controllers, group in (entry.split(":", 2) for entry in entries)
        if controller in controllers.split(",")
        for folder in _folders(CGROUPS / controller, group)
    ]


def _folders(root: Path, group: str) -> list[Path]:
    """Folders of a group and of all around it. In a container only the root may be there."""
    inside = root.joinpath(*(part for part in group.split("/") if part not in ("", "..")))
    return [folder for folder in (inside, *inside.parents) if folder.is_relative_to(root)]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _quota(*words: str) -> float | None:
    """Cores from `<microseconds> <period>`; None where there is no limit (`max`, -1) or nothing to read."""
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def check_threads(threads: int) -> int:
    """The number itself. Raises UserError for what is no whole number, and where no run can have so many threads."""
    if not isinstance(threads, Integral) or isinstance(threads, bool):
        raise UserError(f"threads: must be a whole number, not {threads!r:.60}; write e.g. 2")
    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"threads: must be from 1 to {MAX_THREADS}, not {threads}; write e.g. 2")
    return int(threads)


def memory_bytes() -> int | None:
    """Memory that this process may use: the machine's, at most what its control groups allow; None where the system
    does not say."""
    try:
        machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    files = [folder / "memory.max" for folder in _group_folders("")]
    files += [folder / "memory.limit_in_bytes" for folder in _group_folders("memory")]
    limits = [int(word) for path in files for word in _words(path) if word.isdecimal()]  # `max`: no limit
    return min([machine_bytes, *limits])


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    try:  # where there is a /proc: ru_maxrss is never below what the process that started this one then had
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if is_macos() else peak * 1024


def address_space_bytes() -> int | None:
    """Address space that this process takes, resident or not; None where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:  # read once for each text that a template makes
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs, whosever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def process_age_s() -> float | None:
    """Seconds since this process was started, to a clock tick (10 ms); None where there is no /proc.

    /proc/self/stat has the start in ticks since boot as its 22nd field; the second, in parentheses, may hold blanks.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
