"""`python -m deploy.local run | demo | doctor`: the first two are what `make run` and `make demo` call."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.local.doctor import run_doctor
from deploy.local.processes import PROCESSES
from deploy.local.stack import Options, run_stack
from deploy.local.state import StackError

NAMES = tuple(process.name for process in PROCESSES)
EPILOGUE = """\
Set one of these and the real thing replaces that part, nothing else changes:
  DATABASE_URL, REDIS_URL, ANTHROPIC_API_KEY, SUPABASE_URL (with SUPABASE_JWT_SECRET),
  WHATSAPP_APP_SECRETS, WHATSAPP_VERIFY_TOKEN (Meta's webhooks),
  WHATSAPP_TOKEN_KEYS, WHATSAPP_TOKEN_PUBLIC_KEY, WHATSAPP_GRAPH_URL (Meta's Graph API)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit status: 0 fine, 1 failed, 2 cannot be done as asked."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "run":
            return asyncio.run(run_stack(_options(arguments), caller=os.environ))
        if arguments.command == "doctor":
            return run_doctor(arguments.state_dir, arguments.arguments, caller=os.environ)
        from deploy.local.demo import run_demo  # needs httpx, which `run` need not wait for

        return asyncio.run(
            run_demo(arguments.state_dir, as_json=arguments.json, allow_foreign=arguments.seed_foreign_database)
        )
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="The local stack.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|demo|doctor")
    run = commands.add_parser(
        "run",
        help="start everything and stay until Ctrl-C",
        description="Start PostgreSQL, Redis and every process; restart what dies; stop it all on Ctrl-C or SIGTERM.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo = commands.add_parser(
        "demo",
        help="send twenty messages through the running stack",
        description="Write twenty messages as five customers, wait until each is analysed, answer each customer, "
        "show what came of it.",
    )
    doctor = commands.add_parser(
        "doctor",
        help="look at all that sending needs, in the running stack",
        description="Run `python -m services.sender doctor` with what the running stack's processes are told.",
    )
    doctor.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="for the doctor, as --json")
    for command in (run, demo, doctor):
        command.add_argument(
            "--state-dir",
            type=Path,
            default=Options().state_dir,
            metavar="DIR",
            help="where data, secrets and logs live (default: .local in the checkout)",
        )
    for command in (run, demo):
        command.add_argument(
            "--seed-foreign-database",
            action="store_true",
            help="write made-up data into the database DATABASE_URL names; otherwise that is refused",
        )
    run.add_argument(
        "--only-services", action="store_true", help="start PostgreSQL and Redis, migrated and seeded, and no process"
    )
    run.add_argument(
        "--processes",
        type=_processes,
        default=NAMES,
        metavar="A,B",
        help=f"start only these processes (all: {','.join(NAMES)})",
    )
    run.add_argument(
        "--workers",
        type=_workers,
        action="append",
        default=[],
        metavar="NAME=N",
        help="run N copies of a process, e.g. ai_worker=2; may be given several times",
    )
    run.add_argument(
        "--postgres", type=int, choices=(16, 18), default=18, metavar="16|18", help="major version (default: 18)"
    )
    run.add_argument("--quiet", action="store_true", help="show warnings and errors only; logs/ keeps everything")
    demo.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def _processes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such process: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


def _workers(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    scalable = [process.name for process in PROCESSES if process.copies]
    if name not in scalable:
        raise argparse.ArgumentTypeError(
            f"{name} cannot have copies here: only {', '.join(scalable)} can, the others listen on a port of their own"
        )
    if not number.isdigit() or not 1 <= int(number) <= 32:
        raise argparse.ArgumentTypeError(f"say how many, 1 to 32: {name}=2")
    return name, int(number)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        state_dir=arguments.state_dir,
        only_services=arguments.only_services,
        processes=arguments.processes,
        workers=dict(arguments.workers),
        postgres=arguments.postgres,
        seed_foreign_database=arguments.seed_foreign_database,
        quiet=arguments.quiet,
    )


if __name__ == "__main__":
    sys.exit(main())
