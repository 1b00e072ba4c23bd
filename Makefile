ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif

.PHONY: demo test lint benchmark clean

demo: .venv/installed ## separate a short real song, score it and show it; `bsmamba2 demo --train` trains on it
	$(BIN)/bsmamba2 demo

test: .venv/installed ## run all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8

lint: .venv/installed ## check style and types
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,lint]"
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

benchmark: .venv/installed ## agreement of the scans, then time over bound and memory of the network and its parts
	$(BIN)/python benchmark_mamba_ssm.py

clean: ## remove what the other targets made
	$(PYTHON) -c "import shutil; [shutil.rmtree(name, True) for name in ('.venv', 'demo')]"

.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[test]"
	$(BIN)/python -c "open('.venv/installed', 'w').close()"
