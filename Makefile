ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif

.PHONY: demo test lint benchmark clean

demo: .venv/installed ## separate a short song, score it and draw its spectrogram; `bsmamba2 demo --train` trains on it
	$(BIN)/bsmamba2 demo

test: .venv/installed ## run all tests; the report ends with what was skipped and why
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: .venv/installed ## check style and types
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt --editable ".[test,lint]"
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

benchmark: .venv/installed ## check that the scans agree, then measure time and memory of the network and its parts
	$(BIN)/python benchmark_mamba_ssm.py

clean: ## remove what the other targets created
	$(PYTHON) -c "import shutil; [shutil.rmtree(name, True) for name in ('.venv', 'demo')]"

.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --requirement requirements.txt --editable ".[test]"
	$(BIN)/python -c "open('.venv/installed', 'w').close()"
