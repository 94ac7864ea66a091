"""What a frontend reads and changes.

Reads: Postgres, as the signed-in person under RLS. Writes: likewise, through functions.
Holds: no service key; its database login may only become `authenticated`. Scales by: copies.
Never calls Meta or Claude.
"""
