# An image with the whole stack for a CPU:
#
#     docker build --tag mmdiffkd .
#     docker run --rm -it mmdiffkd make demo
#
# Its steps are those of docs/install.md. The image itself is not built by any
# test. With `--gpus all` classification should train on a GPU; nobody has tried. The operators of
# mmcv, which detection needs, are compiled for the CPU, because this base has
# no CUDA toolkit.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /mmdiffkd

# What the environment depends on. Another document or test compiles nothing.
COPY Makefile setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY requirements requirements
COPY tools/misc/setup_env.sh tools/misc/setup_env.sh
COPY mmdiffkd mmdiffkd
# Downloads and the compiled mmcv stay with the builder, not in the image.
RUN --mount=type=cache,target=/root/.cache make install

COPY . .
ENV PATH=/mmdiffkd/.venv/bin:$PATH
CMD ["bash"]
