"""`python -m services.ai_worker`: let Claude read what customers wrote."""

from __future__ import annotations

import argparse

from services.ai_worker import worker
from services.ai_worker.settings import Settings
from shared.settings.load import load
from shared.telemetry.logs import configure_logs


def main() -> None:
    """Start the worker."""
    argparse.ArgumentParser(prog="python -m services.ai_worker", description=__doc__).parse_args()
    settings = load(Settings)
    configure_logs(service="ai_worker", process="ai_worker", level=settings.log_level)
    worker.run(settings)


if __name__ == "__main__":
    main()
