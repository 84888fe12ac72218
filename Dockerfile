# The image of the daemon. How to run it, and with which capabilities: README.md, Container.
#
#   docker build -t xconnectd .                                          without a compiler
#   docker build -t xconnectd:with-compiler --target with-compiler .     with bcc and LLVM
#
# The BPF code is compiled here and carried along: it is the same for every kernel. bcc is for those
# who change bpf/xconnect.c inside a container. It works with the distribution's Python only, so
# every stage is Debian with its own interpreter.

FROM debian:bookworm-slim AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 libbpf1 \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
# The mount points. Pins lie outside of /sys: the AppArmor profiles of Docker and containerd forbid
# writing below /sys/fs/bpf, whatever is mounted there. The records of what was changed on interfaces
# are a volume, so that they outlive a crash of the container; /run may be a tmpfs around it.
RUN mkdir -p /bpf /etc/xconnectd && mkdir -m 700 /run/xconnectd
VOLUME /run/xconnectd
ENV PATH=/opt/xconnectd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    XCONNECTD_PINS=/bpf/xconnectd
# Healthy: the daemon answers, every file is good, no link has failed. A link that waits for its
# interface or is down is the other side's business, not a fault of a patch panel.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/opt/xconnectd/bin/python3", "-c", "\
import sys\n\
from xconnectd import control, ledger\n\
with control.Connection(ledger.directory() / control.STATUS, 3.0) as daemon:\n\
    report = daemon.ask('status')\n\
config, links = report['config'], report['links']\n\
bad = [f\"{config['path']}: {config['state']}\"] if config['state'] != 'loaded' else []\n\
bad += [f\"{x['link']}: {x['reason']}\" for x in links if x['state'] == 'failed']\n\
sys.exit('; '.join(bad))\n"]
ENTRYPOINT ["xconnectd"]
CMD ["run", "-c", "/etc/xconnectd"]

FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3-bpfcc python3-venv \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY bpf /src/bpf
COPY xconnectd /src/xconnectd
WORKDIR /src
# The code becomes part of the package, beside the source that it was made from.
RUN python3 -m xconnectd.compiler bpf bpf/xconnect.json
RUN python3 -m venv /opt/xconnectd \
 && /opt/xconnectd/bin/pip install --no-cache-dir . \
 && /opt/xconnectd/bin/pip uninstall --yes pip setuptools

FROM base AS with-compiler
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-bpfcc \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/xconnectd /opt/xconnectd
# A virtual environment sees the distribution's bcc only if it is told to.
RUN sed -i 's/^include-system-site-packages = .*/include-system-site-packages = true/' \
    /opt/xconnectd/pyvenv.cfg

FROM base
COPY --from=build /opt/xconnectd /opt/xconnectd
