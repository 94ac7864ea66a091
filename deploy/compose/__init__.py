"""Parley as containers: what docker-compose.yml runs besides the processes, and what proves that it works.

In the image: `ready` (health checks), `logins` (database logins of the processes). On the operator's machine: `env`
(writes .env and .env.example), `smoke` with `engine` and `stand_ins` (runs it all and looks).
"""
