"""An operator's command, from options to exit status: wiring only."""

from __future__ import annotations

import argparse
import sys

from services.ingest import quarantine
from services.ingest.printing import Screen
from services.ingest.replay import replay
from services.ingest.settings import OperatorSettings
from shared.domain.errors import ParleyError, Unavailable
from shared.queue.connection import connect_blocking
from shared.queue.jobs import Job, Jobs
from shared.settings.clocks import Clocks
from shared.store.choose import open_store
from shared.store.port import Store
from shared.store.replay import Replay, Wanted
from shared.web.serve import stop_signal


class NobodyToWake(Jobs):
    """Stands in where no Redis is known, or nothing becomes due: workers poll every few seconds anyway."""

    def __init__(self) -> None:
        """Connect to nothing."""

    async def wake(self, job: type[Job]) -> bool:
        """Wake nobody."""
        return False


async def main(options: argparse.Namespace, settings: OperatorSettings) -> int:
    """Do what the options say; return the exit status."""
    async with open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store:
        try:
            return await _run(options, settings, store)
        except Unavailable as error:
            sys.stderr.write(f"The database cannot be had ({error.code}). Whatever was begun can be repeated.\n")
        except ParleyError as error:
            sys.stderr.write(f"{error} ({error.code}). {error.hint or ''}".rstrip() + "\n")
        return 1


async def _run(options: argparse.Namespace, settings: OperatorSettings, store: Store) -> int:
    screen = Screen(as_json=options.as_json)
    clocks = Clocks()
    if options.command == "replay":
        wanted = Wanted(
            outcome=options.only,
            phone_number_id=options.phone_number_id,
            since=options.since,
            after=options.after,
            to=options.until,
        )
        return await replay(
            store=store,
            jobs=_jobs(settings, clocks, is_dry=options.dry_run),
            screen=screen,
            stop=stop_signal(),
            settle_s=clocks.settle_s,
            wanted=wanted,
            is_dry=options.dry_run,
            batch_bodies=options.batch,
        )
    if options.action == "list":
        return await quarantine.list_items(
            replay=Replay(store), screen=screen, state=options.state, reason=options.reason, limit=options.limit
        )
    if options.action == "show":
        return await quarantine.show(
            replay=Replay(store), screen=screen, body_id=options.body_id, item=options.item, reveal=options.reveal
        )
    if options.action == "drop":
        return await quarantine.drop(
            replay=Replay(store),
            screen=screen,
            body_id=options.body_id,
            items=tuple(options.items),
            is_sure=options.yes,
        )
    return await quarantine.retry(
        store=store,
        jobs=_jobs(settings, clocks, is_dry=options.dry_run),
        screen=screen,
        stop=stop_signal(),
        settle_s=clocks.settle_s,
        body_ids=tuple(options.body_ids),
        reason=options.reason,
        is_dry=options.dry_run,
    )


def _jobs(settings: OperatorSettings, clocks: Clocks, *, is_dry: bool) -> Jobs:
    if is_dry or settings.redis.url is None:
        return NobodyToWake()
    return Jobs(connect_blocking(settings.redis.url.get_secret_value(), timeout_s=clocks.redis_append_timeout_s))
