"""`python -m services.ai_worker backfill`: analyse what was passed over, for a price that is said before it starts."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.ai_worker.analyse_contact import MOST_OUTPUT_TOKENS
from services.ai_worker.analyse_contact import prices as prices_of_all
from services.ai_worker.analyse_conversation import MOST_MESSAGES
from services.ai_worker.backfill_batches import Batches
from services.ai_worker.claude import Claude, connect
from services.ai_worker.message_analysis import instructions
from services.ai_worker.pricing import BATCH_SHARE, PRICED_ON, PRICES, dearest_usd
from services.ai_worker.prompt import Task
from services.ai_worker.settings import Settings
from shared.domain.errors import ParleyError
from shared.queue.runner import wait
from shared.settings.clocks import Clocks
from shared.store.backfill import Backfill, Scope, Wanted
from shared.store.choose import open_store

MOST_WAITING = 64  # conversations of the workspace that wait at once: a fresh message of its waits for these at most
_USUAL_OUTPUT_TOKENS = 250  # of an entry, where a workspace has no analysis yet to go by
_LOOK_EVERY_S = 1.0
IN_VAIN = 4  # times what may wait at once is fed again without anything becoming less
MOST_LAST_LOOKS = 60  # once all is with the workers: fresh messages keep them busy after ours are done


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a backfill costs, USD: about, and at most."""

    about_usd: Decimal
    most_usd: Decimal


@dataclass(frozen=True, slots=True)
class Reading:
    """What workers do besides: read each conversation as a whole. `prefix_bytes`: of a call about one, at most."""

    model: str
    prefix_bytes: int


