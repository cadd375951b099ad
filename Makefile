# Everything a person or a machine does with this repository. `make help` lists it.
#
#   make run DATASET=kuairand SOURCE=~/kuairand DAYS=7 DERM_HOME=/data/derm

PYTHON    ?= python3
DATASET   ?=
SOURCE    ?=
RECIPE    ?=
DAYS      ?= 7
DERM_HOME ?= $(CURDIR)/.derm
# Files of tests that run at a time, and what else pytest is told: LANES=4 PYTEST_ARGS=--durations=50
LANES     ?= 2
PYTEST_ARGS ?=
export DERM_HOME

DERM      := .venv/bin/derm
PYTEST    := .venv/bin/python -m pytest
HOME_ARGS := $(if $(DATASET),--dataset "$(DATASET)") $(if $(SOURCE),--source "$(SOURCE)") \
             $(if $(RECIPE),--recipe "$(RECIPE)")

# Environments are made, and checks are run, two at a time.
MAKEFLAGS += --jobs=2

.DEFAULT_GOAL := help
.PHONY: help run up down test test-fast check style types bench golden-update screenshot secrets lock clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24

run: .venv/.derm .venv-airflow/.airflow ## run seven days through Airflow, print the summary, write the report
	@$(DERM) daily $(HOME_ARGS) --days $(DAYS)

up: .venv/.derm .venv-airflow/.airflow ## leave Airflow's UI and Redis running; print address and login
	@$(DERM) up $(HOME_ARGS)

down: .venv/.derm .venv-airflow/.airflow ## stop what `make up` started
	@$(DERM) down

test: check .venv-airflow/.airflow .venv-s3/.s3 ## the checks, then every test this machine can run
	@$(PYTEST) --numprocesses=$(LANES) --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: .venv/.dev ## the tests without JVM, Redis, Airflow or browser; about a minute
	@$(PYTEST) -m "not (spark or redis or airflow or integration or browser or data)"

check: style types ## lint, format, types, and who imports whom

style: .venv/.dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports

types: .venv/.dev
	@.venv/bin/mypy

bench: .venv/.dev .venv-bench/.bench ## the benchmarks; results go to .benchmarks/
	@mkdir -p .benchmarks
	@for f in $$(grep -l 'harness\.arguments' benchmarks/*/*.py | sed 's/\.py$$//'); do \
	    .venv/bin/python -m $$(echo $$f | tr / .) --json .$$f.json || exit 1; done

golden-update: .venv/.dev .venv-airflow/.airflow ## rewrite the golden files; review the diff
	@UPDATE_GOLDEN=1 $(PYTEST) -q $$(grep -rl --include=test_*.py UPDATE_GOLDEN tests)
	@$(DERM) docs

screenshot: .venv/.dev ## photograph the DAG in the UI that `make up` left running
	@.venv/bin/python infra/photograph.py

secrets: ## write the cluster profile's passwords to .env; existing ones are kept
	@$(PYTHON) infra/make_secrets.py docker-compose.yml .env

lock: ## pin every package again, from requirements/*.in
	@$(PYTHON) -m venv --clear build/lock
	@build/lock/bin/python -m pip install --quiet --disable-pip-version-check --no-input uv
	@for name in jobs dev airflow s3; do \
	    build/lock/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-header \
	        --no-annotate requirements/$$name.in --output-file requirements/$$name.lock || exit 1; \
	done
	@# A CPU build offered by one machine must not bind another: the plain pin fits both.
	@sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements/*.lock

clean: ## remove environments, caches and everything runs wrote
	@if [ -x $(DERM) ]; then $(DERM) down; fi
	@rm -rf .venv .venv-airflow .venv-s3 .venv-bench .venv-feast .venv-fuxictr .derm .benchmarks .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .import_linter_cache derm.egg-info

# An environment is made again when its lock changes: infra/environment.py, with uv or with pip. What
# they say goes to a log that is shown only when they fail.
define python_env
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "derm needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) infra/environment.py make $(1)
endef
define install
	@echo "installing $(2) into $(1)"
	@$(PYTHON) infra/environment.py install $(1) $(2)
endef

.venv/.jobs: requirements/jobs.lock
	$(call python_env,.venv)
	$(call install,.venv,-r requirements/jobs.lock)
	@touch $@

.venv/.derm: pyproject.toml .venv/.jobs
	$(call install,.venv,--no-deps --no-build-isolation -e .)
	@touch $@

.venv/.dev: requirements/dev.lock .venv/.derm
	$(call install,.venv,-r requirements/dev.lock)
	@touch $@

.venv-s3/.s3: requirements/s3.lock
	$(call python_env,.venv-s3)
	$(call install,.venv-s3,-r requirements/s3.lock)
	@touch $@

.venv-bench/.bench: requirements/bench.in
	$(call python_env,.venv-bench)
	$(call install,.venv-bench,-r requirements/bench.in)
	@touch $@

.venv-airflow/.airflow: requirements/airflow.lock
	$(call python_env,.venv-airflow)
	$(call install,.venv-airflow,-r requirements/airflow.lock)
	@touch $@
