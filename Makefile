ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
NULL := NUL
else
PYTHON ?= python3
BIN := .venv/bin
NULL := /dev/null
endif
# uv chooses the build of PyTorch for this machine: without an NVIDIA GPU, a tenth of the size.
UV := $(filter uv,$(firstword $(shell uv --version 2>$(NULL))))

# Its notice of a successor is not about this site.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test lint docs benchmark benchmark-quick clean

demo: .venv/installed ## separate a short song, score it and draw its spectrogram; `bsmamba2 demo --train` trains on it
	$(BIN)/bsmamba2 demo

test: .venv/installed ## run all tests; the report ends with what was skipped and why
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: .venv/installed ## check style and types
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt --editable ".[test,lint]"
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: .venv/installed ## write the documents as a site to site/, which opens from the disk
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt --editable ".[test,docs]"
	$(BIN)/python -m mkdocs build --strict

benchmark: .venv/installed ## check that the scans agree, then measure time and memory of the network and its parts
	$(BIN)/python benchmark_mamba_ssm.py

benchmark-quick: .venv/installed ## the same for the packaged model's sizes, in minutes, to RESULT=benchmark.json
	$(BIN)/python benchmark_mamba_ssm.py --config configs/default_model.yaml --precisions float32 --seconds 2 --files \
		--repeats 9 --json $(or $(RESULT),benchmark.json)

clean: ## remove what the other targets created
	$(PYTHON) -c "import shutil; [shutil.rmtree(name, True) for name in ('.venv', 'demo', 'site')]"

.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
ifdef UV
	uv pip install --python .venv --torch-backend auto --constraint constraints.txt torch || \
		echo "uv could not install PyTorch for this machine; pip installs its default build"
endif
	$(BIN)/python -m pip install --constraint constraints.txt --requirement requirements.txt --editable ".[test]"
	$(BIN)/python -c "open('.venv/installed', 'w').close()"
