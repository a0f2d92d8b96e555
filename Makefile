# The commands of a checkout. What they make lies in .venv, .kafka and the data folders, and in the caches of the
# package managers; each is skipped when nothing changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8080
DATA_DIR ?= .throughline
MINUTES ?= 10
SEED ?= 1
# Code that is compiled anew at every start costs more than everything else a start does.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test check bench histories faults soak trial up down

help:
	@echo "make install   virtual environment and Kafka's jars"
	@echo "make demo      the main job from nothing to a result on screen"
	@echo "make up        the whole system at http://127.0.0.1:$(PORT); make down stops it"
	@echo "make test      everything; make check: what is fast, before a commit"
	@echo "make bench     speed as ratios; make soak MINUTES=n SEED=s: random faults under load; CALM=1: none, and how memory grows"
	@echo "make faults    every failpoint before every kind of server, and faults that take minutes"
	@echo "make trial MINUTES=n SEED=s: a whole stack whose processes are killed at random"
	@echo "make histories thousands of random histories in any order against plain recomputation"

install: .venv/.installed .kafka/.archived

.venv/.installed: requirements-uv.txt requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed: install it (Debian: apt-get install python3 python3-venv) or name one with PYTHON=." >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "Python cannot make virtual environments here: install its venv module (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.kafka/libs/.complete: deploy/embedded/jars/pom.xml | .venv/.installed
	@$(BIN)/python -m deploy.embedded.kafka check
	@command -v mvn >/dev/null || { echo "Maven is needed to fetch Kafka: install it (Debian: apt-get install maven)." >&2; exit 1; }
	@rm -rf .kafka/libs
	@mvn -q -B -C -ntp -Dstyle.color=never -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka/libs -DincludeScope=runtime
	@touch $@

.kafka/.archived: .kafka/libs/.complete
	@rm -f .kafka/*.jsa
	@$(BIN)/python -m deploy.embedded.kafka archive
	@touch $@

demo: install
	@$(BIN)/python -m throughline.demo

# In the order of their names, so that the files that take minutes come before the many quick ones of tests/unit.
test: install
	@$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

check: install
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q --numprocesses=auto --maxprocesses=4 -m "not slow" tests/unit

bench: install
	@$(BIN)/python -m bench

histories: install
	@$(BIN)/python -m pytest --hypothesis-profile=histories tests/service/test_attribution_late.py tests/service/test_capture_batches.py

faults: install
	@$(BIN)/python -m pytest -q tests/faults/sweep_*.py

trial: install
	@$(BIN)/python -m tests.faults.trial --minutes $(MINUTES) --seed $(SEED)

soak: install
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --seed $(SEED) $(if $(CALM),--calm)

up: install
	@$(BIN)/throughline up --port $(PORT) --data-dir $(DATA_DIR)

down:
	@$(BIN)/throughline down --data-dir $(DATA_DIR)
