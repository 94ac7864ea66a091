"""Reading one text: mood, intent, urgency, language, and the words each rests on. Pure and deterministic."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from deploy.sandbox.claude.lexicon import INTENSIFIERS, INTENTS, MOOD, NEGATIONS, STOP_WORDS, URGENT
from deploy.sandbox.claude.replies import REPLIES, SUMMARIES

LONGEST_READ = 8_000  # characters; the rest of a longer text changes nothing
LONGEST_QUOTE = 80
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*[\u0300-\u036f\u0900-\u097f]*")
# A word of Hindi holds vowel signs that \w does not count as letters.
_HINDI_WORD = re.compile(r"[\u0900-\u0963\u0966-\u097f]+")
_NO_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_SYMBOL = re.compile(r"[\u2600-\u27bf\U0001f300-\U0001faff]")
_SENTENCE_END = re.compile(r"[.!?。！？\n؟।]+")
_REFERENCE = re.compile(r"(?<![\w.,])#?([A-Za-z]{0,4}-?\d[\dA-Za-z-]{2,14})(?![\w])")


@dataclass(frozen=True, slots=True)
class Cue:
    """Where in the text something was recognised: offsets in characters, and how much it weighs."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class Understanding:
    """What one text says."""

    text: str
    language: str
    sentiment: str  # positive, negative, neutral or mixed
    score: float  # -1 … 1
    sentiment_cues: tuple[Cue, ...]
    intents: tuple[tuple[str, float], ...]  # best first, `other` when nothing fits
    intent_cues: tuple[Cue, ...]
    urgent_cues: tuple[Cue, ...]
    reference: str  # an order number or the like; "" if none

    @property
    def intent(self) -> str:
        return self.intents[0][0]

    @property
    def priority(self) -> str:
        urgent, upset = bool(self.urgent_cues), self.score <= -0.35
        if urgent and (self.score < 0 or self.intent in ("complaint", "refund", "cancellation")):
            return "urgent"
        if urgent or upset or self.intent in ("complaint", "refund", "human_agent"):
            return "high"
        return "low" if self.intent in ("thanks", "greeting", "spam") else "normal"

    @property
    def urgency(self) -> float:
        return {"low": 0.1, "normal": 0.35, "high": 0.7, "urgent": 0.95}[self.priority]

    def confidence(self, topic: str) -> float:
        """Say how sure we are, 0 … 1, from the number of cues found for this topic."""
        found = {"sentiment": len(self.sentiment_cues), "priority": len(self.urgent_cues) + len(self.sentiment_cues)}
        cues = found.get(topic, len(self.intent_cues))
        return round(min(0.95, 0.45 + 0.15 * cues + (0.05 if self.text.strip() else 0)), 2)

    def quote(self, topic: str) -> str:
        """Return the words a finding rests on: an exact substring of the text, at most one sentence."""
        cues = {"sentiment": self.sentiment_cues, "priority": self.urgent_cues or self.sentiment_cues}.get(
            topic, self.intent_cues
        ) or (self.intent_cues or self.sentiment_cues)
        strongest = max(cues, key=lambda cue: abs(cue.weight), default=Cue(0, 0, 0))
        start = max((match.end() for match in _SENTENCE_END.finditer(self.text, 0, strongest.start)), default=0)
        following = _SENTENCE_END.search(self.text, max(strongest.end, start + 1))
        end = following.start() if following else len(self.text)
        if end - start > LONGEST_QUOTE:
            start = max(start, min(strongest.start, end - LONGEST_QUOTE))
            end = max(strongest.end, min(end, start + LONGEST_QUOTE))
        return self.text[start:end].strip()

    @property
    def summary(self) -> str:
        """Say in one English sentence, third person, what the text wants."""
        if not self.text.strip():
            return "Sends a message without text."
        what = f"order {self.reference}" if self.reference else "the order"
        sentence = SUMMARIES[self.intent].format(what=what, quote=self.quote("intent"))
        if self.sentiment == "negative" and self.intent != "complaint":
            sentence = sentence[:-1] + "; sounds unhappy."
        if self.urgent_cues:
            sentence = sentence[:-1] + "; it is urgent."
        return sentence

    @property
    def reply(self) -> str:
        """Suggest an answer in the customer's language."""
        sentences = REPLIES.get(self.language, REPLIES["en"])
        body = sentences.get(self.intent, sentences["other"])
        body = body.format(ref=f" {self.reference}" if self.reference else "")
        return f"{sentences['sorry']} {body}" if self.sentiment == "negative" else body


