# Every target works alone, on a machine with nothing but Python >= 3.11
# (Debian and Ubuntu: apt-get install python3-venv) and make.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# A file's tests stay together, so that what one module makes for all of its tests is made once.
# Which file comes first says tests/conftest.py.
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder
# Every Python of this machine that we run on.
PYTHONS ?= $(foreach minor,11 12 13 14,$(firstword $(wildcard $(HOME)/.pyenv/versions/3.$(minor).*/bin/python3.$(minor)) \
	$(shell command -v python3.$(minor))))

.PHONY: run cluster test check lint test-all test-long fuzz fuzz-atheris golden bench bench-two bench-peers clean

# The daemon on ports 5050 and 5051, a browser's on 3000, with a worker of its own; Ctrl-C ends it, ./var keeps its tasks.
run: .venv/run.stamp
	exec $(BIN)/cronflowd --data ./var --http 127.0.0.1:3000

# Three etcds, two daemons that are one, on ports 5050 and 5060, and two workers; Ctrl-C ends them. See docs/cluster.md.
cluster: .venv/run.stamp
	contrib/cluster.sh

test: .venv/test.stamp
	$(PYTEST) $(SIDE_BY_SIDE)

check: lint
	$(PYTEST) $(SIDE_BY_SIDE)

# The tests on every Python found, each in an environment of its own.
test-all:
	@for python in $(PYTHONS); do \
		venv=.venv-all/$$(basename $$python); \
		test $$venv/test.stamp -nt setup.cfg || { $$python -m venv --clear $$venv \
			&& $$venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' \
			&& touch $$venv/test.stamp; } || exit 1; \
		echo "$$python:" && $$venv/bin/python -m pytest -q $(SIDE_BY_SIDE) || exit 1; \
	done

lint: .venv/test.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict

test-long: .venv/test.stamp
	CRONFLOWD_LONG=1 CRONFLOWD_PROBES=100000 CRONFLOWD_EXAMPLES=5000 CRONFLOWD_KILLS=300 $(PYTEST) -m "long or not long" --timeout 900

# Looks so long for lines that break something, on both ports: what is found is left in tests/fuzz/corpus/found.
FUZZ_S ?= 120
fuzz: .venv/test.stamp
	CRONFLOWD_FUZZ_S=$(FUZZ_S) $(PYTEST) -s tests/fuzz

# The same led by what is reached in the code, where atheris can be had.
fuzz-atheris: .venv/test.stamp
	-test -d .bench/atheris || $(BIN)/python -m pip install --quiet --disable-pip-version-check --target .bench/atheris atheris
	mkdir -p .bench/corpus
	PYTHONPATH=.bench/atheris $(BIN)/python -m tests.fuzz.with_atheris .bench/corpus -max_total_time=$(FUZZ_S) -max_len=4096 -len_control=0

# Writes the transcripts, those in protocol.md, and the man page anew from what the program does now; read the diff like code.
golden: .venv/test.stamp
	CRONFLOWD_GOLDEN=1 $(PYTEST) tests/daemon/test_transcripts.py tests/daemon/test_protocol_md.py tests/cli/test_man_page.py

# What things cost beside real peers: `make bench BENCH="--only life,ping --rounds 3 --scale 0.1 --json FILE"`.
bench: .venv/test.stamp bench-peers
	$(BIN)/python -m contrib.bench $(BENCH)

# Ours at two commits in one run: make bench-two REV=HEAD~5
bench-two: .venv/test.stamp
	$(BIN)/python -m contrib.bench --against $(REV) $(BENCH)

# Those that Debian has not; what cannot be had is named in the table (apt-get install redis-server beanstalkd nodejs npm).
bench-peers: .bench/peers.stamp

.bench/peers.stamp: | .venv/test.stamp
	mkdir -p .bench/node
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .bench/python 'apscheduler<4'
	-npm install --silent --no-audit --no-fund --prefix .bench/node bullmq ioredis
	touch $@

clean:
	rm -rf .venv .venv-all .bench build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	touch $@

.venv/test.stamp: setup.cfg | .venv/made.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ .venv/run.stamp
