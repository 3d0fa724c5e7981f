# Each target makes .venv by itself when it is missing or older than pyproject.toml.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(supported)' 2>/dev/null && echo $$p && break; done)
supported := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ready := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: quickstart test test-slow lint bench clean help

quickstart: $(ready) ## train, compare and export on MovieLens-100K (under 3 minutes)
	.venv/bin/recembed quickstart

test: $(ready) ## run the tests and the docstrings' examples
	OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(ready) ## run the tests marked slow
	.venv/bin/pytest -m slow $(ARGS)

lint: $(ready) ## check style, format and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: $(ready) ## measure the speed table (examples/benchmarks/README.md)
	.venv/bin/python examples/benchmarks/speed_table.py $(ARGS)

clean: ## remove caches, builds and quickstart/ (delete .venv by hand to install afresh)
	rm -rf build dist *.egg-info quickstart .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find recembed tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

$(ready): pyproject.toml .ci/install
	@$(or $(PYTHON),false) -c '$(supported)' 2>/dev/null || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; found: $(or $(PYTHON),none). Name one: make PYTHON=/path/to/python3.12"; \
		exit 2; } >&2
	@test -x .venv/bin/python || $(PYTHON) -m venv --clear .venv
	.ci/install .venv
	@touch $@
