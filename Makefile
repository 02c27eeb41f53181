# Everything runs from a fresh clone with Python 3.11+ and make; each target sets up what it needs, once.

PYTHON ?= python3
BIN := .venv/bin
DASHBOARD := api/dashboard
DASHBOARD_SOURCES := $(shell find $(DASHBOARD) -type f -not -path '*/node_modules/*' -not -path '*/dist/*')

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo methods up test lint chaos bench bench-control bench-core teacher clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .make/python .make/dashboard  ## Virtual environment, packages and dashboard

demo: setup  ## Distil the digits teacher by three methods and serve a student (minutes)
	@$(BIN)/python -m api.demo

methods: setup  ## Every method on the digits, in one table beside its bar (an hour on two cores)
	@$(BIN)/python tests/bench/bench_methods.py

up: setup  ## Start the platform and keep it running until Ctrl-C
	@$(BIN)/fewstep up

test: export OMP_NUM_THREADS = 1
test: setup .make/chromium lint  ## All tests, with real parts; those that need Ray or a browser run beside the others
	@$(BIN)/python -m pytest -q -n 2 -m "not (ray or browser or slow)" >.make/tests.log 2>&1 & others=$$!; \
	$(BIN)/python -m pytest -q -m "(ray or browser) and not slow"; ray=$$?; \
	wait $$others; others=$$?; cat .make/tests.log; exit $$((ray || others))

lint: .make/python  ## ruff, mypy and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

SEED ?= 1
KILLS ?= 250
REAL_KILLS ?= 25

chaos: setup  ## Kill everything at random and at named points; SEED, KILLS, REAL_KILLS say how (a quarter of an hour)
	@$(BIN)/python tests/chaos/run.py --seed $(SEED) --kills $(KILLS) --cluster fake
	@$(BIN)/python tests/chaos/run.py --seed $(SEED) --kills $(REAL_KILLS) --cluster real

bench: setup  ## Ratios against the bare loop (each method), ray job submit and the in-process pipeline
	@for bench in steps overhead serving; do $(BIN)/python tests/bench/bench_$$bench.py || exit 1; done

bench-control: setup  ## The control plane's speed on both databases, each figure beside its bar (8 minutes)
	@$(BIN)/python tests/bench/bench_control.py

TINY ?=

bench-core: .make/python  ## The training core on one GPU with networks of real size; TINY=1 tries it on a CPU (minutes)
	@$(BIN)/python tests/bench/bench_core.py $(if $(TINY),--tiny)

teacher: .make/python  ## Train the shipped digits teacher and its evaluator again
	@$(BIN)/python -m workers.pretrain

clean:  ## Forget the set-up (the platform's data under .fewstep stays)
	rm -rf .venv .make $(DASHBOARD)/node_modules $(DASHBOARD)/dist

.make/python: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fewstep needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	@echo "Setting up .venv with the packages of constraints.txt (minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>&1 | { grep -v -e '^WARNING: Location' || true; }
	@$(BIN)/python -c 'import diffusers, fastapi, ray, torch'
	@mkdir -p .make && touch $@

.make/dashboard: .make/python $(DASHBOARD_SOURCES)
	@echo "Building the dashboard"
	@cd $(DASHBOARD) && $(CURDIR)/$(BIN)/npm ci --no-audit --no-fund --loglevel=error && $(CURDIR)/$(BIN)/npm run --silent build
	@mkdir -p .make && touch $@

.make/chromium:
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium from the system's packages" && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else echo "The browser tests need Chromium: install your system's package 'chromium', then run make test again" && exit 1; fi
	@mkdir -p .make && touch $@
