"""`python -m services.api`: the API that frontends read."""

from __future__ import annotations

import argparse

from services.api import web
from services.api.settings import Settings
from shared.settings.load import load
from shared.telemetry.logs import configure_logs
from shared.web.serve import run


def main() -> None:
    """Start the process."""
    argparse.ArgumentParser(prog="python -m services.api", description=__doc__).parse_args()
    settings = load(Settings)
    configure_logs(service="api", process="api", level=settings.log_level)
    run(web.main(settings))


if __name__ == "__main__":
    main()
