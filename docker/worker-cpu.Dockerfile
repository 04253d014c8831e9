# A worker that computes on the CPU; `publisher build` too.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python3 -m venv /opt/publisher
ENV PATH=/opt/publisher/bin:$PATH
COPY docker/constraints.txt docker/constraints.txt
RUN pip install --index-url "${TORCH_INDEX}" --constraint docker/constraints.txt torch
# dependencies first: a change in the code then costs none of them
COPY pyproject.toml ./
RUN touch README.md && pip install --constraint docker/constraints.txt '.[service,lm-eval,otel,sign]'
COPY LICENSE README.md ./
COPY migrations migrations
COPY publisher publisher
COPY worker worker
RUN pip install --no-deps --force-reinstall .

FROM ${BASE}
# torch.compile (alignment.compile in a recipe, and bitsandbytes' unpacking of NF4) compiles C++ on CPUs
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 publisher \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin publisher \
    && install -d -o publisher -g publisher /data
COPY --from=build /opt/publisher /opt/publisher
ENV PATH=/opt/publisher/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HOME=/data/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib TORCHINDUCTOR_CACHE_DIR=/data/compiled \
    PUBLISHER_DATA_DIR=/data PUBLISHER_WORKER_DEVICE=cpu
WORKDIR /data
USER 10001:10001
# a container's host name is its own, and the health check has to know the worker's
CMD ["celery", "--quiet", "-A", "worker.celery", "worker", "--hostname", "worker@%h", "--pool", "threads", "--concurrency", "1", "--loglevel", "WARNING"]
