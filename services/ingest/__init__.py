"""Meta's webhooks: verify, make durable (`ingest`), record (`recorder`).

Reads: webhook POSTs, the stream wa:webhooks.
Writes: the stream or app.webhook_bodies; conversations, messages, work rows.
Holds: app secrets and verify token (ingest only). Scales by: copies of either. Never calls Meta or Claude.
"""
