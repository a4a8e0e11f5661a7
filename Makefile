# Everything a person or a CI machine runs. Only Python 3.11+ and make are assumed.
PYTHON ?= python3
VENV := .venv
CONSTRAINTS := constraints.txt
EXTRAS := dev
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
# Tests spend most of their time in the compiler. With these it optimizes little, which halves the time of `make test`;
# `make test UNOPTIMIZED=` and the slow tests compile as users' programs do.
UNOPTIMIZED := JAX_DISABLE_MOST_OPTIMIZATIONS=1 XLA_FLAGS=--xla_cpu_use_fusion_emitters=false

.PHONY: install demo test test-oldest test-newest slow planted-bugs soak check docs coverage clean

install: $(STAMP)

# The tested versions are pinned in constraints.txt; `pip install .` uses the ranges of pyproject.toml.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "seqnets needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	touch $(STAMP)

demo: install
	$(BIN)/python scripts/demo.py

test: install
	$(UNOPTIMIZED) $(BIN)/python -m pytest -n auto -m 'not slow'

# With the oldest versions that pyproject.toml allows. Jaxlib 0.10.1 prints an error for each program that it
# takes from its cache.
test-oldest:
	JAX_ENABLE_COMPILATION_CACHE=false $(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt EXTRAS=plot,tensorboard,interop,test,docs

# With the newest versions that there are; PYTHON=python3.13 takes another Python. Jaxlib 0.12 has no old emitters.
test-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=/dev/null EXTRAS=plot,tensorboard,interop,test,docs \
	  UNOPTIMIZED=JAX_DISABLE_MOST_OPTIMIZATIONS=1

slow: install
	$(BIN)/python -m pytest -n 2 -m slow

# Changes the library by one bug at a time, and runs the tests that must find it.
planted-bugs: install
	$(BIN)/python tests/planted/plant.py

# The long forms of tests/faults: fifty kills, then an hour of kills and resumes.
soak: install
	$(BIN)/python tests/faults/kills.py --kills 50
	$(BIN)/python tests/faults/soak.py --minutes 60

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes the site into site/; a warning is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

coverage: install
	$(UNOPTIMIZED) $(BIN)/python -m pytest -n auto -m 'not slow' --cov=seqnets --cov-branch --cov-report=term

clean:
	rm -rf .venv .venv-oldest .venv-newest .cache build dist site *.egg-info runs
