"""Meta's own OpenAPI description of its Graph API (v23), made usable by a reviewed list of patches.

Holds: `patches.py` (each patch with its evidence), `document.py` (loads, patches, validates).
Holds not: the description itself. It is Meta's, stays in ../shared/contracts, and tests say so when it is not there.
"""
