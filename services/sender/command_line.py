"""What `python -m services.sender` understands, and how it explains itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from services.sender.operator_command_line import add_doctor, add_keys


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options; `command` names the process or the operator's command.

    Exits: with status 2 and a sentence if they make no sense, with 0 for --help.
    """
    parser = argparse.ArgumentParser(
        prog="python -m services.sender",
        description="What we say to WhatsApp: take it from people (web, the default), send it (dispatcher), "
        "see that it can be sent.",
    )
    parser.set_defaults(command="web")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    commands.add_parser("web", help="HTTP for people: what is to be said")
    commands.add_parser("dispatcher", help="says it: the only process that talks to Meta")
    add_doctor(commands)
    add_keys(commands)
    options = parser.parse_args(arguments)
    options.command = options.command or "web"
    return options
