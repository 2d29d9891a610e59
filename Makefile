# Every target makes what it needs, on a machine with only make and Python 3.11 or newer.
# PYTHON=/path/to/python chooses the interpreter; PIP_INDEX_URL the package index.

# Without PYTHON=: the interpreter that .venv was made with, else the first that is new enough.
find_python := for python in .venv/bin/python python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys.executable)' \
	2>/dev/null && break; done
PYTHON := $(or $(PYTHON),$(shell $(find_python)))

BIN := .venv/bin
FUZZ_SECONDS ?= 60
SECONDS := 60
ROOM ?= wire

# $(call environment,GROUPS): .venv with the project and these dependency groups in it.
define environment
	@test -n '$(PYTHON)' || { echo 'STT needs Python 3.11 or newer, and none was found: make PYTHON=/path/to/python' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "STT needs Python 3.11 or newer; PYTHON=$(PYTHON) is $$('$(PYTHON)' -V 2>&1 | head -n 1)" >&2; exit 1; }
	@'$(PYTHON)' .ci/environment.py $(1)
endef

define checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
endef

.NOTPARALLEL:
.PHONY: help demo test lint format check-long bench soak fuzz mutate defences docs clean

help:
	@echo 'make demo        two nodes meet, prove who they are, move a file, and change the network'
	@echo 'make test        lint, types, layers, tests, coverage'
	@echo 'make lint        the checks that run no test'
	@echo 'make format      lay the code out as make lint expects it'
	@echo 'make check-long  the tests that take minutes'
	@echo 'make bench       STT beside its peers: half an hour; less with BENCH="--quick" or BENCH="ROW..."'
	@echo 'make soak        new random worlds for SECONDS=$(SECONDS)'
	@echo 'make fuzz        each fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo 'make mutate      how many of 400 small faults in ROOM=$(ROOM) the tests see'
	@echo 'make defences    take one defence after the other out, and see the tests that miss it'
	@echo 'make docs        the documentation, into build/docs'
	@echo 'make clean       remove all of what these made'

demo:
	$(call environment)
	$(BIN)/stt demo

test:
	$(call environment,lint test)
	@$(BIN)/python .ci/redis.py
	$(checks)
	$(BIN)/pytest -n auto --cov --cov-report=
	@$(BIN)/python .ci/branches.py

lint:
	$(call environment,lint)
	$(checks)

format:
	$(call environment,lint)
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

check-long:
	$(call environment,test)
	@$(BIN)/python .ci/redis.py
	$(BIN)/pytest -m long

bench:
	$(call environment,bench)
	$(BIN)/python -m tests.bench $(BENCH)

soak:
	$(call environment,test)
	$(BIN)/python -m tests.worlds.soak --seconds $(SECONDS)

mutate:
	$(call environment,test mutation)
	$(BIN)/python -m tests.mutation $(ROOM)

defences:
	$(call environment,test)
	$(BIN)/python -m tests.defences

fuzz:
	$(call environment,fuzz)
	@set -e; for target in fuzz/fuzz_*.py; do \
		echo "$$target, $(FUZZ_SECONDS) s"; \
		$(BIN)/python -m "fuzz.$$(basename "$$target" .py)" -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1; \
	done

docs:
	$(call environment,docs)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo 'build/docs/index.html'

clean:
	rm -rf .venv build dist .coverage .coverage.* .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
