"""The results of one run: what was asked of which model with which prompt, what came of it, and what it cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tests.evals.judge import Verdict

_SAYS_NOTHING = ("overloaded", "timeout", "unreachable", "circuit_open", "not_authorised")  # of a prompt

Api = Literal["anthropic", "sandbox", "other"]


class UnusableResults(Exception):
    """A results file cannot be read, or two cannot be compared; the sentence says why."""


class Strict(BaseModel):
    """What is written is what is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Call(Strict):
    """One call to Claude, about one example. Tokens as Anthropic counts them."""

    example: str
    outcome: str
    tries: int
    latency_ms: int  # of the last try
    cost_usd: Decimal  # of all tries
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


class Judged(Strict):
    """One message and how each of its fields came out."""

    example: str
    number: int  # of the message in its example, from 0
    language: str
    tags: tuple[str, ...]
    verdicts: dict[str, Verdict]
    summary: str = ""
    suggested_response: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.example, self.number


class Results(Strict):
    """A run."""

    format: Literal[1] = 1
    prompt: str  # the file's name, or "packaged"
    prompt_version: str
    model: str
    api: Api
    started_at: datetime
    took_s: float
    set_sha256: str
    price_usd_per_million: dict[str, Decimal]  # the row of the price table that was used
    calls: tuple[Call, ...]
    messages: tuple[Judged, ...]

    @property
    def cost_usd(self) -> Decimal:
        return sum((call.cost_usd for call in self.calls), Decimal(0))

    @property
    def input_tokens(self) -> int:
        return sum(call.input_tokens + call.cache_read_tokens + call.cache_write_tokens for call in self.calls)

    @property
    def output_tokens(self) -> int:
        return sum(call.output_tokens for call in self.calls)

    @property
    def unanswered(self) -> int:
        """Calls that failed for no reason of the text's: overloaded, timed out. They say nothing about a prompt."""
        return sum(call.outcome in _SAYS_NOTHING for call in self.calls)

    def write(self, file: Path) -> None:
        """Write it to a file, and its folder if there is none."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.model_dump_json(indent=1) + "\n", "utf-8")


def read_results(file: Path) -> Results:
    """Read a results file. Raises: UnusableResults."""
    try:
        return Results.model_validate_json(file.read_text("utf-8"))
    except OSError as error:
        raise UnusableResults(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UnusableResults(f"{file} is no results file of this version: {where}: {first['msg']}") from error
