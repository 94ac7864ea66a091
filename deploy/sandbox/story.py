"""Who exists in the sandbox: people who can sign in, business numbers, customers. Read once from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deploy.sandbox.settings import UnusableSettings


class Person(BaseModel):
    """Someone of ours who signs in to the dashboard."""

    id: str
    email: str
    password: str
    name: str = ""


class Channel(BaseModel):
    """A business phone number that customers write to. What has a default is known to Meta only."""

    workspace: str = ""
    waba_id: str
    phone_number_id: str
    display_phone_number: str
    portfolio_id: str = "690113358247715"
    verified_name: str = ""
    throughput: Annotated[int, Field(ge=1, le=10_000)] = 80  # messages a second; 20 with the app on a phone, 1,000 high
    quality_rating: Literal["GREEN", "YELLOW", "RED", "UNKNOWN"] = "GREEN"
    name_status: str = "APPROVED"
    messaging_limit: str = "TIER_10K"
    username: str | None = None
    is_registered: bool = True
    pin: Annotated[str, Field(pattern=r"^[0-9]{6}$")] | None = None
    # Only for Meta's test numbers: whom they may write to; null: anybody.
    allowed_recipients: list[str] | None = None


class Customer(BaseModel):
    """Someone who writes to a business; known to Meta by number, by business-scoped user id, or by both."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=256)] = ""
    wa_id: Annotated[str, Field(pattern=r"^[0-9]{5,20}$")] | None = None
    user_id: Annotated[str, Field(min_length=1, max_length=160)] | None = None
    username: str | None = None
    hides_number: bool = False  # a business that writes to the user id does not learn the number from the statuses
    other_numbers: list[str] = []  # digits that lead to the same person, such as a number dialled without its 9
    reads: bool = True  # false: read receipts are off
    stopped_marketing: bool = False
    identity_key_hash: str | None = None
    refuses: int | None = None  # every message to them fails with this code …
    refuses_by: Literal["answer", "webhook"] = "webhook"  # … at once, or accepted first

    @model_validator(mode="after")
    def has_an_identity(self) -> Customer:
        if not self.wa_id and not self.user_id:
            raise ValueError("a sender needs a wa_id, a user_id or both")
        return self

    @property
    def key(self) -> str:
        """One name for this customer within the sandbox: the user id if there is one, else the number."""
        return self.user_id or self.wa_id or ""


class Token(BaseModel):
    """An access token that the Graph API takes."""

    token: Annotated[str, Field(min_length=1)]
    scopes: list[str] = ["business_management", "whatsapp_business_management", "whatsapp_business_messaging"]
    accounts: list[str] | None = None  # WABA ids it may touch; null: all
    expires_at: int = 0  # unix seconds; 0: never
    is_app: bool = False  # the app's own, <APP_ID>|<APP_SECRET>: reads subscriptions, debugs tokens


class KnownTemplate(BaseModel):
    """A template the account already has when the sandbox starts."""

    waba_id: str
    name: str
    language: str = "en_US"
    category: Literal["MARKETING", "UTILITY", "AUTHENTICATION"] = "UTILITY"
    status: str = "APPROVED"
    parameter_format: Literal["POSITIONAL", "NAMED"] = "POSITIONAL"
    components: list[dict[str, Any]]
    id: str | None = None


class KnownMedia(BaseModel):
    """A file that was uploaded before the sandbox started."""

    phone_number_id: str
    id: str
    mime_type: str
    content: str = ""  # base64


class Meta(BaseModel):
    """What only Meta knows."""

    app_id: str = "902214467719385"
    app_name: str = "Parley"
    tokens: list[Token] = [Token(token="sandbox-token")]
    templates: list[KnownTemplate] = []
    media: list[KnownMedia] = []
    behaviour: dict[str, Any] = {}  # graph/behaviour.py, checked there


class Story(BaseModel):
    """The whole file."""

    users: list[Person] = []
    channels: list[Channel] = []
    customers: list[Customer] = []
    meta: Meta = Meta()


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
