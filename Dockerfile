# This file builds two images:
#   docker build --target service -t lookalike .          serves an index on the CPU, without torch
#   docker build --target full -t lookalike-full .        has all commands, with a GPU or without
#
# To use a package mirror, or a proxy with its own certificate authority:
#   docker build --build-arg PIP_INDEX_URL --build-arg EXTRA_CA="$(cat ca.pem)" ...
# Neither of them stays in the final image.
#
# The libraries have a separate layer, so that a change of the source builds in seconds.

FROM python:3.11-slim-bookworm AS builder
ARG PIP_INDEX_URL
ARG EXTRA_CA
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
RUN if [ -n "$EXTRA_CA" ]; then printf '%s\n' "$EXTRA_CA" > /usr/local/share/ca-certificates/extra.crt && update-ca-certificates; fi
WORKDIR /build
COPY requirements/uv.txt requirements/
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/uv.txt
RUN /opt/uv/bin/uv venv --python "$(command -v python)" /opt/lookalike
ENV VIRTUAL_ENV=/opt/lookalike PATH=/opt/lookalike/bin:/opt/uv/bin:$PATH

FROM builder AS wheel
ARG PIP_INDEX_URL
COPY . .
RUN uv build --wheel --out-dir /dist ${PIP_INDEX_URL:+--default-index "$PIP_INDEX_URL"}

FROM builder AS service-libraries
ARG PIP_INDEX_URL
COPY requirements/service.txt requirements/
RUN uv pip install --compile-bytecode ${PIP_INDEX_URL:+--default-index "$PIP_INDEX_URL"} --require-hashes -r requirements/service.txt

FROM python:3.11-slim-bookworm AS base
# A new volume takes the owner of the directory that it is mounted on. So /data, /data/model and /data/index exist
# here and belong to the user.
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin lookalike \
    && install -d -o lookalike -g lookalike /data /data/model /data/index /cache
ENV PATH=/opt/lookalike/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /data
VOLUME /data
ENTRYPOINT ["lookalike"]

FROM base AS service
COPY --from=service-libraries /opt/lookalike /opt/lookalike
COPY --from=wheel /dist /dist
RUN pip --python /opt/lookalike/bin/python install --no-cache-dir --no-index --no-deps /dist/*.whl
USER lookalike
ENV LOOKALIKE_HOST=0.0.0.0 LOOKALIKE_PORT=8000
EXPOSE 8000
# With -P, Python does not import modules from /data.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-P", "-m", "service.health_check"]
CMD ["serve", "/data/index"]

FROM builder AS full-libraries
ARG PIP_INDEX_URL
COPY requirements/full.txt requirements/
RUN uv pip install ${PIP_INDEX_URL:+--default-index "$PIP_INDEX_URL"} --require-hashes -r requirements/full.txt

FROM base AS full
COPY --from=full-libraries /opt/lookalike /opt/lookalike
COPY --from=wheel /dist /dist
RUN pip --python /opt/lookalike/bin/python install --no-cache-dir --no-index --no-deps /dist/*.whl
USER lookalike
CMD ["--help"]
