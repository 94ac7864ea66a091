"""What Anthropic's structured outputs refuse in a schema. The sandbox fills such schemas, but says so.

Source: Anthropic, "Structured outputs", JSON Schema limitations, as known in November 2026, and the schema transform
of the anthropic SDK 2.12. A finding is recorded with the call; with the switch `strict_schema` it is a 400.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_REFUSED = {
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength"),
    "array": ("maxItems", "uniqueItems", "prefixItems", "contains"),
    "object": ("minProperties", "maxProperties", "patternProperties", "propertyNames"),
}


def findings(schema: dict[str, Any]) -> tuple[str, ...]:
    """List what the real API would refuse, in the words it uses where known; empty when it would take the schema."""
    return tuple(dict.fromkeys([*_walk(schema), *_recursion(schema)]))


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _walk(child)
    if not isinstance(node, dict):
        return
    kinds = node.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        for keyword in _REFUSED.get(str(kind), ()):
            if keyword in node:
                yield f"For '{kind}' type, property '{keyword}' is not supported"
        if kind == "object" and node.get("additionalProperties") is not False:
            yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
        if kind == "array" and node.get("minItems", 0) not in (0, 1):
            yield "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    if "oneOf" in node:
        yield "Schema type 'oneOf' is not supported"
    if any(isinstance(value, dict | list) for value in node.get("enum") or ()):
        yield "Enum values must be strings, numbers, booleans or null"
    if isinstance(ref := node.get("$ref"), str) and not ref.startswith("#"):
        yield "External $ref is not supported"
    for keyword in ("items", "anyOf", "allOf", "oneOf"):
        yield from _walk(node.get(keyword))
    for keyword in ("properties", "$defs", "definitions"):
        children = node.get(keyword)
        if isinstance(children, dict):
            yield from _walk(list(children.values()))


def _recursion(schema: dict[str, Any]) -> Iterator[str]:
    """Tell whether a definition leads back to itself."""
    uses: dict[str, set[str]] = {}
    for holder in ("$defs", "definitions"):
        for name, definition in (schema.get(holder) or {}).items():
            uses[f"#/{holder}/{name}"] = _refs_in(definition)
    uses["#"] = _refs_in({key: value for key, value in schema.items() if key not in ("$defs", "definitions")})
    for start in uses:
        seen: set[str] = set()
        waiting = set(uses[start])
        while waiting:
            ref = waiting.pop()
            if ref == start:
                yield "Recursive schemas are not supported"
                return
            if ref not in seen:
                seen.add(ref)
                waiting |= uses.get(ref, set())


def _refs_in(node: Any) -> set[str]:
    if isinstance(node, list):
        return {ref for child in node for ref in _refs_in(child)}
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own | {ref for child in node.values() for ref in _refs_in(child)}
