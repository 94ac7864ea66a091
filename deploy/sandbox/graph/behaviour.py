"""How fast and how strictly this Meta works; changed while it runs with `PUT /sandbox/graph/behaviour`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from deploy.sandbox.graph.limits import PairRule

Milliseconds = Annotated[int, Field(ge=0, le=3_600_000)]


class Behaviour(BaseModel):
    """What a PUT does not name goes back to the story's value, else to the default here."""

    model_config = ConfigDict(extra="forbid")

    # Each counts from the step before it.
    sent_ms: Milliseconds = 150
    delivered_ms: Milliseconds = 350
    read_ms: Milliseconds = 1_500
    played_ms: Milliseconds = 1_500
    hold_ms: Milliseconds = 5_000  # templates held for quality assessment
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.3  # each delay is off by up to this share, both ways
    reads: bool = True  # false: nobody reads; accepted messages end as delivered
    statuses: bool = True  # false: no status webhooks at all
    # Meta puts up to 1,000 updates into one POST when there is much to say.
    batch_ms: Milliseconds = 20
    batch_size: Annotated[int, Field(ge=1, le=1_000)] = 100
    review_ms: Milliseconds = 3_000  # Meta: up to 24 h
    pause_ms: Milliseconds = 5_000  # from approval to the pause of a template that asks for one by its name
    media_url_s: Annotated[int, Field(ge=0, le=3_600)] = 300
    # The sandbox forgets who wrote when it restarts; `lenient` takes silence it did not see for an open window.
    window: Literal["strict", "lenient", "off"] = "strict"
    throughput: bool = True
    pair_limit: PairRule = "repay"
    # What depends on the recipient (131026, 131047, 131049, 131050 …) comes by webhook, after a 200.
    late_refusals: bool = False
    management_calls_per_hour: Annotated[int, Field(ge=0)] = 5_000
    template_creates_per_hour: Annotated[int, Field(ge=0)] = 100
    most_templates: Annotated[int, Field(ge=0)] = 6_000
    keep_bodies: bool = False  # in the record of calls; access tokens only where they stand in a query
    free_service_messages: Annotated[int, Field(ge=0)] = 1_000  # per number and month
