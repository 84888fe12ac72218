# The image of the daemon. How to run it, and with which capabilities: docs/containers.md.
#
#   docker build -t xconnectd .                                         without a compiler
#   docker build -t xconnectd:with-compiler --target with-compiler .    with bcc and LLVM
#
# The BPF code is compiled during the build and carried along; it is the same for every kernel. bcc
# is for those who change bpf/xconnect.c where the image runs. It works with the distribution's
# Python only, so every stage is Debian with its own interpreter.
#
# The base, the Python packages and what builds ours are pinned by their hashes: `make lock` takes
# newer ones. Debian's packages come by apt, which checks their signatures.

ARG BASE=docker.io/library/debian:bookworm-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251

FROM ${BASE} AS base
# tini: a PID 1 without a handler for a signal never gets it, and Python needs a moment to set one.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libbpf1 python3 tini \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
# What is to be mounted. The pins are not below /sys, where the AppArmor profiles of Docker and
# containerd refuse to write, whatever is mounted there. /run/xconnectd holds what was changed on
# the interfaces: as a volume it outlives a crash, and the next start can put everything back.
RUN mkdir -p /bpf /etc/xconnectd && mkdir -m 700 /run/xconnectd
VOLUME /run/xconnectd
ENV PATH=/opt/xconnectd/bin:$PATH XCONNECTD_PINS=/bpf/xconnectd
# Healthy: the daemon answers, every file is good, no link has failed. A link that waits for its
# interface or is down is the other side's business and no fault of a patch panel.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["xconnectd", "status", "--health"]
ENTRYPOINT ["tini", "--", "xconnectd"]
CMD ["run", "-c", "/etc/xconnectd"]

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3-bpfcc python3-venv \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
# These change seldom. No package is built from source, or its build would fetch what nobody pinned.
COPY .ci/requirements.txt .ci/build-requirements.txt /src/
WORKDIR /src
RUN python3 -m venv /opt/backend && python3 -m venv /opt/xconnectd \
 && locked="install --no-cache-dir --require-hashes --no-deps --only-binary :all:" \
 && /opt/backend/bin/pip $locked -r build-requirements.txt \
 && /opt/xconnectd/bin/pip $locked -r requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY bpf /src/bpf
COPY xconnectd /src/xconnectd
# The code lies beside its source then, and becomes part of the package.
RUN python3 -m xconnectd.dataplane.compiler bpf bpf/xconnect.json
# rich takes the three for colouring code and Markdown, of which there is none here: 10 MB.
RUN /opt/backend/bin/python -m hatchling build --target wheel \
 && /opt/xconnectd/bin/pip install --no-index --no-deps dist/xconnectd-*.whl \
 && /opt/xconnectd/bin/pip uninstall --yes pygments markdown-it-py mdurl \
 && /opt/xconnectd/bin/pip uninstall --yes pip setuptools

FROM base AS with-compiler
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-bpfcc \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/xconnectd /opt/xconnectd
# A virtual environment sees the distribution's bcc only if it is told to.
RUN sed -i '/^include-system-site-packages/s/false/true/' /opt/xconnectd/pyvenv.cfg

FROM base
COPY --from=build /opt/xconnectd /opt/xconnectd
