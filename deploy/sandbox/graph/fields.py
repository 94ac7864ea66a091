"""Graph's `fields` parameter."""

from __future__ import annotations


def split_fields(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    fields, depth, current = [], 0, ""
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            fields.append(current.strip())
            current = ""
        else:
            current += sign
    return [field for field in [*fields, current.strip()] if field]


def field_names(text: str) -> list[str]:
    """Return the names alone: `throughput{level}` is asked for whole."""
    return [field.partition("{")[0].strip() for field in split_fields(text)]
