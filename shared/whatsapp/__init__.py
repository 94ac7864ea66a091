"""Meta's wire format: types, parsing, signature. No I/O, no clock, no database; Meta's names stop here."""
