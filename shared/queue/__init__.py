"""What Redis carries: the webhook stream and the wake-ups.

Holds: entry format, group commit, every RQ job. Does not hold: anything that must not be lost; rows do.
"""
