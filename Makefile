# SIGMA: every target sets up .venv by itself when it is missing or older than its pins.
#
#   make demo    the whole pipeline on a real year of retail data, with recommendations at the end
#   make test    the tests          make check   format, lint, types          make ui   the same artifacts in Dagster
#
#   make demo PYTHON=python3.12     another interpreter (3.11 or 3.12)
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"    CPU-only torch

PYTHON    ?= python3
VENV      ?= .venv
PIP_FLAGS ?=
ARGS      ?=
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.sigma-installed
TORCH     := $(shell grep -E '^torch==' requirements.lock)
PIP       := $(BIN)/python -m pip --disable-pip-version-check install -q $(PIP_FLAGS)

export DAGSTER_DISABLE_TELEMETRY ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test check ui playground install clean

help: ## what can be made
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(STAMP) ## run the pipeline as of 2017-10-23, evaluate it, show recommendations (into var/)
	$(BIN)/sigma demo $(ARGS)

test: $(STAMP) ## run the tests, a file a worker (ARGS="-k contracts" for some of them)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(STAMP) ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: $(STAMP) ## open the artifacts of var/ in Dagster's UI
	$(BIN)/sigma ui $(ARGS)

playground: $(STAMP) ## the HTTP API and its page on http://127.0.0.1:8000, over var/
	$(BIN)/sigma serve $(ARGS)

install: $(STAMP) ## only set up .venv

clean: ## remove caches and builds; var/ and .venv stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Torch goes first and alone, so that an index or folder that offers a CPU build gets to give it.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] < (3, 13); \
	  sys.exit(None if ok else "SIGMA needs Python 3.11 or 3.12; $(PYTHON) is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes, once) ..."
	$(PIP) -c requirements.lock "$(TORCH)"
	$(PIP) -c requirements.lock -e ".[dev,ui,serve]"
	@touch $@
