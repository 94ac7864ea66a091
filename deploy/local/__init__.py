"""The local stack: everything Parley needs, started by one command on one machine.

Reads: the caller's environment (which parts are real), `.local/` (data, secrets, logs).
Starts: embedded PostgreSQL and Redis, then every process of the table in `processes.py`; restarts what dies.
Does not hold: product logic, or anything a deployment uses. Images and manifests live elsewhere in `deploy/`.
"""
