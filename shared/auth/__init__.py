"""Verifying a person's token. Holds: Supabase Auth's access tokens. Does not hold: what the person may do (RLS does)."""