def fold(word: str) -> str:
    """Make spellings of one word equal: case, accents, apostrophes. Signs of other scripts stay."""
    plain = unicodedata.normalize("NFKD", word.casefold().replace("’", "'"))
    return "".join(mark for mark in plain if not "\u0300" <= mark <= "\u036f")


@dataclass(frozen=True, slots=True)
class _Entry:
    words: tuple[str, ...]
    weight: float


class _Words:
    """A list of entries, indexed so that a text is compared with the few that can fit."""

    def __init__(self, lists: Iterable[tuple[float, str]]) -> None:
        self._by_start: dict[str, list[_Entry]] = {}
        self._anywhere: list[tuple[str, float]] = []
        for weight, text in lists:
            for raw in dict.fromkeys(part.strip() for part in text.split(",")):
                if not raw:
                    continue
                if _NO_SPACES.search(raw) or _SYMBOL.search(raw):
                    self._anywhere.append((raw, weight))
                else:
                    words = tuple(fold(word) for word in raw.split())
                    self._by_start.setdefault(words[0][:2], []).append(_Entry(words, weight))

    def find(self, text: str, tokens: list[tuple[int, int, str]]) -> list[tuple[int, Cue]]:
        """List (index of the first token or -1, cue); where two start together, the longer one."""
        found: list[tuple[int, Cue]] = []
        taken = 0  # tokens before this one belong to an entry already found
        for index, (start, _, word) in enumerate(tokens):
            if index < taken:
                continue
            best: _Entry | None = None
            for entry in self._by_start.get(word[:2], ()):
                if (best is None or len(entry.words) > len(best.words)) and self._fits(entry.words, tokens, index):
                    best = entry
            if best is not None:
                taken = index + len(best.words)
                found.append((index, Cue(start, tokens[index + len(best.words) - 1][1], best.weight)))
        for part, weight in self._anywhere:
            if (at := text.find(part)) >= 0:
                found.append((-1, Cue(at, at + len(part), weight)))
        return found

    @staticmethod
    def _fits(words: tuple[str, ...], tokens: list[tuple[int, int, str]], index: int) -> bool:
        if index + len(words) > len(tokens):
            return False
        return all(
            token[2].startswith(word[:-1]) if word.endswith("*") else token[2] == word
            for word, token in zip(words, tokens[index : index + len(words)], strict=True)
        )


_MOOD = _Words((weight, words) for weight, words in MOOD.items())
_URGENT = _Words([(1, URGENT)])
_INTENTS = {intent: _Words([(1, words)]) for intent, words in INTENTS.items()}
_NEGATIONS = frozenset(fold(word.strip()) for word in NEGATIONS.split(","))
_INTENSIFIERS = frozenset(fold(word.strip()) for word in INTENSIFIERS.split(","))
_STOP_WORDS = {language: frozenset(fold(word) for word in words.split()) for language, words in STOP_WORDS.items()}
# Greetings and thanks open and close messages that want something else.
_WEIGHTS = {
    "greeting": 0.3,
    "thanks": 0.4,
    "product_question": 0.9,
    "human_agent": 1.3,
    "refund": 1.6,
    "cancellation": 1.5,
}
_SCRIPTS = (("ja", r"[\u3040-\u30ff]"), ("ko", r"[\uac00-\ud7af]"), ("zh", r"[\u4e00-\u9fff]"))
_SPACED_SCRIPTS = (("ar", r"[\u0600-\u06ff]"), ("hi", r"[\u0900-\u097f]"), ("ru", r"[\u0400-\u04ff]"))


