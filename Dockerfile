# The endpoint as an image, with the packages of requirements/*.lock. It holds no weights and no secrets: runs and
# keys are mounted at /data/runs. Two targets, cpu (the default) and gpu:
#   docker build -t trimtab:cpu .
#   docker build -t trimtab:gpu --target gpu --build-arg VLLM_DIGEST=sha256:... .
#   docker run --rm --user "$(id -u)" -v "$PWD/runs:/data/runs" trimtab:cpu keys new --name NAME
#   docker run --rm --user "$(id -u)" -v "$PWD/runs:/data/runs" -p 127.0.0.1:8000:8000 trimtab:cpu
# A package mirror comes in by pip's own file, which no layer keeps: docker build --secret id=pip,src=pip.conf .
# docs/operations.md has the rest.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
# vLLM's image of the version in requirements/gpu.lock. Its digest, for builds that come out the same, is what
#   docker buildx imagetools inspect vllm/vllm-openai:v0.32.0 --format '{{.Manifest.Digest}}'
# says; look at it once, keep it in your build's configuration, and change it together with the tag.
ARG VLLM_IMAGE=docker.io/vllm/vllm-openai:v0.32.0
ARG VLLM_DIGEST=

# Compilers stay behind in the build stages. Debian's packages are pinned by the base image's release, so their
# versions are not: Debian keeps no old ones.
FROM ${BASE} AS cpu-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libpcre2-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/trimtab
# Locked packages first: a change to the sources does not install them again.
COPY requirements/ requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/venv && sh requirements/image.sh /opt/venv requirements/cpu.lock
COPY . .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

# What vLLM's image has in the locked version is used from there; the rest comes into an environment over it.
FROM ${VLLM_IMAGE}${VLLM_DIGEST:+@${VLLM_DIGEST}} AS gpu-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libpcre2-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/trimtab
COPY requirements/ requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv --system-site-packages /opt/venv && sh requirements/image.sh /opt/venv requirements/gpu.lock
COPY . .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${VLLM_IMAGE}${VLLM_DIGEST:+@${VLLM_DIGEST}} AS gpu
ENV PATH=/opt/venv/bin:${PATH} PYTHONUNBUFFERED=1 HOME=/data/cache USER=trimtab \
    TRIMTAB_HOME=/data/cache TRIMTAB_KEYS=/data/runs/.keys/keys.sqlite
# tini is PID 1: it passes signals on and reaps what an engine that was killed leaves behind. The cache is open to
# whichever user the container is given.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 trimtab \
    && mkdir -p /data/runs /data/cache && chown trimtab: /data/runs && chmod 1777 /data/cache
COPY --from=gpu-build /opt/venv /opt/venv
COPY recipes/ /opt/trimtab/recipes/
COPY deploy/healthcheck.py /opt/trimtab/
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=600s --retries=3 \
    CMD ["/opt/venv/bin/python", "/opt/trimtab/healthcheck.py"]
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/venv/bin/trimtab"]
CMD ["serve", "/opt/trimtab/recipes/quickstart.yaml", "serve.host=0.0.0.0", "serve.keys=true"]

FROM ${BASE} AS cpu
ENV PATH=/opt/venv/bin:${PATH} PYTHONUNBUFFERED=1 HOME=/data/cache USER=trimtab \
    TRIMTAB_HOME=/data/cache TRIMTAB_KEYS=/data/runs/.keys/keys.sqlite
# vLLM's kernels are linked with libnuma, those of bitsandbytes with libgomp.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libnuma1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 trimtab \
    && mkdir -p /data/runs /data/cache && chown trimtab: /data/runs && chmod 1777 /data/cache
COPY --from=cpu-build /opt/venv /opt/venv
COPY recipes/ /opt/trimtab/recipes/
COPY deploy/healthcheck.py /opt/trimtab/
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=180s --retries=3 \
    CMD ["/opt/venv/bin/python", "/opt/trimtab/healthcheck.py"]
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/venv/bin/trimtab"]
CMD ["serve", "/opt/trimtab/recipes/quickstart.yaml", "serve.host=0.0.0.0", "serve.keys=true"]
