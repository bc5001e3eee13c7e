# Two commands matter: `make demo` and `make test`. Both set up .venv on first use.
# They need Python 3.11 or newer, and make.

PYTHON ?= python3
DATA ?= digits
ARGS ?=
UPGRADE ?=

BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest
FAST := not slow and not gpu and not browser and not docker
# One worker per core. The tests of a file stay together because they share what they trained, and the
# files run in their order, because the longest is the first.
WORKERS := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# A worker computes in one thread: workers that share a core would wait for each other.
ONE_THREAD := OMP_NUM_THREADS=1
# As on an older processor: other kernels round differently.
OTHER_KERNELS := OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=2
# The least share of lines, in per cent, that the tests must run in each package.
COVERAGE_FLOORS := training=96 indexer=94 service=88 lookalike.py=88
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" $(UPGRADE)
COMPOSE := $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser test-all test-portable test-mutants coverage check format \
	bench lock docker clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(READY) ## Make .venv with everything that is needed, at the locked versions

demo: $(READY) ## Train on DATA (a folder of class folders, or digits), index it and serve it; more options in ARGS
	$(BIN)/lookalike demo $(DATA) $(ARGS)

test: $(READY) ## Run the fast tests
	$(ONE_THREAD) $(PYTEST) $(WORKERS) -m "$(FAST)" $(ARGS)

test-browser: $(READY) ## Run the tests that drive Chromium
	$(PYTEST) -m browser $(ARGS)

test-all: $(READY) ## Run every test; tests that lack a GPU, Chromium or Docker are skipped with a reason
	$(PYTEST) $(ARGS)

test-portable: $(READY) ## Run the tests in random order with other kernels; to repeat an order: ARGS=--random-order-seed=N
	$(OTHER_KERNELS) $(PYTEST) $(WORKERS) -m "not gpu and not browser and not docker" --random-order $(ARGS)

test-mutants: $(READY) ## Put known faults into a copy of the code, one at a time; the tests must catch each
	$(BIN)/python -m tests.mutants $(ARGS)

coverage: $(READY) ## Run every test that needs no GPU and no Docker; fail if too few lines of a package are run
	$(ONE_THREAD) $(PYTEST) $(WORKERS) -m "not gpu and not docker" --cov --cov-report= $(ARGS)
	@status=0; for floor in $(COVERAGE_FLOORS); do \
		name=$${floor%=*}; least=$${floor#*=}; \
		share=$$($(BIN)/coverage report --include="$$name,$$name/*" --precision=2 --format=total); \
		echo "$$name: $$share % of the lines, at least $$least % required"; \
		awk "BEGIN { exit !($$share >= $$least) }" || status=1; \
	done; exit $$status

check: $(READY) ## Lint, check the formatting and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

format: $(READY) ## Format the code, and correct what ruff can correct
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## Say which benchmarks there are and run those that need no data; more with DATA folders in ARGS
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(READY) ## Write requirements/*.txt again from pyproject.toml; UPGRADE=--upgrade takes newer versions
	$(COMPILE) pyproject.toml --extra full --extra dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra full -c requirements/dev.txt -o requirements/full.txt
	$(COMPILE) pyproject.toml --extra service -c requirements/dev.txt -o requirements/service.txt
	echo uv | $(COMPILE) - -o requirements/uv.txt

docker: ## Prepare a model and an index of DATA in a volume, and serve them on port 8000 (or PORT)
	DATA=$(DATA) $(COMPOSE) up --build $(ARGS)

clean: ## Remove .venv and what the tools left
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The project is built without isolation, with the setuptools of the lock: nothing comes without a hash.
$(READY): pyproject.toml requirements/dev.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Lookalike needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1 | tail -n 1); name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@
