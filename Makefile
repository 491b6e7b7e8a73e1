# Each target sets up what it needs: `make demo` and `make test` work in a fresh clone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

# What to install beside the core, as pyproject.toml names it: all, none, or some of classifier,labeling,cluster,hub,backbones.
# The core is enough for everything but training, classifying and labelling, and needs no PyTorch.
EXTRAS ?= all
STAMP := $(VENV)/.installed-$(or $(EXTRAS),none)
DEV_STAMP := $(VENV)/.installed-dev

# What is installed already is used as it is.
INSTALLED := $(or $(wildcard $(DEV_STAMP)),$(firstword $(wildcard $(VENV)/.installed-*)),$(STAMP))

PIP := $(RUN) -m pip install --disable-pip-version-check -q $(PIP_FLAGS)

DEMO_OUT ?= demo/output

# Those that take minutes at most; measuring.py, published.py, floor.py and history.py are what they share.
BENCHMARKS := pipeline scaling sections remote patches hashing measures masks cover deduplicate inference coco_annotations

# Minutes to hours; each a module in tests/torture. What they find they repeat with the seed that they print.
TORTURES := bad_input guards kills faults state surroundings fuzz
SEED ?= $(shell date +%s)

# Files of tests that run side by side. Of more than a few, those that kill and time out hinder one another.
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo curate test check bench torture clean

help: ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv and install what a user needs: all, or what EXTRAS=… says (EXTRAS=none: without PyTorch)

install-dev: $(DEV_STAMP) ## install what the tests and checks need as well

$(RUN):
	$(PYTHON) -c 'import sys; sys.exit("emcurate needs Python 3.11 or newer, found " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(DEV_STAMP): pyproject.toml | $(RUN)
	$(PIP) -e '.[all,dev]'
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(RUN)
	$(PIP) -e '.$(if $(filter none,$*),,[$*])'
	@touch $@

demo: $(or $(wildcard $(DEV_STAMP)),$(VENV)/.installed-all) ## generate a small corpus with known truth, run every stage on it, compare
	$(RUN) demo/run.py $(DEMO_OUT)

curate: ## run every stage on your data: make curate VOLUMES=… IMAGES=… VIDEOS=… OUT=… [ARGS="…"]
	@test -n "$(OUT)" || { echo "make curate: say where to write, OUT=directory"; exit 2; }
	@test -n "$(IMAGES)$(VOLUMES)$(VIDEOS)" || { echo "make curate: say what to read, IMAGES=, VOLUMES= or VIDEOS="; exit 2; }
	@for given in "$(IMAGES)" "$(VOLUMES)" "$(VIDEOS)"; do test -z "$$given" -o -d "$$given" || \
	  { echo "make curate: no directory $$given"; exit 2; }; done
	@$(MAKE) --no-print-directory $(INSTALLED)
	$(RUN) curate.py $(if $(IMAGES),--images "$(IMAGES)") $(if $(VOLUMES),--volumes "$(VOLUMES)") \
	  $(if $(VIDEOS),--videos "$(VIDEOS)") $(if $(LABELS),--labels "$(LABELS)") \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(UNTIL),--until $(UNTIL)) --out "$(OUT)" $(ARGS)

test: $(DEV_STAMP) ## run all tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

check: $(DEV_STAMP) ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(RUN) -m pytest tests/test_layering.py

bench: $(DEV_STAMP) ## run the benchmarks one after another; each prints a table, and what changed since RECORD=1
	@for name in $(BENCHMARKS); do echo; echo "$$name"; \
	  $(RUN) benchmarks/$$name.py $(if $(RECORD),$(if $(filter-out scaling masks deduplicate,$$name),--record)) || exit 1; done

torture: $(DEV_STAMP) ## break everything on purpose, the same with SEED=…; `make test` does a sample of it
	@for name in $(TORTURES); do echo; echo "$$name"; \
	  $(RUN) -m tests.torture.$$name --seed $(SEED) || failed=1; done; exit $${failed:-0}

clean: ## remove the environment and what the demo made
	rm -rf $(VENV) $(DEMO_OUT) .mypy_cache .ruff_cache .pytest_cache *.egg-info
