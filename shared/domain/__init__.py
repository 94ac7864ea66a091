"""Rules as pure functions and plain types. Standard library only: no I/O, no framework, no clock of its own."""
