# `make help` lists what there is. A machine needs Python >= 3.11, make and a package index.

SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PORT ?= 8080
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help run test faults soak scale bench chart check openapi docs format clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo '  PORT=9080 moves the ports of make run; PYTHON=python3.12 chooses the interpreter.'

run: .venv/run.stamp ## Start everything here (Redis, API, worker, inbox), send a sample mail, stay until Ctrl-C
	@PORT=$(PORT) exec $(BIN)/postroom dev

test: .venv/test.stamp ## Run all tests against real Redis, SMTP and HTTP processes
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore tests/chart/test_judges.py

faults: .venv/test.stamp ## Run all cases of the fault suite, by name (five minutes)
	@$(BIN)/python -m pytest -v -m faults --durations=5 tests/faults

soak: .venv/test.stamp ## Random faults against a load, then the promises: SEED=7 MINUTES=1
	@$(BIN)/python -m tests.faults.soak $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),1)

scale: .venv/test.stamp ## Measure at size: backlogs, agents, workers, neighbours, recovery (about 10 minutes)
	@POSTROOM_LONG=1 $(BIN)/python -m pytest -q -s tests/scale

chart: .venv/chart.stamp ## Judge the Helm chart: two Helms, schemas, promtool, checkov, hadolint (fetches them once)
	@.ci/judges .venv/judges
	@POSTROOM_IMAGE=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile tests/chart

bench: .venv/bench.stamp ## Measure against baselines, with a verdict (about 20 minutes): ONLY=accept,deliver-smtp PAIRS=3
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(PAIRS),--pairs $(PAIRS))

check: .venv/test.stamp ## Lint, types, import contracts
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && echo "ruff: clean"
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

openapi: .venv/test.stamp ## Write openapi/postroom.yaml from the code
	@$(BIN)/python -m openapi.generate

docs: .venv/test.stamp ## Write the pages that are made from code and values
	@$(BIN)/python deploy/helm/readme.py
	@$(BIN)/python deploy/helm/dashboard.py
	@$(BIN)/python docs/events.py

format: .venv/test.stamp ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## Remove the virtual environment, caches and the data of make run
	rm -rf .venv .postroom .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/made.stamp:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Postroom needs Python 3.11 or newer. Found: $$($(or $(PYTHON),python3) --version 2>&1)."; \
		echo "Install one, or name it: make $(or $(MAKECMDGOALS),run) PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "Python cannot make virtual environments: install its venv module (Debian: python3-venv)."; exit 1; }
	@touch $@

.venv/run.stamp: .venv/made.stamp pyproject.toml constraints.txt
	@echo "Installing what a run needs …"
	@$(INSTALL) --editable '.[dev]'
	@touch $@

.venv/test.stamp: .venv/run.stamp
	@echo "Installing what the tests need …"
	@$(INSTALL) --editable '.[test]'
	@touch $@

.venv/chart.stamp: .venv/test.stamp
	@echo "Installing what judges the chart …"
	@$(INSTALL) --editable '.[chart]'
	@touch $@

.venv/bench.stamp: .venv/run.stamp
	@echo "Installing what the bench compares with …"
	@$(INSTALL) --editable '.[bench]'
	@touch $@
