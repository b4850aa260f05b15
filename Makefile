# make demo   a small trained model on an emulated n150: its text, how right it is, memory, predicted speed, a report
# make demo-real   a trained model of 135M there: its text beside HF's, its accuracy over prose; fetches 93 MB once
# make test   the tests; make fast   those that what you changed can break, in under a minute
# make test-ttnn   the tests on the vendor's library, without a board; needs Python 3.12 or 3.10, and makes .venv-ttnn
# make test-cluster   sweeps and checks on a Ray cluster of two nodes on this machine, one of which is killed
# make test-wheel   the wheel, installed apart from the clone
# make lint   ruff, types, and whether MODELS.md is current
# make docs   the output and the pictures in docs/; needs Chromium
# make results   the runs behind MODELS.md
# Each installs into the active environment, or into .venv made from python3, when something is missing.

SHELL  := bash
ENV    := $(or $(VIRTUAL_ENV),.venv)
PYTHON := $(ENV)/bin/python
STAMP  := $(ENV)/.ttnn-bringup

# An environment that another clone was installed into is not ours yet.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.PHONY: install demo demo-real test fast test-cluster test-ttnn test-wheel lint docs results
install: $(STAMP)
$(STAMP): pyproject.toml constraints.txt
	@test -x $(PYTHON) || python3 -m venv $(ENV)
	@echo 'installing into $(ENV): minutes the first time'
	@set -o pipefail; $(PYTHON) -m pip install --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt \
	  | { grep -v '^Requirement already' || true; }
	@echo '$(CURDIR)' > $(STAMP)

demo: $(STAMP)
	@$(PYTHON) -m bringup.cli demo $(ARGS)

demo-real: $(STAMP)
	@$(PYTHON) -c 'import gguf, accelerate' 2>/dev/null || $(PYTHON) -m pip install --disable-pip-version-check --quiet \
	  --editable '.[gguf]' --constraint constraints.txt
	@$(PYTHON) -m bringup.cli demo-real $(ARGS)

test: $(STAMP)
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(PYTHON) -m pytest -n auto $(ARGS)

fast: $(STAMP)
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(PYTHON) scripts/fast.py $(ARGS)

test-cluster: $(STAMP)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[cluster]' --constraint constraints.txt
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 BRINGUP_REQUIRE_RAY=1 $(PYTHON) -m pytest tests/test_spread.py -m "slow or not slow" $(ARGS)

test-wheel: $(STAMP)
	@PYTHON=$(PYTHON) scripts/test_wheel.sh

test-ttnn:
	@scripts/test_ttnn.sh $(ARGS)

lint: $(STAMP)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@test ! -e MODELS.md || $(PYTHON) -m bringup.cli models --check

docs: $(STAMP)
	@$(PYTHON) docs/make.py $(ARGS)

# Every model on every system with its tiny checkpoint: results/*.json, and MODELS.md from them.
CHECKPOINTS := meta-llama/Llama-3.2-1B=tiny-llama humain-ai/ALLaM-7B-Instruct-preview=tiny-allam \
	arcee-ai/AFM-4.5B=tiny-afm mistralai/Mistral-7B-Instruct-v0.3=tiny-mistral
results: $(STAMP)
	@set -e; for pair in $(CHECKPOINTS); do for file in models/$${pair%=*}/*/*/model.py; do \
	  folder=$${file%/model.py}; kind=-$${folder##*/}; \
	  $(PYTHON) eval.py $$file --model checkpoints/$${pair#*=} \
	    --min_new_tokens 100 \
	    --json results/$${pair#*=}-$$(basename $${folder%/*})$${kind%-functional}.json; \
	done; done
	@$(PYTHON) -m bringup.cli models --predict
