# `make help` lists what there is.
SHELL := /bin/sh
PY := .venv/bin/python
PYTHON ?= python3
export PYTHON
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Coverage is measured by `make coverage`. Tests wait about as long as they compute, so two share a core;
# each worker takes tests that stand together, which share what they start.
PYTEST_ARGS ?= -n $(shell expr 2 \* $$(nproc)) --dist worksteal
KEEP ?=

.DEFAULT_GOAL := help
.PHONY: help demo portal-demo test test-device coverage lint bench bench-peers bench-limits pam fuzz soak faults lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 21

.venv/.ready: requirements.lock scripts/make-venv scripts/system-packages pyproject.toml
	@scripts/system-packages venv pam
	@scripts/make-venv requirements.lock
	@touch $@

demo: .venv/.ready pam ## the main job in a private folder: enrol, check a code, log in; KEEP=1 leaves the daemon running
	@$(PY) scripts/demo.py --module pam/build/pam_otpbridge.so $(if $(KEEP),--keep)

portal-demo: .venv/.ready ## the portal with two clients and a few users, to be looked at in a browser; KEEP=1 leaves it running
	@$(PY) scripts/portal_demo.py $(if $(KEEP),--keep)

pam: .venv/.ready ## build the PAM module: pam/build/pam_otpbridge.so
	@scripts/system-packages pam
	@test -e pam/build/build.ninja || meson setup --buildtype=release pam/build pam >/dev/null
	@ninja --quiet -C pam/build

test: .venv/.ready ## install what is missing, then run all tests
	@scripts/system-packages pam test peers
	$(PY) -m pytest $(PYTEST_ARGS)

test-device: .venv/.ready ## tests on a real YubiKey, the only one plugged in: SERIAL=12345678; RESET=yes resets it too
	@test -n "$(SERIAL)" || { echo "Say which key: make test-device SERIAL=12345678" >&2; exit 2; }
	OTPBRIDGE_DEVICE_SERIAL=$(SERIAL) OTPBRIDGE_DEVICE_RESET=$(RESET) \
	    $(PY) -m pytest -v -s -p no:randomly -p no:xdist tests/hardware

coverage: .venv/.ready ## all tests with a coverage report
	@scripts/system-packages pam test peers
	rm -f .coverage .coverage.*
	$(PY) -m coverage run -m pytest $(PYTEST_ARGS)
	$(PY) -m coverage combine -q
	$(PY) -m coverage report

lint: .venv/.ready ## ruff, mypy --strict, import-linter, man pages, C warnings
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	@scripts/system-packages pam test
	mandoc -T lint -W warning docs/man/*.[158] pam/*.8

bench: .venv/.ready pam ## measure beside pam_google_authenticator and pam_oath; writes benchmarks/results/ (BENCH_ARGS=--quick)
	@scripts/system-packages peers bench
	@scripts/make-venv benchmarks/requirements.lock
	$(PY) benchmarks/run.py $(BENCH_ARGS)

bench-peers: .venv/.ready pam benchmarks/.privacyidea/.ready ## the same with privacyIDEA and PostgreSQL beside it
	@scripts/system-packages peers bench
	@scripts/make-venv benchmarks/requirements.lock
	$(PY) benchmarks/run.py --peers $(BENCH_ARGS)

benchmarks/.privacyidea/.ready: benchmarks/privacyidea.lock scripts/make-venv
	@scripts/make-venv benchmarks/privacyidea.lock benchmarks/.privacyidea
	@touch $@

bench-limits: .venv/.ready pam ## what floods, large stores and a long audit log cost others, as root (BENCH_ARGS=--full)
	$(PY) benchmarks/limits.py $(BENCH_ARGS)

fuzz: .venv/.ready ## long fuzzing, each target for FUZZ_SECONDS=600; what it finds is kept in FUZZ_FOLDER=fuzz-found
	@scripts/system-packages pam test
	OTPBRIDGE_FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) OTPBRIDGE_FUZZ_FOLDER=$(or $(FUZZ_FOLDER),fuzz-found) \
	    $(PY) -m pytest -n auto -rA --show-capture=stdout -m campaign -k test_fuzzing tests/fuzz tests/pam/test_fuzzing.py

soak: .venv/.ready pam ## long form of the races and crashes that `make test` runs in short
	OTPBRIDGE_LONG=1 $(PY) -m pytest -n 1 -m campaign --ignore=tests/system/faults tests/system tests/conformance

faults: .venv/.ready ## break daemons, disks, servers and networks under load: FAULT_SECONDS=300 in each place, FAULT_SEED=…
	@scripts/system-packages pam test
	OTPBRIDGE_LONG=1 OTPBRIDGE_FAULT_SECONDS=$(FAULT_SECONDS) OTPBRIDGE_FAULT_SEED=$(FAULT_SEED) \
	    $(PY) -m pytest -s -p no:randomly -p no:xdist tests/system/faults

lock: ## renew the hashed locks (needs uv)
	uv pip compile pyproject.toml --all-extras --group dev --generate-hashes --universal --python-version 3.11 \
	    --no-emit-index-url --no-emit-find-links --no-header -q -o requirements.lock
	uv pip compile pyproject.toml --all-extras --group dev --group bench --generate-hashes --universal \
	    --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header -q -o benchmarks/requirements.lock
	uv pip compile benchmarks/privacyidea.in --generate-hashes --universal --python-version 3.11 \
	    --no-emit-index-url --no-emit-find-links --no-header -q -o benchmarks/privacyidea.lock

clean: ## remove what was built
	rm -rf .venv benchmarks/.privacyidea pam/build pam/build-* dist .coverage .coverage.* htmlcov
