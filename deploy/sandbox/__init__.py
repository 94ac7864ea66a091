"""The sandbox: one process that stands in for Meta, Claude and Supabase Auth over HTTP, in their own wire formats.

Reads: its environment (`settings.py`), a story file (`story.py`). Writes: nothing; all state is in memory and bounded.
Holds: the app secret it signs webhooks with, a signing key made at start. Scales by: it does not; run one.
Imports nothing from `shared` or `services`: a mistake made there must not be repeated here, or no test could see it.
"""
