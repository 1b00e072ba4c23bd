# docker build --tag bsmamba2 .
# docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/songs" bsmamba2 separate song.mp3
# With an NVIDIA GPU: --target cuda to build, and --gpus all to run.
FROM python:3.13-slim AS package
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv build --wheel --out-dir /wheels .

FROM python:3.13-slim AS base
# Downloaded models are kept in a volume: --volume bsmamba2:/cache. A user without a home can write there too, which
# Triton does.
ENV PYTHONUNBUFFERED=1 HOME=/cache XDG_CACHE_HOME=/cache
RUN mkdir --mode=1777 /cache
COPY --from=package /wheels /wheels
COPY constraints.txt /
WORKDIR /songs
ENTRYPOINT ["bsmamba2"]
CMD ["--help"]

# Its PyTorch contains the CUDA libraries; the driver comes from the host. Triton compiles the kernels at their first use.
FROM base AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --constraint /constraints.txt /wheels/*.whl wheel setuptools packaging ninja \
    && MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \
    pip install --no-cache-dir --no-deps --no-build-isolation mamba-ssm==2.3.1

FROM base AS cpu
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --torch-backend cpu --constraint /constraints.txt /wheels/*.whl
