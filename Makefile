# Every command of the project; `make` alone lists them. Each one sets up what it needs first.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
export PYTHON
run := .venv/bin
pytest := $(run)/python -m pytest
compile := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help setup demo check test lint types unit fresh rest torture bench docs fmt lock clean

help: ## List the commands
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '  make %-8s %s\n' "$$name" "$$what"; done

setup: ## Make .venv and install what is missing (every other command does this first)
	@packaging/setup/bootstrap

demo: setup ## Watch an attack being stopped on this machine; ARGS="--json --keep" for more
	@$(run)/stanch demo $(ARGS)

check: lint types unit ## Format, lint, types, unit tests: two or three minutes, no root

test: check fresh rest ## The whole of CI: check, then everything that needs root, namespaces or time

lint: setup
	@$(run)/ruff format --check --quiet . || { echo 'Some files are not formatted: run `make fmt`.' >&2; $(run)/ruff format --check .; }
	@$(run)/ruff check --quiet .

types: setup
	@$(run)/mypy

unit: setup
	@$(pytest) -n 3 --dist worksteal -m "not root and not slow"

fresh: setup
	@$(run)/python -m stanch.cli.reference --check docs/reference

rest: setup
	@$(pytest) -n 3 --dist loadfile --no-loadscope-reorder -m "root or slow"

torture: setup ## Random things happen to the isolation, 500 sequences, as root; ARGS="--seed 3 --verbose"
	@$(run)/python -m tests.torture.isolation --sequences 500 $(ARGS)

bench: setup ## Run every benchmark and rewrite the table of benchmarks/README.md
	@$(run)/python -m benchmarks --all --write

docs: setup ## Write docs/reference/ anew from the registry
	@$(run)/python -m stanch.cli.reference docs/reference

fmt: setup ## Format and repair what can be repaired
	@$(run)/ruff format .
	@$(run)/ruff check --fix .

lock: ## Pin what pyproject.toml asks for, with hashes (needs uv); ARGS=--upgrade for newer versions
	@command -v uv >/dev/null || { echo 'uv is needed: .venv/bin/pip install uv, and put .venv/bin on the PATH' >&2; exit 1; }
	@$(compile) $(ARGS) pyproject.toml --output-file requirements/run.txt
	@$(compile) $(ARGS) pyproject.toml --group dev --group build --output-file requirements/dev.txt

clean: ## Remove .venv and every cache
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
