# make demo   upscale a scan and look at it        (SCAN=path for a scan of your own)
# make test   lint, types and the whole test suite
# make quick  the tests of single modules, in under two minutes
# make lint   ruff and mypy alone
# make fuzz   damaged and hostile files against every reader   (CASES=20000 SEED=1)
# make pages  the figures of the documentation, from the results in docs/benchmarks
# make docs   the documentation as a web site, in site/
# make clean  remove what these made, the environment included
#
# Each target makes the environment it needs in .venv, once: the stamps in .venv/.stamps say what
# is installed, and a change of pyproject.toml or constraints.txt makes them stale.

PYTHON ?= python3
VENV ?= .venv
SCAN ?=

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# Test workers share the cores: one thread each.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1
WORKERS ?= 2
# Cases for each target of make fuzz; another seed each day.
CASES ?= 5000
SEED ?= $(shell date +%Y%m%d)

.PHONY: demo test quick lint fuzz pages docs clean

demo: $(STAMPS)/demo
	@$(BIN)/python -m medsr.demo $(if $(SCAN),"$(SCAN)")

test: $(STAMPS)/dev lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

quick: $(STAMPS)/dev
	$(ONE_THREAD) $(BIN)/python -m pytest tests/unit -m "not slow" -n $(WORKERS) --dist worksteal

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy medsr

fuzz: $(STAMPS)/dev
	MEDSR_FUZZ_CASES=$(CASES) MEDSR_FUZZ_SEED=$(SEED) $(ONE_THREAD) $(BIN)/python -m pytest tests/fuzz \
		-n $(WORKERS) --dist worksteal

pages: $(STAMPS)/dev
	$(BIN)/python tools/pages.py

docs: $(STAMPS)/docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site demo build dist medsr.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMPS)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "medsr needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making the environment $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/demo: pyproject.toml constraints.txt | $(STAMPS)/python
	@echo "Installing medsr for the demo (the first time takes some minutes: PyTorch is large)"
	@$(PIP) -e '.[demo,dicom]'
	@touch $@

$(STAMPS)/dev: pyproject.toml constraints.txt | $(STAMPS)/python
	@echo "Installing medsr with every extra (the first time takes some minutes: PyTorch is large)"
	@$(PIP) -e '.[all,dev]'
	@touch $@

$(STAMPS)/docs: pyproject.toml constraints.txt | $(STAMPS)/python
	@$(PIP) -e '.[docs]'
	@touch $@
