"""Choosing among the templates a prompt offers, and filling what they want, from the words of a message."""

from __future__ import annotations

import json
import re
from typing import Any

from deploy.sandbox.claude.prompt import Prompt
from deploy.sandbox.claude.understanding import understand
from deploy.sandbox.claude.values import words_of

_DATA = re.compile(r"<data>\n(.*)\n</data>", re.DOTALL)


def choose_templates(answered: Any, prompt: Prompt) -> Any:
    """Set `template` and `template_values` of every entry that has them; anything else stays as it is."""
    offered = _offered(prompt.text)
    entries = answered.get("entries") if isinstance(answered, dict) else None
    if not offered or not isinstance(entries, list):
        return answered
    texts = {message.ref: message.text for message in prompt.to_analyse}
    for entry in entries:
        if isinstance(entry, dict) and "template" in entry:
            text = texts.get(str(entry.get("ref")), "")
            best = max(offered, key=lambda one: len(set(words_of(text)) & set(words_of(str(one.get("text"))))))
            read = understand(text)
            value = read.reference or read.intent.replace("_", " ")
            entry["template"] = best["ref"]
            entry["template_values"] = [{"name": name, "value": value} for name in best.get("placeholders", [])]
    return answered


def _offered(text: str) -> list[dict[str, Any]]:
    found = _DATA.search(text)
    try:
        document = json.loads(found[1]) if found else {}
    except ValueError:
        return []
    templates = document.get("templates") if isinstance(document, dict) else None
    return [one for one in templates if isinstance(one, dict) and "ref" in one] if isinstance(templates, list) else []
