"""Environment to typed groups. Each process declares the groups it needs and no others.

Holds: the groups several processes share, and `load`. Does not hold: what only one service knows (its own settings.py).
"""
