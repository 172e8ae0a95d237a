# poly_jax for TPUs, or for NVIDIA GPUs with `--build-arg ACCELERATOR=cuda`. Your own gin files and task modules
# go on top: see docs/launching.md.
FROM python:3.11.14-slim-bookworm

ARG ACCELERATOR=tpu
ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=3

WORKDIR /src
COPY launch/constraints.txt pyproject.toml setup.py README.md LICENSE ./
COPY gin gin
COPY tasks tasks
COPY poly_jax poly_jax
RUN python -m pip install --constraint=constraints.txt ".[${ACCELERATOR}]" \
    && useradd --create-home --uid=1000 poly

USER 1000
WORKDIR /home/poly
CMD ["poly-jax", "--help"]
