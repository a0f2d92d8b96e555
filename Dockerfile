# One image for every service, role and command: `docker run IMAGE run capture api`, `… migrate`, `… lag`.
# The base is named by a digest in what is released: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY requirements-build.txt requirements-runtime.txt /tmp/
# dkimpy is published as source alone; what builds it is locked as well.
RUN set -e; \
    pip="/opt/venv/bin/python -m pip"; \
    $pip install --require-hashes --only-binary :all: -r /tmp/requirements-build.txt; \
    $pip install --require-hashes --only-binary :all: --no-binary dkimpy --no-build-isolation -r /tmp/requirements-runtime.txt
COPY shared /opt/throughline/shared
COPY services /opt/throughline/services
COPY throughline /opt/throughline/throughline
COPY deploy/__init__.py /opt/throughline/deploy/__init__.py
COPY deploy/embedded /opt/throughline/deploy/embedded
# The checkout's packages stand beside the venv's; what installs is of no use to a running service.
RUN set -e; \
    site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
    echo /opt/throughline >"$site/throughline.pth"; \
    printf '#!/opt/venv/bin/python\nfrom throughline.main import app\n\napp(prog_name="throughline")\n' >/opt/venv/bin/throughline; \
    chmod 755 /opt/venv/bin/throughline; \
    /opt/venv/bin/python -m compileall -q /opt/throughline; \
    /opt/venv/bin/python -m pip uninstall --quiet --yes setuptools pip

FROM ${BASE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Throughline" \
      org.opencontainers.image.description="Open, event-driven lead management: from first touch to attributed revenue" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 THROUGHLINE_HOST=0.0.0.0
# A volume that is mounted here for the first time takes over its owner, so that the secret can be kept in it.
RUN mkdir -p /run/secrets && chown 10001:10001 /run/secrets && chmod 700 /run/secrets
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/throughline /opt/throughline
# A number, so that Kubernetes can see that it is not root. It owns nothing here.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 9000
ENTRYPOINT ["throughline"]
CMD ["--help"]
