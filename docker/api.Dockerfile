# API, dashboard and embedded Hub; also the step that migrates the database.
#
# The API process loads no torch, but asks transformers for the structure of a base model that is registered, in a
# process of its own, and that builds the model with torch on its meta device: so torch is here, in its CPU build.
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
RUN touch README.md && pip install --constraint docker/constraints.txt '.[service,otel]'
COPY LICENSE README.md ./
COPY migrations migrations
COPY publisher publisher
RUN pip install --no-deps --force-reinstall .

FROM ${BASE}
RUN groupadd --gid 10001 publisher \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin publisher \
    && install -d -o publisher -g publisher /data
COPY --from=build /opt/publisher /opt/publisher
ENV PATH=/opt/publisher/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HOME=/data/huggingface \
    PUBLISHER_DATA_DIR=/data
WORKDIR /data
USER 10001:10001
EXPOSE 8000
CMD ["uvicorn", "publisher.app:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "3"]
