# Every target works alone, on a machine with nothing but Python >= 3.11
# (Debian and Ubuntu: apt-get install python3-venv) and make.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: run test check lint test-long golden bench clean

# The daemon on ports 5050 and 5051 with a worker of its own; Ctrl-C ends it, ./var keeps its tasks.
run: .venv/run.stamp
	exec $(BIN)/cronflowd --data ./var

test: .venv/test.stamp
	$(PYTEST)

check: lint
	$(PYTEST)

lint: .venv/test.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict

test-long: .venv/test.stamp
	CRONFLOWD_LONG=1 CRONFLOWD_PROBES=100000 CRONFLOWD_EXAMPLES=5000 CRONFLOWD_KILLS=300 $(PYTEST) -m "long or not long" --timeout 900

# Writes the transcripts, those in protocol.md, and the man page anew from what the program does now; read the diff like code.
golden: .venv/test.stamp
	CRONFLOWD_GOLDEN=1 $(PYTEST) tests/daemon/test_transcripts.py tests/daemon/test_protocol_md.py tests/cli/test_man_page.py

bench: .venv/test.stamp
	$(BIN)/python -m tests.bench

clean:
	rm -rf .venv build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than setup.cfg while the environment holds what setup.cfg asks for.
.venv/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "cronflowd needs Python 3.11 or newer; say which: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
		|| { echo "this Python cannot make environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	touch $@

.venv/run.stamp: setup.cfg | .venv/made.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/test.stamp: setup.cfg | .venv/made.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ .venv/run.stamp
