"""What to say under a name: from the name of a property (and those around it) and an understood text to a value."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.sandbox.claude.lexicon import INTENT_ALIASES
from deploy.sandbox.claude.understanding import Understanding, fold

_PARTS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])|[^\W_]+")

# What a value is about: topic → words of a property's name.
_TOPICS: dict[str, str] = {
    "sentiment": "sentiment mood emotion tone feeling satisfaction attitude polarity",
    "intent": "intent intention purpose category topic subject request reason_for_contact classification theme",
    "priority": "priority urgency urgent severity importance",
    "language": "language lang locale",
    "stage": "stage lifecycle funnel",
    "tags": "tag tags label labels keyword keywords topics",
    "task": "task tasks todo todos action actions follow followup next step steps",
}
# What kind of value it is: aspect → words. The first that matches wins, so the more telling come first.
_ASPECTS: dict[str, str] = {
    "confidence": "confidence certainty probability likelihood sure",
    "evidence": "evidence quote quotes excerpt span words cue cues snippet basis because verbatim",
    "reply": "reply response answer suggestion suggested draft",
    "summary": "summary gist synopsis abstract description details overview",
    "reason": "reason rationale reasoning explanation why justification note notes comment",
    "title": "title headline name",
    "due": "due deadline",
    "score": "score polarity valence level rating value strength intensity",
    "reference": "order reference number ticket",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a property seems to ask for."""

    words: tuple[str, ...]  # of its own name
    topic: str = ""
    aspect: str = ""


def words_of(name: str) -> tuple[str, ...]:
    """Split a name into lower-case words: `sentimentScore`, `sentiment_score` and `sentiment-score` are one."""
    return tuple(fold(part) for part in _PARTS.findall(name))


def _first(table: dict[str, str], words: tuple[str, ...]) -> str:
    return next((name for name, known in table.items() if set(known.split()) & set(words)), "")


def meaning_of(path: tuple[str, ...]) -> Meaning:
    """Tell what a property asks for from its name, or failing that from those it lies in."""
    own = words_of(path[-1]) if path else ()
    aspect = _first(_ASPECTS, own)
    topic = _first(_TOPICS, own)
    for outer in reversed(path[:-1]):
        topic = topic or _first(_TOPICS, words_of(outer))
        aspect = aspect or ("evidence" if _first(_ASPECTS, words_of(outer)) == "evidence" else "")
    return Meaning(own, topic, aspect)


def text_for(meaning: Meaning, read: Understanding) -> str | None:
    """Say something under this name; None when the name is not known."""
    if meaning.topic == "language":
        return read.language
    by_aspect = {
        "evidence": read.quote(meaning.topic),
        "reply": read.reply,
        "summary": read.summary,
        "reason": f"Rests on “{read.quote(meaning.topic)}”.",
        "title": _task_title(read),
        "reference": read.reference or None,
    }
    if meaning.aspect in by_aspect:
        return by_aspect[meaning.aspect]
    return {
        "sentiment": read.sentiment,
        "intent": read.intent,
        "priority": read.priority,
        "stage": _stage(read),
        "tags": read.intent,
        "task": _task_title(read),
    }.get(meaning.topic)


_HASHTAG = re.compile(r"(?<!\w)#([^\W\d_][\w-]{1,38})")


def new_names(meaning: Meaning, read: Understanding) -> list[str]:
    """List names for what no list has: a new tag is what a customer put a # before; there never is a new stage."""
    return list(dict.fromkeys(_HASHTAG.findall(read.text))) if meaning.topic == "tags" else []


def fitting_tags(values: list[str], read: Understanding) -> list[str]:
    """List the tags that clearly fit: none is a good answer, so nothing is picked for want of a better one."""
    fitting = _intent_value(values, read) or _by_overlap(values, read)
    urgent = [value for value in values if "urgent" in words_of(value) and read.urgent_cues]
    return list(dict.fromkeys(([fitting] if fitting else []) + urgent))


def _task_title(read: Understanding) -> str:
    about = f" about order {read.reference}" if read.reference else ""
    verbs = {
        "order_status": "Check the delivery and answer",
        "refund": "Decide on the refund and answer",
        "cancellation": "Confirm the cancellation",
        "complaint": "Look into the complaint and answer",
        "price_question": "Send the price",
        "product_question": "Answer the product question",
        "appointment": "Propose an appointment",
        "human_agent": "Take over the conversation",
    }
    return verbs.get(read.intent, "Answer the customer") + about


def wants_a_task(read: Understanding) -> bool:
    """Tell whether somebody has something to do after this text."""
    return read.intent not in ("thanks", "greeting", "spam", "other") or read.priority in ("high", "urgent")


def _stage(read: Understanding) -> str:
    if read.intent in ("order_status", "refund", "complaint"):
        return "customer"
    return {"price_question": "qualified", "appointment": "qualified", "cancellation": "lost"}.get(read.intent, "lead")


