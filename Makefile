# Every target sets up what it needs. `make setup` is quick when there is nothing to do.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
TARGET := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
LOCK := requirements/$(TARGET).lock
STAMP := $(VENV)/.stamp-$(TARGET)
RECIPE ?= recipes/quickstart.yaml

.PHONY: help setup quickstart demo test test-fast soak lint browser services clients lm-eval lock clean
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14

setup: $(STAMP)  ## .venv with the locked packages and this project, editable

$(STAMP): $(LOCK) pyproject.toml
	@PYTHON=$(PYTHON) VENV=$(VENV) LOCK=$< bash requirements/install.sh
	@touch $@

quickstart: setup  ## the whole experiment on the embedded model, ends with the comparison
	@$(BIN)/trimtab run $(RECIPE)

demo: quickstart  ## the same, then the endpoint and the page stay up
	@$(BIN)/trimtab demo $(RECIPE) --serve

test: setup browser services clients lm-eval lint  ## lint, types and every test, the real model included
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" --durations=10
	@$(BIN)/python -m pytest -m alone --durations=5

soak: setup browser  ## 10,000 generated cases of every property of data and endpoint, then load on endpoint and page
	@SOAK_CASES=10000 $(BIN)/python -m pytest -q tests/data/test_properties.py tests/serve/test_contract.py
	@SOAK_KILLS=40 $(BIN)/python -m pytest -q tests/export/test_killed.py
	@$(BIN)/python tests/serve/soak.py
	@$(BIN)/python tests/demo/page_soak.py

test-fast: setup lint  ## without the tests that train, quantise or serve
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

lint: setup      ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

browser:         ## Chromium for the page's tests
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  bash requirements/apt.sh chromium fonts-dejavu-core

services: setup  ## what tests run beside: Redis, openssl, curl, promtool, dclint
	@command -v redis-server >/dev/null && command -v openssl >/dev/null && command -v curl >/dev/null || \
	  bash requirements/apt.sh redis-server openssl curl
	@command -v promtool >/dev/null || [ -x $(BIN)/promtool ] || { d=$$(mktemp -d) && \
	  (cd $$d && apt-get download -qq prometheus && dpkg -x prometheus_*.deb .) >/dev/null 2>&1 && \
	  cp $$d/usr/bin/promtool $(BIN)/ || echo "no promtool: the alerts' own test is skipped"; rm -rf $$d; }
	@command -v dclint >/dev/null || [ -x $(BIN)/dclint ] || \
	  { timeout 120 npm install --silent --no-audit --no-fund --prefix $(VENV)/opt/dclint dclint@3.1.0 >/dev/null 2>&1 && \
	    ln -sf ../opt/dclint/node_modules/.bin/dclint $(BIN)/dclint; } || echo "no dclint: the Compose files' own test is skipped"

clients: $(CLIENTS)/.stamp  ## other people's clients of the endpoint, for its test

$(CLIENTS)/.stamp: requirements/clients.lock
	@PYTHON=$(PYTHON) VENV=$(CLIENTS) LOCK=$< bash requirements/install.sh
	@touch $@

lm-eval: $(VENV)/.stamp-lm-eval  ## lm-evaluation-harness into .venv, for compare.lm_eval and its test

$(VENV)/.stamp-lm-eval: requirements/lm-eval.lock $(STAMP)
	@PYTHON=$(PYTHON) VENV=$(VENV) LOCK=$< bash requirements/install.sh
	@touch $@

lock:            ## resolve pyproject.toml anew into requirements/*.lock (see CONTRIBUTING.md)
	@PYTHON=$(PYTHON) bash requirements/lock.sh

clean:           ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) $(CLIENTS) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
