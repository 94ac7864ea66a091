"""What `python -m services.sender doctor` and `keys` understand, and how they explain themselves."""

from __future__ import annotations

import argparse
from typing import TypeAlias
from uuid import UUID

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse has no public name for it

_EXITS = """
Exit status: 0 all is well, 1 something fails or is left, 2 the command cannot be understood or settings are missing.
"""

_DOCTOR = """
Checks everything that sending and receiving need, against Meta itself, and prints the fix for what fails:

  python -m services.sender doctor                       all numbers of all workspaces
  python -m services.sender doctor --workspace 0199c2f4-…
  python -m services.sender doctor --json | jq '.checks[] | select(.status != "ok")'

Of the installation: the keys, storage, the webhook's address (a verification GET), its signatures (a signed harmless
body gets 200, a wrongly signed one 401), our clock against Meta's. Of each number: that its token opens, what the token
may do and until when, registration and health, the subscription to webhooks, templates, pauses and holds.

It takes the dispatcher's settings, and for the webhook WHATSAPP_WEBHOOK_URL, WHATSAPP_VERIFY_TOKEN and
WHATSAPP_APP_SECRETS, which the sender itself has no use for: set them for this command alone. It changes nothing, sends
nobody anything, and prints no token, secret, name or number of a customer.
"""

_KEYS = """
Meta's tokens are stored sealed: the api seals them with the public key, the dispatcher opens them with the private one.

  python -m services.sender keys new                     make a pair, and say what goes where
  python -m services.sender keys rotate --dry-run        which tokens are sealed to which key
  python -m services.sender keys rotate                  seal every token to the newest key

The whole way, step by step: docs/runbooks/token-keys.md.
"""


def add_doctor(commands: Commands) -> None:
    """Add `doctor`."""
    parser = _leaf(commands, "doctor", "checks all that sending needs, and prints the fix for what fails", _DOCTOR)
    parser.add_argument("--workspace", type=_uuid, metavar="ID", help="only this workspace's numbers")
    _json(parser)


def add_keys(commands: Commands) -> None:
    """Add `keys new` and `keys rotate`."""
    parser = _leaf(commands, "keys", "makes and rotates the keys that open tokens", _KEYS)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    made = _leaf(actions, "new", "make a key pair; needs no settings and changes nothing", _KEYS)
    _json(made)
    rotated = _leaf(actions, "rotate", "seal every stored token to the newest key of WHATSAPP_TOKEN_KEYS", _KEYS)
    rotated.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    _json(rotated)


def _leaf(commands: Commands, name: str, does: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=epilog + _EXITS,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=110),
    )
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", dest="as_json", help="one JSON object on standard output, for scripts"
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no id of a workspace: copy it from GET /api/me") from None