_SENTIMENTS = {
    "positive": "positive happy pleased satisfied good delighted pos friendly grateful",
    "negative": "negative angry frustrated upset unhappy dissatisfied bad annoyed neg sad",
    "neutral": "neutral none calm other unknown",
    "mixed": "mixed ambivalent neutral",
}
_PRIORITIES = {
    "low": "low minor p4 p3 lowest none",
    "normal": "normal medium moderate standard default p3 p2 regular",
    "high": "high important major p2 p1 elevated",
    "urgent": "urgent critical highest immediate emergency p1 p0 high",
}
_STAGES = {
    "lead": "lead new prospect subscriber visitor",
    "qualified": "qualified opportunity prospect negotiation interested engaged",
    "customer": "customer active won existing client",
    "lost": "lost churned inactive atrisk risk",
}
_SHRUGS = ("other", "unknown", "none", "general", "misc", "neutral", "normal", "unclear", "unsupported")


def _closest(values: list[str], families: dict[str, str], wanted: str) -> str | None:
    for word in (wanted, *families.get(wanted, "").split()):
        for value in values:
            if word in words_of(value):
                return value
    return None


def _intent_value(values: list[str], read: Understanding) -> str | None:
    """Pick the value whose words fit the strongest intent that any value fits."""
    for intent, _ in read.intents:
        exact = next((value for value in values if "_".join(words_of(value)) == intent), None)
        if exact:
            return exact
        aliases = set(INTENT_ALIASES[intent].split())
        scored = [(len(aliases & set(words_of(value))) / len(words_of(value) or " "), value) for value in values]
        best = max(scored, key=lambda pair: pair[0])
        if best[0] > 0:
            return best[1]
    return None


def _by_overlap(values: list[str], read: Understanding) -> str | None:
    text = set(words_of(read.text))
    scored = [(len(text & set(words_of(value))), value) for value in values]
    best = max(scored, key=lambda pair: pair[0])
    return best[1] if best[0] else None


def pick(values: list[str], meaning: Meaning, read: Understanding) -> str:
    """Choose among the strings a schema allows."""
    families = {"sentiment": (_SENTIMENTS, read.sentiment), "priority": (_PRIORITIES, read.priority)}
    families["stage"] = (_STAGES, _stage(read))
    chosen: str | None = None
    if meaning.topic in families:
        chosen = _closest(values, *families[meaning.topic])
    elif meaning.topic == "language":
        chosen = next((value for value in values if value.casefold().startswith(read.language)), None)
    elif meaning.topic in ("intent", "tags", "task"):
        chosen = _intent_value(values, read) or _by_overlap(values, read)
    else:
        # The name tells nothing; the values may: a set of sentiments is a set of sentiments under any name.
        for table, wanted in families.values():
            if sum(any(value in known.split() for known in table.values()) for value in values) >= max(
                2, len(values) - 1
            ):
                chosen = chosen or _closest(values, table, wanted)
        chosen = chosen or _by_overlap(values, read)
        if {"yes", "no"} <= set(values):
            chosen = "yes" if flag_for(meaning, read) else "no"
    shrug = next((value for word in _SHRUGS for value in values if word in words_of(value)), None)
    return chosen or shrug or values[0]


def flag_for(meaning: Meaning, read: Understanding) -> bool:
    """Answer a yes-or-no question by the words of its name."""
    words = set(meaning.words)
    answers = (
        ({"urgent", "priority", "critical"}, read.priority in ("urgent", "high") and bool(read.urgent_cues)),
        (
            {"human", "agent", "escalate", "escalation", "handoff"},
            read.intent == "human_agent" or read.priority == "urgent",
        ),
        ({"spam"}, read.intent == "spam"),
        ({"question"}, "?" in read.text or "？" in read.text),
        ({"negative", "unhappy", "upset", "angry"}, read.sentiment == "negative"),
        ({"positive", "happy"}, read.sentiment == "positive"),
        ({"complaint"}, read.intent == "complaint"),
        ({"refund"}, read.intent == "refund"),
        ({"reply", "answer", "response", "respond", "action", "task", "follow"}, wants_a_task(read)),
    )
    return next((answer for known, answer in answers if known & words), False)


def share_for(meaning: Meaning, read: Understanding) -> float:
    """Say how much of something there is, 0 … 1 (a sentiment score: -1 … 1)."""
    words = set(meaning.words)
    if meaning.aspect == "confidence":
        return read.confidence(meaning.topic)
    if meaning.topic == "sentiment" or words & {"sentiment", "polarity", "valence"}:
        return (read.score + 1) / 2 if "satisfaction" in words else read.score
    buying = {"price_question": 0.8, "product_question": 0.6, "appointment": 0.7, "order_status": 0.4, "greeting": 0.3}
    interest = buying.get(read.intent, 0.2)
    leaving = {"cancellation": 0.85, "refund": 0.7, "complaint": 0.65}.get(
        read.intent, 0.15 if read.score >= 0 else 0.4
    )
    if words & {"churn", "risk", "frustration", "dissatisfaction"}:
        return leaving
    if words & {"purchase", "buying", "buy", "interest", "intent", "fit", "conversion", "readiness", "budget", "value"}:
        return interest
    if words & {"engagement", "engaged", "activity", "responsiveness"}:
        return round(min(1.0, 0.3 + len(read.text) / 400), 2)
    if meaning.topic == "priority" or words & {"urgency", "severity"}:
        return read.urgency
    if words & {"satisfaction", "loyalty", "trust", "positivity"}:
        return round((read.score + 1) / 2, 2)
    return read.confidence(meaning.topic)
