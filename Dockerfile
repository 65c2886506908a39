# CPU image: the command line with vLLM's CPU build. Serves a run that is mounted at /data/runs.
#   docker build -t trimtab .
#   docker run --rm --user "$(id -u)" -v "$PWD/runs:/data/runs" trimtab keys new --name NAME
#   docker run --rm --user "$(id -u)" -p 127.0.0.1:8000:8000 -v "$PWD/runs:/data/runs" trimtab
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# A compiler is needed for one of the packages; it stays behind in this stage.
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libpcre2-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/trimtab
# Locked packages first: a change to the sources does not install them again. As in requirements/install.sh,
# PyTorch's own index comes second: torch's +cpu build is not on every index.
COPY requirements/ requirements/
RUN python3 -m venv /opt/venv \
    && { /opt/venv/bin/pip install --no-cache-dir --no-deps -r requirements/cpu.lock \
         || /opt/venv/bin/pip install --no-cache-dir --no-deps -r requirements/cpu.lock \
            --extra-index-url https://download.pytorch.org/whl/cpu; }
COPY . .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${BASE}
ENV PYTHONUNBUFFERED=1 TRIMTAB_HOME=/data/cache TRIMTAB_KEYS=/data/runs/.keys/keys.sqlite HOME=/tmp
RUN useradd --uid 10001 trimtab && mkdir -p /data/cache /data/runs && chown -R trimtab /data
COPY --from=build /opt/venv /opt/venv
COPY recipes/ /opt/trimtab/recipes/
USER trimtab
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=15s --start-period=180s --retries=3 CMD ["/opt/venv/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
ENTRYPOINT ["/opt/venv/bin/trimtab"]
CMD ["serve", "/opt/trimtab/recipes/quickstart.yaml", "serve.host=0.0.0.0", "serve.keys=true"]
