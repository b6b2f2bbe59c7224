# `make demo` and `make test` install everything that they need in .venv; see README.md.
PYTHON ?=
ARGS ?=
RUN := .venv/bin
# Most tests wait for a broker or a process, so several of them can run at once.
PARALLEL := -n 4 --dist worksteal
INSTALLED := .venv/.installed
BENCH := benchmarks/.env/.installed
# `make coverage` measures the tests: their processes and both environments add to one file. It takes twice the time of
# `make test`, so CI does not do it. A test that kills a process may leave an empty file, which cannot be combined.
PYTEST := -m $(if $(MEASURED),coverage run -m )pytest
# In CI, up to three failed tests are run again, three times and alone; see docs/decisions/0022-unsteady-tests.md.
AGAIN = $(if $(CI),|| { [ $$? = 1 ] && $(1)/python scripts/again.py $(1)/python -m pytest; })
export COVERAGE_FILE := $(CURDIR)/.coverage
# Each process that a test starts would compile the project's sources anew, which takes three times the time of a start.
unexport PYTHONDONTWRITEBYTECODE
# CrewAI pins older versions of packages that the other adapters use, so CrewAI has its own venv.
CREWAI := .venv-crewai/bin
CREWAI_INSTALLED := .venv-crewai/.installed

.PHONY: demo test coverage crewai crew notebooks docs picture wheels lowest storm long mutations lint style types imports format hooks bench growth million simulate lock release clean help
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(INSTALLED)  ## run the demo: a LangChain agent works with the tools of two replicas (DIR=folder, MODEL=provider:name)
	@$(RUN)/python examples/demo $(if $(DIR),--dir "$(DIR)") $(if $(MODEL),--model "$(MODEL)")

test: $(INSTALLED)  ## run all tests (ARGS=... goes to pytest)
	@$(if $(CI),rm -rf .pytest_cache)
	@$(RUN)/python $(PYTEST) $(PARALLEL) $(ARGS) $(call AGAIN,$(RUN))
	@$(if $(ARGS),,$(MAKE) --no-print-directory crewai)
	@$(if $(MEASURED),$(if $(ARGS),,($(RUN)/coverage combine -q || true) && $(RUN)/coverage report))

coverage: clean-coverage  ## run all tests, and show the lines and branches that they miss; coverage below the floor is an error
	@$(MAKE) --no-print-directory MEASURED=1 test

clean-coverage:
	@rm -f .coverage .coverage.*

crewai: $(CREWAI_INSTALLED)  ## run the tests of the CrewAI adapter and of its notebook (ARGS=... goes to pytest)
	@$(if $(CI),rm -rf .pytest_cache)
	@$(CREWAI)/python $(PYTEST) $(PARALLEL) tests/integrations/crewai tests/test_public_paths.py tests/notebooks/test_notebooks.py \
		tests/notebooks/test_with_a_real_client.py $(ARGS) $(call AGAIN,$(CREWAI))

crew: $(CREWAI_INSTALLED)  ## run the CrewAI example: a remote crew member is killed during its task, and the crew still reports
	@$(CREWAI)/python examples/crew

storm: $(INSTALLED)  ## run 2,000 tasks for two minutes while processes and the broker are killed (ARGS="--seed 7")
	@$(RUN)/python tests/faults/storm.py $(ARGS)

long: $(INSTALLED) $(CREWAI_INSTALLED)  ## run the tests that take long: brokers of several nodes, killed crews
	@$(RUN)/python $(PYTEST) $(PARALLEL) -m long $(ARGS)
	@$(CREWAI)/python $(PYTEST) -m long tests/integrations/crewai $(ARGS)

mutations: $(INSTALLED)  ## put one fault after the other into a copy of the core; the tests must notice each (ARGS="outbox acknowledged")
	@$(RUN)/python -m tests.mutations.run $(ARGS)

notebooks: $(INSTALLED) $(CREWAI_INSTALLED)  ## run all notebooks, and store their outputs
	@cd notebooks && ../$(RUN)/python ../scripts/run_notebooks.py $$(ls *.ipynb | grep -v crewai)
	@cd notebooks && ../$(CREWAI)/python ../scripts/run_notebooks.py *crewai*.ipynb

