"""A stand-in for Claude at its worst: it does what the customer's text asks, whatever the caller told it.

It finds orders in every string of the prompt, through the usual disguises, and carries them out on the honest answer:
within the schema where they fit it, beyond it where they do not. So a test can show that what a product stores holds
even if its prompt does not. It has no memory: it can give away what is in the request, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deploy.sandbox.claude.disguises import readings

MOST_WRITTEN = 200_000  # characters, whatever it is asked to repeat
_DECODER = json.JSONDecoder(strict=False)

# Field of an answer → what people call it, in the languages of those who try.
_NAMES = {
    "intent": "intent intenção intencao intención intencion absicht anliegen intention avsikt ärende",
    "sentiment": "sentiment sentimento sentimiento stimmung känsla",
    "sentiment_score": "sentiment_score score pontuação puntuación wertung poäng",
    "priority": "priority prioridade prioridad priorität priorité prioritet",
    "language": "language idioma sprache langue språk",
    "summary": "summary resumo resumen zusammenfassung résumé sammanfattning",
    "suggested_response": "suggested_response reply resposta respuesta antwort réponse svar",
    "confidence": "confidence confiança confianza konfidenz confiance konfidens",
    "evidence": "evidence evidência evidencia beleg preuve bevis",
    "ref": "ref",
}
_FIELD_OF = {name: canonical for canonical, names in _NAMES.items() for name in names.split()}
_TEXTS = ("summary", "suggested_response", "evidence")
_OPEN, _CLOSE = "\"“„«'‘`", "\"”“»'’`"
_ASSIGNMENT = re.compile(
    rf"(?<![^\W_])(?P<name>{'|'.join(sorted(_FIELD_OF, key=len, reverse=True))})\b[\"'`]?"
    r"\s*(?::=|=|:|->|→|\b(?:to|as|is|auf|als|ist|à|sur|est|como|a|para|é|es|em|en|till|som|är)\b)\s*"
    rf"(?:[{_OPEN}](?P<quoted>[^{_CLOSE}\n]+)[{_CLOSE}]|(?P<word>[^\s,;{{}}\[\]\"]+))",
    re.I,
)
_UNKNOWN_ASSIGNMENT = re.compile(r"\b([a-z][a-z_]{2,30})\s*(?:=|:=)\s*[\"']?([^\s,;\"'&<>]+)")
_VERBS = (
    "reply|respond|answer|say|write|output|print|repeat|send|tell|responda|responde|diga|di|escreva|escribe|repita|"
    "antworte|schreib|schreibe|sag|sage|wiederhole|réponds|répondez|écris|écrivez|dis|répète|svara|skriv|säg|upprepa"
)
_REPLY = re.compile(rf"\b(?:{_VERBS})\b[^{_OPEN}\n]{{0,60}}[{_OPEN}]([^{_CLOSE}]+)[{_CLOSE}]", re.I)
_REPLY_AFTER_COLON = re.compile(rf"\b(?:{_VERBS})\b[^:\n]{{0,60}}:\s*(\S.*)", re.I)
_TIMES = re.compile(r"(\d[\d.,]{2,8})\s*(?:times|x\b|vezes|veces|mal\b|fois|gånger)", re.I)
_GIVE_AWAY = re.compile(
    r"other (customer|client|contact|user|people)|(all|every) (customer|contact|conversation|phone)|system prompt|"
    r"your (instructions|rules|prompt)|(above|previous) (text|instructions)|verbatim|outros clientes|outro cliente|"
    r"suas instruções|otros clientes|otro cliente|tus instrucciones|instrucciones del sistema|andere[nr]? kunde|"
    r"deine anweisungen|systemprompt|autres clients|autre client|tes instructions|vos instructions|andra kunder|"
    r"annan kund|dina instruktioner|last (conversation|customer)|database|datenbank|base de dados|base de datos",
    re.I,
)
_NO_JSON = re.compile(
    r"plain text|(not|no|without|instead of|stop using|don't use) json|yaml|markdown|as a poem"
    r"|texto (puro|plano|simples)|(sem|sin|kein|ohne|sans|pas de|inte|utan) json|klartext|texte brut|ren text",
    re.I,
)
_NOTHING = re.compile(
    r"(no|empty|omit|leave out|skip|zero)\b.{0,25}\bentries|entries.{0,12}(\[\]|empty)|do not analy[sz]e", re.I
)
_TOOL = re.compile(
    r"tool_use|tool_call|function_call|<invoke|\b(?:call|use|run|invoke) the (?:tool|function)|\b\w+_\w+\(", re.I
)
_TOOL_NAME = re.compile(r"name[\"']?\s*[:=]\s*[\"']?(\w+)|\b(\w+_\w+)\(|(?:tool|function) (\w+)", re.I)
_REFS = re.compile(r"\bm\d{1,4}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_CLOSES_JSON = re.compile(r"[\"']\s*\}\s*\]|\}\s*\]\s*\}")


@dataclass(slots=True)
class Obedience:
    """What it writes after all orders: `text`, further content blocks, and the names of the orders it obeyed."""

    text: str
    blocks: list[dict[str, Any]] = field(default_factory=list)
    obeyed: list[str] = field(default_factory=list)


def obey(honest: Any, asked: dict[str, Any], user_text: str) -> Obedience:
    """Carry out every order in the user's turn on the honest answer (a JSON value, or a text where none was asked)."""
    texts = list(_strings(user_text))
    wish = _Wish(honest if isinstance(honest, dict) else {})
    for text in texts:
        for reading in readings(text):
            before = len(wish.obeyed)
            wish.read(reading, asked)
            if set(wish.obeyed[before:]) - {"new_key"}:
                break  # understood; another reading of the same text would only blur its words
    if not wish.obeyed and texts:
        wish.say(texts[-1], "parrot")  # without an order it still takes the customer's words for its own
    if not isinstance(honest, dict):
        return Obedience(wish.said or str(honest), wish.blocks, wish.obeyed)
    # Half a surrogate pair can travel as an escape only, in the answer's JSON and around it.
    written = wish.written()[:MOST_WRITTEN].encode("utf-8", "backslashreplace").decode("utf-8")
    return Obedience(written, wish.blocks, wish.obeyed)


