"""`python -m services.ingest` accepts webhooks; `python -m services.ingest recorder` records them."""

from __future__ import annotations

import argparse

from services.ingest import recorder, web
from services.ingest.settings import IngestSettings, RecorderSettings
from shared.settings.load import load
from shared.telemetry.logs import configure_logs
from shared.web.serve import run


def main() -> None:
    """Start the process that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m services.ingest", description=__doc__)
    parser.add_argument(
        "process",
        nargs="?",
        choices=("web", "recorder"),
        default="web",
        help="web (default): the webhook endpoint; recorder: writes what it accepted to the tables",
    )
    if parser.parse_args().process == "web":
        ingest_settings = load(IngestSettings)
        configure_logs(service="ingest", process="ingest", level=ingest_settings.log_level)
        run(web.main(ingest_settings))
    else:
        recorder_settings = load(RecorderSettings)
        configure_logs(service="ingest", process="recorder", level=recorder_settings.log_level)
        run(recorder.main(recorder_settings))


if __name__ == "__main__":
    main()
