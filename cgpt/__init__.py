"""cgpt: declarative experiments and benchmarks for GPT scaling studies, on tinygrad."""

from pathlib import Path

__version__ = "0.1.0"

_PACKAGE = Path(__file__).resolve().parent
# Where the Snakefile, experiments, tasks and profiles are that come with cgpt: in a checkout, or in what is installed.
SHIPPED = _PACKAGE / "shipped" if (_PACKAGE / "shipped").is_dir() else _PACKAGE.parent
SNAKEFILE = str(SHIPPED / "Snakefile")  # the workflow, as a Snakemake module
