# Each target installs what it misses: on a fresh machine `make quickstart` and `make test` work as they are.
#   make quickstart [DATA=folder]   train the baseline and POSO, print the table per cohort (simulator with something to gain,
#                                   or KuaiRand at DATA)
#   make test                       the whole test suite
#   make test-kill                 30 kills of training on one and on two ranks; each run must end as one not killed
#   make test-gpu                  the tests that a GPU has to pass (they have not been run on one yet)
#   make fuzz [SEED=0] [COUNT=10000]  random logs and requests: the right answer, or a line that names the fault
#   make test-lowest [TESTS=...]   the fast tests with the lowest versions that pyproject.toml allows, in .venv-lowest
#   make mutants [SEED=1] [COUNT=150] [ONLY=analysis/compare/] [AGAIN=1]  small faults put into the core, one at a time: which does no test
#                                   see? Goes on where it was cut off; AGAIN runs those again that survived
#   make check                      format, lint, types and the fast tests
#   make inputs                     write docs/inputs.md, the table of what was tried, from the tests, and docs/spec_fields.md from the code
#   DEVICE=cpu|cuda                 the build of fbgemm; default: cuda where nvidia-smi answers
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
DEVICE ?= $(shell nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
BIN := .venv/bin
FBGEMM := $(if $(filter cuda,$(DEVICE)),fbgemm-gpu==1.8.0,./packaging/fbgemm-gpu-on-cpu)
STAMP := .venv/installed-$(DEVICE)
OTHER := .venv/installed-$(if $(filter cuda,$(DEVICE)),cpu,cuda)
DATA ?=
QUICK := runs/quickstart
LOG := $(or $(DATA),runs/simulated)
# A log in which new users react in another way than others, so that there is something to gain, and both arms' rates as they
# were chosen there (docs/results/simulated.md). Real logs get the arms as they are.
SIMULATE := --events 200000 --gate-strength 2 --avc-scale 30 --new-user-share 0.2
RATES := $(if $(DATA),,optim.dense.lr=3.6e-3)

.PHONY: install test test-lowest test-kill test-gpu fuzz check mutants inputs quickstart

install: $(STAMP)

# The two builds of fbgemm overwrite each other's files: a change of DEVICE takes out the one that is there.
$(STAMP): pyproject.toml packaging/fbgemm-gpu-on-cpu/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test ! -e $(OTHER) || $(BIN)/python -m pip uninstall --quiet --yes fbgemm-gpu fbgemm-gpu-cpu
	$(BIN)/python -m pip install --quiet --progress-bar off torch==2.13.0 $(FBGEMM) -e '.[dev]'
	$(BIN)/python -c "import torchrec"
	rm -f .venv/installed-* && touch $@

# The baseline and POSO train side by side, one thread each; then one table compares them.
quickstart: install
	rm -rf $(QUICK) && mkdir -p $(QUICK)
	$(if $(DATA),,@echo "a simulated log in which new users react to other things than others (--gate-strength 2): what is there to gain")
	$(if $(DATA),,rm -rf $(LOG) && $(BIN)/coldrank simulate $(SIMULATE) --out $(LOG))
	$(BIN)/coldrank prepare kuairand --data $(LOG) --out $(QUICK)/data --test-from 2022-05-04
	@echo "training base and poso side by side; progress of one: tail -f $(QUICK)/poso.log"
	@printf 'base\nposo\n' | OMP_NUM_THREADS=1 xargs -P 2 -I ARM sh -c '$(BIN)/coldrank train \
	    --config coldrank.configs.kuairand:ARM --data $(QUICK)/data --out $(QUICK)/ARM --set train.threads=1 $(RATES) \
	    >$(QUICK)/ARM.log 2>&1 || { tail -n 3 $(QUICK)/ARM.log; exit 255; }'
	$(BIN)/coldrank compare $(QUICK)/base $(QUICK)/poso --out $(QUICK)/comparison
	$(if $(DATA),,@$(BIN)/python benchmarks/gain.py $(LOG) $(QUICK)/comparison)

# By file: what the tests of a file share is made once. In the order of tests/conftest.py.
test: install
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# The newest versions are those of `make install`. This environment is remade when pyproject.toml changes.
TESTS ?= tests -m "not slow"
LOWEST := .venv-lowest/installed-$(DEVICE)
$(LOWEST): pyproject.toml packaging/lowest.py packaging/fbgemm-gpu-on-cpu/pyproject.toml
	rm -rf .venv-lowest && $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python packaging/lowest.py >.venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --progress-bar off -c .venv-lowest/constraints.txt \
	    torch==2.13.0 $(FBGEMM) -e '.[dev]'
	touch $@

test-lowest: $(LOWEST)
	.venv-lowest/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(TESTS)

# One variant after the other; prints each start, how it was killed and what it left.
test-kill: install
	COLDRANK_KILLS=30 $(BIN)/python -m pytest -s tests/distributed/test_killed.py

# Its own tests, then those of training, whose runs take a GPU where there is one.
test-gpu:
	@nvidia-smi >/dev/null 2>&1 || { echo "make test-gpu: no GPU here, nvidia-smi does not answer"; exit 1; }
	$(MAKE) install DEVICE=cuda
	$(BIN)/python -c "import sys, torch; torch.cuda.is_available() or sys.exit('make test-gpu: torch sees no GPU')"
	$(BIN)/python -m pytest tests/gpu -k cuda
	$(BIN)/python -m pytest tests/train/test_stepping.py tests/train/test_checkpoint.py tests/train/test_trainer.py

fuzz: install
	SEED=$(or $(SEED),0) COUNT=$(or $(COUNT),10000) $(BIN)/python -m pytest tests/fuzz

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

mutants: install
	$(BIN)/python -c "import cosmic_ray" 2>/dev/null || $(BIN)/python -m pip install --quiet --progress-bar off -e '.[mutation]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation/mutants.py --seed $(or $(SEED),1) --count $(or $(COUNT),150) --only "$(ONLY)" $(if $(AGAIN),--again)

inputs: install
	$(BIN)/python -m pytest --collect-only -qq --write-inputs=docs/inputs.md >/dev/null
	$(BIN)/python tests/spec_fields.py
