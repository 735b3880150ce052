# Everything a developer or an operator of one host needs. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export PYTHONDONTWRITEBYTECODE := 1

# Services run under UIDs of their own, so root installs them where those can read: outside root's home.
CHECKOUT := $(shell pwd | sha256sum | cut -c1-12)
VENVS ?= $(if $(filter 0,$(shell id -u)),/opt/alive/$(CHECKOUT),$(CURDIR)/build/venvs)
PYTHON ?= /usr/bin/python3
UV_VERSION := 0.13.9
DOCKER ?= docker

MEMBERS := protos router $(patsubst %/pyproject.toml,%,$(wildcard services/*/pyproject.toml))
DEPLOYABLES := router $(patsubst %/pyproject.toml,%,$(filter-out services/kit/%,$(wildcard services/*/pyproject.toml)))
IMAGES ?= $(filter-out services/launcher services/mcp,$(DEPLOYABLES))
PACKAGES := $(addsuffix /src,$(filter-out protos,$(MEMBERS)))
SPACE := $(subst ,, )
UV := $(VENVS)/uv/bin/uv
DEV := $(VENVS)/dev/bin
PROTOS := $(patsubst protos/%,%,$(wildcard protos/alive/agent/v1/*.proto))
SOURCES := $(shell find protos/gen services/*/src services/kit/bin router/src -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: help install services generate fidelity recordings lock check test bench drill fuzz attack demo up doctor images units certs workspace token clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(VENVS)/dev/.installed ## Install everything for development

services: $(VENVS)/.programs $(foreach deployable,$(DEPLOYABLES),$(VENVS)/$(notdir $(deployable))/.installed)

demo: services ## Give one task to both agents, offline, and watch them work
	@$(VENVS)/stack/bin/alive-stack demo --venvs $(VENVS)

up: services ## Run the whole system; prints grpcurl lines to paste
	@$(VENVS)/stack/bin/alive-stack up --venvs $(VENVS)

doctor: services ## Check what runs on this host; a cure for each finding
	@$(VENVS)/stack/bin/alive-stack doctor

images: ## Build a container image of every service
	@for member in $(IMAGES); do \
		name=alive-$$(basename $$member); echo "building $$name"; \
		target=service; if grep -q '^.tool.alive.service.box' $$member/pyproject.toml; then target=provider; fi; \
		$(DOCKER) build --quiet --file docker/Dockerfile --target $$target --build-arg MEMBER=$$member --tag $$name . >/dev/null \
		|| exit 1; done

units: services ## Write systemd units that run what `make up` would: make units [DIR=build/units]
	@$(VENVS)/stack/bin/alive-stack units --venvs $(VENVS) $(DIR)

certs: services ## Make certificates for development: make certs [DIR=build/certificates]
	@$(VENVS)/stack/bin/alive-stack certs $(DIR)

workspace: services ## Make a workspace: make workspace NAME=site.example
	@$(VENVS)/stack/bin/alive-stack workspace $(NAME)

token: services ## Make a caller's bearer token: make token NAME=backend OWNER=acme [WORKSPACES='acme.*']
	@$(VENVS)/router/bin/python -m alive_router token $(NAME) --owner $(OWNER) $(if $(WORKSPACES),--workspaces '$(WORKSPACES)')

test: check services $(VENVS)/.docker $(VENVS)/.faketime ## Run every check and every test
	@$(DEV)/python -m pytest $(TESTS)

bench: install services $(VENVS)/bench/.installed $(VENVS)/bench-node/.installed $(VENVS)/bench-ends ## Measure us: make bench [SHORT=1] [ONLY="relay scale"] [EXPECT=1]
	@PYTHONPATH=$(VENVS)/bench ALIVE_BENCH_ENDS=$(VENVS)/bench-ends $(DEV)/python -m tests.bench $(ONLY)

drill: install services $(VENVS)/.faketime ## Have each part fail in each phase of a turn, and print what came of it
	@ALIVE_DRILLS=all $(DEV)/python -m pytest -q --no-header tests/drills

fuzz: install ## Send requests of any kind to every call: make fuzz [REQUESTS=100000]
	@ALIVE_FUZZ_REQUESTS=$(or $(REQUESTS),100000) $(DEV)/python -m pytest -q --no-header tests/fuzz

attack: install services $(VENVS)/.docker ## Have both agents attack, and print what stopped them
	@ALIVE_ATTACK_TABLE=1 $(DEV)/python -m pytest -q --no-header tests/attacks tests/containers/test_attacks.py

check: install ## The fast loop: lint, types, architecture, contract
	@$(DEV)/ruff format --check --quiet . || { echo "run: $(DEV)/ruff format ."; exit 1; }
	@$(DEV)/ruff check --quiet .
	@MYPYPATH=protos/gen:$(subst $(SPACE),:,$(PACKAGES)) $(DEV)/mypy --no-error-summary $(PACKAGES)
	@$(DEV)/buf lint
	@$(DEV)/buf format --diff --exit-code
	@$(DEV)/buf breaking --against protos/released.binpb
	@$(DEV)/python -m pytest -q --no-header tests/architecture

generate: install ## Generate the stubs from the contract
	@find protos/gen -type f -delete
	@cd protos && PATH="$(DEV):$$PATH" $(DEV)/python -m grpc_tools.protoc -I . --python_out=gen --grpc_python_out=gen \
		--mypy_out=quiet:gen --mypy_grpc_out=quiet:gen $(PROTOS)
	@find protos/gen -name '*_pb2_grpc.py*' -not -name '*_service_pb2_grpc.py*' -delete

fidelity: install ## What becomes of everything each vendor can say
	@$(DEV)/python -m alive_kit.testing.fidelity | tee docs/fidelity.md

recordings: install ## Record the turns of both providers that front ends are tested with
	@ALIVE_RECORD=1 $(DEV)/python -m pytest -q --no-header tests/conformance/test_projection.py -k "recording and bare" || true
	@$(DEV)/python -m pytest -q --no-header tests/conformance/test_projection.py services/kit/tests/test_ndjson.py

lock: $(UV) ## Pin what every deployable needs
	@$(COMPILE) --group pyproject.toml:dev -o requirements-dev.txt
	@$(COMPILE) -c requirements-dev.txt tests/bench/requirements.in -o tests/bench/requirements.txt
	@echo 'hatchling>=1.33' | $(COMPILE) - -o docker/build-requirements.txt
	@for deployable in $(DEPLOYABLES); do \
		$(COMPILE) -c requirements-dev.txt $$deployable/pyproject.toml -o $$deployable/requirements.txt; done

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock" $(OURS)
OURS = $(foreach name,$(shell sed -n 's/^name = "\(alive-[a-z]*\)"/\1/p' protos/pyproject.toml router/pyproject.toml services/*/pyproject.toml),--no-emit-package $(name))

clean: ## Delete what was installed for this checkout
	rm -rf $(VENVS) build

# What boxes are built with. Not root: the stack says what is missing, and goes on without boxes.
$(VENVS)/.programs: | $(UV)
	@if [ "$$(id -u)" = 0 ] && ! { command -v bwrap && command -v socat; } >/dev/null && command -v apt-get >/dev/null; \
		then echo "installing bubblewrap and socat"; apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends bubblewrap socat >/dev/null; fi
	@touch $@

# What makes the clock jump in tests.
$(VENVS)/.faketime: | $(UV)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s libfaketime >/dev/null 2>&1; \
		then echo "installing libfaketime"; apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends libfaketime >/dev/null; fi
	@touch $@

# What images are built and tested with. Without root the tests of containers say that they are skipped.
$(VENVS)/.docker: | $(UV)
	@if [ "$$(id -u)" = 0 ] && ! { command -v dockerd && command -v docker-compose && command -v mmdebstrap; } >/dev/null \
		&& command -v apt-get >/dev/null; then echo "installing docker"; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io docker-compose mmdebstrap curl >/dev/null; fi
	@touch $@

# Installation. One environment for each deployable: what a service does not declare, it cannot import.

$(UV):
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "installing python3-venv"; \
		apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; }
	@mkdir -p $(VENVS) && chmod 0755 $(VENVS)
	@$(PYTHON) -m venv $(VENVS)/uv
	@$(VENVS)/uv/bin/pip install --quiet uv==$(UV_VERSION)

PINNED := requirements-dev.txt $(addsuffix /requirements.txt,$(DEPLOYABLES))

$(VENVS)/dev/.installed: $(PINNED) $(addsuffix /pyproject.toml,$(MEMBERS)) services/kit/bin/alive-launch | $(UV)
	@echo "installing the development environment"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/dev
	@VIRTUAL_ENV=$(VENVS)/dev $(UV) pip install --quiet --require-hashes $(addprefix -r ,$(PINNED))
	@VIRTUAL_ENV=$(VENVS)/dev $(UV) pip install --quiet --no-deps $(foreach member,$(MEMBERS),-e $(member))
	@touch $@

# Agents start the tools in boxes, anew for each turn, where nothing compiled can be kept.
COMPILED = $(if $(filter services/mcp,$(1)),--compile-bytecode)

$(VENVS)/bench/.installed: tests/bench/requirements.txt $(VENVS)/dev/.installed
	@echo "installing the rivals"
	@$(UV) pip install --quiet --require-hashes --python $(DEV)/python --target $(VENVS)/bench -r $<
	@touch $@

# The ends between which relays are measured.
$(VENVS)/bench-ends: tests/bench/ends.cc | $(UV)
	@if [ "$$(id -u)" = 0 ] && ! { command -v g++ && pkg-config grpc++; } >/dev/null 2>&1 && command -v apt-get >/dev/null; \
		then echo "installing g++ and gRPC for C++"; apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends g++ pkg-config libgrpc++-dev >/dev/null; fi
	@g++ -O2 -std=c++17 -Wall -Wextra $< $$(pkg-config --cflags --libs grpc++) -o $@ \
		|| { echo "the benchmarks need g++, pkg-config and gRPC for C++ (Debian: libgrpc++-dev)"; exit 1; }

# 760 MB, with CLIs of its own. Without npm, or its registry, the rows say that it is not there.
$(VENVS)/bench-node/.installed: tests/bench/package.json | $(UV)
	@mkdir -p $(@D) && cp $< $(@D) && { ! command -v npm >/dev/null || \
		npm install --silent --no-audit --no-fund --no-package-lock --prefix $(@D) || echo "npm cannot install sandbox-agent"; }
	@touch $@

define DEPLOYABLE
$(VENVS)/$(notdir $(1))/.requirements: $(1)/requirements.txt | $(UV)
	@echo "installing $(notdir $(1))"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/$(notdir $(1))
	@VIRTUAL_ENV=$(VENVS)/$(notdir $(1)) $(UV) pip install --quiet $(COMPILED) --require-hashes -r $(1)/requirements.txt
	@touch $$@
$(VENVS)/$(notdir $(1))/.installed: $(VENVS)/$(notdir $(1))/.requirements $(SOURCES) $(1)/pyproject.toml
	@VIRTUAL_ENV=$(VENVS)/$(notdir $(1)) $(UV) pip install --quiet $(COMPILED) --no-deps --reinstall ./protos ./services/kit ./$(1)
	@touch $$@
endef
$(foreach deployable,$(DEPLOYABLES),$(eval $(call DEPLOYABLE,$(deployable))))
