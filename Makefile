# Each target sets up .venv first; `make reproduce CORES=8` uses eight cores.
CORES ?= 2
PYTHON ?= python3
INSTALLED := .venv/.installed
FOR_TESTS := .venv/.installed-dev
IN_VENV := . .venv/bin/activate &&
# With uv where there is one that finds the packages, else with pip; both show how far they are. Modules are compiled
# when they are first imported, which most never are; where Python is told to keep nothing, which would have it do so
# each time, all but the packages' own tests are compiled now, and what is written for a later Python stays as it is.
UV := $(shell uv --version 2>/dev/null)
WITH_UV := uv pip install --python .venv/bin/python
WITH_PIP := .venv/bin/pip install --no-compile
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),{ .venv/bin/python -m compileall -qq -j 0 -x /tests/ .venv/lib || true; },true)
install = { $(if $(UV),$(WITH_UV) $(1) ||) $(WITH_PIP) $(1); } && $(COMPILE)

.PHONY: setup reproduce test bench lint docs

setup: $(INSTALLED)

# Redone when pyproject.toml changes. tinygrad needs a clang; where there is none, the package ziglang brings one.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make setup: needs Python 3.11 or later; name one with PYTHON=...")'
	@echo "make setup: installing into .venv; this takes a minute or two"
	$(PYTHON) -m venv .venv
	$(call install,--editable . $$(command -v "$${CC:-clang}" >/dev/null || echo ziglang))
	@touch $@

$(FOR_TESTS): $(INSTALLED)
	$(call install,--editable '.[dev]')
	@touch $@

reproduce: setup
	$(IN_VENV) snakemake --cores $(CORES)
	$(IN_VENV) snakemake --report results/quickstart/provenance.html
	@cat results/quickstart/table.md
	@echo "The report: results/quickstart/report.html; how each file was made: results/quickstart/provenance.html"

test: $(FOR_TESTS)
	$(IN_VENV) pytest -m "not slow" -n $(CORES) --dist loadfile

# Against PyTorch and the others, with all cores; leave the machine alone meanwhile. `make bench LEVELS="native x86-64-v3"`
# does all a second time with every program held to an older level, as a column of its own.
LEVELS ?= $(or $(CGPT_CPU),native)
bench: setup
	$(call install,--editable '.[peer]')
	$(IN_VENV) snakemake --cores all $(LEVELS:%=results/bench/%/table.md)
	@$(IN_VENV) python workflows/bench/processors.py $(LEVELS:%=results/bench/%/table.csv)

lint: $(FOR_TESTS)
	$(IN_VENV) ruff check && ruff format --check
	$(IN_VENV) mypy
	$(IN_VENV) snakefmt --check Snakefile workflows/rules
	@# All that it finds, but that no rule names a conda environment or container: jobs run in Snakemake's own environment.
	$(IN_VENV) ! snakemake --lint 2>&1 | grep -E '^    \* |Error' | grep -v 'Specify a conda environment or container'

# The documentation as a site that needs no network; a link that leads nowhere stops it.
docs: setup
	$(call install,--editable '.[docs]')
	$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "The documentation: site/index.html"
