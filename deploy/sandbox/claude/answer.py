"""Filling any JSON schema with values that follow from the messages in a prompt."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from deploy.sandbox.claude.prompt import REF_KEYS, Prompt, PromptMessage
from deploy.sandbox.claude.strings import fit_length, format_example, matching
from deploy.sandbox.claude.understanding import Understanding, understand
from deploy.sandbox.claude.values import (
    fitting_tags,
    flag_for,
    meaning_of,
    new_names,
    pick,
    share_for,
    text_for,
    wants_a_task,
    words_of,
)

Schema = dict[str, Any]
DEEPEST = 24  # a schema may contain itself; from here on only what is required is filled
_LIMIT_IN_WORDS = re.compile(r"\b(minimum|maximum|minItems|maxItems|minLength|maxLength): (-?\d+(?:\.\d+)?)")
_RANGE_IN_WORDS = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:to|and|…|\.\.\.?|–|—|-)\s*(-?\d+(?:\.\d+)?)")


class CannotAnswer(Exception):
    """The schema cannot be filled: it contradicts itself or refers to what is not there."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the answer we are, and what we talk about there."""

    path: tuple[str, ...]
    read: Understanding
    messages: tuple[PromptMessage, ...]  # entries to make, while nobody has made them
    message: PromptMessage | None = None
    depth: int = 0

    def into(self, name: str) -> _Place:
        return replace(self, path=(*self.path, name), depth=self.depth + 1)

    def about(self, message: PromptMessage) -> _Place:
        return replace(self, read=understand(message.text), message=message, messages=(message,))


def refs_wanted(schema: Schema) -> frozenset[str]:
    """List every ref the schema itself names: the enum of a ref property, and property names (any could be a ref)."""
    found: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            properties = node.get("properties")
            if isinstance(properties, dict):
                found |= set(properties)
                for name in REF_KEYS:
                    about = properties.get(name)
                    if isinstance(about, dict):
                        found |= {str(value) for value in (*about.get("enum", ()), about.get("const", ""))}
            waiting.extend(node.values())
    return frozenset(found)


def answer(schema: Schema, prompt: Prompt) -> Any:
    """Make a JSON value the schema accepts.

    Raises: CannotAnswer.
    """
    place = _Place((), understand(prompt.inbound_text), prompt.to_analyse)
    return _Filler(schema, prompt).fill(schema, place)


