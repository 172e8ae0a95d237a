# One-command entries. The first call installs poly_jax into .venv; later ones reuse it.
# (setuptools warns at length about every editable installation: PYTHONWARNINGS keeps that off the terminal.)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INTEROP := $(VENV)/.interop

.DEFAULT_GOAL := help
.PHONY: help demo test test-interop bench lint clean

help:
	@echo "make demo   train, adapt and compare MHR, Poly and a shared LoRA; results in runs/demo"
	@echo "make test   ruff, mypy and the whole test suite"
	@echo "make test-interop   the tests against transformers and PEFT, which it adds to $(VENV)"
	@echo "make bench  speed and memory beside PEFT, 16 minutes; SNI=FOLDER VOCABULARY=FILE add packing"
	@echo "make lint   ruff and mypy only"
	@echo "make clean  remove $(VENV), builds and caches; runs/ stays"
	@echo "Another Python for .venv: make PYTHON=python3.12 ... (3.11 or newer, default $(PYTHON))"

demo: $(INSTALLED)
	$(BIN)/poly-jax demo

# In the order of the files: xdist would begin with those of many tests, and end with those of one long test, for
# which all other processes would wait.
test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -rs --durations=20 --durations-min=10

test-interop: $(INTEROP)
	$(BIN)/python -m pytest -n auto --dist loadfile -rs tests/interop_live

bench: $(INTEROP)
	$(BIN)/python benchmarks/all.py $(if $(SNI),--sni=$(SNI)) $(if $(VOCABULARY),--vocabulary=$(VOCABULARY))

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Into the same environment: a second one would hold TensorFlow and JAX once more, 3.4 GB.
$(INTEROP): $(INSTALLED)
	@echo "Adding PyTorch, transformers and PEFT to $(VENV), once."
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[test,interop]'
	@touch $@

$(INSTALLED): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "poly_jax needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo 'not found'). Choose one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@echo "Installing poly_jax into $(VENV), once; this takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
