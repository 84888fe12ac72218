# One entry point for people and for CI. `make help` lists the targets.
# `sudo make demo` and `sudo make test` each work as the only command on a fresh Debian 12.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help packages setup demo format lock check test test-long test-kernels chaos bench screens completion trace-rewire build wheel deb \
	install uninstall clean

# A login shell of Debian has no sbin in its PATH; ip, tc, ethtool and bpftool live there.
export PATH := $(PATH):/usr/sbin:/sbin
export HYPOTHESIS_STORAGE_DIRECTORY := .cache/hypothesis

# python3-bpfcc is built for the distribution's own interpreter, so no other will do.
PYTHON := /usr/bin/python3
BIN := .venv/bin
# More workers than that disturb each other's timing.
PARALLEL := $(BIN)/pytest -q --numprocesses=auto --maxprocesses=4
PACKAGES := python3 python3-venv python3-bpfcc \
	iproute2 ethtool bpftool iputils-ping iperf3 tcpdump util-linux procps \
	shellcheck systemd ca-certificates

# What builds a Debian package of it; nothing is compiled, so no compiler.
DEBHELPER := dpkg-dev debhelper dh-python fakeroot lintian

# Of these the tests need the programs. The services are neither started nor enabled.
SERVICES := containerd.service docker.service docker.socket frr.service prometheus.service

# What `sudo make` leaves behind belongs to the person who called sudo, also when a step fails.
OWN := trap 'if [[ -n "$${SUDO_UID:-}" ]]; then \
	find .ci .venv .cache build xconnectd tests docs -user root -print0 2>/dev/null | \
	xargs -0r chown -h "$$SUDO_UID:$${SUDO_GID:-}" || true; fi' EXIT

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

