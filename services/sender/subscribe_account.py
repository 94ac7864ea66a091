"""Have Meta send an account's webhooks to our app: forgetting it is the classic cause of silence."""

from __future__ import annotations

from services.sender.chores import Again, Chore, Done, Failed, outcome_of
from services.sender.graph import Graph
from shared.store.channels import ChannelWork
from shared.whatsapp.errors import classify


async def subscribe_account(chore: Chore, *, graph: Graph, channels: ChannelWork) -> Done | Again | Failed:
    """Subscribe the number's account; being so already is fine.

    Source: Meta, "Manage webhooks": `POST /<WABA>/subscribed_apps`, read 2026-11-22. A body would override the
    callback, none clears an override.
    """
    answer = await graph.post(f"{chore.waba_id}/subscribed_apps", {}, token=chore.token)
    verdict = classify(answer.status, answer.body, answer.failure, is_repeatable=True)
    outcome = outcome_of(verdict, attempt=chore.attempt)
    if isinstance(outcome, Done):
        await channels.record_subscription(
            chore.workspace_id, chore.channel_id, is_subscribed=True, code=None, sentence=None
        )
    elif isinstance(outcome, Failed):
        await channels.record_subscription(
            chore.workspace_id,
            chore.channel_id,
            is_subscribed=False,
            code=outcome.error.reason,
            sentence=outcome.error.sentence,
        )
    return outcome
