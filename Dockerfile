# The image of the daemon. How to run it, and with which capabilities: README.md, Install.
#
# bcc works with the distribution's Python only, so both stages are Debian with its own interpreter,
# and the virtual environment sees the distribution's modules.

FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY xconnectd /src/xconnectd
COPY bpf /src/bpf
RUN python3 -m venv --system-site-packages /opt/xconnectd \
 && /opt/xconnectd/bin/pip install --no-cache-dir /src \
 && /opt/xconnectd/bin/pip uninstall --yes pip

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-bpfcc \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/xconnectd /opt/xconnectd
ENV PATH=/opt/xconnectd/bin:$PATH
ENTRYPOINT ["xconnectd"]
CMD ["run"]
