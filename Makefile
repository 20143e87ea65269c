# Each verb sets up what it needs: .venv from locked requirements, and the programs that it runs.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SANDBOX ?=
# Docker weighs a quarter of a gigabyte, and only root can start one for the tests.
DOCKER := $(if $(filter Linux0,$(shell uname)$(shell id -u)),docker.io:dockerd)
# systemd for its service manager of a user, which tests start in a namespace of their own: 3 MB, and nothing of it runs by itself.
SERVICES := $(if $(filter Linux,$(shell uname)),systemd:systemd-run)
SANDBOXES := $(if $(filter Linux,$(shell uname)),bubblewrap:bwrap util-linux:setpriv podman runc conmon)

# Tests and benchmarks start commands by the hundred: what is compiled once shall stay so, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test coverage check fix bench soak

help:
	@echo "make demo   the main job, without a key: real claude processes, rehearsed (SANDBOX=bubblewrap or container: in sandboxes)"
	@echo "make test   every test, the fast ones first"
	@echo "make coverage  the same, with what they reach"
	@echo "make check  formatting, lint, types, import contracts"
	@echo "make fix    mend what can be mended by itself"
	@echo "make bench  benchmarks; see bench/README.md"
	@echo "make soak   the long tests, and containers of a real Docker"

$(READY): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@tools/setup $(VENV) $(PYTHON)

demo: $(READY)
	@tools/system-packages git $(if $(SANDBOX),$(SANDBOXES))
	@KAPELLE_SANDBOX=$(SANDBOX) $(if $(filter container,$(SANDBOX)),$(BIN)/python tools/with-podman) $(BIN)/python examples/demo/run.py

test: $(READY)
	@tools/system-packages git tmux gcc $(SANDBOXES) $(SERVICES)
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not soak"

coverage: $(READY)
	@tools/system-packages git tmux gcc $(SANDBOXES) $(SERVICES)
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not soak" --cov --cov-report=term:skip-covered

check: $(READY)
	@$(BIN)/ruff format --check --quiet . || { echo "formatting: run make fix" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pyright
	@$(BIN)/python tools/write-reference --check

fix: $(READY)
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .
	@$(BIN)/python tools/write-reference

bench: $(READY)
	@tools/system-packages git $(SANDBOXES)
	@$(BIN)/python -m bench --save
	@$(BIN)/python tools/write-reference

soak: $(READY)
	@tools/system-packages git tmux gcc $(SANDBOXES) $(SERVICES) $(DOCKER)
	@$(BIN)/python -m pytest -m soak -o faulthandler_timeout=0
