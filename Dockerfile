# One image for every process; the command chooses which: `python -m services.ingest`, `… services.ingest recorder`,
# `… services.ai_worker`, `… services.api`, `… services.sender`, `… services.sender dispatcher`, `… shared.store.migrate`, and
# `… deploy.sandbox` for trying it out.
# Base images by tag, not digest: a rebuild takes their security fixes, and what we add is pinned by hash.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
COPY requirements/runtime.txt /tmp/runtime.txt
# A pip.conf of the builder's (a private index, say) comes in as a build secret, so no layer remembers it.
# Bytecode is compiled here: at run time the file system is read-only.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install \
       --no-cache-dir --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r /tmp/runtime.txt

FROM ${BASE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY shared shared
COPY services services
COPY supabase supabase
COPY deploy deploy
# A new volume takes its owner from the folder it is mounted on.
RUN python -m compileall -q -j 1 /app \
    && install -d -o 10001 -g 10001 /var/lib/parley/media
# A number, so that Kubernetes' runAsNonRoot can tell; root owns the code, so a process cannot change it.
USER 10001:10001
# No CMD that fits every process: what was started without one says so.
CMD ["python", "-c", "raise SystemExit('Say which process: e.g. python -m services.ingest')"]