def estimate(
    scope: Scope,
    *,
    prices: dict[str, object],
    model: str,
    prefix_bytes: int,
    is_batch: bool,
    reading: Reading | None = None,
) -> Estimate:
    """Return the price of what is wanted. About: four bytes are a token, the stable part is read from the cache.

    `reading`: None where conversations are not read as a whole: in batches.
    """
    price = PRICES[model]
    share = BATCH_SHARE if is_batch else Decimal(1)
    tokens = Decimal(scope.bytes + scope.history_bytes // 2) / 4
    cached = Decimal(scope.calls) * prefix_bytes / 4
    written = Decimal(scope.messages) * (scope.output_tokens or _USUAL_OUTPUT_TOKENS)
    about = (tokens * price.input + cached * price.cache_read + written * price.output) / 1_000_000
    # As app.open_analysis_attempt() reserves it, the workspace's own settings left aside.
    prefix, base, per_message = (
        Decimal(str(prices[name])) for name in ("prefix_bytes", "output_tokens_base", "output_tokens_per_message")
    )
    per_input, per_output = dearest_usd(model)
    most = (scope.bytes + scope.history_bytes + scope.calls * prefix) * per_input
    most += (scope.calls * base + scope.messages * per_message) * per_output
    if reading is not None:
        one = PRICES[reading.model]
        # 40 messages of a conversation, where the history before a new message is 20.
        said = 2 * Decimal(scope.history_bytes) + scope.bytes
        tokens = min(said, Decimal(2 * scope.bytes)) / 4
        about += tokens * one.input / 1_000_000
        about += scope.conversations * (reading.prefix_bytes * one.cache_read / 4 + 500 * one.output) / 1_000_000
        per_input, per_output = dearest_usd(reading.model)
        most += (said + scope.conversations * reading.prefix_bytes) * per_input
        most += scope.conversations * MOST_OUTPUT_TOKENS * per_output
    return Estimate(min(about, most) * share, most * share)


class Run:
    """One run of the command."""

    def __init__(
        self,
        *,
        backfill: Backfill,
        claude: Claude,
        wanted: Wanted,
        console: Console,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._backfill = backfill
        self._claude = claude
        self._wanted = wanted
        self._console = console
        self._look_every_s = look_every_s

    async def run(self, *, is_batch: bool, is_dry: bool, confirm: Callable[[], bool]) -> int:
        """Say the price; unless dry, do it. Return the exit status: 0 done, 1 not, or not all of it."""
        scope = await self._backfill.scope(self._wanted, most_messages=MOST_MESSAGES)
        if scope is None:
            self._console.print("There is no such workspace.", style="red")
            return 1
        self._tell(scope, is_batch=is_batch)
        if not scope.ai_enabled or scope.budget_usd == 0:
            self._console.print("AI is switched off for this workspace (or its daily budget is 0).", style="red")
            return 1
        if is_dry or not (scope.messages or scope.waiting or scope.batched):
            return 0
        if scope.messages and not confirm():
            return 1
        if is_batch:
            return await self._in_batches(scope)
        return await self._through_workers(scope)

    def _tell(self, scope: Scope, *, is_batch: bool) -> None:
        share = BATCH_SHARE if is_batch else Decimal(1)
        model = self._claude.model_of(Task.MESSAGES)
        cost = estimate(
            scope,
            prices=self._claude.prices(Task.MESSAGES),
            model=model,
            prefix_bytes=len(instructions()[0].encode()),
            is_batch=is_batch,
            reading=None if is_batch else self._reading(),
        )
        say = self._console.print
        say(f"{scope.messages:,} messages in {scope.conversations:,} conversations: {scope.calls:,} calls to {model}.")
        how = "in batches, at half the price" if share != 1 else "through the workers"
        say(f"About ${cost.about_usd:,.4f}, at most ${cost.most_usd:,.4f}, {how} (prices of {PRICED_ON}).")
        if not is_batch:
            say("In it: reading each conversation of three or more messages as a whole, once.")
        if scope.budget_usd is not None:
            used = scope.budget_used * 100
            say(f"The daily budget is ${scope.budget_usd:,.2f}, {used:.0f} % of it spent; a backfill takes up to 70 %.")
        if scope.waiting or scope.batched:
            say(f"Under way already: {scope.waiting:,} conversations at the workers, {scope.batched:,} in batches.")

    def _reading(self) -> Reading:
        conversation = prices_of_all(self._claude)["conversation"]
        prefix_bytes = conversation["prefix_bytes"] if isinstance(conversation, dict) else 0
        return Reading(self._claude.model_of(Task.CONVERSATION), int(prefix_bytes))

    async def _through_workers(self, scope: Scope) -> int:
        """Keep the workers fed until nothing is wanted; they do the rest, also if this is killed."""
        with _progress(self._console) as bar:
            task = bar.add_task("Analysing", total=scope.messages)
            looks_at_nothing = 0
            fewest, fed_in_vain = scope.messages, 0
            while True:
                looked_at = time.monotonic()
                fed = await self._backfill.feed(self._wanted, most_waiting=MOST_WAITING)
                now = await self._backfill.scope(self._wanted, most_messages=MOST_MESSAGES)
                left = now.messages if now else 0
                bar.update(task, completed=max(0, scope.messages - left))
                looks_at_nothing = looks_at_nothing + 1 if left == 0 else 0
                if left == 0 and (fed.waiting == 0 or looks_at_nothing > MOST_LAST_LOOKS):
                    return 0
                fed_in_vain = 0 if left < fewest else fed_in_vain + fed.conversations
                fewest = min(fewest, left)
                if fed_in_vain > IN_VAIN * min(scope.conversations, MOST_WAITING):
                    # Each costs a call: workers of another version would be asked without end.
                    self._console.print(
                        f"What the workers analyse stays wanted: {left:,} messages left. Do they run this version?"
                    )
                    return 1
                if fed.until and left:
                    self._console.print(
                        f"The day's budget is spent: {left:,} messages left; run this again after {fed.until}."
                    )
                    return 1
                # Looking reads all that is wanted: a large workspace is looked at less often.
                await wait(asyncio.Event(), max(self._look_every_s, 4 * (time.monotonic() - looked_at)))

    async def _in_batches(self, scope: Scope) -> int:
        batches = Batches(
            backfill=self._backfill, claude=self._claude, wanted=self._wanted, look_every_s=self._look_every_s
        )
        with _progress(self._console) as bar:
            task = bar.add_task("Batched", total=scope.messages or None)
            left, until = await batches.run(lambda done: bar.update(task, completed=done))
        if left:
            again = f" after {until}" if until else ""
            self._console.print(f"{left:,} messages left; run this again{again}.")
        return 1 if left else 0


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


async def _main(options: argparse.Namespace, settings: Settings) -> int:
    clocks = Clocks()
    client = connect(
        api_key=settings.anthropic.api_key.get_secret_value(),
        base_url=settings.anthropic.base_url,
        timeout_s=clocks.claude_timeout_s,
    )
    version = instructions()[1] if options.again else None
    async with (
        client,
        open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store,
    ):
        run = Run(
            backfill=Backfill(store),
            claude=Claude(client, model=settings.anthropic.models(), timeout_s=clocks.claude_timeout_s),
            wanted=Wanted(options.workspace, options.since, version),
            console=Console(stderr=False, highlight=False),
        )
        return await run.run(is_batch=options.batch, is_dry=options.dry_run, confirm=lambda: options.yes or _agree())


def _agree() -> bool:
    if not sys.stdin.isatty():
        sys.stderr.write("Nobody can be asked here: add --yes to start.\n")
        return False
    return input("Start? [y/N] ").strip().lower() in ("y", "yes")


def main(options: argparse.Namespace, settings: Settings) -> int:
    """Run the command; return its exit status."""
    try:
        return asyncio.run(_main(options, settings))
    except ParleyError as error:
        sys.stderr.write(f"Stopped: {error} Run it again: it goes on where this ended.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. Run it again: it goes on where this ended.\n")
        return 1
