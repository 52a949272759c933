# `make demo` and `make test` need nothing but Python 3.11 or newer with venv, git and make: .venv sets itself up.
# With CPU=1 it gets torch without CUDA, from an index that pip has to know: docs/USAGE.md, "Set up".
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo check test test-long lint notebook pair bench clean

demo: .venv/ready
	$(BIN)/python build_notebook.py
	rm -rf runs/demo
	$(BIN)/imgae-run params/demo.yaml

check: .venv/ready
	$(BIN)/python build_notebook.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -m "not long" --numprocesses auto --maxprocesses 4 --dist loadfile

test-long: .venv/ready
	$(BIN)/python -m pytest -m long

lint: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --exclude notebooks .

notebook: .venv/ready
	$(BIN)/python build_notebook.py

pair: .venv/ready
	$(BIN)/python -m lib.notebook.pair research/[0-9][0-9]_*.py

bench: .venv/ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv runs

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is wanted, found: $$($(PYTHON) --version). Write: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	sed -E 's/^(torch|torchvision)==.*/&$(if $(CPU),+cpu)/' constraints.txt > .venv/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint .venv/constraints.txt --editable '.[test]' || { test -z '$(CPU)' || echo 'CPU=1: are there CPU wheels in PIP_EXTRA_INDEX_URL? docs/USAGE.md, "Set up", says which index has them'; exit 1; }
	touch $@
