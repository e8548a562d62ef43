# One file, one image a service: docker build --target router .
# The builder resolves each service's extra against the lock file; the images carry no compiler.
ARG PYTHON=3.11-slim-bookworm
# Beside each service's own extra: `otel` sends spans; `presidio` finds names (trainer, router); `dask`
# fits on a cluster, whose workers run the trainer's image, too.
ARG EXTRAS=otel

FROM python:${PYTHON} AS builder
RUN pip install --no-cache-dir "uv>=0.9,<1"
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
COPY schemas schemas
COPY shared shared
COPY services services
# Each extra is installed at the versions of the lock file, used as constraints.
RUN grep -vE '^ +--hash' requirements.lock | sed 's/ \\$//' > constraints.txt

FROM builder AS build-router
ARG EXTRAS
RUN uv venv /venv && VIRTUAL_ENV=/venv uv pip install --no-cache -c constraints.txt ".[router,${EXTRAS}]"
FROM builder AS build-teacher
ARG EXTRAS
RUN uv venv /venv && VIRTUAL_ENV=/venv uv pip install --no-cache -c constraints.txt ".[teacher,${EXTRAS}]"
FROM builder AS build-ingest
ARG EXTRAS
RUN uv venv /venv && VIRTUAL_ENV=/venv uv pip install --no-cache -c constraints.txt ".[ingest,${EXTRAS}]"
FROM builder AS build-trainer
ARG EXTRAS
RUN uv venv /venv && VIRTUAL_ENV=/venv uv pip install --no-cache -c constraints.txt ".[trainer,${EXTRAS}]"
FROM builder AS build-console
ARG EXTRAS
RUN uv venv /venv && VIRTUAL_ENV=/venv uv pip install --no-cache -c constraints.txt ".[console,explain,${EXTRAS}]"
FROM builder AS build-ctl
RUN uv venv /venv && VIRTUAL_ENV=/venv uv pip install --no-cache -c constraints.txt ".[ctl]" \
 && /venv/bin/tracerctl encoder export --out /encoder

FROM python:${PYTHON} AS base
RUN useradd --uid 10001 --create-home tracer && mkdir -p /data /keys /signing && chown tracer /data /keys /signing
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TRACER_HEALTH_HOST=0.0.0.0 TRACER_HEALTH_PORT=8080 TRACER_TASKS=/config/tasks.yaml
USER tracer
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]

# The encoder artifact is baked in, so that routers start without a download and without torch.
FROM base AS router
COPY --from=build-ctl /encoder /encoder
COPY --from=build-router /venv /venv
ENV TRACER_ENCODER=/encoder TRACER_MODELS=/data/models
CMD ["python", "-m", "services.router.main"]

FROM base AS teacher
COPY --from=build-teacher /venv /venv
CMD ["python", "-m", "services.teacher.main"]

FROM base AS ingest
COPY --from=build-ingest /venv /venv
CMD ["python", "-m", "services.ingest.main"]

FROM base AS trainer
COPY --from=build-ctl /encoder /encoder
COPY --from=build-trainer /venv /venv
ENV TRACER_ENCODER=/encoder TRACER_STORE=/data/windows TRACER_CACHE=/data/cache
CMD ["python", "-m", "services.trainer.main"]

# Open to who signs in: it does not start without TRACER_CONSOLE_TOKEN or an identity provider.
# Its explaining process reads the trainer's windows where TRACER_STORE names them.
FROM base AS console
COPY --from=build-ctl /encoder /encoder
COPY --from=build-console /venv /venv
ENV TRACER_CONSOLE_HOST=0.0.0.0 TRACER_CONSOLE_PORT=8020 TRACER_ENCODER=/encoder
EXPOSE 8020
CMD ["python", "-m", "services.console.main"]

FROM base AS ctl
COPY --from=build-ctl /encoder /encoder
COPY --from=build-ctl /venv /venv
ENV TRACER_ENCODER=/encoder TRACER_CACHE=/tmp/cache
HEALTHCHECK NONE
ENTRYPOINT ["tracerctl"]
