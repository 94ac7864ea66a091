"""Who exists in the sandbox: people who can sign in, business numbers, customers. Read once from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deploy.sandbox.settings import UnusableSettings


class Person(BaseModel):
    """Someone of ours who signs in to the dashboard."""

    id: str
    email: str
    password: str
    name: str = ""


class Channel(BaseModel):
    """A business phone number that customers write to."""

    workspace: str = ""
    waba_id: str
    phone_number_id: str
    display_phone_number: str


class Customer(BaseModel):
    """Someone who writes to a business; known to Meta by number, by business-scoped user id, or by both."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=256)] = ""
    wa_id: Annotated[str, Field(pattern=r"^[0-9]{5,20}$")] | None = None
    user_id: Annotated[str, Field(min_length=1, max_length=160)] | None = None

    @model_validator(mode="after")
    def has_an_identity(self) -> Customer:
        if not self.wa_id and not self.user_id:
            raise ValueError("a sender needs a wa_id, a user_id or both")
        return self

    @property
    def key(self) -> str:
        """One name for this customer within the sandbox: the user id if there is one, else the number."""
        return self.user_id or self.wa_id or ""


class Story(BaseModel):
    """The whole file."""

    users: list[Person] = []
    channels: list[Channel] = []
    customers: list[Customer] = []


def read_story(path: Path) -> Story:
    """Read the story file.

    Raises: UnusableSettings, naming the file's variable and where in the file the trouble is, without its values.
    """
    try:
        return Story.model_validate(json.loads(path.read_text("utf-8")))
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise UnusableSettings(f"The story file of SANDBOX_STORY is not usable: {where}") from error
    except (OSError, ValueError) as error:
        raise UnusableSettings(f"The story file of SANDBOX_STORY cannot be read as JSON: {error}") from error
