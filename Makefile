# Everything runs from .venv, which is built from requirements.lock once and
# again only when the lock or pyproject.toml changes. The tests and the linters
# also need requirements-dev.lock, the documentation requirements-docs.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo benchmark test test-slow test-short test-newest lint docs lock clean

# An eighth of the steps of `quick`, at half the rate.
demo: $(VENV)/installed
	$(BIN)/python -m experiments.train \
	  --config=configs/single_parent.py:chain --workdir=runs/demo \
	  --config.train.steps=2048 --config.train.learning_rate=0.05

# What the README shows of the demo.
docs/demo/result.json: runs/demo/result.json
	mkdir -p docs/demo
	cp runs/demo/result.json runs/demo/figures/attention.png docs/demo

# Half an hour on two cores, with nothing beside it.
benchmark: $(VENV)/installed
	$(BIN)/python -m experiments.benchmark --workdir=runs/benchmark

docs/benchmark/result.json: runs/benchmark/result.json
	mkdir -p docs/benchmark
	cp runs/benchmark/result.json runs/benchmark/table.txt \
	  runs/benchmark/figures/sizes.png docs/benchmark

# The standard transformer from 16 seeds, about a quarter of an hour for a graph:
# make results/standard_seeds/chain.csv
results/standard_seeds/%.csv: $(VENV)/installed
	$(BIN)/python -m experiments.sweep \
	  --config=configs/standard_seeds.py:$* --workdir=runs/standard_seeds_$*
	mkdir -p results/standard_seeds
	cp runs/standard_seeds_$*/table.csv $@

# The same seeds, each alone.
SEEDS = $$($(BIN)/python -c \
  'from configs.standard_seeds import SEEDS; print(*SEEDS)')
results/standard_seeds/%_alone.jsonl: $(VENV)/installed
	mkdir -p results/standard_seeds
	for seed in $(SEEDS); do \
	  $(BIN)/python -m experiments.train --config=configs/standard.py:$* \
	    --config.seed=$$seed --config.train.eval_every=512 \
	    --config.eval.posterior_prompts=0 \
	    --workdir=runs/standard_alone/$*-$$seed || exit 1; \
	done
	for seed in $(SEEDS); do \
	  tr -d '\n' < runs/standard_alone/$*-$$seed/result.json \
	    | sed "s/^{/{\"seed\": $$seed,/"; \
	  echo; \
	done > $@

PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# The library, the loop and the tables.
test: $(VENV)/developed
	$(PYTEST) -m "not slow"

# The commands as users run them, whole trainings, the theory checks at small
# sizes, and the pages in a browser.
test-slow: $(VENV)/developed
	$(PYTEST) -m slow

# Imports all modules and tests each part of the code, in about a minute.
SHORT = architecture export graphs package sampling symmetry \
  analysis/recovery benchmark/tables config/fields harness/signals \
  plotting/matrices report/page runs/checkpoints runs/environment runs/files \
  sweep/summary
test-short: $(VENV)/developed
	$(PYTEST) \
	  $(SHORT:%=tests/%_test.py) \
	  'tests/harness/smoke_test.py::test_a_command_of_the_readme_runs_whole[train]'

# The short tests under the newest installed Python, for which the lock may have
# newer releases of jax. NEWEST=.. names another Python.
NEWEST = $(shell $(PYTHON) tests/support/newest_python.py)
test-newest:
	@newest="$(NEWEST)"; if [ -z "$$newest" ]; then \
	  echo "not tested: no Python newer than 3.11 is on PATH or in pyenv"; \
	else \
	  $(MAKE) test-short PYTHON="$$newest" VENV=.venv-newest; \
	fi

lint: $(VENV)/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Executes the pages and writes docs/_build/html; a warning is an error.
docs: $(VENV)/documented
	rm -rf docs/_build
	$(BIN)/python -m sphinx -W --keep-going -q -j auto docs docs/_build/html
	@echo docs/_build/html/index.html

# Verifies every download against the hashes of the lock.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or \
	  sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %d.%d; name \
	another one: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/developed: $(VENV)/installed requirements-dev.lock
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/documented: $(VENV)/installed requirements-docs.lock
	$(INSTALL) --require-hashes -r requirements-docs.lock
	@touch $@

# Resolves the newest versions for every supported Python; needs uv.
# Of one requirement of the documentation, there are only pre-releases.
LOCK = uv pip compile --quiet --universal --python-version 3.11 --upgrade \
  --prerelease if-necessary --generate-hashes --no-header --no-annotate

lock:
	$(LOCK) --extra build --output-file requirements.lock pyproject.toml
	$(LOCK) --extra build --extra dev --constraints requirements.lock \
	  --output-file requirements-dev.lock pyproject.toml
	$(LOCK) --extra build --extra docs --constraints requirements.lock \
	  --output-file requirements-docs.lock pyproject.toml

clean:
	rm -rf .venv .venv-newest .pytest_cache .ruff_cache build dist docs/_build
	find . -name __pycache__ -prune -exec rm -rf {} +
