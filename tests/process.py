"""A Python process of its own, for what can be tried only once in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(code: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    paths = os.environ | {"PYTHONPATH": f"{HERE.parent}:{HERE}"} | environment
    return subprocess.run([sys.executable, "-c", code, *arguments], env=paths, cwd=cwd, capture_output=True, text=True)
