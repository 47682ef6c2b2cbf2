# Every target installs what it needs: a virtual environment in .venv, and system packages through apt-get where it may.
#
#   make demo [DATA=folder]   pretrain, evaluate and report, on generated images or on a folder of your own
#   make test [ARGS=...]      all tests and doctests; ARGS goes to pytest
#   make bench [DATA=folder]  the benchmarks beside their peers
#   make lint | format        check the style | apply it
#   make sanitize             the native code under AddressSanitizer and UndefinedBehaviorSanitizer
#   make fuzz [SECONDS=600]   libFuzzer on decoding, rendering and the cache file
#   make gpu-check [PART=..]  build, test, benchmark and check memory on a machine with a GPU, network or not
#   make build                compile what changed
#   make clean | distclean    remove what was built | and the environment
#
# PYTHON picks the interpreter the environment is made of, VENV its place, JPEG_ROOT a libjpeg-turbo outside the system's
# folders, THREADS the threads that torch takes in the tests, PIP_FLAGS goes to pip.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
CXX ?= g++
VENV ?= .venv
PY := $(VENV)/bin/python
PIP_FLAGS ?=
THREADS ?= 2

NATIVE := $(wildcard csrc/* csrc/*/*) CMakeLists.txt setup.py
CXX_SOURCES := $(filter %.cpp %.h %.hpp %.cu %.cuh,$(NATIVE))
# pyproject.toml names the build tools; read them there, quotes kept for the shell.
BUILD_TOOLS = $(shell sed -n 's/^requires = \[\(.*\)\]/\1/p' pyproject.toml | tr -d ',')

WITH_TOOLS = PATH="$(abspath $(VENV))/bin:$$PATH"

.PHONY: help
help:
	@sed -n '/^#   make/s/^#   //p' Makefile

# --- what is needed ---------------------------------------------------------------------------------------------------

.PHONY: system
system:
	@JPEG_ROOT="$(JPEG_ROOT)" PYTHON="$(PYTHON)" CXX="$(CXX)" bash .ci/system-packages venv

$(VENV)/.created:
	@$(MAKE) --no-print-directory system
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip
	@touch $@

# The build runs in this environment, not in pip's throw-away one, so that CMake's cache stays valid and a rebuild is incremental.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	$(PY) -m pip install -q $(PIP_FLAGS) $(BUILD_TOOLS)
	$(WITH_TOOLS) $(PY) -m pip install -q $(PIP_FLAGS) --no-build-isolation -e '.[dev]'
	@touch $@

$(VENV)/.built: $(NATIVE) | $(VENV)/.installed
	$(WITH_TOOLS) $(PY) setup.py -q build_ext --inplace
	@touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.installed
	$(WITH_TOOLS) $(PY) -m pip install -q $(PIP_FLAGS) --no-build-isolation -e '.[bench]'
	@touch $@

.PHONY: install build
install: $(VENV)/.installed
build: $(VENV)/.installed $(VENV)/.built

# --- what one does ----------------------------------------------------------------------------------------------------

.PHONY: demo
demo: build
	$(VENV)/bin/fastssl demo $(if $(DATA),"$(DATA)")

.PHONY: test
test: build
	OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest $(ARGS)

.PHONY: bench
bench: build $(VENV)/.bench
	$(PY) -m pytest benchmarks/test_micro.py --benchmark-columns=min,median,iqr,rounds $(ARGS)
	$(PY) benchmarks/views.py $(if $(DATA),--data "$(DATA)")
	$(PY) benchmarks/memory.py $(if $(DATA),--data "$(DATA)")
	$(PY) benchmarks/masks.py
	$(PY) benchmarks/losses.py
	$(PY) benchmarks/tables.py README.md

.PHONY: lint
lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_SOURCES)

.PHONY: format
format: $(VENV)/.installed
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(CXX_SOURCES)

# A build of its own in build/sanitize: the C++ tests, then the Python tests that reach native code, on a copy of the package
# that holds the checked library. No leak check, since Python itself does not free all; the tests count memory themselves,
# for which freed blocks must not wait in quarantine.
SANITIZE := build/sanitize
SANITIZED_LIBRARIES = $(foreach l,libasan.so libubsan.so libstdc++.so.6,$(shell $(CXX) -print-file-name=$(l)))
WITHOUT_NATIVE := cuda_contrastive cuda_resources embedding examples gpu_benchmarks layout loader_benchmarks loss% models% pipelines_dali% pretrain readme reference
SANITIZE_TESTS ?= $(filter-out $(WITHOUT_NATIVE:%=tests/test_%.py),$(wildcard tests/test_*.py))
.PHONY: sanitize
sanitize: $(VENV)/.installed
	$(WITH_TOOLS) cmake -S . -B $(SANITIZE) -G Ninja -DFASTSSL_SANITIZE=ON -DFASTSSL_NATIVE_TESTS=ON -DFASTSSL_CUDA=OFF \
	  -DPython_EXECUTABLE="$(abspath $(PY))" -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$(abspath $(SANITIZE))/site/fastssl" \
	  $(if $(JPEG_ROOT),-DJPEG_ROOT="$(JPEG_ROOT)")
	rm -rf $(SANITIZE)/site
	$(WITH_TOOLS) cmake --build $(SANITIZE)
	$(WITH_TOOLS) ctest --test-dir $(SANITIZE) --output-on-failure
	cd fastssl && find . -name '*.py' -exec cp --parents -t ../$(SANITIZE)/site/fastssl {} +
	OMP_NUM_THREADS=$(THREADS) UBSAN_OPTIONS=print_stacktrace=1 LD_PRELOAD="$(SANITIZED_LIBRARIES)" \
	  FASTSSL_SANITIZED=1 ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=1:thread_local_quarantine_size_kb=16 \
	  PYTHONPATH=$(abspath $(SANITIZE))/site $(VENV)/bin/pytest -p no:cacheprovider $(SANITIZE_TESTS) $(ARGS)

# From tests/corpus, which the tests above replay. What is new goes into build/fuzz/corpus; a finding, which ends the run, into
# build/fuzz/findings. To keep what is new: build/fuzz/fuzz -merge=1 tests/corpus build/fuzz/corpus
FUZZ := build/fuzz
SECONDS ?= 600
.PHONY: fuzz
fuzz: $(VENV)/.installed
	@JPEG_ROOT="$(JPEG_ROOT)" PYTHON="$(PYTHON)" CXX="$(CXX)" bash .ci/system-packages fuzz
	$(WITH_TOOLS) cmake -S . -B $(FUZZ) -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DFASTSSL_FUZZ=ON -DFASTSSL_CUDA=OFF \
	  $(if $(JPEG_ROOT),-DJPEG_ROOT="$(JPEG_ROOT)")
	$(WITH_TOOLS) cmake --build $(FUZZ)
	mkdir -p $(FUZZ)/corpus $(FUZZ)/findings
	$(FUZZ)/fuzz -max_total_time=$(SECONDS) -max_len=4096 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
	  -artifact_prefix=$(FUZZ)/findings/ $(FUZZ)/corpus tests/corpus || \
	  { echo "A finding: its input is the last file in $(FUZZ)/findings; $(FUZZ)/fuzz <file> runs it again." >&2; exit 1; }
	@echo "No finding in $(SECONDS) s."

.PHONY: gpu-check
gpu-check:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" PART="$(PART)" bash benchmarks/gpu-check.sh

.PHONY: clean distclean
clean:
	rm -rf build dist *.egg-info fastssl/_C*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)/.built
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
distclean: clean
	rm -rf $(VENV) runs
