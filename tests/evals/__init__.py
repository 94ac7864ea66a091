"""How well Claude understands, measured: a labelled set, `make eval`, a report, a gate for prompt changes."""
