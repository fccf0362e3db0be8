# One image, two commands: `serve` (the API, the default) and `work` (a worker).
# It holds the base dependencies and those of the extra `otel`, which a process only loads where traces are asked for;
# what `postroom dev` needs is left out.

FROM python:3.12.12-slim-bookworm AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /src

# The environment has no pip of its own: it is filled from outside and copied as it is.
RUN python -m venv --without-pip /opt/postroom

# Dependencies first: this layer changes with the pins, not with the code.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['otel'], sep='\n')" \
      > requirements.txt \
    && pip --python /opt/postroom/bin/python install --only-binary :all: \
      --constraint constraints.txt --requirement requirements.txt

COPY README.md LICENSE ./
COPY postroom postroom
COPY service service
COPY workers workers
RUN pip wheel --no-deps --wheel-dir dist . \
    && pip --python /opt/postroom/bin/python install --no-deps dist/*.whl \
    && pip --python /opt/postroom/bin/python check

FROM python:3.12.12-slim-bookworm

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown

LABEL org.opencontainers.image.title="postroom" \
      org.opencontainers.image.description="HTTP gateway through which internal services send email" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# Nothing is installed into a running container, so pip goes too.
RUN python -m pip uninstall --yes pip \
    && groupadd --gid 10001 postroom \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin postroom

COPY --from=builder /opt/postroom /opt/postroom

WORKDIR /app
COPY templates templates

# PYTHONSAFEPATH: what lies in the working directory is data and never shadows a module.
ENV PATH="/opt/postroom/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    POSTROOM_HOST=0.0.0.0 \
    POSTROOM_LOG_FORMAT=json

USER 10001:10001

# 8080: the API. 8083: metrics and probes of both commands.
EXPOSE 8080 8083

# No HEALTHCHECK: probes ask /livez and /readyz on 8083 (docs/operating.md).
ENTRYPOINT ["postroom"]
CMD ["serve"]