def _tokens(text: str) -> list[tuple[int, int, str]]:
    hindi = [(match.start(), match.end()) for match in _HINDI_WORD.finditer(text)]
    others = [
        (match.start(), match.end())
        for match in _WORD.finditer(text)
        if not "\u0900" <= text[match.start()] <= "\u097f"
    ]
    return [(start, end, fold(text[start:end])) for start, end in sorted(hindi + others)]


def detect_language(text: str) -> str:
    """Return a two-letter code; `en` when nothing tells."""
    for language, script in _SCRIPTS + _SPACED_SCRIPTS:
        if re.search(script, text):
            return language
    words = [word for _, _, word in _tokens(text)]
    counts = {language: sum(word in stops for word in words) for language, stops in _STOP_WORDS.items()}
    for language, letters in (("es", "ñ¿¡"), ("pt", "ãõ"), ("de", "ßäöü"), ("fr", "œùêî"), ("it", "ìò")):
        counts[language] += sum(letter in text.lower() for letter in letters)
    return max(counts, key=lambda language: counts[language])


def _mood(text: str, tokens: list[tuple[int, int, str]]) -> tuple[str, float, tuple[Cue, ...]]:
    cues: list[Cue] = []
    for index, cue in _MOOD.find(text, tokens):
        weight = cue.weight
        before = [word for _, _, word in tokens[max(0, index - 3) : index]] if index >= 0 else []
        if before and before[-1] in _INTENSIFIERS:
            weight *= 1.5
        # "Not bad" is faint praise, "no problem" none at all: what is denied turns round and loses force.
        if any(word in _NEGATIONS or word.endswith("n't") for word in before):
            weight *= -0.7 if weight > 0 else -0.4
        cues.append(Cue(cue.start, cue.end, weight))
    pleased = sum(cue.weight for cue in cues if cue.weight > 0)
    displeased = -sum(cue.weight for cue in cues if cue.weight < 0)
    total = pleased - displeased
    if total and ("!!" in text or sum(word.isupper() and len(word) > 3 for word in text.split()) >= 2):
        total *= 1.4
    score = round(total / (abs(total) + 2), 2)
    if min(pleased, displeased) >= 1.5 and abs(score) < 0.5:
        return "mixed", score, tuple(cues)
    if abs(score) < 0.25:
        return "neutral", score, tuple(cues)
    return ("positive" if score > 0 else "negative"), score, tuple(cues)


def _intents(
    text: str, tokens: list[tuple[int, int, str]], score: float
) -> tuple[tuple[tuple[str, float], ...], tuple[Cue, ...]]:
    weighed: dict[str, tuple[float, tuple[Cue, ...]]] = {}
    for intent, words in _INTENTS.items():
        cues = tuple(
            Cue(cue.start, cue.end, 1 + 0.5 * text[cue.start : cue.end].count(" "))
            for _, cue in words.find(text, tokens)
        )
        if cues:
            boost = 1.5 if intent == "complaint" and score < -0.3 else 1.0
            weighed[intent] = (sum(cue.weight for cue in cues) * _WEIGHTS.get(intent, 1.0) * boost, cues)
    if not weighed:
        return (("other", 0.0),), ()
    order = sorted(weighed, key=lambda intent: -weighed[intent][0])
    return tuple((intent, round(weighed[intent][0], 2)) for intent in order), weighed[order[0]][1]


@lru_cache(maxsize=4_096)
def understand(text: str) -> Understanding:
    """Read a text."""
    read = text[:LONGEST_READ]
    tokens = _tokens(read)
    sentiment, score, mood_cues = _mood(read, tokens)
    intents, intent_cues = _intents(read, tokens, score)
    references = [match.group(1) for match in _REFERENCE.finditer(read) if sum(map(str.isdigit, match.group(1))) >= 3]
    return Understanding(
        text=read,
        language=detect_language(read),
        sentiment=sentiment,
        score=score,
        sentiment_cues=mood_cues,
        intents=intents,
        intent_cues=intent_cues,
        urgent_cues=tuple(cue for _, cue in _URGENT.find(read, tokens)),
        reference=references[0] if references else "",
    )
