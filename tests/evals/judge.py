"""Was an answer right? One judge per field; a new field of the analysis joins with a line in JUDGES. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.ai_worker.examples import Labels
from services.ai_worker.message_analysis import Accepted

NO_ANSWER = "(no answer)"
MOST_WORDS = {"summary": 25, "suggested_response": 60}  # as prompts/message_analysis.md asks


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one field of one message came out. `expected` and `said` are what a confusion table counts."""

    expected: str
    said: str
    is_right: bool
    confidence: float | None = None
    note: str = ""  # what is missing, or what should not be there


# None: the label does not say, so there is nothing to judge. No answer at all is judged, and wrong.
Judge = Callable[[Labels, Accepted | None], Verdict | None]


def judge(labels: Labels, accepted: Accepted | None) -> dict[str, Verdict]:
    """Judge every field the labels speak about."""
    verdicts = {name: one(labels, accepted) for name, one in JUDGES.items()}
    return {name: verdict for name, verdict in verdicts.items() if verdict is not None}


def _choice(field: str, acceptable: Sequence[str] | None, accepted: Accepted | None) -> Verdict | None:
    """Judge a field with a list of values: right is any that is acceptable; the first stands for what was expected."""
    if not acceptable:
        return None
    if accepted is None:
        return Verdict(acceptable[0], NO_ANSWER, False)
    said = str(getattr(accepted.entry, field))
    is_right = said in acceptable
    return Verdict(said if is_right else acceptable[0], said, is_right, _confidence(field, accepted))


def _sentiment(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    return _choice("sentiment", [labels.sentiment] if labels.sentiment else None, accepted)


def _intent(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    return _choice("intent", labels.intents, accepted)


def _priority(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    return _choice("priority", labels.priorities, accepted)


def _language(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    """Judge the language: "pt" is right for "pt-BR", "pt-PT" is not."""
    if not labels.languages:
        return None
    if accepted is None:
        return Verdict(labels.languages[0], NO_ANSWER, False)
    said = accepted.entry.language
    for wanted in labels.languages:
        if said.casefold() in (wanted.casefold(), wanted.split("-")[0].casefold()) or (
            "-" not in wanted and said.split("-")[0].casefold() == wanted.casefold()
        ):
            return Verdict(wanted, wanted, True)
    return Verdict(labels.languages[0], said, False)


def _summary(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    """Judge whether the summary holds every fact, in one of its spellings."""
    if not labels.summary_mentions:
        return None
    if accepted is None:
        return Verdict("complete", NO_ANSWER, False)
    text = accepted.entry.summary
    missing = [fact[0] for fact in labels.summary_mentions if not any(holds(text, spelling) for spelling in fact)]
    said = "incomplete" if missing else "complete"
    return Verdict("complete", said, not missing, _confidence("summary", accepted), _note("lacks", missing))


def _response(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    """Judge whether the suggested response claims nothing it must not."""
    if not labels.response_avoids:
        return None
    if accepted is None:
        return Verdict("careful", NO_ANSWER, False)
    text = accepted.entry.suggested_response
    claimed = [phrase for phrase in labels.response_avoids if holds(text, phrase)]
    said = "promises" if claimed else "careful"
    return Verdict("careful", said, not claimed, _confidence("suggested_response", accepted), _note("claims", claimed))


def _length(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    """Judge whether summary and suggested response keep to the words the prompt gives them."""
    if accepted is None:
        return Verdict("kept", NO_ANSWER, False)
    counts = {field: len(getattr(accepted.entry, field).split()) for field in MOST_WORDS}
    over = [f"{field} of {count} words" for field, count in counts.items() if count > MOST_WORDS[field]]
    return Verdict("kept", "too long" if over else "kept", not over, None, ", ".join(over))


def _evidence(labels: Labels, accepted: Accepted | None) -> Verdict | None:
    """Judge whether every evidence given is a quotation; what is none was dropped before it came here."""
    if accepted is None:
        return Verdict("quoted", NO_ANSWER, False)
    invented = [
        field
        for field, value in accepted.result.items()
        if isinstance(value, dict) and getattr(accepted.entry, f"{field}_evidence", None) and not value["evidence"]
    ]
    return Verdict("quoted", "invented" if invented else "quoted", not invented, None, _note("not quoted:", invented))


JUDGES: dict[str, Judge] = {
    "sentiment": _sentiment,
    "intent": _intent,
    "priority": _priority,
    "language": _language,
    "summary": _summary,
    "suggested_response": _response,
    "evidence": _evidence,
    "length": _length,
}


def holds(text: str, phrase: str) -> bool:
    """Tell whether a text holds a phrase, as words: case, accents and spaces between digits do not matter.

    A word of four or more letters may end otherwise, as may one with a `*`; `…` stands for up to five words between.
    """
    # Split before folding, which would take the ellipsis apart.
    parts = [r"\s+".join(map(_word_pattern, _folded(part).split())) for part in phrase.split("…")]
    pattern = r"(?:\W+\w+){0,5}?\W+".join(parts)
    return re.search(rf"(?<!\w){pattern}(?!\w)", _folded(text)) is not None


def _word_pattern(word: str) -> str:
    may_end_otherwise = word.endswith("*") or (word.isalpha() and len(word) >= 4)
    return re.escape(word.rstrip("*")) + (r"\w*" if may_end_otherwise else "")


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    plain = "".join(mark for mark in plain if not unicodedata.combining(mark))
    return re.sub(r"(?<=\d)[ \u00a0\u202f](?=\d{3}\b)", "", plain)


def _confidence(field: str, accepted: Accepted) -> float | None:
    value = getattr(accepted.entry, f"{field}_confidence", None)
    return float(value) if value is not None else None


def _note(what: str, items: Sequence[str]) -> str:
    return f"{what} {', '.join(items)}" if items else ""
