# Targets for people; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv

PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check --no-input
# Tables of accuracies take hours, and have a command of their own: benchmarks.accuracy.tables.
BENCHMARKS = speed.data_preparation speed.ranking speed.startup speed.step_time speed.training \
  speed.user_batches scaling.measure

# Definitions, models, gradients, the step on several devices, checkpoints.
CORE_TESTS = tests/architecture tests/functional tests/kernels tests/models tests/training tests/runs

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-core lint bench torture docs notebooks clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

venv: $(VENV)/.test ## make .venv with the library and what its tests need

demo: $(VENV)/.base ## train and evaluate on embedded data, in minutes
	$(VENV)/bin/hlr-jax demo

test: $(VENV)/.test ## run the tests; HLR_JAX_DATA names the folder of real data, if any
	$(VENV)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

test-core: $(VENV)/.test ## run the part of the tests that a new version of JAX would break
	$(VENV)/bin/python -c "import jax, sys; print('Python', sys.version.split()[0], 'JAX', jax.__version__)"
	$(VENV)/bin/python -m pytest -n 2 $(PYTEST_ARGS) $(CORE_TESTS)

lint: $(VENV)/.test ## check style, formatting, types, and packages for known vulnerabilities
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy hlr_jax
	sh .ci/audit $(VENV)

bench: $(VENV)/.bench ## measure speed and scaling into build/bench; BENCH_ARGS: --record, --quick
	@set -e; for name in $(BENCHMARKS); do \
	  echo "== $$name"; $(VENV)/bin/python -m benchmarks.$$name $(BENCH_ARGS); done

torture: $(VENV)/.test ## damage inputs and files, kill runs, fill disks; BENCH_ARGS: --record
	$(VENV)/bin/python -m benchmarks.reliability.inputs $(BENCH_ARGS) & \
	$(VENV)/bin/python -m benchmarks.reliability.torture $(BENCH_ARGS); found=$$?; \
	wait $$! && exit $$found

# Not --quiet, which would hide warnings from --strict.
docs: $(VENV)/.docs ## build the site of the documents into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

notebooks: $(VENV)/.test ## run docs/notebooks again, and keep what they show
	$(VENV)/bin/python docs/run_notebooks.py

clean: ## remove .venv, builds and caches
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of requirements, renewed when the metadata change. The larger
# sets contain the base one; each adds to what is installed and takes nothing away.
$(VENV)/.base: setup.cfg pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --editable .
	touch $@

$(VENV)/.test $(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: setup.cfg pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[$*]'
	touch $(VENV)/.base $@
