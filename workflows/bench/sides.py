"""The programs that a comparison runs, ours and the peers, and the machine that they run on."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from columns import PROVENANCE

from cgpt import provenance
from cgpt.host import granted_cores, level

PEER_PACKAGES = ("torch", "transformers", "ctranslate2", "tokenizers")
# What holds the peers' libraries to a level, as CGPT_CPU holds ours: PyTorch, its oneDNN and MKL, and CTranslate2.
HELD = {
    "native": {},
    "x86-64-v2": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
                  "CT2_FORCE_CPU_ISA": "GENERIC"},
    "x86-64-v3": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
                  "CT2_FORCE_CPU_ISA": "AVX2"},
    "x86-64-v4": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
                  "MKL_ENABLE_INSTRUCTIONS": "AVX512", "CT2_FORCE_CPU_ISA": "AVX512"},
}  # fmt: skip
OURS, OURS_INT8 = OUR_SIDES = ("cgpt", "cgpt int8")


def ours(benchmark: str, *arguments: object) -> list[str]:
    """The command of our side."""
    return [sys.executable, "-m", "cgpt", "bench", benchmark, "--json", *map(str, arguments)]


def peer(program: str, *arguments: object) -> list[str]:
    """The command of a peer, which is one file of this folder."""
    return [sys.executable, str(Path(__file__).with_name(f"peer_{program}.py")), *map(str, arguments)]


class Side:
    """A program that does a burst of steps when it is asked, started by the first question; `name` is for the table."""

    def __init__(self, name: str, command: Sequence[str]):
        self.name, self.command = name, command
        self._process: subprocess.Popen[str] | None = None

    def burst(self) -> float:
        """Tokens per second of one burst; before the first one the program is started and warmed up."""
        done = self._ask("run")
        return done["tokens"] / done["seconds"]

    def end(self) -> dict[str, Any]:
        """The program's record at its end."""
        record = self._ask("end")
        assert self._process
        self._process.wait()
        return record

    def stop(self) -> None:
        """End the program, if it still runs."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def _ask(self, word: str) -> dict[str, Any]:
        if not self._process:
            pipe = subprocess.PIPE
            held = os.environ | HELD[level()]
            self._process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True, env=held)
        assert self._process.stdin and self._process.stdout
        try:
            print(word, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # it has ended; the empty answer below says so
        if line := self._process.stdout.readline():
            return json.loads(line)
        sys.exit(f"{self.name}: ended with exit code {self._process.wait()}; its message is above")


def run_alone(command: Sequence[str], **environment: str) -> dict[str, Any]:
    """The record of a program that is run to its end, with more in its environment."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | HELD[level()] | environment,
                          check=False)  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(command)}: ended with exit code {done.returncode}; its message is above")
    return json.loads(done.stdout)


def made_by() -> dict[str, Any]:
    """The columns PROVENANCE."""
    record = provenance.record("bench.benchmarks") | {"level": level(), "n_cores": granted_cores()}
    record["versions"] |= {name: provenance.installed_version(name) for name in PEER_PACKAGES}
    return {key: record[key] for key in PROVENANCE}


class Elsewhere:
    """Share of the machine that went to others since this was made: other processes, and other guests of its host.

    Where that is much, no ratio can be trusted: programs whose threads wait for each other suffer more than others.
    """

    def __init__(self) -> None:
        self._since_s, self._all_s, self._ours_s = time.monotonic(), _all_cpu_s(), _our_cpu_s()

    def share(self) -> float | None:
        """Of all cores' time, after the programs that were started have ended; None where there is no /proc."""
        if self._all_s is None or (all_s := _all_cpu_s()) is None:
            return None
        others_s = all_s - self._all_s - (_our_cpu_s() - self._ours_s)
        return max(0.0, others_s / (time.monotonic() - self._since_s) / (os.cpu_count() or 1))


def _all_cpu_s() -> float | None:
    """Seconds that all cores worked, for whomever (/proc/stat; idle and waiting left out, stolen included)."""
    try:
        user, nice, system, _, _, irq, softirq, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return None
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def _our_cpu_s() -> float:
    """Seconds that this process and its ended children worked."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)
