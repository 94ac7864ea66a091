"""Message templates: what one looks like, whether Meta would take it, whether values fit it, and how it will look.

Holds: definitions (from and to Meta's JSON), `check` of a definition, `fill` and `fits` of values, `preview`.
Holds not: a template's status, quality and counts (the store's), and the message sent (`shared.whatsapp.outbound`).
"""

from shared.whatsapp.templates.check import check
from shared.whatsapp.templates.definition import (
    Body,
    Button,
    Card,
    Footer,
    Header,
    Offer,
    TemplateDefinition,
    read_definition,
    to_graph,
)
from shared.whatsapp.templates.fill import Values, fill, fits
from shared.whatsapp.templates.preview import Preview, PreviewButton, preview

__all__ = [
    "Body",
    "Button",
    "Card",
    "Footer",
    "Header",
    "Offer",
    "Preview",
    "PreviewButton",
    "TemplateDefinition",
    "Values",
    "check",
    "fill",
    "fits",
    "preview",
    "read_definition",
    "to_graph",
]
