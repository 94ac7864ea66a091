"""Verifying a person's token (Supabase Auth's), the dependency by which every route asks for one, and sealing.

A number's token of Meta's is sealed here so that only the sender opens it. Does not hold what the person may do (RLS
does), nor how to open what is sealed (services/sender does).
"""
