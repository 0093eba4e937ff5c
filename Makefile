# Two commands on a fresh machine: `make demo` and `make test`; each does its own set-up.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt
# A benchmark prints ratios; the other modules beside them serve load or a reference.
BENCHES = $(notdir $(basename $(shell grep -ls '"ratios"' $(filter-out %/__init__.py tests/bench/test_%,$(wildcard tests/bench/*.py)))))
SOAKS = $(filter-out __init__,$(notdir $(basename $(wildcard tests/soak/*.py))))
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1

.PHONY: help setup setup-dev demo test check infra-check format bench soak kafka docs docs-check picture client-schema clean hooks constraints
.PHONY: licences monitoring sbom audit
help: ## What each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' constraints.txt || echo uv)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/uv
	$(UV) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt infra/clients/python/pyproject.toml | $(BIN)/uv
	$(UV) -e '.[dev]' -e infra/clients/python
	@touch $@ $(VENV)/.base

setup: $(VENV)/.base ## The service and its command line, without torch
setup-dev: $(VENV)/.dev ## Everything, for tests and studies

demo: setup ## The whole loop on real input, with a report at the end (about a minute after set-up)
	$(BIN)/decision demo $(ARGS)

test: setup-dev ## All tests, by two processes; WORKERS=0 by one
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup-dev ## Format, lint, types, import direction
	$(BIN)/ruff format --check --no-cache .
	$(BIN)/ruff check --no-cache .
	$(BIN)/pyright
	$(BIN)/lint-imports

infra-check: setup-dev ## Image, compose, Kubernetes, alerts and dashboards: linted, tested, and the image built where buildah is
	$(BIN)/python -m pytest -rs tests/infra
	$(BIN)/python -m tests.soak.image

format: setup-dev ## Mend format and what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup-dev ## One benchmark by NAME; QUICK=1 for under a minute; without NAME, which there are
	@test -n "$(NAME)" || { echo "make bench NAME=<one of: $(BENCHES)>"; exit 2; }
	$(BIN)/python -m tests.bench.$(NAME)

soak: setup-dev ## One long test by NAME, in full; prints a table; without NAME, which there are
	@test -n "$(NAME)" || { echo "make soak NAME=<one of: $(SOAKS)>"; exit 2; }
	$(BIN)/python -m tests.soak.$(NAME) $(ARGS)

kafka: setup ## A real Apache Kafka broker on this machine, for development
	$(BIN)/python -m pipelines.operations.kafka_server $(ARGS)

docs: setup-dev ## The documentation as a site, build/site/index.html; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --config-file infra/site/mkdocs.yml
	@echo "build/site/index.html; its search wants a server: $(BIN)/python -m http.server -d build/site"

docs-check: setup-dev ## The site built strictly: links, code blocks and commands of all pages, nothing fetched, nothing undocumented
	$(BIN)/python -m pytest tests/test_docs.py tests/test_vocabulary.py tests/infra/site $(ARGS)

picture: setup-dev ## Draw infra/docs/architecture.svg anew, from the contracts and the imports
	$(BIN)/python -m infra.docs.architecture

monitoring: setup-dev ## Write Grafana's dashboards and infra/docs/metrics.md anew, from the catalogue of metrics
	$(BIN)/python -m infra.monitoring.dashboards
	$(BIN)/python -m infra.monitoring.reference

client-schema: setup-dev ## Draw the TypeScript client's types anew, from what the service says of itself; needs npm
	npm install --no-audit --no-fund --no-package-lock --ignore-scripts --prefix infra/clients/typescript
	$(BIN)/python -m infra.clients.typescript.schema

hooks: setup-dev ## Install the local pre-commit hooks
	$(BIN)/pre-commit install

constraints: $(BIN)/uv ## Resolve all extras anew into constraints.txt (names and versions only)
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --no-header --no-emit-index-url \
	  --no-emit-find-links --no-annotate --quiet -o constraints.txt
	@echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" >> constraints.txt

licences: setup-dev ## Write infra/docs/licences.md anew, from what is installed
	$(BIN)/python -m infra.supply.licences

sbom: setup-dev ## The bill of materials of a release, dist/sbom.cdx.json (CycloneDX)
	$(BIN)/python -m infra.supply.bill $(ARGS)

audit: setup-dev ## Known vulnerabilities of constraints.txt; fails where no database answers for a package
	$(BIN)/python -m infra.supply.audit $(ARGS)

clean: ## Remove everything that was built
	rm -rf $(VENV) .decision out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
