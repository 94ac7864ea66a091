"""What we say to WhatsApp: taken from people, written down, sent once.

Reads: Postgres (`web` as the signed-in person, `dispatcher` as service_role), wake-ups on Redis. Writes: likewise.
Holds: the private keys that open Meta's tokens, in `dispatcher` alone. Scales by: copies of either.
Never calls Claude.
"""
