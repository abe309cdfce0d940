# `make help` lists what there is. Needs Python 3.10 to 3.12 and, for all but
# `make demo`, a C++ compiler; the first call puts everything else into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLASSIFICATION := $(VENV)/.classification
INSTALLED := $(VENV)/.installed
# One thread a process: the tests' tensors are small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
PARALLEL := -n auto --maxprocesses=4
# Tests of what computes, none of which may hang on a last digit.
NUMERIC := $(addprefix tests/test_models/test_, \
	losses necks diffusion backbones) tests/test_analysis/test_similarity.py

.DEFAULT_GOAL := help
.PHONY: help install demo demo-det demo-seg test lint format docs test-numerics \
	test-slow test-fuzz test-gpu clean distclean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(CLASSIFICATION) $(INSTALLED): setup.py mmdiffkd/version.py \
		$(wildcard requirements/*.txt) tools/misc/setup_env.sh
	@PYTHON='$(PYTHON)' bash tools/misc/setup_env.sh '$(VENV)' $(PART)
	@touch $(CLASSIFICATION) $@

$(CLASSIFICATION): PART := classification

install: $(INSTALLED)  ## make .venv with the whole stack (12 to 16 minutes)

demo: $(CLASSIFICATION)  ## distil a small classifier, with a table and pictures
	@$(BIN)/python -W 'ignore:Fail to import' tools/misc/demo.py

demo-det: $(INSTALLED)  ## the same with a small detector
	@$(BIN)/python tools/misc/demo.py --task det

demo-seg: $(INSTALLED)  ## the same with a small segmentor
	@$(BIN)/python tools/misc/demo.py --task seg

test: lint  ## lint, then the quick tests, in up to 4 processes
	$(PYTEST) $(PARALLEL) $(ARGS)

lint: $(INSTALLED)  ## style, spelling, and the layers of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## the site with the reference pages, in build/html
	$(BIN)/sphinx-build -W --keep-going -b html -c docs . build/html

test-numerics: $(INSTALLED)  ## numeric tests with last digits moved
	set -e; for seed in 1 2 3; do \
		$(PYTEST) $(PARALLEL) --perturb $$seed $(NUMERIC) $(ARGS); \
		OMP_NUM_THREADS=2 $(BIN)/python -m pytest \
			--perturb $$seed $(NUMERIC) $(ARGS); \
	done
	ATEN_CPU_CAPABILITY=default $(PYTEST) $(PARALLEL) \
		--perturb 1 $(NUMERIC) $(ARGS)

test-slow: $(INSTALLED)  ## the tests that take minutes
	$(PYTEST) $(PARALLEL) -m 'slow and not gpu' $(ARGS)

test-fuzz: $(INSTALLED)  ## 10,000 cases of each fuzz test rather than 200
	$(PYTEST) tests/fuzz -m 'not gpu' --hypothesis-profile=long $(ARGS)

test-gpu: $(INSTALLED)  ## the tests that need a CUDA device
	$(PYTEST) -m gpu $(ARGS)

clean:  ## remove what builds and tests leave; keeps .venv, data, work_dirs
	rm -rf build dist *.egg-info .dist_test .hypothesis .pytest_cache \
		.ruff_cache .import_linter_cache
	find mmdiffkd configs tools tests -name __pycache__ -prune \
		-exec rm -rf {} +

distclean: clean  ## remove .venv as well
	rm -rf '$(VENV)'