class _Filler:
    def __init__(self, root: Schema, prompt: Prompt) -> None:
        self._root = root
        self._prompt = prompt

    def fill(self, schema: Any, place: _Place) -> Any:
        if schema is True or schema == {}:
            return text_for(meaning_of(place.path), place.read) or place.read.summary
        if not isinstance(schema, dict):
            raise CannotAnswer(f"no value fits at {'.'.join(place.path) or 'the root'}")
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choose(schema["enum"], place)
        variants = schema.get("anyOf") or schema.get("oneOf")
        if variants:
            rest = {
                key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", "description", "title")
            }
            return self._any_of([_merged(rest, self._resolve(variant)) for variant in variants], place)
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._any_of([{**schema, "type": one} for one in kind], place)
        kind = kind or _kind_told_by(schema)
        match kind:
            case "object":
                return self._object(schema, place)
            case "array":
                return self._array(schema, place)
            case "number" | "integer":
                return self._number(schema, place, whole=kind == "integer")
            case "boolean":
                return flag_for(meaning_of(place.path), place.read)
            case "null":
                return None
            case _:
                return self._string(schema, place)

    def _resolve(self, schema: Schema) -> Schema:
        """Follow `$ref` and fold `allOf` into one schema."""
        for _ in range(50):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged(self._look_up(str(schema["$ref"])), rest)
            elif "allOf" in schema:
                parts = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    schema = _merged(schema, self._resolve(part))
            else:
                return schema
        raise CannotAnswer("a $ref that leads back to itself")

    def _look_up(self, ref: str) -> Schema:
        if not ref.startswith("#"):
            raise CannotAnswer(f"$ref outside the schema: {ref}")
        found: Any = self._root
        for part in ref[1:].strip("/").split("/"):
            if part:
                name = part.replace("~1", "/").replace("~0", "~")
                if not isinstance(found, dict) or name not in found:
                    raise CannotAnswer(f"$ref leads nowhere: {ref}")
                found = found[name]
        if not isinstance(found, dict):
            raise CannotAnswer(f"$ref leads to no schema: {ref}")
        return found

    def _choose(self, values: list[Any], place: _Place) -> Any:
        if place.message is not None and place.path[-1:] and place.path[-1] in REF_KEYS:
            for value in values:
                if str(value) == place.message.ref:
                    return value
        strings = [value for value in values if isinstance(value, str)]
        if strings:
            return pick(strings, meaning_of(place.path), place.read)
        numbers = sorted(value for value in values if isinstance(value, int | float) and not isinstance(value, bool))
        if numbers:
            share = share_for(meaning_of(place.path), place.read)
            return numbers[max(0, min(len(numbers) - 1, round(share * (len(numbers) - 1))))]
        return values[0]

    def _any_of(self, variants: list[Schema], place: _Place) -> Any:
        """Prefer saying something to null, unless there is nothing to say or we are too deep already."""
        nulls = [variant for variant in variants if variant.get("type") == "null"]
        others = [variant for variant in variants if variant.get("type") != "null"]
        if nulls and (place.depth > DEEPEST or self._nothing_to_say(place)):
            return None
        flat = [variant for variant in others if _kind_told_by(variant) not in ("object", "array")]
        order = (flat + others if place.depth > DEEPEST else others) + nulls
        problem: CannotAnswer | None = None
        for variant in order:
            try:
                return self.fill(variant, place)
            except CannotAnswer as error:
                problem = error
        raise problem or CannotAnswer("anyOf without a variant")

    def _nothing_to_say(self, place: _Place) -> bool:
        meaning = meaning_of(place.path)
        if meaning.aspect == "due":
            return self._prompt.latest_at is None
        if meaning.aspect == "reference":
            return not place.read.reference
        if meaning.aspect == "reply":
            return place.read.intent == "spam"
        return meaning.topic == "task" and not wants_a_task(place.read)

    def _object(self, schema: Schema, place: _Place) -> dict[str, Any]:
        if place.depth > 2 * DEEPEST:
            raise CannotAnswer("a schema that requires itself")
        properties: dict[str, Any] = schema.get("properties") or {}
        required = set(schema.get("required", ()))
        by_ref = {message.ref: message for message in self._prompt.everything}
        keyed = bool(properties) and all(name in by_ref for name in properties)
        filled: dict[str, Any] = {}
        for name, about in properties.items():
            if place.depth > DEEPEST and name not in required:
                continue
            there = place.into(name)
            filled[name] = self.fill(about, there.about(by_ref[name]) if keyed else there)
        for name in required - set(properties):
            rest = schema.get("additionalProperties", True)
            filled[name] = self.fill(rest, place.into(name))
        open_to = schema.get("additionalProperties")
        if not properties and isinstance(open_to, dict) and place.depth <= DEEPEST:
            for message in place.messages:  # a map from ref to entry
                filled[message.ref] = self.fill(open_to, place.into(message.ref).about(message))
        return filled

    def _array(self, schema: Schema, place: _Place) -> list[Any]:
        least, most = int(schema.get("minItems", 0)), schema.get("maxItems", _in_words(schema, "maxItems"))
        prefix: list[Any] = schema.get("prefixItems") or []
        items = schema.get("items", True)
        made = [self.fill(one, place.into(str(index))) for index, one in enumerate(prefix)]
        if place.depth <= DEEPEST:
            made += self._items(items, place)
        if items is False:
            made = made[: len(prefix)]
        if schema.get("uniqueItems"):
            made = [item for index, item in enumerate(made) if item not in made[:index]]
        while len(made) < least:
            made.append(self._another(items, place, made, unique=bool(schema.get("uniqueItems"))))
        return made if most is None else made[: int(most)]

    def _items(self, items: Any, place: _Place) -> list[Any]:
        """Make the entries an array of this kind calls for, before its bounds are looked at."""
        meaning = meaning_of(place.path)
        shape = self._resolve(items) if isinstance(items, dict) else {}
        properties = shape.get("properties") or {}
        ref_key = next((key for key in REF_KEYS if key in properties), None)
        if meaning.topic == "task" and not wants_a_task(place.read):
            return []
        if meaning.topic == "tags" and properties:
            return self._tags(items, place, shape)
        if meaning.topic == "tags" and "new" in meaning.words and "enum" not in shape:
            return new_names(meaning, place.read)
        if ref_key and place.messages:
            if meaning.aspect == "evidence" or meaning.topic == "task":
                strongest = max(place.messages, key=lambda one: understand(one.text).confidence(meaning.topic))
                return [self.fill(items, place.about(strongest))]
            allowed = properties[ref_key].get("enum") if isinstance(properties[ref_key], dict) else None
            entries = [m for m in place.messages if allowed is None or m.ref in map(str, allowed)]
            return [self.fill(items, replace(place.about(message), path=place.path)) for message in entries]
        if "enum" in shape:
            values = [value for value in shape["enum"] if isinstance(value, str)]
            fitting = [value for value in values if value == pick(values, meaning, place.read)]
            urgent = [value for value in values if "urgent" in words_of(value) and place.read.urgent_cues]
            return list(dict.fromkeys(fitting + urgent))
        if items is False:
            return []
        return [self.fill(items, replace(place, depth=place.depth + 1))]

    def _tags(self, items: Any, place: _Place, shape: Schema) -> list[Any]:
        """Make an entry for each tag that fits, or for each that is new."""
        meaning = meaning_of(place.path)
        named = {
            name: [value for value in self._resolve(about)["enum"] if isinstance(value, str) and value]
            for name, about in shape["properties"].items()
            if isinstance(about, dict) and "enum" in self._resolve(about)
        }
        name, values = next(iter(named.items()), ("name", []))
        found = fitting_tags(values, place.read) if values else []
        if "new" in meaning.words:
            found = new_names(meaning, place.read)
        entry = replace(place, depth=place.depth + 1)
        return [self.fill(items, entry) | {name: tag} for tag in found]

    def _another(self, items: Any, place: _Place, made: list[Any], *, unique: bool) -> Any:
        """Make one more item, for a minimum that the text alone does not reach."""
        shape = self._resolve(items) if isinstance(items, dict) else {}
        if unique:
            if "enum" in shape:
                return next((value for value in shape["enum"] if value not in made), shape["enum"][0])
            if shape.get("type") == "string":
                return f"{len(made) + 1}"
            if shape.get("type") in ("integer", "number"):
                return next(n for n in range(len(made) + 1) if n not in made)
        deeper = replace(place, depth=place.depth + 1)
        if place.depth > 2 * DEEPEST:
            raise CannotAnswer("a schema that requires itself")
        return self.fill(items, deeper)

    def _number(self, schema: Schema, place: _Place, *, whole: bool) -> int | float:
        meaning = meaning_of(place.path)
        low, high = _bounds(schema, whole=whole)
        share = share_for(meaning, place.read)
        if place.message is not None and place.path and place.path[-1] in REF_KEYS and place.message.ref.isdigit():
            value = float(place.message.ref)
        elif low is not None and high is not None:
            signed = (
                meaning.topic == "sentiment" and "satisfaction" not in meaning.words and meaning.aspect != "confidence"
            )
            fraction = (share + 1) / 2 if signed else share
            # A sentiment score on 0 … 1 is a scale from bad to good; on -1 … 1 it is the score itself.
            value = low + fraction * (high - low)
        else:
            value = share * 100 if whole and meaning.aspect != "due" else share
            value = max(value, low) if low is not None else value
            value = min(value, high) if high is not None else value
        return _rounded(value, low, high, schema.get("multipleOf"), whole=whole)

    def _string(self, schema: Schema, place: _Place) -> str:
        meaning, read = meaning_of(place.path), place.read
        least = int(schema.get("minLength", 0))
        most = schema.get("maxLength", _in_words(schema, "maxLength"))
        most = None if most is None else int(most)
        if place.message is not None and place.path and place.path[-1] in REF_KEYS:
            said: str | None = place.message.ref
        elif meaning.aspect == "due":
            said = self._prompt.latest_at
        elif meaning.topic == "stage" and "new" in meaning.words:
            said = ""
        else:
            said = text_for(meaning, read)
        said = said if said is not None else (read.quote("intent") or read.summary)
        if pattern := schema.get("pattern"):
            candidates = [one for one in (said, read.language, read.reference) if one and _within(one, least, most)]
            said = matching(str(pattern), candidates) or said
            return said if _within(said, least, most) else fit_length(said, least, most)
        if (name := schema.get("format")) and (example := format_example(str(name), read.text)):
            return example
        if meaning.aspect == "evidence":
            return (read.text.strip()[: max(least, 80)] if len(said) < least else said)[:most].ljust(least, ".")
        return fit_length(said, least, most)


