"""`python -m services.ingest` accepts webhooks; its other commands record them and look after them: see --help."""

from __future__ import annotations

import asyncio
import sys

from services.ingest import recorder, web
from services.ingest.command_line import parse
from services.ingest.settings import IngestSettings, OperatorSettings, RecorderSettings
from shared.settings.load import load
from shared.telemetry.logs import configure_logs
from shared.web.serve import run


def main() -> None:
    """Start the process, or do for an operator, what the command line names."""
    options = parse()
    if options.command == "web":
        ingest_settings = load(IngestSettings)
        configure_logs(service="ingest", process="ingest", level=ingest_settings.log_level)
        run(web.main(ingest_settings))
    elif options.command == "recorder":
        recorder_settings = load(RecorderSettings)
        configure_logs(service="ingest", process="recorder", level=recorder_settings.log_level)
        run(recorder.main(recorder_settings))
    else:
        # Here and not above: what draws tables is of no use to processes.
        from services.ingest import operate

        settings = load(OperatorSettings)
        configure_logs(service="ingest", process=options.command, level="warning", to=sys.stderr)
        raise SystemExit(asyncio.run(operate.main(options, settings)))


if __name__ == "__main__":
    main()
