# `make run` upsamples a real photo; `make test` runs what CI runs. Nothing else is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test setup lint study clean

run: setup ## Search the default portrait, 32×32 to 1024×1024
	$(BIN)/python run.py $(ARGS)

test: $(VENV)/.dev lint ## Tests, ruff and mypy
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.run ## Make .venv and install

# A study of conf/study/: make study NAME=niqe_table ARGS="size=smoke"
study: setup
	$(BIN)/python run.py study=$(NAME) $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