packages:
	@command -v dpkg-query >/dev/null || { echo 'no Debian: install the equivalents of $(PACKAGES)'; exit 0; }; \
	installed=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(PACKAGES) 2>/dev/null || true); \
	missing=(); \
	for package in $(PACKAGES); do \
	  grep -qx "installed $$package" <<<"$$installed" || missing+=("$$package"); \
	done; \
	[[ $${#missing[@]} -gt 0 ]] || exit 0; \
	echo "missing packages: $${missing[*]}"; \
	[[ $$EUID -eq 0 ]] || { echo 'root installs them: the same command with sudo'; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	strange=(); \
	for service in $(SERVICES); do \
	  [[ -e /lib/systemd/system/$$service ]] || strange+=("$$service"); \
	done; \
	policy=/usr/sbin/policy-rc.d; \
	[[ -e $$policy ]] || { \
	  trap "rm -f $$policy" EXIT; \
	  printf '%s\n' '#!/bin/sh' 'exit 101' | install -m 755 /dev/stdin $$policy; \
	}; \
	apt-get install -qq --yes --no-install-recommends --no-remove "$${missing[@]}" >/dev/null; \
	[[ ! -d /run/systemd/system ]] || for service in "$${strange[@]}"; do \
	  systemctl disable --quiet "$$service" 2>/dev/null || true; \
	done

# The stamp makes a second run quick; `make clean` takes it away with the rest.
.venv/stamp: pyproject.toml | packages
	@$(OWN); \
	echo 'creating .venv'; \
	$(PYTHON) -m venv --clear --system-site-packages .venv; \
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	touch $@

# Compiled here, the BPF code (of every source, in one file) costs no start its half second. Where it
# does not fit the source it is not used, and whoever needs it compiles.
bpf/xconnect.json: $(wildcard bpf/*.c) $(shell find bpf/include -name '*.h') xconnectd/dataplane/compiler.py | .venv/stamp
	@$(OWN); $(BIN)/python -m xconnectd.dataplane.compiler bpf $@

# Stale bytecode doubles the time a command takes to start, and root writes it where a user cannot.
setup: packages .venv/stamp bpf/xconnect.json ## install what is missing, make .venv/bin/xconnectd
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
	shellcheck .ci/run tests/demo tests/kernels/run tests/kernels/guest; \
	shellcheck --shell=bash docs/xconnectd.bash; \
	! command -v clang-format >/dev/null || clang-format --dry-run --Werror bpf/*.c; \
	$(PARALLEL) tests/unit

# Routers for a lab: three libraries and logrotate come along. The random harm is the same each time:
# what is red is to be the change's doing. This seed does every kind of it between hosts in a dozen
# steps. `make chaos` goes on looking, with another seed each time.
test: PACKAGES += frr graphviz
test: check ## everything that takes minutes, on the real kernel (root)
	@[[ $$EUID -eq 0 ]] || { echo 'namespaces need root: sudo make test'; exit 1; }
	@$(OWN); \
	export XCONNECTD_CHAOS_SECONDS=20 XCONNECTD_CHAOS_SEED="$${SEED:-204}"; \
	echo "random harm for $$XCONNECTD_CHAOS_SECONDS s, seed $$XCONNECTD_CHAOS_SEED"; \
	$(PARALLEL) --dist=loadgroup tests/netns

# What a release runs, one after the other: they measure time, or have machinery of their own.
test-long: PACKAGES += debootstrap systemd-container buildah podman runc
test-long: PACKAGES += $(DEBHELPER) pipx nodejs npm prometheus zsh fish busybox-static $(if $(shell command -v dockerd),,docker.io docker-compose)
test-long: test-kernels chaos ## what a release runs: other kernels, systemd, an image, Docker, scale, bench (root)
	@$(OWN); $(BIN)/pytest -q tests/long

# ------------------------------------------------------------------------------ installation

PREFIX ?= /usr
DESTDIR ?=
LIBRARY := $(PREFIX)/lib/xconnectd
MAN := $(PREFIX)/share/man/man8/xconnectd.8.gz
SCHEMA := $(PREFIX)/share/xconnectd/schema.json
BASH_COMPLETION := $(PREFIX)/share/bash-completion/completions/xconnectd
ZSH_COMPLETION := $(PREFIX)/share/zsh/vendor-completions/_xconnectd
FISH_COMPLETION := $(PREFIX)/share/fish/vendor_completions.d/xconnectd.fish
UNIT := $(PREFIX)/lib/systemd/system/xconnectd.service
SYSUSERS := $(PREFIX)/lib/sysusers.d/xconnectd.conf
DOC := $(PREFIX)/share/doc/xconnectd

# A directory of modules and no virtual environment: it holds no path of its own, so DESTDIR works.
# Debian's pyroute2, structlog and watchdog are too old for us; only bcc is the distribution's.
# The BPF programs are compiled here, once, if bcc is there; else the daemon does it at its start.
build/stamp: pyproject.toml README.md LICENSE $(shell find xconnectd bpf -name '*.py' -o -name '*.[ch]')
	@$(OWN); \
	rm -rf build/lib; \
	$(PYTHON) -m venv build/pip; \
	build/pip/bin/pip install --quiet --disable-pip-version-check --no-compile --target build/lib .; \
	rm -rf build/lib/bin; \
	PYTHONPATH=build/lib $(PYTHON) -P -B -m xconnectd.dataplane.compiler \
	  build/lib/xconnectd/bpf build/lib/xconnectd/bpf/xconnect.json || \
	  rm -f build/lib/xconnectd/bpf/xconnect.json; \
	touch $@

build install: PACKAGES := python3 python3-venv python3-bpfcc
build: packages ## the program with all it needs, in build/lib; no root needed
	@$(MAKE) --no-print-directory build/stamp

# Neither makes, changes nor removes /etc/xconnect.yaml. A `links: {}` put there by an upgrade, just
# when the file is away for a moment, would disconnect everything.
install: build ## into DESTDIR and PREFIX (/usr); starts nothing (root)
	@install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(DOC)/examples'; \
	rm -rf '$(DESTDIR)$(LIBRARY).new' '$(DESTDIR)$(LIBRARY).old'; \
	install -d '$(DESTDIR)$(LIBRARY).new'; \
	cp -R --preserve=mode,timestamps build/lib/. '$(DESTDIR)$(LIBRARY).new'; \
	chmod -R u=rwX,go=rX '$(DESTDIR)$(LIBRARY).new'; \
	$(PYTHON) -m compileall -q -s '$(DESTDIR)$(LIBRARY).new' -p '$(LIBRARY)' '$(DESTDIR)$(LIBRARY).new'; \
	[[ ! -e '$(DESTDIR)$(LIBRARY)' ]] || mv '$(DESTDIR)$(LIBRARY)' '$(DESTDIR)$(LIBRARY).old'; \
	mv '$(DESTDIR)$(LIBRARY).new' '$(DESTDIR)$(LIBRARY)'; \
	rm -rf '$(DESTDIR)$(LIBRARY).old'; \
	printf '%s\n' '#!$(PYTHON) -I' '# The distribution'\''s Python: python3-bpfcc works with no other.' \
	  'import sys' '' 'sys.path.insert(0, "$(LIBRARY)")' '' \
	  'from xconnectd.__main__ import main' '' 'sys.exit(main())' \
	  | install -m 755 /dev/stdin '$(DESTDIR)$(PREFIX)/bin/xconnectd'; \
	sed 's|/usr/bin/xconnectd|$(PREFIX)/bin/xconnectd|g' systemd/xconnectd.service \
	  | install -D -m 644 /dev/stdin '$(DESTDIR)$(UNIT)'; \
	gzip -9n <docs/xconnectd.8 | install -D -m 644 /dev/stdin '$(DESTDIR)$(MAN)'; \
	install -D -m 644 systemd/xconnectd.sysusers '$(DESTDIR)$(SYSUSERS)'; \
	install -d '$(DESTDIR)$(PREFIX)/share/xconnectd'; \
	PYTHONPATH=build/lib $(PYTHON) -P -B -m xconnectd schema >'$(DESTDIR)$(SCHEMA)'; \
	install -D -m 644 docs/xconnectd.bash '$(DESTDIR)$(BASH_COMPLETION)'; \
	install -D -m 644 docs/xconnectd.zsh '$(DESTDIR)$(ZSH_COMPLETION)'; \
	install -D -m 644 docs/xconnectd.fish '$(DESTDIR)$(FISH_COMPLETION)'; \
	install -m 644 README.md CHANGELOG.md '$(DESTDIR)$(DOC)'; \
	install -m 644 LICENSE '$(DESTDIR)$(DOC)/copyright'; \
	install -m 644 config/xconnect.yaml config/grafana/xconnectd.json config/prometheus/xconnectd.rules.yml systemd/10-xconnectd.* \
	  systemd/20-nodes.conf systemd/30-hosts.conf \
	  '$(DESTDIR)$(DOC)/examples'; \
	[[ -z '$(DESTDIR)' ]] || exit 0; \
	systemd-sysusers '$(SYSUSERS)'; \
	[[ ! -d /run/systemd/system ]] || systemctl daemon-reload; \
	echo 'next: write /etc/xconnect.yaml (see $(DOC)/examples), systemctl enable --now xconnectd'

uninstall: ## stops the service and removes what install put there (root)
	@[[ -n '$(DESTDIR)' || ! -d /run/systemd/system ]] || \
	  systemctl disable --quiet --now xconnectd.service 2>/dev/null || true; \
	rm -rf '$(DESTDIR)$(LIBRARY)' '$(DESTDIR)$(DOC)' '$(DESTDIR)$(dir $(SCHEMA))'; \
	rm -f $(foreach file,$(PREFIX)/bin/xconnectd $(UNIT) $(MAN) $(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION) $(SYSUSERS),'$(DESTDIR)$(file)'); \
	[[ -n '$(DESTDIR)' || ! -d /run/systemd/system ]] || systemctl daemon-reload

wheel: setup ## a wheel with the compiled BPF programs, in dist; no root needed
	@$(OWN); $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

# debhelper works on a copy, so nothing of Debian's lies in the checkout. Not reproducible bit by bit:
# the libraries are PyPI's newest that pyproject.toml allows.
DEB := build/deb/xconnectd
REVISION ?= 1
deb: build ## a Debian package, in build/deb
	@$(MAKE) --no-print-directory packages PACKAGES='$(DEBHELPER)'
	@$(OWN); \
	rm -rf build/deb; \
	mkdir -p $(DEB); \
	cp -R .ci/debian $(DEB)/debian; \
	version=$$(PYTHONPATH=. $(PYTHON) -c 'import xconnectd; print(xconnectd.__version__)'); \
	printf 'xconnectd (%s-$(REVISION)) unstable; urgency=medium\n\n  * Built from a checkout.\n\n -- %s  %s\n' \
	  "$$version" "$$(sed -n 's/^Maintainer: //p' .ci/debian/control)" "$$(date -R)" >$(DEB)/debian/changelog; \
	cd $(DEB); \
	CHECKOUT='$(CURDIR)' DEB_BUILD_OPTIONS=noautodbgsym dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >../build.log 2>&1 || { tail -30 ../build.log; exit 1; }; \
	lintian --fail-on error ../*.changes; \
	ls ../*.deb

chaos: setup ## random harm for SECONDS=60, again with SEED=…, and 20,000 reloads (root)
	@[[ $$EUID -eq 0 ]] || { echo 'namespaces need root: sudo make chaos'; exit 1; }
	@$(OWN); XCONNECTD_CHAOS_SECONDS=$(SECONDS) XCONNECTD_CHAOS_SEED=$(SEED) \
	$(BIN)/pytest -q -s tests/netns/test_chaos.py
	@$(OWN); XCONNECTD_RELOADS=20000 $(BIN)/pytest -q tests/netns/test_hostile.py -k leave_no_trace

bench: setup ## speed, latency, start and memory beside others', into docs/bench (root)
	@[[ $$EUID -eq 0 ]] || { echo 'namespaces need root: sudo make bench'; exit 1; }
	@$(OWN); $(BIN)/python -m tests.bench --output docs/bench

screens: setup ## recording and quoted output in docs, from the program itself (root)
	@[[ $$EUID -eq 0 ]] || { echo 'namespaces need root: sudo make screens'; exit 1; }
	@$(OWN); $(BIN)/python -m tests.screens

completion: setup ## docs/xconnectd.zsh and .fish, from the program's options; no root needed
	@$(OWN); $(BIN)/python -m tests.completion

trace-rewire: setup ## the path of one rewire: calls, moves between modules, netlink requests (root)
	@[[ $$EUID -eq 0 ]] || { echo 'namespaces need root: sudo make trace-rewire'; exit 1; }
	@$(OWN); $(BIN)/python -m tests.bench.trace

test-kernels test-long: PACKAGES += debootstrap qemu-system-x86 busybox-static cpio e2fsprogs kmod xz-utils
test-kernels: setup ## the core of the tests under Debian's kernels 5.10 to the newest, in qemu (root)
	@$(OWN); tests/kernels/run

# Nothing of the machine goes into the files, no index and no path. Its Python is to be the image's.
lock: PACKAGES := python3 python3-venv skopeo ca-certificates
lock: packages ## pin newer packages and a newer base for the image
	@$(OWN); \
	$(PYTHON) -m venv build/lock; \
	build/lock/bin/pip install --quiet --disable-pip-version-check pip-tools; \
	compile=(env CUSTOM_COMPILE_COMMAND='make lock' build/lock/bin/pip-compile --quiet --upgrade \
	  --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host); \
	"$${compile[@]}" --output-file .ci/requirements.txt pyproject.toml; \
	"$${compile[@]}" --build-deps-for wheel --only-build-deps \
	  --output-file .ci/build-requirements.txt pyproject.toml; \
	base=$$(sed -n 's/^ARG BASE=\(.*\)@sha256:.*/\1/p' Dockerfile); \
	digest=$$(skopeo inspect --no-tags --format '{{.Digest}}' "docker://$$base"); \
	sed -i "s|^ARG BASE=.*|ARG BASE=$$base@$$digest|" Dockerfile

clean: ## remove what setup and the tests made
	@rm -rf .venv .cache .hypothesis build dist bpf/xconnect.json
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
