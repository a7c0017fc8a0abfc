# `make demo` and `make test` do all the set-up: a virtual environment with exactly the versions of constraints.txt.
# Override on the command line, for example `make test PYTHON=python3.12 VENV=../venv`.

PYTHON ?= python3
VENV ?= .venv
# Test processes, one per core; each uses one thread.
JOBS ?= 2
# Extra arguments for pip, such as a mirror or an index with CPU builds of torch.
PIP_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
PACKAGES := verifier attacks synth nets aureole
PYTHON_PATHS := $(PACKAGES) tests examples benchmarks

.PHONY: help setup demo test lint format wheel-test clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        classify the labels of a real image, grow a layered neighbourhood, draw it"
	@echo "make test        lint, types, import contracts, every test"
	@echo "make lint        the same without the tests"
	@echo "make format      reformat the sources"
	@echo "make wheel-test  build the wheel, install it into an empty environment and use it there"
	@echo "make clean       remove build products (not $(VENV))"

setup: $(STAMP)

# auto-LiRPA's metadata pins a torch of 2022, so it is installed without its dependencies; the extra `lirpa` names those.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -c constraints.txt torch
	$(PIP_INSTALL) -c constraints.txt -e '.[dev,lirpa,scip]'
	$(PIP_INSTALL) --no-deps auto-LiRPA==0.3
	touch $@

demo: $(STAMP)
	$(BIN)/aureole demo

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(STAMP)
	$(BIN)/ruff format --check $(PYTHON_PATHS)
	$(BIN)/ruff check $(PYTHON_PATHS)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format $(PYTHON_PATHS)
	$(BIN)/ruff check --fix $(PYTHON_PATHS)

wheel-test: $(STAMP)
	BUILD_PYTHON=$(abspath $(BIN)/python) PIP_ARGS='$(PIP_ARGS)' bash tests/packaging/wheel_test.sh

clean:
	rm -rf build dist out .mypy_cache .ruff_cache .import_linter_cache .hypothesis
