# Everything there is to do here, each target with no other step before it.
# Owns: .venv (environment and entry point), build/ (scratch). The core is rebuilt only when ext/, setup.py or pyproject.toml changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Hundreds of processes are started by tests: without a cache each of them compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE
# cython-lint looks for pycodestyle, tests for nginx and haproxy.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin
TREE := scrubber ext configs bench tests docs setup.py pyproject.toml constraints.txt README.md LICENSE
SCENARIOS ?=
RUNS ?= 5
# Arguments for pytest, as in: make test TESTS="tests/unit -k limiter"
TESTS ?=

# What else comes with the packages, pinned as well; empty: the newest that fit.
CONSTRAINTS ?= --constraint constraints.txt

.PHONY: help demo build lint docs constraints test test-net test-large soak test-tools wstest asan debug fuzz bench bench-smoke clean

help:
	@echo "make demo         the gateway before a real origin, people and a bounded flood: a live screen, a chart, a report"
	@echo "make test         lint, build, a small bench, the whole suite"
	@echo "make test-net     what lies below the proxy, in network namespaces: as root"
	@echo "make test-large   bodies of 5 GiB in every combination: a quarter of an hour"
	@echo "make soak         twenty minutes of people, attacks, reloads, blocks and killed workers"
	@echo "make bench        SCENARIOS=\"clean reject banned\" RUNS=5: against nginx and HAProxy; writes bench/RESULTS.md"
	@echo "make build        .venv with pinned packages and the native core; .venv/bin/scrubber is there afterwards"
	@echo "make docs         docs/gateway.md's tables anew from the schema (a test compares them)"
	@echo "make constraints  constraints.txt anew (and .venv), after a pin in pyproject.toml changed"
	@echo "make lint         ruff, mypy, cython-lint"
	@echo "make asan, debug  the suite over a build with ASan + UBSan, or with C assertions on"
	@echo "make fuzz         TARGETS=\"request_head\" SECONDS_EACH=60: coverage-guided, over a build with ASan + UBSan; tests/fuzz has the targets"
	@echo "make clean        removes .venv, build/ and the built core"

# Packages are pinned in pyproject.toml, build tools included, and what they bring along in constraints.txt; the environment is made anew when the Python under it is gone.
.venv/.packages: pyproject.toml constraints.txt
	@echo "making .venv: pinned packages, then the native core (a minute or two, once)"
	@python=$$(.ci/system-packages build) && \
	  { $(BIN)/python -c 'import pip' 2>/dev/null || "$$python" -m venv --clear .venv; }
	@$(BIN)/python -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); p = t["project"]; \
	  print(*t["build-system"]["requires"], *p["dependencies"], *sum(p["optional-dependencies"].values(), []), sep="\n")' \
	  | sort -u >.venv/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt $(CONSTRAINTS)
	@touch $@

.venv/.native: .venv/.packages setup.py $(wildcard ext/*.pyx ext/*.pxd ext/*.h ext/*.cc bench/macro/*.pyx bench/macro/*.pxd)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

build: .venv/.native

demo: build
	$(BIN)/python -m bench.demo

lint: .venv/.packages
	$(BIN)/ruff check .
	$(BIN)/mypy scrubber $(wildcard bench)
	$(BIN)/cython-lint ext bench/macro

docs: build
	$(BIN)/python -m scrubber.config.reference docs/gateway.md

constraints:
	rm -rf .venv
	$(MAKE) CONSTRAINTS= .venv/.packages
	{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } >constraints.new && mv constraints.new constraints.txt

test-tools:
	@.ci/system-packages test >/dev/null

# Autobahn's WebSocket suite (Python 2.7, where there is one), for tests/e2e/test_websockets.py; what it needs is pinned by its last release.
PYTHON2 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/2.7.*/bin/python) $(shell command -v python2.7 2>/dev/null))
wstest:
	@[ -d build/wstest ] || [ -z "$(PYTHON2)" ] || { rm -rf build/wstest.new && "$(PYTHON2)" -m pip install --quiet --disable-pip-version-check \
	  --target build/wstest.new autobahntestsuite==0.8.2 >build/wstest.log 2>&1 && mv build/wstest.new build/wstest; } \
	  || echo "Autobahn's suite could not be installed (build/wstest.log): its test is skipped"

