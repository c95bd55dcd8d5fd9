# Every target makes the virtual environment that it needs. Only Python 3.11+ and make must be there.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
DEV_STAMP := $(VENV)/.dev
RUN_STAMP := $(VENV)/.run
# The generator is older than the runtime on purpose (stubs refuse an older runtime), so it lives apart.
PROTOS_VENV := .cache/protos-venv
PROTOS_STAMP := $(PROTOS_VENV)/.grpcio-tools-1.80.0
PIP := -m pip --disable-pip-version-check --quiet

.PHONY: help demo serve test test-all bench bench-accuracy lint format pictures protos protos-check clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 18

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Tidegate needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) $(PIP) install --upgrade pip

$(RUN_STAMP): pyproject.toml | $(VENV)/bin/python
	@echo "installing Tidegate (a minute or so)"
	@$(PY) $(PIP) install --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml | $(VENV)/bin/python
	@echo "installing Tidegate and the tools for its tests (a minute or so)"
	@$(PY) $(PIP) install --editable '.[dev]'
	@touch $@ $(RUN_STAMP)

$(PROTOS_STAMP):
	@$(PYTHON) -m venv $(PROTOS_VENV)
	@$(PROTOS_VENV)/bin/python $(PIP) install grpcio-tools==1.80.0
	@touch $@

demo: $(RUN_STAMP) ## A harmless and a faulty rollout, judged live; under a minute
	@$(VENV)/bin/tidegate demo $(ARGS)

serve: $(RUN_STAMP) ## Run the server on 127.0.0.1:7443
	@$(VENV)/bin/tidegate serve $(ARGS)

test: $(DEV_STAMP) ## The tests, within 5 minutes on 2 cores
	@$(PY) -m pytest -n auto $(ARGS)

test-all: $(DEV_STAMP) ## The tests and the slow tables and soaks
	@$(PY) -m pytest -m '' $(ARGS)

bench: $(DEV_STAMP) ## All benchmarks, peers in the same run; results in benchmarks/results
	@$(PY) -m benchmarks $(ARGS)

bench-accuracy: $(DEV_STAMP) ## The accuracy tables alone
	@$(PY) -m benchmarks accuracy $(ARGS)

lint: $(DEV_STAMP) ## ruff, mypy --strict, buf lint
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/buf lint

format: $(DEV_STAMP) ## Format the code
	@$(VENV)/bin/ruff check --fix --quiet . || true
	@$(VENV)/bin/ruff format --quiet .

pictures: $(DEV_STAMP) ## The pictures of the documentation
	@$(PY) docs/pictures/forming.py

protos: $(PROTOS_STAMP) ## Write the stubs beside their protos
	@$(PROTOS_VENV)/bin/python -m grpc_tools.protoc -Iprotos --python_out=protos --pyi_out=protos protos/tidegate/v1/*.proto
	@$(PROTOS_VENV)/bin/python -m grpc_tools.protoc -Iprotos --grpc_python_out=protos protos/tidegate/v1/*_service.proto

protos-check: protos ## Fail when the stubs are not those of their protos
	@git diff --exit-code --stat -- protos || { echo "stubs differ from their protos: run make protos and commit"; exit 1; }
	@test -z "$$(git status --porcelain -- protos)" || { git status --short -- protos; echo "stubs are not committed"; exit 1; }

clean: ## Remove what the targets made
	@rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache
