"""Who exists in the local stack: two workspaces, their people, their numbers, some customers. Data, nothing else.

Everything is made up. Phone numbers come from ranges their countries reserve for fiction (US 555-01xx; Ofcom's,
Bundesnetzagentur's, ARCEP's and PTS's drama numbers), mail addresses end in `.example`, ids are literals so that a
link or a test written today opens the same thing tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PASSWORD = "parley-local"
GRAPH_TOKEN = "sandbox-token"  # the sandbox takes it for every number, Meta for none


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class Channel:
    id: str
    waba_id: str
    portfolio_id: str
    phone_number_id: str
    display_phone_number: str


@dataclass(frozen=True, slots=True)
class Workspace:
    id: str
    name: str
    time_zone: str
    settings: dict[str, Any]
    members: tuple[tuple[Person, str], ...]  # with their roles
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True)
class Customer:
    name: str
    wa_id: str | None  # None: known to Meta by business-scoped user id only
    user_id: str


MAYA = Person("019aa8c1-2f40-7a31-9c02-5d1b7e60a101", "maya@casaverde.example", "Maya Moreira")
LEO = Person("019aa8c1-2f41-7d52-8b17-3e9f04c2b102", "leo@casaverde.example", "Leo Tanaka")
VERA = Person("019aa8c1-2f42-7c08-a6d4-71f25b8ec103", "vera@casaverde.example", "Vera Lind")
JONAS = Person("019aa8c1-2f43-7be5-93fa-08c64d17d104", "jonas@nordlicht.example", "Jonas Petersen")
INES = Person("019aa8c1-2f44-7f19-8e60-b27a90d3e105", "ines@parley.example", "Ines Duarte")  # works for both

CASA_VERDE = Workspace(
    id="019aa8c1-3a10-7e84-b1c5-4f60d29a7201",
    name="Casa Verde",
    time_zone="America/Sao_Paulo",
    settings={},
    members=((MAYA, "owner"), (LEO, "agent"), (VERA, "viewer"), (INES, "admin")),
    channels=(
        Channel(
            id="019aa8c1-3a11-7b63-8f2e-d05c817a9301",
            waba_id="318204775196043",
            portfolio_id="690113358247715",
            phone_number_id="402776318915527",
            display_phone_number="12025550143",
        ),
    ),
)
NORDLICHT = Workspace(
    id="019aa8c1-3a20-7c47-9ad8-6be31f50c202",
    name="Nordlicht Reisen",
    time_zone="Europe/Berlin",
    settings={},
    members=((JONAS, "owner"), (INES, "agent")),
    channels=(
        Channel(
            id="019aa8c1-3a21-7d90-a4b7-92e6c03f1402",
            waba_id="274419083365128",
            portfolio_id="517702946630184",
            phone_number_id="519038827741206",
            display_phone_number="442079460321",
        ),
    ),
)
WORKSPACES = (CASA_VERDE, NORDLICHT)
PEOPLE = (MAYA, LEO, VERA, JONAS, INES)
CUSTOMERS = (
    Customer("Ana Ribeiro", "12025550117", "BR.4180293756610248"),
    Customer("Tom Whitaker", "447700900482", "GB.2093847561029384"),
    Customer("Lena Hoffmann", "4917139200461", "DE.7715203948861027"),
    Customer("Camille Roux", "33639980127", "FR.5538201947730164"),
    Customer("Rafael Nunes", None, "BR.9902174835516380"),
)


def _body(text: str, *examples: str) -> dict[str, Any]:
    return {"type": "BODY", "text": text, "example": {"body_text": [list(examples)]}}


# What Meta has approved already, as its endpoints write it: so that whoever wrote days ago can be answered at once.
TEMPLATES: tuple[dict[str, Any], ...] = (
    {
        "waba_id": CASA_VERDE.channels[0].waba_id,
        "name": "order_update",
        "language": "en_US",
        "category": "UTILITY",
        "components": [
            _body("Hi {{1}}, your order {{2}} is on its way and arrives on {{3}}.", "Ana", "CV-20418", "Friday"),
            {"type": "FOOTER", "text": "Casa Verde"},
        ],
    },
    {
        "waba_id": CASA_VERDE.channels[0].waba_id,
        "name": "novidades_da_semana",
        "language": "pt_BR",
        "category": "MARKETING",
        "components": [
            {"type": "HEADER", "format": "TEXT", "text": "Novidades da semana"},
            _body("Oi {{1}}! Chegaram plantas novas, e você tem {{2}} de desconto até domingo.", "Ana", "10%"),
            {
                "type": "BUTTONS",
                "buttons": [{"type": "QUICK_REPLY", "text": "Quero ver"}, {"type": "QUICK_REPLY", "text": "Parar"}],
            },
        ],
    },
    {
        "waba_id": NORDLICHT.channels[0].waba_id,
        "name": "reise_erinnerung",
        "language": "de",
        "category": "UTILITY",
        "components": [
            _body("Guten Tag {{1}}, Ihre Reise nach {{2}} beginnt am {{3}}. Gute Fahrt!", "Lena", "Tromsø", "7. 2.")
        ],
    },
)


def story_json() -> dict[str, Any]:
    """Return what the sandbox reads: who may sign in, which numbers there are, whose phones it shows."""
    return {
        "users": [
            {"id": person.id, "email": person.email, "password": PASSWORD, "name": person.name} for person in PEOPLE
        ],
        "channels": [
            {
                "workspace": workspace.name,
                "waba_id": channel.waba_id,
                "phone_number_id": channel.phone_number_id,
                "display_phone_number": channel.display_phone_number,
                "portfolio_id": channel.portfolio_id,
                "verified_name": workspace.name,
            }
            for workspace in WORKSPACES
            for channel in workspace.channels
        ],
        "customers": [
            {"name": customer.name, "wa_id": customer.wa_id, "user_id": customer.user_id} for customer in CUSTOMERS
        ],
        # Our database survives a restart, the sandbox's memory of who wrote does not.
        "meta": {
            "behaviour": {"window": "lenient"},
            "tokens": [{"token": GRAPH_TOKEN}],
            "templates": list(TEMPLATES),
        },
    }
