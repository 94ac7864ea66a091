"""Keys that open Meta's tokens: make a pair, and seal every stored token to the newest."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress

from services.sender.operator_settings import KeysSettings
from services.sender.seal import TokenOpener, new_key_pair
from shared.auth.seal import Sealed
from shared.domain.errors import Rejected, Unavailable
from shared.settings.load import load
from shared.store.channels import ChannelWork, TokenedChannel
from shared.store.choose import open_store


def main(options: argparse.Namespace) -> int:
    """Do what the options say; return the exit status."""
    if options.action == "new":
        return new(as_json=options.as_json)
    settings = load(KeysSettings)
    try:
        return asyncio.run(_rotate(options, settings))
    except Unavailable as error:
        sys.stderr.write(f"The database cannot be had ({error.code}). Whatever was begun can be repeated.\n")
        return 1


def new(*, as_json: bool) -> int:
    """Print a new pair and what goes where; nothing is stored."""
    pair = new_key_pair()
    if as_json:
        print(json.dumps({"key_id": pair.key_id, "public_key": pair.public_key, "private_key": pair.private_key}))  # noqa: T201
        return 0
    print(  # noqa: T201 - it is the answer
        f"# Key {pair.key_id}. Shown once: keep the private part where secrets are kept.\n"
        f"# For the dispatcher (and doctor, keys): in front of the keys that are there, with a comma.\n"
        f"WHATSAPP_TOKEN_KEYS={pair.private_key}\n"
        f"# For the api, once every dispatcher has the above: it seals new tokens to it. Not secret.\n"
        f"WHATSAPP_TOKEN_PUBLIC_KEY={pair.public_key}"
    )
    return 0


@dataclass(slots=True)
class Rotated:
    """What became of the tokens. unreadable: (workspace, channel, why) of those that no key of ours opens."""

    newest: str
    by_key: Counter[str] = field(default_factory=Counter)  # before
    resealed: int = 0
    current: int = 0  # sealed to the newest key already
    renewed: int = 0  # somebody set another token meanwhile: with the api's key, so look again
    unreadable: list[tuple[str, str, str]] = field(default_factory=list)


async def _rotate(options: argparse.Namespace, settings: KeysSettings) -> int:
    opener = TokenOpener([key.get_secret_value() for key in settings.whatsapp.token_keys])
    async with open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store:
        done = await rotate(ChannelWork(store), opener, is_dry=options.dry_run)
    if options.as_json:
        print(json.dumps(_as_json(done, is_dry=options.dry_run), indent=2))  # noqa: T201 - it is the answer
    else:
        _show(done, is_dry=options.dry_run)
    return 1 if done.unreadable or done.renewed else 0


async def rotate(channels: ChannelWork, opener: TokenOpener, *, is_dry: bool) -> Rotated:
    """Seal every token to the newest key, one by one; safe to repeat, and to stop in the middle."""
    done = Rotated(opener.key_ids[0])
    found = [channel for channel in await channels.with_tokens() if channel.token_sealed is not None]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for channel in progress.track(found, description="Tokens"):
            await _reseal(channels, opener, channel, done, is_dry=is_dry)
    return done


async def _reseal(
    channels: ChannelWork, opener: TokenOpener, channel: TokenedChannel, done: Rotated, *, is_dry: bool
) -> None:
    was, key_id = channel.token_sealed or "", channel.key_id or ""
    done.by_key[key_id] += 1
    try:
        sealed = opener.reseal(Sealed(was, key_id))  # the current ones too: that they open is worth knowing
    except Rejected as error:
        done.unreadable.append((str(channel.workspace_id), str(channel.channel_id), error.hint or str(error)))
        return
    if key_id == done.newest:
        done.current += 1
    elif is_dry or await channels.reseal(
        channel.workspace_id, channel.channel_id, was=was, token_sealed=sealed.token_sealed, key_id=sealed.key_id
    ):
        done.resealed += 1
    else:
        done.renewed += 1


def _as_json(done: Rotated, *, is_dry: bool) -> dict[str, object]:
    return {
        "dry_run": is_dry,
        "newest": done.newest,
        "before": dict(sorted(done.by_key.items())),
        "resealed": done.resealed,
        "current": done.current,
        "renewed_meanwhile": done.renewed,
        "unreadable": [
            {"workspace_id": workspace, "channel_id": channel, "fix": fix}
            for workspace, channel, fix in done.unreadable
        ],
    }


def _show(done: Rotated, *, is_dry: bool) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for key_id, count in sorted(done.by_key.items()):
        console.print(f"{count:>6} sealed to {key_id}{' (the newest)' if key_id == done.newest else ''}")
    verb = "would be sealed anew" if is_dry else "sealed anew"
    console.print(f"{done.resealed:>6} {verb}, {done.current} were so already.")
    if done.renewed:
        console.print(f"{done.renewed:>6} got another token meanwhile: run this again.")
    for workspace, channel, fix in done.unreadable:
        console.print(f"Cannot be opened: number {channel} of workspace {workspace}. {fix}")
    if not (done.unreadable or done.renewed or is_dry):
        console.print("The older keys open nothing any more: take them out of WHATSAPP_TOKEN_KEYS.")
