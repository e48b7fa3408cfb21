# Each target sets up .venv first; `make reproduce CORES=8` uses eight cores.
CORES ?= 2
PYTHON ?= python3
INSTALLED := .venv/.installed
FOR_TESTS := .venv/.installed-dev
IN_VENV := . .venv/bin/activate &&
# With uv where there is one that finds the packages, else with pip; both show how far they are. Modules are compiled
# when they are first imported, which most never are.
UV := $(shell uv --version 2>/dev/null)
install = $(if $(UV),uv pip install --python .venv/bin/python $(1) ||) .venv/bin/pip install --no-compile $(1)

.PHONY: setup reproduce test bench lint

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
	$(IN_VENV) snakemake --report results/quickstart/report.html
	@cat results/quickstart/table.md
	@echo "The report with the figures: results/quickstart/report.html"

test: $(FOR_TESTS)
	$(IN_VENV) pytest -m "not slow" -n $(CORES) --dist loadfile

# Against PyTorch and the others, with all cores; leave the machine alone meanwhile.
bench: setup
	$(call install,--editable '.[peer]')
	$(IN_VENV) snakemake --cores all results/bench/table.md
	@cat results/bench/table.md

lint: $(FOR_TESTS)
	$(IN_VENV) ruff check && ruff format --check
	$(IN_VENV) mypy
	$(IN_VENV) snakefmt --check Snakefile workflows/rules
	$(IN_VENV) snakemake --lint
