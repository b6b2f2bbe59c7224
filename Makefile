# `make demo` and `make test` set up all they need in .venv; see README.md.
PYTHON ?=
ARGS ?=
RUN := .venv/bin
# Most tests wait for a broker or a process, so they share the machine well.
PARALLEL := -n 4 --dist worksteal
INSTALLED := .venv/.installed
BENCH := benchmarks/.env/.installed
# In CI, the tests are measured: `make coverage` does so anywhere. Their processes and both environments add to one file.
PYTEST := -m $(if $(CI),coverage run -m )pytest
export COVERAGE_FILE := $(CURDIR)/.coverage
# CrewAI pins older versions of what the others use, so it has a venv of its own.
CREWAI := .venv-crewai/bin
CREWAI_INSTALLED := .venv-crewai/.installed

.PHONY: demo test coverage crewai crew notebooks docs wheels lowest storm lint imports format hooks bench growth lock release clean help
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(INSTALLED)  ## a LangChain agent works with tools of two replicas (DIR=folder, MODEL=provider:name)
	@$(RUN)/python examples/demo $(if $(DIR),--dir "$(DIR)") $(if $(MODEL),--model "$(MODEL)")

test: $(INSTALLED)  ## run all tests (ARGS=... goes to pytest); where CI is set, below the coverage floor is a failure
	@$(RUN)/python $(PYTEST) $(PARALLEL) $(ARGS)
	@$(if $(ARGS),,$(MAKE) --no-print-directory crewai)
	@$(if $(CI),$(if $(ARGS),,$(RUN)/coverage combine -q && $(RUN)/coverage report))

coverage: clean-coverage  ## run all tests, and show which lines and branches they miss
	@$(MAKE) --no-print-directory CI=true test

clean-coverage:
	@rm -f .coverage .coverage.*

crewai: $(CREWAI_INSTALLED)  ## run the tests of the CrewAI adapter and its notebook (ARGS=... goes to pytest)
	@$(CREWAI)/python $(PYTEST) tests/integrations/crewai tests/test_public_paths.py tests/notebooks/test_notebooks.py \
		tests/notebooks/test_with_a_real_client.py $(ARGS)

crew: $(CREWAI_INSTALLED)  ## a CrewAI crew loses its remote analyst in the middle, and does not notice
	@$(CREWAI)/python examples/crew

storm: $(INSTALLED)  ## 2,000 tasks while processes and the broker are killed, for two minutes (ARGS="--seed 7")
	@$(RUN)/python tests/faults/storm.py $(ARGS)

notebooks: $(INSTALLED) $(CREWAI_INSTALLED)  ## run the notebooks anew, and keep what they show
	@cd notebooks && ../$(RUN)/python ../scripts/run_notebooks.py $$(ls *.ipynb | grep -v crewai)
	@cd notebooks && ../$(CREWAI)/python ../scripts/run_notebooks.py *crewai*.ipynb

docs: $(INSTALLED)  ## build the site of docs/ and the docstrings in site/; broken links are errors
	@NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

wheels: $(INSTALLED)  ## install each distribution alone in fresh environments, and use it (ARGS=--quick, or PYTHONs)
	@$(RUN)/python scripts/check_wheels.py $(ARGS)

lowest: $(INSTALLED)  ## the tests of the LangChain adapter with the lowest versions that it declares (ARGS=... goes to pytest)
	@scripts/lowest $(ARGS)

lint: $(INSTALLED) $(CREWAI_INSTALLED) imports  ## ruff, import-linter and pyright
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/pyright
	@$(RUN)/pyright --project integrations/crewai

imports: $(INSTALLED)  ## check who imports what (.importlinter)
	@PYTHONPATH=integrations/crewai/src $(RUN)/lint-imports --no-logo --no-cache

hooks: $(INSTALLED)  ## have git run ruff and import-linter before each commit
	@$(RUN)/pre-commit install

format: $(INSTALLED)  ## let ruff mend what it can
	@$(RUN)/ruff check --fix-only -q .
	@$(RUN)/ruff format -q .

bench: $(BENCH)  ## ours and what else there is, side by side (ARGS=--quick for less)
	@cd benchmarks && .env/bin/python compare.py $(ARGS)

growth: $(BENCH)  ## what becomes of it with larger payloads, and more replicas, tools, clients and tasks (ARGS=--quick for less)
	@cd benchmarks && .env/bin/python growth.py $(ARGS)

lock: $(INSTALLED)  ## make requirements.txt anew from the pyproject files
	@scripts/lock

release: $(INSTALLED)  ## make a release up to the upload (VERSION=1.2.3, ARGS=--dry-run)
	@$(RUN)/python scripts/release.py $(ARGS) $(VERSION)

clean: clean-coverage  ## remove .venv and caches
	@rm -rf .venv .venv-crewai .venv-lowest benchmarks/.env benchmarks/.logs benchmarks/.stores benchmarks/peers/reference/node_modules .pytest_cache .ruff_cache .hypothesis tests/interop/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt pyproject.toml core/pyproject.toml integrations/langchain/pyproject.toml integrations/autogen/pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup
	@touch $@

$(BENCH): $(INSTALLED) benchmarks/requirements.txt scripts/setup-bench
	@scripts/setup-bench
	@touch $@

$(CREWAI_INSTALLED): integrations/crewai/requirements.txt integrations/crewai/pyproject.toml core/pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup crewai
	@touch $@
