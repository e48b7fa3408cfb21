# Each target sets up .venv first; `make reproduce CORES=8` uses eight cores.
CORES ?= 2
PYTHON ?= python3
INSTALLED := .venv/.installed
IN_VENV := . .venv/bin/activate &&

.PHONY: setup reproduce test bench lint docs

setup: $(INSTALLED)

# Redone when pyproject.toml changes. tinygrad needs a clang; where there is none, the package ziglang brings one.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make setup: needs Python 3.11 or later; name one with PYTHON=...")'
	@echo "make setup: installing into .venv; this takes a minute or two"
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -qq --editable '.[dev]' $$(command -v "$${CC:-clang}" >/dev/null || echo ziglang)
	@touch $@

reproduce: setup
	$(IN_VENV) snakemake --cores $(CORES)
	$(IN_VENV) snakemake --report results/quickstart/provenance.html
	@cat results/quickstart/table.md
	@echo "The report: results/quickstart/report.html; how each file was made: results/quickstart/provenance.html"

test: setup
	$(IN_VENV) pytest -m "not slow" -n $(CORES) --dist loadfile

# Against PyTorch and the others, with all cores; leave the machine alone meanwhile.
bench: setup
	.venv/bin/pip install -qq --editable '.[peer]'
	$(IN_VENV) snakemake --cores all results/bench/table.md
	@cat results/bench/table.md

lint: setup
	$(IN_VENV) ruff check && ruff format --check
	$(IN_VENV) mypy
	$(IN_VENV) snakefmt --check Snakefile workflows/rules
	@# All that it finds, but that no rule names a conda environment or container: jobs run in Snakemake's own environment.
	$(IN_VENV) ! snakemake --lint 2>&1 | grep -E '^    \* |Error' | grep -v 'Specify a conda environment or container'

# The documentation as a site that needs no network; a link that leads nowhere stops it.
docs: setup
	.venv/bin/pip install -qq --editable '.[docs]'
	$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "The documentation: site/index.html"
