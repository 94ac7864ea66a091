"""Everything we ask of Claude.

Reads: conversation work rows and the messages they are about. Writes: analyses, on the message and beside it.
Holds: Anthropic's key, a service login. Scales by: copies; each has 64 calls in flight. Never sends a message.
"""
