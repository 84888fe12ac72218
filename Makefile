# One entry point for people and for CI. `make help` lists the targets.
# `sudo make demo` and `sudo make test` each work as the only command on a fresh Debian 12.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help packages setup demo format check test clean

# A login shell of Debian has no sbin in its PATH; ip, tc, ethtool and bpftool live there.
export PATH := $(PATH):/usr/sbin:/sbin
export HYPOTHESIS_STORAGE_DIRECTORY := .cache/hypothesis

# python3-bpfcc is built for the distribution's own interpreter, so no other will do.
PYTHON := /usr/bin/python3
BIN := .venv/bin
PACKAGES := python3 python3-venv python3-bpfcc \
	iproute2 ethtool bpftool iputils-ping iperf3 tcpdump util-linux procps \
	shellcheck systemd ca-certificates

# What `sudo make` leaves behind belongs to the person who called sudo, also when a step fails.
OWN := trap 'if [[ -n "$${SUDO_UID:-}" ]]; then \
	find .venv .cache xconnectd tests -user root -print0 2>/dev/null | \
	xargs -0r chown -h "$$SUDO_UID:$${SUDO_GID:-}" || true; fi' EXIT

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

packages:
	@command -v dpkg-query >/dev/null || { echo 'no Debian: install the equivalents of $(PACKAGES)'; exit 0; }; \
	installed=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(PACKAGES) 2>/dev/null || true); \
	missing=(); \
	for package in $(PACKAGES); do \
	  grep -qx "installed $$package" <<<"$$installed" || missing+=("$$package"); \
	done; \
	[[ $${#missing[@]} -gt 0 ]] || exit 0; \
	echo "missing packages: $${missing[*]}"; \
	[[ $$EUID -eq 0 ]] || { echo 'to install them: sudo make setup'; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	apt-get install -qq --yes --no-install-recommends "$${missing[@]}" >/dev/null

# The stamp makes a second run quick; `make clean` takes it away with the rest.
.venv/stamp: pyproject.toml | packages
	@$(OWN); \
	echo 'creating .venv'; \
	$(PYTHON) -m venv --clear --system-site-packages .venv; \
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	touch $@

# Stale bytecode doubles the time a command takes to start, and root writes it where a user cannot.
setup: packages .venv/stamp ## install what is missing, make .venv/bin/xconnectd
	@$(OWN); $(BIN)/python -m compileall -q xconnectd

demo: setup ## a lab of namespaces and a wire that is rewired, broken and healed (root)
	@[[ $$EUID -eq 0 ]] || { echo 'namespaces need root: sudo make demo'; exit 1; }
	@tests/demo

format: setup ## put everything into shape
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix-only .
	@! command -v clang-format >/dev/null || clang-format -i bpf/*.c

check: setup ## format, lint, types and unit tests; no root needed
	@$(OWN); \
	$(BIN)/ruff format --check --quiet .; \
	$(BIN)/ruff check --quiet .; \
	$(BIN)/mypy --no-error-summary; \
	shellcheck .ci/run tests/demo; \
	! command -v clang-format >/dev/null || clang-format --dry-run --Werror bpf/*.c; \
	$(BIN)/pytest -q tests/unit

test: check ## everything, on the real kernel (root)
	@[[ $$EUID -eq 0 ]] || { echo 'namespaces need root: sudo make test'; exit 1; }
	@$(OWN); $(BIN)/pytest -q tests/netns

clean: ## remove what setup and the tests made
	@rm -rf .venv .cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
