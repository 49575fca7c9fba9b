# make run    set everything up and start the service
# make demo   the service with thirty simulated headsets, to be seen and steered on its page
# make cluster-demo  three nodes on etcd behind a balancer, of which one is killed now and then
# make test   set up and pass all tests
# make page   the operators' page in Chromium, in four minutes
# make faults kill it, stop it, starve it and flood it, in some minutes
# make cluster-faults  the same for three nodes and three etcd, on machines of their own
# make conformance  every client in every language, one set of cases, in a minute
# make virtual-hour  a thousand clients for an hour of virtual time, twice, in seconds
# make openapi  whether it keeps /openapi.json, asked by schemathesis, in a minute
# make costs  whether a beat has become dearer, in half a minute
# make bench  what a beat costs, beside what others take for one, in 15 minutes
# make cluster-model  how thousands of machines would do: a model of it, in half a minute
# make lint   style, types and the floors of the house
# make check  all of it but most of the faults and the benchmark, as CI does
# make dist   build what others install, a wheel and an sdist, into dist/
#
# Needs Debian (or a system like it), Python 3.11 or newer, and make.

# What is compiled is kept: a program starts sooner, and these tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
RUN := $(VENV)/.run-$(shell cat requirements.txt pyproject.toml | cksum | cut -d' ' -f1)
DEV := $(VENV)/.dev-$(shell cat requirements.txt requirements-cluster.txt requirements-dev.txt pyproject.toml | cksum | cut -d' ' -f1)
BENCH := $(VENV)/.bench-$(shell cat requirements*.txt pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: run demo cluster-demo test cluster-demo-test page pictures faults cluster-faults bench cluster-model conformance csharp-client virtual-hour openapi costs lint check units beside-units tools dist package format clean

run: $(RUN)
	exec $(BIN)/twistd -n --pidfile= heartbeat $(ARGS)

demo: $(RUN)
	@exec $(BIN)/python examples/demo.py $(ARGS)

# What a cluster of nodes runs on besides; haproxy isn't in everybody's path.
has_cluster = PATH=$$PATH:/usr/sbin && command -v etcd >/dev/null && \
	command -v haproxy >/dev/null || sh deploy/install-debian.sh etcd-server haproxy

cluster-demo: $(DEV)
	@$(has_cluster)
	@exec $(BIN)/python examples/cluster_demo.py $(ARGS)

# A real Prometheus scrapes the service. Clients in other languages are tried where these
# are there, and all of them with CLIENTS=all; so is etcd, and always with ETCD=required.
# With COVERAGE=1, after `make units COVERAGE=1`, it asks for 95 %; what has passed there,
# under trial, isn't run again, nor what comes in cluster-demo-test.
test: $(DEV)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || \
		sh deploy/install-debian.sh prometheus
	@$(has_clients)
	@$(has_etcd)
ifdef COVERAGE
	$(BIN)/python -m pytest -q -n 6 --dist loadgroup --cov --cov-append --cov-fail-under=0 \
		-m "not cluster" tests/integration tests/conformance
	$(BIN)/python -m pytest -q -n 3 --cov --cov-append -m cluster tests/integration \
		--ignore tests/integration/$(DEMO)
else
	$(BIN)/python -m pytest -q -n 4 --dist loadgroup -m "not cluster"
	$(BIN)/python -m pytest -q -n 3 -m cluster tests/integration
endif

# It waits most of the time, so that something else can run beside it.
DEMO := test_cluster_demo.py
cluster-demo-test: $(DEV)
	$(BIN)/python -m pytest -q tests/integration/$(DEMO)

# What many machines share. Where it isn't there, what needs it is skipped.
has_etcd = command -v etcd >/dev/null || { \
	if [ "$$ETCD" = required ]; then sh deploy/install-debian.sh etcd-server; \
	else echo "There is no etcd here (Debian's etcd-server): its tests are skipped."; fi; }

# A real browser, and fonts that run narrow and wide: no text may be cut off in any.
BROWSER := chromium fonts-liberation fonts-noto-core fonts-dejavu-core fonts-inter
has_browser = sh deploy/install-debian.sh $(BROWSER)

# BRIEF=1 sees that it comes, lets in, steers, and that axe finds nothing on its wall: some seconds.
BRIEFLY := wall_of_thirty or token or one_client_is_steered
page: $(DEV)
	@$(has_browser)
	$(BIN)/python -m pytest -q -n 3 $(if $(BRIEF),-k "$(BRIEFLY)") tests/browser

# What the documents show of the page, taken anew.
pictures: $(DEV)
	@$(has_browser)
	PICTURES= $(BIN)/python -m pytest -q tests/browser/test_scenes.py \
		-k "wall_of_thirty or one_client or phone_now or mass_loss"

# FAULTS=short make faults does less of each.
faults: $(DEV)
	$(BIN)/python -m pytest -q tests/faults
	@$(has_browser)
	$(BIN)/python -m pytest -q -s tests/browser/crowded.py

# Network namespaces are the machines, so it needs root. CLUSTER=short does less, in a minute;
# with CLUSTER_REQUIRED=1 it fails where it can't be tried.
MACHINES := etcd-server etcd-client haproxy iproute2 nftables
cluster-faults: $(DEV)
	@sh deploy/install-debian.sh $(MACHINES)
	$(BIN)/python -m pytest -q tests/cluster

# QUICK=1 make bench tries all of it within five minutes, and records nothing. SCENARIOS="…"
# measures those alone.
bench: $(BENCH)
	@command -v wrk >/dev/null && command -v redis-server >/dev/null && \
		command -v etcd >/dev/null || \
		sh deploy/install-debian.sh wrk redis-server etcd-server
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(SCENARIOS)

# Not measured, but reckoned from what was. ARGS="--seed 2" has other chances.
cluster-model: $(DEV)
	@$(BIN)/python -m bench.cluster.model $(ARGS)

# What clients run on that aren't Python. Each that was built is tried; with CLIENTS=all none
# may be missing.
MONO := mono-mcs libmono-system-net-http4.0-cil libmono-system-json4.0-cil libzmq5
LANGUAGES := $(MONO) $(if $(shell command -v node),,nodejs) chromium
has_languages = sh deploy/install-debian.sh $(LANGUAGES)
has_clients = { [ "$$CLIENTS" != all ] || $(has_languages); } && \
	{ ! command -v mcs >/dev/null || $(MAKE) --no-print-directory csharp-client; }

# The client in C#, as a program of mono.
CSHARP := build/csharp
MCS := mcs -langversion:7.2 -warnaserror -nologo -r:System.Net.Http
csharp-client: $(CSHARP)/MLFGameClient.exe

$(CSHARP)/MLFGameClient.exe: $(wildcard clients/csharp/Runtime/*.cs clients/csharp/Program~/*)
	@command -v mcs >/dev/null || sh deploy/install-debian.sh $(MONO)
	@mkdir -p $(CSHARP)
	cp clients/csharp/Program~/MLFGameClient.exe.config $(CSHARP)
	$(MCS) -out:$@ $(filter %.cs,$^)

# A table of case and client. CLIENT=node tries one of them alone.
conformance: export CLIENTS := all
conformance: $(DEV)
	@$(has_clients)
	$(BIN)/python -m pytest -q -n 6 --dist loadgroup tests/conformance $(ARGS)

# With all mischief on, nobody may be wronged; and what follows from one seed is the same
# to the byte, whatever order a process has its sets in.
HOUR = $(BIN)/python -m heartbeat_service.simulator --virtual --clients 1000 --seconds 3600 \
	--interval 60 --fuse 180 --crash-rate 0.005 --pause-rate 0.01 --restart-rate 0.005 \
	--duplicate-rate 0.002 --lossy 0.005 --skew 0.02 --slow 0.5 --stall-rate 0.1

virtual-hour: $(DEV)
	@mkdir -p build; \
	PYTHONHASHSEED=1 $(HOUR) >build/virtual-hour.txt & first=$$!; \
	PYTHONHASHSEED=2 $(HOUR) >build/virtual-hour-again.txt; again=$$?; \
	wait $$first; first=$$?; cat build/virtual-hour.txt; \
	test $$first = 0 && test $$again = 0 && \
		cmp build/virtual-hour.txt build/virtual-hour-again.txt

# All that the document says can be asked of it, and what it says can't.
openapi: $(DEV)
	$(BIN)/python -m tests.openapi

# Has a beat become dearer? Beside peers that need no more than the tests do.
costs: $(DEV)
	$(BIN)/python -m bench.check

units: $(DEV)
	$(BIN)/$(if $(COVERAGE),coverage run,python) -m twisted.trial --reporter=text \
		--temp-directory=$(VENV)/trial tests.unit

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	sh deploy/verify.sh $(BIN)

dist: $(DEV)
	rm -rf dist
	$(BIN)/hatchling build -d dist

package: dist
	sh tests/package.sh $(BIN)

# All that any part of check needs of Debian, while the first parts run.
tools:
	@sh deploy/install-debian.sh prometheus $(BROWSER) $(LANGUAGES) $(MACHINES)

# What can run beside the units, and leaves them their core: they take as long as all of it.
beside-units:
	@nice $(MAKE) --no-print-directory lint package openapi virtual-hour

# The first have a core for the units and one for the rest; what comes after has both.
check: export CLIENTS := all
check: export ETCD := required
check: $(DEV)
	$(MAKE) --no-print-directory -j3 --output-sync=target \
		tools units beside-units COVERAGE=1
	$(MAKE) --no-print-directory test COVERAGE=1
	$(MAKE) --no-print-directory -j2 --output-sync=target \
		page cluster-faults cluster-demo-test BRIEF=1 CLUSTER=short CLUSTER_REQUIRED=1
	$(MAKE) --no-print-directory costs

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist htmlcov .coverage* .hypothesis .schemathesis .mypy_cache .ruff_cache

# A stamp's name carries a checksum of what was installed: another list of
# requirements is another stamp.
$(RUN): $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# To compile all of this takes half a minute; what is used of it is compiled as it is first used.
$(DEV): $(BIN)/pip
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(BENCH): $(DEV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

# Debian keeps what venv needs in a package of its own.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, as $(PYTHON)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh deploy/install-debian.sh python3-venv
	$(PYTHON) -m venv --clear $(VENV)
