"""The database as the rest of us sees it: one function call is one transaction is one round trip.

Holds: the port `Store`, its transport, the translation of SQLSTATEs, migrations, one typed module per subject.
Does not hold: SQL beyond `select function(...)`; rules (those are in `shared.domain` and in the functions themselves).
"""
