"""Log set-up, metric definitions, trace context.

Holds: how every process logs and what it measures. Does not hold: what is worth logging (that stands beside the fact).
"""
