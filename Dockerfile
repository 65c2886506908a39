# CPU image: the command line with vLLM's CPU build. Serves a run that is mounted at /data/runs.
#   docker build -t trimtab .
#   docker run --rm --user "$(id -u)" -p 127.0.0.1:8000:8000 -v "$PWD/runs:/data/runs" trimtab
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 TRIMTAB_HOME=/data/cache HOME=/tmp
RUN useradd --create-home --uid 10001 trimtab && mkdir -p /data/cache /data/runs && chown -R trimtab /data
WORKDIR /opt/trimtab

# Locked packages first: a change to the sources does not install them again.
COPY requirements/ requirements/
# As in requirements/install.sh: torch's +cpu build is not on every index, so PyTorch's own comes second.
RUN python3 -m venv /opt/venv \
    && { /opt/venv/bin/pip install --no-deps -r requirements/cpu.lock \
         || /opt/venv/bin/pip install --no-deps -r requirements/cpu.lock \
            --extra-index-url https://download.pytorch.org/whl/cpu; }
COPY . .
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation .

USER trimtab
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=15s --start-period=180s --retries=3 CMD ["/opt/venv/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
ENTRYPOINT ["/opt/venv/bin/trimtab"]
CMD ["serve", "/opt/trimtab/recipes/quickstart.yaml", "serve.host=0.0.0.0"]