docs: $(INSTALLED)  ## build the site from docs/ and the docstrings in site/; broken links are errors
	@NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

picture: $(INSTALLED)  ## draw the picture of the console in README.md anew, with Chromium
	@$(RUN)/python scripts/console_picture.py

wheels: $(INSTALLED)  ## install each distribution alone in new environments, and test it (ARGS=--quick, or names of Pythons)
	@$(RUN)/python scripts/check_wheels.py $(ARGS)

lowest: $(INSTALLED)  ## run the LangChain adapter's tests with the lowest versions that it declares (ARGS=... goes to pytest)
	@scripts/lowest $(ARGS)

lint: style types  ## check the code with ruff, import-linter and pyright, and the YAML of the docs

style: $(INSTALLED) $(CREWAI_INSTALLED) imports  ## the part of `make lint` that takes seconds: all but pyright
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/python scripts/check_manifests.py

types: $(INSTALLED) $(CREWAI_INSTALLED)  ## check the types with pyright
	@$(RUN)/pyright
	@$(RUN)/pyright --project integrations/crewai
	@scripts/verifytypes mqtt_agent
	@scripts/verifytypes langchain_mqtt_agent
	@scripts/verifytypes autogen_mqtt_agent
	@scripts/verifytypes mcp_mqtt_agent
	@scripts/verifytypes a2a_mqtt_agent
	@scripts/verifytypes crewai_mqtt_agent .venv-crewai

imports: $(INSTALLED)  ## check who imports what (.importlinter)
	@PYTHONPATH=integrations/crewai/src $(RUN)/lint-imports --no-logo --no-cache

hooks: $(INSTALLED)  ## have git run ruff and import-linter before each commit
	@$(RUN)/pre-commit install

format: $(INSTALLED)  ## let ruff fix and format the code
	@$(RUN)/ruff check --fix-only -q .
	@$(RUN)/ruff format -q .

bench: $(BENCH)  ## compare the performance with alternatives (ARGS=--quick takes less time)
	@cd benchmarks && .env/bin/python compare.py $(ARGS)

growth: $(BENCH)  ## measure with larger payloads, and more replicas, tools, clients and tasks (ARGS=--quick takes less time)
	@cd benchmarks && .env/bin/python growth.py $(ARGS)

million: $(INSTALLED)  ## send a million tasks through one pair of agents; only the stores may grow (ARGS="--tasks 100000")
	@$(RUN)/python benchmarks/million.py $(ARGS)

simulate: $(INSTALLED)  ## count what up to 10,000 agents and tool clients get, and check it with a real run of 300 (ARGS="--sizes 100")
	@cd benchmarks && ../$(RUN)/python simulation.py $(ARGS)

lock: $(INSTALLED)  ## update requirements.txt from the pyproject files
	@scripts/lock

release: $(INSTALLED)  ## make a release up to the upload (VERSION=1.2.3, ARGS=--dry-run)
	@$(RUN)/python scripts/release.py $(ARGS) $(VERSION)

clean: clean-coverage  ## remove all virtual environments and caches
	@rm -rf .venv .venv-crewai .venv-lowest benchmarks/.env benchmarks/.logs benchmarks/.stores benchmarks/peers/reference/node_modules .pytest_cache .ruff_cache .hypothesis tests/interop/node_modules tests/integrations/mcp/peers/node_modules tests/integrations/mcp/peers/*/node_modules tests/integrations/mcp/peers/*/.env tests/integrations/a2a/peers/node_modules tests/refused/node_modules tests/refused/.env
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt pyproject.toml core/pyproject.toml integrations/langchain/pyproject.toml integrations/autogen/pyproject.toml integrations/mcp/pyproject.toml integrations/a2a/pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup
	@touch $@

$(BENCH): $(INSTALLED) benchmarks/requirements.txt scripts/setup-bench
	@scripts/setup-bench
	@touch $@

$(CREWAI_INSTALLED): integrations/crewai/requirements.txt integrations/crewai/pyproject.toml core/pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup crewai
	@touch $@
