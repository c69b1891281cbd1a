# Everything a fresh clone needs, with Python 3.11 or newer, make, gcc and git. `make help` lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PEERS := tvm ort
#: Tests run in two processes by default: `make test JOBS=0` runs them in one.
JOBS ?= 2
PYTEST_ARGS ?=

#: Architectures whose programs tests run: Debian's triple, and its name of the architecture.
CROSS_TRIPLES := aarch64-linux-gnu:arm64 arm-linux-gnueabi:armel arm-linux-gnueabihf:armhf riscv64-linux-gnu:riscv64

PROTOS := $(wildcard proto/crossfarm/v1/*.proto)
INSTALLED := $(VENV)/.installed
STUBS := crossfarm/wire/v1/__init__.py
PEERS_INSTALLED := $(PEERS:%=.peers/%/.installed)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- what users come for

.PHONY: demo
demo: venv arm64-root ## build, lease, run and measure on every device found here and on an emulated aarch64 agent
	$(BIN)/crossfarm demo --require-aarch64

.PHONY: test
test: venv arm64-root ## all tests, those on the emulated aarch64 agent too
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not models" $(PYTEST_ARGS)

.PHONY: test-models
test-models: venv arm64-root ## whole models on every kind of device, against their own outputs and ONNX Runtime
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m models $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: venv ## the tests that take less than ten seconds each and need no emulator
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not slow and not emulated and not models" $(PYTEST_ARGS)

.PHONY: test-schedules
test-schedules: venv ## SCHEDULES random sequences of schedule primitives for each of some programs
	CROSSFARM_TEST_SCHEDULES=$(or $(SCHEDULES),2000) $(BIN)/pytest --timeout 0 tests/schedule/test_properties.py

.PHONY: check-cuda
check-cuda: ## on a machine with an NVIDIA GPU: conformance of CUDA devices, then benchmarks; downloads nothing
	$(PYTHON) tools/check_cuda.py $(CHECK_CUDA_ARGS)

.PHONY: lint
lint: venv ## formatter, linter, type checker, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tools benchmarks
	$(BIN)/lint-imports

.PHONY: format
format: venv ## format the code and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: venv peers ## crossfarm beside TVM, gRPC, OpenBLAS and ONNX Runtime, in one run
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# --- set-up; each is done once and quick to repeat

.PHONY: venv
venv: $(INSTALLED) $(STUBS) ## .venv with every extra, at the versions of constraints.txt

.PHONY: proto
proto: $(STUBS) ## Python stubs of proto/ in crossfarm/wire/v1

.PHONY: system-packages
system-packages: ## Debian's packages that tests need: OpenCL and Vulkan on the CPU, emulators
	@missing=""; \
	command -v qemu-aarch64-static >/dev/null || command -v qemu-aarch64 >/dev/null || missing=qemu-user-static; \
	command -v wine64 >/dev/null || [ -x /usr/lib/wine/wine64 ] || missing="$$missing wine64"; \
	[ -e /etc/OpenCL/vendors/pocl.icd ] || missing="$$missing pocl-opencl-icd"; \
	ls /usr/share/vulkan/icd.d/lvp_icd* >/dev/null 2>&1 || missing="$$missing mesa-vulkan-drivers libvulkan1"; \
	command -v spirv-val >/dev/null || missing="$$missing spirv-tools"; \
	for triple in $(CROSS_TRIPLES); do \
		[ -e /usr/$${triple%:*}/lib/libc.so.6 ] || missing="$$missing libc6-$${triple#*:}-cross"; \
	done; \
	if [ -z "$$missing" ]; then \
		:; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing; \
	else \
		echo "Packages are missing. On Debian, as root: apt-get install" $$missing >&2; exit 1; \
	fi

.PHONY: arm64-root
arm64-root: venv system-packages ## .roots/arm64: Debian's arm64 Python, PoCL and aarch64 wheels, for an emulated agent
	@$(BIN)/python tools/arm64_root.py make

.PHONY: peers
peers: $(PEERS_INSTALLED) ## .peers: Apache TVM and ONNX Runtime, each in a virtual environment, to measure against

.PHONY: clean
clean: ## remove what building and testing leave
	rm -rf build dist crossfarm/wire/v1 .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -not -path './.roots/*' -not -path './.peers/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the environments too
	rm -rf $(VENV) .roots .peers *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The package's build needs the stub generator: installed first, at its pinned version, instead of in an isolated build.
$(INSTALLED): pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools grpcio-tools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

$(STUBS): $(PROTOS) tools/generate_stubs.py | $(INSTALLED)
	$(BIN)/python tools/generate_stubs.py

.peers/%/.installed: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/python -m pip install --quiet --requirement $<
	@touch $@
