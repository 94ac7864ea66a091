"""The services. They never import each other: they meet in Postgres, in Redis and over HTTP."""
