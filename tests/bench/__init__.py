"""Benchmarks: each figure beside this machine's own limit, measured in the same run. `make bench [only=NAME]`."""
