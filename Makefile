# Two commands do everything on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST_FLAGS ?=
# Processes that test side by side.
WORKERS ?= 2

.PHONY: demo test test-fast test-slow test-deployment lint types floors docs-check docs format clean install install-dev

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[audit,examples]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/pip install --quiet -e '.[audit,examples,sim,sql,mysql,mongodb,objects,observe,otel,dev]'
	touch $@

$(VENV)/.installed-kit: pyproject.toml $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -e '.[kit]'
	touch $@

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

demo: install  ## the main job: a federated, differentially private study on real records
	$(BIN)/fedgen simulate examples/health/study.yaml --out runs/demo --resume

test: install-dev lint types floors docs-check test-fast  ## what a contributor runs; CI adds test-slow and test-deployment

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/mypy

floors: install-dev
	$(BIN)/lint-imports

docs-check: install-dev
	$(BIN)/python docs/cli_reference.py --check

docs: install-dev
	$(BIN)/python docs/cli_reference.py

test-fast: install-dev
	$(BIN)/pytest -q -n $(WORKERS) $(PYTEST_FLAGS) -m "not slow and not deployment"

test-slow: install-dev
	$(BIN)/pytest -q -n $(WORKERS) $(PYTEST_FLAGS) -m "slow and not deployment"

test-deployment: $(VENV)/.installed-kit  ## real processes, nginx and the tools that check the packaging
	$(BIN)/pytest -q -n $(WORKERS) $(PYTEST_FLAGS) --dist loadfile -m "deployment"

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
