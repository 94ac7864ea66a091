"""Secrets from files: DATABASE_URL_FILE names a file that holds DATABASE_URL, as orchestrators mount them."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic_settings import EnvSettingsSource

_MOST_BYTES = 64 * 1024  # a secret is short; a device or a log file is a mistake


class UnusableSecretFiles(Exception):
    """Files that cannot stand for their settings.

    `problems`: what is wrong, by variable; never a path, which may be the secret itself, put into the wrong variable.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {problem}" for name, problem in problems.items()))
        self.problems = problems


class EnvironmentOrFiles(EnvSettingsSource):
    """The environment, where each secret NAME may come as NAME_FILE instead."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = dict(super()._load_env_vars())
        problems = {}
        for name in secret_names(self.settings_cls):
            file = found.get(f"{name}_file")
            if not file:
                continue
            if found.get(name):
                problems[f"{name}_file"] = f"and {name.upper()} are both set; keep one."
                continue
            try:
                found[name] = _read(Path(file))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                problems[f"{name}_file"] = f"names a file that cannot be used: {reason}."
        if problems:
            raise UnusableSecretFiles({name.upper(): problem for name, problem in problems.items()})
        return found


def _read(file: Path) -> str:
    with file.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("it is too large for a secret")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    if not text:
        raise ValueError("it is empty")
    return text


def secret_names(settings: type[BaseModel]) -> Iterator[str]:
    """Yield the variables, in lower case, whose values are secrets."""
    for name, field in settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            for inner, inner_field in group.model_fields.items():
                if _is_secret(inner_field.annotation):
                    yield f"{name}_{inner}"
        elif _is_secret(field.annotation):
            yield name


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_is_secret, typing.get_args(annotation)))