# Tests beside each other on three processes, as a third of the time they wait for something; before them what does not hinder the other.
test: test-tools
	$(MAKE) --no-print-directory -j3 build wstest lint
	$(MAKE) --no-print-directory bench-smoke
	$(BIN)/python -m pytest -n 3 --dist worksteal $(TESTS)

# Kernel drops and routes alone; they are in `test` as well. Skips with a reason where no namespace may be made.
test-net: test-tools build
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/net

# Bodies of 5 GiB in every combination, one after the other; three of them are in `test`.
test-large: build
	SCRUBBER_LARGE=1 $(BIN)/python -m pytest tests/e2e/test_matrix_large.py

# People, attacks, reloads, blocks and kills at once; half a minute of it is in `test`.
SOAK_S ?= 1200
soak: test-tools build
	SCRUBBER_SOAK_S=$(SOAK_S) $(BIN)/python -m pytest -s tests/e2e/test_soak.py::test_soak

# A copy of the tree with its own core, so that the one in place stays what it is. Children inherit PYTHONPATH.
define flavour_tree
	rm -rf build/tree-$(1) && mkdir -p build/tree-$(1)
	tar -c --exclude='*.so' --exclude=__pycache__ $(wildcard $(TREE)) | tar -x -C build/tree-$(1)
	cd build/tree-$(1) && SCRUBBER_BUILD=$(1) $(2) nice $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
endef

define flavour_run
	$(call flavour_tree,$(1))
	cd build/tree-$(1) && export PYTHONPATH=$$PWD SCRUBBER_BUILD=$(1) \
	  SCRUBBER_CORPORA="$${SCRUBBER_CORPORA:-$(CURDIR)/../shared/corpora}" $(2) && \
	  $(CURDIR)/$(BIN)/python -m pytest -n 3 --dist worksteal $(TESTS)
endef

SANITIZER = $$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)

# libasan must be the first library of every process that loads the core, libstdc++ beside it for packages in C++ that throw;
# what Python itself keeps until its end is no leak of ours.
asan: test-tools build
	$(call flavour_run,asan,LD_PRELOAD="$(SANITIZER)" SCRUBBER_PRELOAD="$(SANITIZER)" \
	  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc)

debug: test-tools build
	$(call flavour_run,debug,)

# libFuzzer comes with atheris, as a library that is the first of the process.
ATHERIS := build/atheris
TARGETS ?=
SECONDS_EACH ?= 60
KEEP ?=
$(ATHERIS)/asan_with_fuzzer.so:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(ATHERIS) atheris==3.0.0

# KEEP=1 puts what covers more into tests/fuzz/corpus.
fuzz: build $(ATHERIS)/asan_with_fuzzer.so
	@.ci/system-packages fuzz >/dev/null
	$(call flavour_tree,fuzz,CC=clang CXX=clang++ LDSHARED="clang -shared" LDCXXSHARED="clang++ -shared")
	cd build/tree-fuzz && SCRUBBER_FUZZ=$(CURDIR)/build/fuzz PYTHONPATH=$$PWD:$(CURDIR)/$(ATHERIS) PYTHONMALLOC=malloc \
	  LD_PRELOAD=$(CURDIR)/$(ATHERIS)/asan_with_fuzzer.so ASAN_OPTIONS=detect_leaks=0 \
	  nice $(CURDIR)/$(BIN)/python -m tests.fuzz $(TARGETS) --seconds $(SECONDS_EACH) $(if $(KEEP),--keep $(CURDIR)/tests/fuzz/corpus)

bench: test-tools build
	$(BIN)/python -m bench $(SCENARIOS) --runs $(RUNS)

bench-smoke: test-tools build
	$(BIN)/python -m bench --smoke $(SCENARIOS)

clean:
	rm -rf .venv build out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find scrubber ext bench tests -name __pycache__ -prune -exec rm -rf {} +
	rm -f scrubber/_native*.so demo-report.json demo-chart.png
