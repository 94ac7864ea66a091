"""A reaction to one message, or its removal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from shared.whatsapp.outbound.part import Part
from shared.whatsapp.problems import Problems
from shared.whatsapp.wire import Json

# Unicode's own approximation of an emoji (UTS 51, "EBNF and Regex"), with the blocks emoji live in for \p{Emoji}:
# a flag, or pictures with a skin tone, a variation selector or tags, joined to one.
_PICTURE = "[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff]"
_TURNED = "[\U0001f3fb-\U0001f3ff]|\ufe0f?\u20e3?|[\U000e0020-\U000e007e]+\U000e007f"
_ONE = f"(?:{_PICTURE}|[0-9#*](?=\ufe0f?\u20e3))(?:{_TURNED})"
_EMOJI = re.compile(f"[\U0001f1e6-\U0001f1ff]{{2}}|{_ONE}(?:\u200d{_ONE})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction(Part):
    """emoji: one emoji; "" takes the reaction back."""

    wamid: str
    emoji: str
    type: Literal["reaction"] = "reaction"

    def check(self, problems: Problems) -> None:
        problems.at("wamid").identifier(self.wamid, "The message reacted to")
        if self.emoji and not _EMOJI.fullmatch(self.emoji):
            problems.at("emoji").add("not_an_emoji", "A reaction is exactly one emoji; none takes it back.")

    def graph(self) -> Json:
        return {"type": "reaction", "reaction": {"message_id": self.wamid, "emoji": self.emoji}}
