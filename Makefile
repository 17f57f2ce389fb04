# `make demo` and `make test` set themselves up: a virtual environment with the tested versions, and the package.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/ready

.PHONY: demo demo-train test test-slow reference lint setup clean

demo: $(READY)
	$(BIN)/recbase demo $(if $(DATA),--data $(DATA))

# trains a tokenizer and a language model itself
demo-train: $(READY)
	$(BIN)/recbase demo-train $(if $(DATA),--data $(DATA))

test: lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# remakes committed receipts from the data sets that they are of, which lie in the folder RECBASE_DATA
test-slow: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

# docs/commands.md and docs/python.md, from the code
reference: $(READY)
	$(BIN)/python docs/reference.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# types are checked on the installed package, because `modeling/` is `recbase_hf.modeling` only there
	rm -rf build && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types ./
	$(BIN)/mypy build/types/recbase_hf

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "recbase-hf needs Python 3.10 or newer: make PYTHON=python3.12")'
	@echo "setting up $(VENV): torch and the Hugging Face stack, one to several minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools wheel
	# torch by itself and first: pip then takes the build at hand (such as a CPU wheel in a local index) of the pinned version
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[text,demo,eval,train,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info
