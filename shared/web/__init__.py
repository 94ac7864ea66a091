"""What every HTTP process does the same: serve and stop, liveness and readiness, problem details, refusing plain HTTP,
the app that routes are added to, the shapes of answers that several give.

Does not hold: routes, and who may call them.
"""
