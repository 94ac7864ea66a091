"""Every metric there is. Labels have a handful of values: never a workspace, a wamid, a path with an id."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.tally import Tally, TallyHistogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0, 90.0)

# Ingest. What counts for every request or group is a tally: see there.
WEBHOOK_ACCEPT_SECONDS = TallyHistogram(
    "webhook_accept_seconds",
    "From the first byte read to the answer. Meta wants a median of at most 0.25, and under 1 % above 1.0: else it "
    "sends slower",
    "answer",
    buckets=_FAST,  # both of Meta's lines are bounds
)
WEBHOOK_VERIFY_SECONDS = Tally("webhook_verify_seconds_total", "Seconds spent on signatures")
WEBHOOK_SECRET_USED = Tally("webhook_secret_used_total", "Valid signatures, by index of the app secret", "index")
WEBHOOK_SIGNATURE_REFUSED = Counter("webhook_signature_refused_total", "Bodies none of our app secrets signed")
WEBHOOK_BODIES = Tally("webhook_bodies_total", "Bodies made durable, by where: redis or postgres", "where")
WEBHOOK_GROUP_BODIES = TallyHistogram(
    "webhook_group_bodies", "Bodies per append (group commit)", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
WEBHOOK_APPEND_SECONDS = TallyHistogram(
    "webhook_append_seconds", "Making one group durable, wherever it ends up", buckets=_FAST
)
WEBHOOK_BACKLOG_BYTES = Gauge("webhook_backlog_bytes", "What the stream takes in Redis, by its own estimate")
REDIS_IS_DURABLE = Gauge("redis_is_durable", "1 when Redis says appendonly yes and appendfsync always")

# Recorder.
WEBHOOK_ITEMS = Counter(
    "webhook_items_total", "Items of recorded bodies, by kind and by what became of them", ["kind", "outcome"]
)
RECORD_SECONDS = Histogram("record_batch_seconds", "Recording one batch, the database's answer included", buckets=_FAST)
PARSE_SECONDS = Histogram("record_parse_seconds", "Parsing one batch", buckets=_FAST)
ACKNOWLEDGE_SECONDS = Histogram("record_acknowledge_seconds", "Acknowledging one batch to Redis", buckets=_FAST)
INTAKE_LAG_SECONDS = Histogram(
    "intake_lag_seconds",
    "From Meta's time of a body's newest item to its recording",
    buckets=(0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0),
)
STREAM_WAIT_SECONDS = Histogram(
    "queue_wait_seconds", "From being queued to being picked up", ["queue"], buckets=(*_FAST, 5.0, 15.0, 60.0, 300.0)
)
STREAM_ENTRIES = Gauge("webhook_stream_entries", "Entries in the stream, each up to 256 bodies: appended, not recorded")
STREAM_BYTES = Gauge("webhook_stream_bytes", "Memory Redis needs for them")
STREAM_OLDEST_PENDING_SECONDS = Gauge(
    "webhook_stream_oldest_pending_seconds", "Age of the oldest entry a recorder has taken and not acknowledged"
)
# What the database knows of intake, by the name it has in intake_health().
INTAKE_HEALTH = {
    "bodies_waiting": Gauge("webhook_bodies_waiting", "Bodies stored while Redis was out, not recorded yet"),
    "bodies_unrouted": Gauge("webhook_bodies_unrouted", "Bodies with items for numbers nobody has connected"),
    "quarantine_open": Gauge("webhook_quarantine_open", "Items set aside that nobody has retried or dropped"),
    "account_mismatches": Gauge("webhook_account_mismatches", "Bodies whose items do not add up: must be 0"),
    "deadlocks": Gauge("database_deadlocks", "Deadlocks the database has met since its statistics began: must stay"),
    "slowest_channel_lag_ms": Gauge(
        "intake_slowest_channel_lag_ms", "How far behind Meta the slowest number is; each: GET /api/whatsapp/channels"
    ),
}
BODIES_IN_DEFAULT_PARTITION = Gauge(
    "webhook_bodies_in_default_partition", "Rows outside every day's partition: should be 0"
)
ERASURES_OPEN = Gauge("erasures_open", "People asked to be erased whose raw bodies are still rewritten or watched")

# Dispatcher.
SENDS = Counter(
    "sends_total", "Calls that were to send a message, by Meta's type and what came of it", ["type", "outcome"]
)
ACCEPT_SECONDS = Histogram(
    "send_accept_seconds",
    "From being queued (or its time, if scheduled) to Meta's acceptance",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0),
)
GRAPH_SECONDS = Histogram("graph_call_seconds", "Calls to Meta that send a message, answered or not", buckets=_FAST)
THROTTLES = Counter("send_throttles_total", "Messages Meta took as too fast, by which of its limits", ["cause"])
SENDS_IN_DOUBT = Counter("sends_in_doubt_total", "Calls after which Meta may or may not have the message")
SENDS_IN_FLIGHT = Gauge("sends_in_flight", "Calls to Meta under way, of `slots`")
CHORES = Counter("chores_total", "What else is asked of Meta, by kind and what came of it", ["kind", "outcome"])
# What the database knows of the outbox, by the name it has in outbox_health(). By number: GET /api/whatsapp/channels.
OUTBOX_HEALTH = {
    "due": Gauge("outbox_due", "Messages that may go now"),
    "waiting": Gauge("outbox_waiting", "Messages that wait for their time, their turn or a file"),
    "in_doubt": Gauge("outbox_in_doubt", "Messages Meta may or may not have"),
    "held": Gauge("outbox_held", "Messages that wait for a person"),
    "chores": Gauge("outbox_chores", "What else is to be asked of Meta"),
    "oldest_due_ms": Gauge("outbox_oldest_due_ms", "How long the oldest message that may go has waited"),
    "channels_paused": Gauge("channels_paused", "Numbers through which nothing goes until a person mends them"),
    "billable_messages": Gauge(
        "billable_messages",
        "Messages without a template this month beyond the 1,000 free ones of each number, over all numbers",
    ),
}

# Claude.
CLAUDE_CALLS = Counter(
    "claude_calls_total",
    "Calls to Claude, made or not, by what was asked and what it came to",
    ["task", "model", "outcome"],
)
CLAUDE_REDACTED = Counter("claude_redacted_total", "Values taken out before a call, by kind", ["kind"])
CLAUDE_SECONDS = Histogram("claude_call_seconds", "One call to Claude", ["model"], buckets=_SLOW)
CLAUDE_TOKENS = Counter("claude_tokens_total", "Tokens, by kind", ["model", "kind"])
CLAUDE_COST_USD = Counter("claude_cost_usd_total", "What the calls cost by the price table", ["model"])
CLAUDE_CACHE_READ_SHARE = Histogram(
    "claude_cache_read_share",
    "Of what a call shows Claude, the share read from the prompt cache at a tenth of the price",
    ["task"],
    buckets=(0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
)
CLAUDE_CIRCUIT_OPEN = Gauge("claude_circuit_open", "1 while Claude is out and this worker claims nothing")
# What the database knows of all analyses, by the name it has in analysis_health().
ANALYSIS_HEALTH = {
    "due": Gauge("analyses_due", "Conversations Claude could look at now"),
    "oldest_due_ms": Gauge("analyses_oldest_due_ms", "How long the oldest of them has waited"),
    "deferred": Gauge("analyses_deferred", "Conversations that wait for the next day's budget, or to be tried again"),
    "budgets_spent": Gauge("ai_budgets_spent", "Workspaces that have spent 85 % of the day's budget or more"),
    "most_used": Gauge("ai_budget_most_used", "The fullest day's budget: 1 is all of it"),
    "batched": Gauge("analyses_batched", "Requests on their way in message batches"),
}
ANALYSES_IN_FLIGHT = Gauge("analyses_in_flight", "Conversations this worker is at")
ANALYSIS_WAIT_SECONDS = Histogram(
    "analysis_age_seconds", "From Meta's time of a message to its analysis", buckets=(*_SLOW, 300.0, 1200.0)
)

# Every HTTP process.
HTTP_SECONDS = Histogram("http_request_seconds", "Requests, by route and status", ["route", "status"], buckets=_FAST)

# Files.
MEDIA = Counter(
    "media_files_total",
    "Files by what was done (upload: from an agent, fetch: from Meta, send: to Meta, delete) and what became of it",
    ["kind", "outcome"],
)
FILES_TO_DELETE = Gauge(
    "media_files_to_delete", "Files that are to go from storage, up to 100: stays where it cannot be had"
)