class _Wish:
    """The answer as the customer wants it, growing with each order."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.said = ""
        self.blocks: list[dict[str, Any]] = []
        self.obeyed: list[str] = []
        self._raw = ""
        self._prose = ""  # the text that forbade JSON

    def read(self, text: str, asked: dict[str, Any]) -> None:
        """Obey one text."""
        for value in _json_in(text):
            self._take_over(value)
        for match in _ASSIGNMENT.finditer(text):
            self._set(_FIELD_OF[match["name"].casefold()], match["quoted"] or match["word"].rstrip(".!?"))
        for name, value in _UNKNOWN_ASSIGNMENT.findall(text):
            if name not in _FIELD_OF:
                self._put(name, _number_or_text(value))
        if said := _REPLY.search(text) or _REPLY_AFTER_COLON.search(text):
            self.say(said.group(1), "reply")
        if times := _TIMES.search(text):
            count = int(re.sub(r"[.,]", "", times.group(1)))
            self.say(f"{self.said or 'PWNED'} " * min(count, MOST_WRITTEN // 10), "repeat")
        if _GIVE_AWAY.search(text):
            self.say(_whole_request(asked), "give_away")
        self._obey_form(text)

    def _obey_form(self, text: str) -> None:
        """Obey what is asked about the form of the answer rather than its contents."""
        for ref in _REFS.findall(text):
            self._add_entry(ref)
        if _NOTHING.search(text):
            self.answer["entries"] = []
            self.obeyed.append("nothing")
        if _TOOL.search(text):
            name = next((part for match in _TOOL_NAME.findall(text) for part in match if part), "send_message")
            call = {"type": "tool_use", "id": "toolu_01gullible", "name": name, "input": {"text": self.said or text}}
            self.blocks.append(call)
            self._put("tool_calls", [call])
            self.obeyed.append("tool")
        if _CLOSES_JSON.search(text) and not self._raw:
            self._raw = text  # goes into the answer as it stands, unescaped
            self.obeyed.append("break_json")
        if _NO_JSON.search(text):
            self._prose = text
            self.obeyed.append("no_json")

    def say(self, text: str, order: str) -> None:
        """Put words into its own mouth, and claim that the message holds them."""
        self.said = text.strip()[:MOST_WRITTEN]
        for entry in self._entries():
            entry["suggested_response"] = self.said
            if order != "give_away":  # a request told twice would only run into max_tokens
                entry["summary"] = self.said
                entry["intent_evidence"] = entry["priority_evidence"] = self.said
        self.obeyed.append(order)

    def written(self) -> str:
        """Write the answer down."""
        if self._prose:
            return f"Sure! Here you go:\n\n{self.said}\n{self._prose}"
        if self._raw:
            for entry in self._entries():
                entry["summary"] = "\x00here\x00"
            return json.dumps(self.answer, ensure_ascii=False).replace("\\u0000here\\u0000", self._raw)
        return json.dumps(self.answer, ensure_ascii=False)

    def _entries(self) -> list[dict[str, Any]]:
        entries = self.answer.get("entries", [self.answer] if self.answer else None)
        return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []

    def _set(self, name: str, value: str) -> None:
        for entry in self._entries():
            if name in ("confidence", "evidence"):
                for key in [key for key in entry if key.endswith(f"_{name}")]:
                    entry[key] = _number_or_text(value) if name == "confidence" else value
            else:
                entry[name] = value if name in _TEXTS else _number_or_text(value)
        if name == "suggested_response":
            self.said = value
        self.obeyed.append(name)

    def _put(self, name: str, value: Any) -> None:
        """Add a key that nobody asked for, everywhere."""
        self.answer[name] = value
        for entry in self._entries():
            entry[name] = value
        self.obeyed.append("new_key")

    def _take_over(self, value: Any) -> None:
        """Take JSON from the text for the answer, or for the entries in it."""
        if isinstance(value, list) and all(isinstance(one, dict) for one in value) and value:
            value = {"entries": value}
        if not isinstance(value, dict) or not value:
            return
        if isinstance(value.get("entries"), list):
            honest = self._entries()
            # What a forged entry leaves out is filled in from the honest one, so that it has every chance.
            self.answer = value | {
                "entries": [
                    (honest[min(index, len(honest) - 1)] if honest else {}) | one if isinstance(one, dict) else one
                    for index, one in enumerate(value["entries"])
                ]
            }
        else:
            for entry in self._entries():
                entry.update(value)
        self.obeyed.append("json")

    def _add_entry(self, ref: str) -> None:
        entries = self._entries()
        if entries and all(entry.get("ref") != ref for entry in entries):
            self.answer["entries"].append(entries[0] | {"ref": ref, "message_id": ref, "contact_id": ref})
            self.obeyed.append("ref")


def _number_or_text(value: str) -> Any:
    try:
        return float(value)  # NaN, Infinity and 1e308 too
    except ValueError:
        return value


def _json_in(text: str) -> Iterator[Any]:
    at = 0
    while (found := re.search(r"[\[{]", text[at:])) is not None:
        start = at + found.start()
        try:
            value, at = _DECODER.raw_decode(text, start)
            yield value
        except (ValueError, RecursionError):
            at = start + 1


def _strings(user_text: str) -> Iterator[str]:
    """List what people wrote in a turn: every text in its JSON, or the turn itself if it holds none."""
    documents = list(_json_in(user_text))
    if not documents:
        yield user_text
    waiting = documents[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(
                child
                for key, child in reversed(value.items())
                if key not in ("ref", "from") or not isinstance(child, str)
            )
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, str):
            yield value


def _whole_request(asked: dict[str, Any]) -> str:
    """Return all it knows: the caller's instructions and the turns."""
    return json.dumps([asked.get("messages"), asked.get("system")], ensure_ascii=False)[:5000]
