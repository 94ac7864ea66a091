"""Build a process's settings once, or say on one screen everything that is missing or wrong."""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from shared.settings.groups import ProcessSettings
from shared.settings.secret_files import UnusableSecretFiles

SettingsT = TypeVar("SettingsT", bound=ProcessSettings)


def load(settings: type[SettingsT]) -> SettingsT:
    """Return the settings from the environment; exit with status 2 and one screen of problems otherwise."""
    try:
        return settings()
    except SettingsError as error:
        # A variable named like a whole group (DATABASE=…): its value is not shown, it may be a secret.
        sys.stderr.write(f"Cannot start: {settings.__module__.rsplit('.', 1)[0]}: {error}.\n")
        raise SystemExit(2) from None
    except ValidationError as error:
        sys.stderr.write(f"{problems(settings, error)}\n")
        raise SystemExit(2) from None
    except UnusableSecretFiles as error:
        lines = [_headline(settings), *(f"  {name:<24} {problem}" for name, problem in error.problems.items())]
        sys.stderr.write("\n".join(lines) + "\n")
        raise SystemExit(2) from None


def problems(settings: type[ProcessSettings], error: ValidationError) -> str:
    """Name every setting that is missing or wrong, with its meaning; never a value."""
    lines = [_headline(settings)]
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        path = [str(part) for part in problem["loc"]]
        missing = (
            _missing_below(settings, path) if problem["type"] == "missing" else [(path, _description(settings, path))]
        )
        for name, meaning in missing:
            what = "is missing" if problem["type"] == "missing" else problem["msg"]
            lines.append(f"  {'_'.join(name).upper():<24} {what}. {meaning or ''}".rstrip())
    place = settings.__module__.split(".")
    lines.append(f"Each with an example: .env.example. What it is for: {'/'.join(place[:2])}/README.md.")
    return "\n".join(lines)


def _headline(settings: type[ProcessSettings]) -> str:
    return f"Cannot start: {settings.__module__.rsplit('.', 1)[0]} lacks settings."


def _missing_below(model: type[BaseModel], path: list[str]) -> list[tuple[list[str], str | None]]:
    """Expand a missing group into its required settings."""
    annotation = _annotation(model, path)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [
            ([*path, name], field.description) for name, field in annotation.model_fields.items() if field.is_required()
        ]
    return [(path, _description(model, path))]


def _annotation(model: type[BaseModel], path: list[str]) -> object:
    annotation: object = model
    for part in path:
        if (
            not (isinstance(annotation, type) and issubclass(annotation, BaseModel))
            or part not in annotation.model_fields
        ):
            return None
        annotation = annotation.model_fields[part].annotation
    return annotation


def _description(model: type[BaseModel], path: list[str]) -> str | None:
    parent = _annotation(model, path[:-1])
    if isinstance(parent, type) and issubclass(parent, BaseModel) and path and path[-1] in parent.model_fields:
        return parent.model_fields[path[-1]].description
    return None
