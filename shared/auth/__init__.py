"""Verifying a person's token: Supabase Auth's access tokens. Does not hold what the person may do: RLS does."""
