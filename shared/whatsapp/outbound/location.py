"""A place on the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.problems import Problems
from shared.whatsapp.wire import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Location(Part):
    """Units: degrees, WGS 84."""

    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None
    type: Literal["location"] = "location"

    def check(self, problems: Problems) -> None:
        problems.at("latitude").between(self.latitude, "The latitude", least=-90, most=90)
        problems.at("longitude").between(self.longitude, "The longitude", least=-180, most=180)
        problems.at("name").optional_text(self.name, "The place's name")
        problems.at("address").optional_text(self.address, "The address")

    def place(self) -> Json:
        """Coordinates go as strings: Meta takes numbers too, its OpenAPI knows strings only."""
        return {
            "latitude": _degrees(self.latitude),
            "longitude": _degrees(self.longitude),
            **given(name=self.name, address=self.address),
        }

    def graph(self) -> Json:
        return {"type": "location", "location": self.place()}


def _degrees(value: float) -> str:
    """Write seven decimals at most (a centimetre), never with an exponent."""
    written = f"{value:.7f}".rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written
