"""Meta's wire format: parsing and signature, what we send and what its refusals mean, templates.

No I/O, no clock, no database; Meta's names stop here.
"""
