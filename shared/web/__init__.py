"""What every HTTP process does the same: serve and stop, liveness and readiness, problem details, refusing plain HTTP.

Does not hold: routes, and who may call them.
"""
