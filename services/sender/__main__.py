"""`python -m services.sender` takes what people say; its other commands send it and look after it: see --help."""

from __future__ import annotations

import sys

from services.sender.command_line import parse
from services.sender.settings import DispatcherSettings, SenderSettings
from shared.settings.load import load
from shared.telemetry.logs import configure_logs
from shared.web.serve import run


def main() -> None:
    """Start the process, or do for an operator, what the command line names.

    Each is imported when it is asked for: a web process need not hold what signs, draws tables or scales pictures.
    """
    options = parse()
    if options.command == "web":
        from services.sender.web import main as serve

        settings = load(SenderSettings)
        configure_logs(service="sender", process="sender", level=settings.log_level)
        run(serve(settings))
    elif options.command == "dispatcher":
        from services.sender.dispatcher import main as dispatch

        dispatcher_settings = load(DispatcherSettings)
        configure_logs(service="sender", process="dispatcher", level=dispatcher_settings.log_level)
        run(dispatch(dispatcher_settings))
    elif options.command == "doctor":
        from services.sender.doctor import main as examine

        configure_logs(service="sender", process="doctor", level="error", to=sys.stderr)
        raise SystemExit(examine(options))
    else:
        from services.sender.keys import main as look_after_keys

        configure_logs(service="sender", process="keys", level="warning", to=sys.stderr)
        raise SystemExit(look_after_keys(options))


if __name__ == "__main__":
    main()
