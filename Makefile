# Each target installs what it misses: on a fresh machine `make quickstart` and `make test` work as they are.
#   make quickstart [DATA=folder]   train the baseline and POSO, print the table per cohort (simulator, or KuaiRand at DATA)
#   make test                       the whole test suite
#   make check                      format, lint, types and the fast tests
#   DEVICE=cpu|cuda                 the build of fbgemm; default: cuda where nvidia-smi answers
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
DEVICE ?= $(shell nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
BIN := .venv/bin
FBGEMM := $(if $(filter cuda,$(DEVICE)),fbgemm-gpu==1.8.0,./packaging/fbgemm-gpu-on-cpu)
STAMP := .venv/installed-$(DEVICE)
DATA ?=
QUICK := runs/quickstart
LOG := $(or $(DATA),$(QUICK)/log)

.PHONY: install test check quickstart

install: $(STAMP)

$(STAMP): pyproject.toml packaging/fbgemm-gpu-on-cpu/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --progress-bar off torch==2.13.0 $(FBGEMM) -e '.[dev]'
	$(BIN)/coldrank --help >/dev/null
	rm -f .venv/installed-* && touch $@

# The baseline and POSO train side by side, one thread each; then one table compares them.
quickstart: install
	rm -rf $(QUICK)
	$(if $(DATA),,$(BIN)/coldrank simulate --events 200000 --out $(LOG))
	$(BIN)/coldrank prepare kuairand --data $(LOG) --out $(QUICK)/data --test-from 2022-05-04
	set -e; for arm in base poso; do \
	    $(BIN)/coldrank train --config coldrank.configs.kuairand:$$arm --data $(QUICK)/data --out $(QUICK)/$$arm \
	        --set train.threads=1 2>$(QUICK)/$$arm.log & pids="$$pids $$!"; done; \
	echo "training base and poso; progress: tail -f $(QUICK)/base.log"; for pid in $$pids; do wait $$pid; done
	$(BIN)/coldrank compare $(QUICK)/base $(QUICK)/poso --out $(QUICK)/comparison

test: install
	$(BIN)/python -m pytest -n auto

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto -m "not slow"
