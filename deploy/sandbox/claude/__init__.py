"""The part of the sandbox that stands in for Anthropic's Messages API.

A request is read by `prompt.py`, its text understood by `understanding.py` with the words of `lexicon.py` and
`replies.py`, the answer shaped by `answer.py` to whatever schema was asked for; `messages_api.py` speaks the protocol.
It understands little, and always the same: equal text gives an equal answer.
"""
