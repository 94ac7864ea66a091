"""Load Meta's description, apply patches, validate bodies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.contract.meta_openapi.patches import ABSENT, PATCHES, Patch

ROOT = Path(__file__).parents[3]
FILE = ROOT.parent / "shared" / "contracts" / "meta-business-messaging-api_v23.0.yaml"
ABSENCE = f"not checked against Meta's OpenAPI: {FILE} is not there (it is Meta's, and no part of this project)"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte: 0.2 s with libyaml, 6 s without
_METHODS = ("get", "post", "put", "delete")


@cache
def as_published() -> Any:
    return yaml.load(FILE.read_text(), Loader=_LOADER)  # noqa: S506 - both are safe loaders


def patched(document: Any, patches: Iterable[Patch]) -> Any:
    """Return the document with the patches applied, in order. Raises: KeyError where one finds nothing to change."""
    for patch in patches:
        for place in patch.at:
            steps = [step.replace("~1", "/") for step in place.strip("/").split("/")]
            document = _changed(document, steps, patch.to)
    return document


def _changed(node: Any, steps: Sequence[str], to: Any) -> Any:
    """Return a copy of what lies on the way, sharing all else: the document is large, and patched often."""
    step, *rest = steps
    copied = node.copy()
    key = step if isinstance(node, dict) or step == "-" else int(step)
    if rest:
        copied[key] = _changed(node[key], rest, to)
    elif to is ABSENT:
        del copied[key]
    elif isinstance(node, list) and key == "-":
        copied.append(to)
    else:
        copied[key] = to
    return copied


class Contract:
    """Validates bodies by path and method, with paths as the document writes them."""

    def __init__(self, document: Any) -> None:
        self._paths = document["paths"]
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        self._registry = Registry().with_resource("urn:meta", resource)
        self._validators: dict[str, Draft202012Validator] = {}

    def request(self, path: str, body: Any, *, method: str = "post", media: str = "application/json") -> str | None:
        """Return why a request body is not valid, or None."""
        return self._why(f"{_operation(path, method)}/requestBody/content/{_escaped(media)}/schema", body)

    def response(self, path: str, body: Any, *, method: str, status: int) -> str | None:
        """Return why a response body is not valid, or None.

        Raises: KeyError where the document does not describe it.
        """
        described = self._paths[path][method]["responses"][str(status)]
        if "$ref" in described:
            where = described["$ref"]
        else:
            described["content"]["application/json"]["schema"]
            where = f"#{_operation(path, method)}/responses/{status}"
        return self._why(f"{where.removeprefix('#')}/content/application~1json/schema", body)

    def schema(self, name: str, body: Any) -> str | None:
        return self._why(f"/components/schemas/{name}", body)

    def _why(self, pointer: str, body: Any) -> str | None:
        if pointer not in self._validators:
            self._validators[pointer] = Draft202012Validator(
                {"$ref": f"urn:meta#{pointer}"}, registry=self._registry, format_checker=FormatChecker()
            )
        error: ValidationError | None = best_match(self._validators[pointer].iter_errors(body))
        return f"{error.json_path}: {error.message[:300]}" if error else None


def _operation(path: str, method: str) -> str:
    return f"/paths/{_escaped(path)}/{method}"


def _escaped(part: str) -> str:
    # A fragment of a URI as well as a JSON pointer: braces of a path template are escaped too.
    return part.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


@cache
def contract() -> Contract:
    """Return Meta's description as reviewed."""
    return Contract(patched(as_published(), PATCHES))