def _within(text: str, least: int, most: int | None) -> bool:
    return least <= len(text) and (most is None or len(text) <= most)


def _merged(one: Schema, other: Schema) -> Schema:
    """Put two schemas that both hold into one."""
    both = {**one, **other}
    for key in ("properties", "$defs"):
        if key in one and key in other:
            both[key] = {**one[key], **other[key]}
    if "required" in one and "required" in other:
        both["required"] = [*one["required"], *other["required"]]
    return both


def _kind_told_by(schema: Schema) -> str:
    """Guess a type that is not written down from the keywords that are."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    tells = {"properties": "object", "required": "object", "items": "array", "minimum": "number", "maximum": "number"}
    return next((told for keyword, told in tells.items() if keyword in schema), "string")


def _in_words(schema: Schema, limit: str) -> float | None:
    """Read a limit from the description: the real API refuses such keywords, so the SDK writes them there."""
    for name, value in _LIMIT_IN_WORDS.findall(str(schema.get("description", ""))):
        if name == limit:
            return float(value)
    return None


def _bounds(schema: Schema, *, whole: bool) -> tuple[float | None, float | None]:
    """Return the least and the greatest value allowed; None where nothing is said."""
    nudge = 1.0 if whole else 1e-6
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(above := schema.get("exclusiveMinimum"), int | float):
        low = max(above + nudge, low) if low is not None else above + nudge
    if isinstance(below := schema.get("exclusiveMaximum"), int | float):
        high = min(below - nudge, high) if high is not None else below - nudge
    if low is None and high is None:
        low, high = _in_words(schema, "minimum"), _in_words(schema, "maximum")
    if low is None and high is None and (told := _RANGE_IN_WORDS.search(str(schema.get("description", "")))):
        ends = float(told.group(1)), float(told.group(2))
        low, high = ends if ends[0] < ends[1] else (None, None)
    return low, high


def _rounded(value: float, low: float | None, high: float | None, step: float | None, *, whole: bool) -> int | float:
    if step:
        value = round(value / step) * step
        if low is not None and value < low:
            value = math.ceil(low / step) * step
        if high is not None and value > high:
            value = math.floor(high / step) * step
    elif whole:
        value = round(value)
        value = max(value, math.ceil(low)) if low is not None else value
        value = min(value, math.floor(high)) if high is not None else value
    else:
        shown = round(value, 2)
        fits = (low is None or shown >= low) and (high is None or shown <= high)
        value = (
            shown if fits else min(max(value, low if low is not None else value), high if high is not None else value)
        )
    return int(value) if whole else float(value)
