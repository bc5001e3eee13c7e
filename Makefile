# Two commands matter, and each sets up .venv on first use: `make demo` and `make test`. Needed: Python 3.11 or newer, and make.

PYTHON ?= python3
DATA ?= digits
ARGS ?=
UPGRADE ?=

BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest
# A worker a core, of one thread each, lest they wait for each other; a file's tests stay together, since they share what they trained.
# The files come in their order, of which the longest is the first.
WORKERS := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(UPGRADE)
COMPOSE := $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser test-all check format bench lock docker clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-13s %s\n", $$1, $$2 }'

setup: $(READY) ## Make .venv with everything that is needed, at the locked versions

demo: $(READY) ## Train on DATA (a folder of class folders, or digits), index it and serve it; more options in ARGS
	$(BIN)/lookalike demo $(DATA) $(ARGS)

test: $(READY) ## Run the fast tests
	OMP_NUM_THREADS=1 $(PYTEST) $(WORKERS) -m "not slow and not gpu and not browser and not docker" $(ARGS)

test-browser: $(READY) ## Run the tests that drive Chromium
	$(PYTEST) -m browser $(ARGS)

test-all: $(READY) ## Run every test; those that lack a GPU, Chromium or Docker say so and are skipped
	$(PYTEST) $(ARGS)

check: $(READY) ## Lint, check the formatting and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

format: $(READY) ## Format the code, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## Run the benchmarks and write what they print to benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(READY) ## Write requirements/*.txt anew from pyproject.toml; UPGRADE=--upgrade takes newer versions
	$(COMPILE) pyproject.toml --extra full --extra dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra full -c requirements/dev.txt -o requirements/full.txt
	$(COMPILE) pyproject.toml --extra service -c requirements/dev.txt -o requirements/service.txt
	echo uv | $(COMPILE) - -o requirements/uv.txt

docker: ## Prepare a model and an index of DATA in a volume, and serve them on port 8000 (or PORT)
	DATA=$(DATA) $(COMPOSE) up --build $(ARGS)

clean: ## Remove .venv and what the tools left
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml requirements/dev.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Lookalike needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1 | tail -n 1); name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	@touch $@
