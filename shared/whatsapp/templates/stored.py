"""A template as our row keeps it, and what a message of it says."""

from __future__ import annotations

from shared.whatsapp.outbound.template import Template
from shared.whatsapp.templates.definition import NAMED, TemplateDefinition, read_definition
from shared.whatsapp.templates.placeholders import is_number, placeholders
from shared.whatsapp.templates.preview import preview
from shared.whatsapp.wire import Json, elements, mapping, text


def stored_definition(row: Json) -> TemplateDefinition | None:
    """Return a row's definition; None for one that is known by name only, until a synchronisation brings the rest.

    `row`: {template_name, language, category, components, parameter_format?}.
    """
    components = elements(row.get("components"))
    if not components:
        return None
    return read_definition(
        {
            "name": row.get("template_name"),
            "language": row.get("language"),
            "category": row.get("category"),
            "components": components,
            # Meta's webhooks do not tell it; the placeholders do.
            "parameter_format": row.get("parameter_format") or (NAMED if _has_names(components) else None),
        }
    )


def _has_names(components: list[object]) -> bool:
    texts = (text(mapping(component).get("text")) or "" for component in components)
    return any(not is_number(placeholder) for written in texts for placeholder in placeholders(written))


def says(definition: TemplateDefinition, template: Template) -> str | None:
    """Return what the customer will read: header, body and footer, with the values in."""
    shown = preview(definition, template)
    return "\n".join(part for part in (shown.header, shown.body, shown.footer) if part) or None
