"""`make demo`: five customers write twenty messages; show what Claude made of each, and how fast; answer them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from deploy.local import demo_contacts, demo_replies
from deploy.local.demo_contacts import Known
from deploy.local.demo_replies import Question, Reply
from deploy.local.seed import refuse_foreign
from deploy.local.state import StackError, StateDir
from deploy.local.story import CASA_VERDE, INES, NORDLICHT, PASSWORD, Customer, Workspace

DEADLINE_S = 90.0
POLL_EVERY_S = 0.5
MOST_PAGES = 3  # of conversations, newest first: ours are among the newest

# Who writes what to whom; the order below is the order of sending, customers taking turns.
LINES: tuple[tuple[str, Workspace, tuple[str, ...]], ...] = (
    (
        "Ana Ribeiro",
        CASA_VERDE,
        (
            "Oi! Vocês entregam no bairro Pinheiros? Queria uma costela-de-adão grande 🌿",
            "Qual o preço com o vaso de cerâmica, e dá para entregar no sábado de manhã?",
            "A planta chegou com três folhas quebradas e o vaso rachado. Estou bem decepcionada.",
            "Acabei de falar com o Leo, ele resolveu tudo. Muito obrigada, vocês são maravilhosos!",
        ),
    ),
    (
        "Tom Whitaker",
        CASA_VERDE,
        (
            "Hello, what are your opening hours this Sunday?",
            "My order CV-20418 was due on Tuesday and the tracking page hasn't moved since. Where is it?",
            "This is the third time I'm asking. Cancel the order and refund me, please.",
            "Refund received. Thanks for sorting it out so quickly.",
        ),
    ),
    (
        "Camille Roux",
        CASA_VERDE,
        (
            "Bonjour, mon chat a mâché une feuille de votre dieffenbachia, c'est URGENT : est-ce toxique ?",
            "Il bave beaucoup et refuse de manger, répondez-moi vite s'il vous plaît !",
            "Le vétérinaire l'a vu, tout va bien. Merci pour votre aide !",
            "Auriez-vous des plantes sans danger pour les chats ?",
        ),
    ),
    (
        "Lena Hoffmann",
        NORDLICHT,
        (
            "Guten Tag, haben Sie im Februar noch Plätze für die Nordlichtreise nach Tromsø?",
            "Was kostet die Reise für zwei Erwachsene und ein Kind mit Flug ab Hamburg?",
            "Auf meiner Rechnung steht ein Betrag doppelt. Bitte korrigieren Sie das umgehend.",
            "Perfekt, die neue Rechnung stimmt. Vielen Dank und bis bald!",
        ),
    ),
    (
        "Diego Salas",
        NORDLICHT,
        (
            "¡Hola! Quiero cambiar las fechas de mi reserva NR-7731 al 14 de marzo, ¿es posible?",
            "Estoy en el aeropuerto y mi vuelo está cancelado. ¡Necesito ayuda ahora mismo!",
            "Nadie contesta el teléfono de emergencias, esto es inaceptable.",
            "Ya tengo vuelo nuevo para esta noche, gracias por la paciencia.",
        ),
    ),
)
COUNTRIES = {
    "Ana Ribeiro": "BR",
    "Tom Whitaker": "GB",
    "Camille Roux": "FR",
    "Lena Hoffmann": "DE",
    "Diego Salas": "ES",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A message the sandbox has taken."""

    wamid: str
    customer: Customer
    workspace: Workspace
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message. `seconds`: from the sandbox taking it to its analysis being stored."""

    sent: Sent
    state: str  # done, failed, … as the API says; "not seen" while no row is known
    seconds: float | None = None
    sentiment: str | None = None
    intent: str | None = None
    priority: str | None = None
    suggested_response: str | None = None
    conversation_id: str | None = None


def new_customer(name: str, chance: random.Random) -> Customer:
    """Make up a customer nobody has seen: a new user id and a fictional US number (area code + 555-01xx), or none.

    Diego hides his number, as WhatsApp lets people do: Meta then tells the user id only.
    """
    number = None if name == "Diego Salas" else f"1{chance.randrange(201, 990)}55501{chance.randrange(100):02d}"
    return Customer(name, number, f"{COUNTRIES[name]}.{chance.randrange(10**15, 10**16)}")


async def run_demo(state_dir: Path, *, as_json: bool, allow_foreign: bool) -> int:
    """Return the exit status: 1 if a message was not analysed, or an answer not read, in time.

    Raises: StackError if there is no stack.
    """
    console = Console(highlight=False)
    progress_console = Console(highlight=False, stderr=as_json)
    stack = _running(StateDir(state_dir), allow_foreign=allow_foreign)
    outcomes: dict[str, Outcome] = {}
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            token = await _sign_in(http, stack)
            with _progress(progress_console) as progress:
                sent = await _send_all(http, stack, progress)
                await _watch(http, stack, token, sent, outcomes, progress)
                replies = await _reply(http, stack, token, outcomes, progress)
            talks = [(one.sent.workspace.id, one.conversation_id) for one in outcomes.values() if one.conversation_id]
            known = await demo_contacts.read_all(http, stack["addresses"]["api"], token, talks)
    except httpx.HTTPError as error:
        raise StackError(f"The stack does not answer ({error}); see its terminal and {stack['logs']}.") from error
    results = [outcomes.get(one.wamid, Outcome(one, "not seen")) for one in sent]
    if as_json:
        print(json.dumps(_as_json(results, replies, known), indent=2, ensure_ascii=False))
    else:
        console.print()
        console.print(result_table(results, wide=console.width >= 110))
        console.print(_summary(results))
        if known:
            console.print()
            console.print(demo_contacts.table(known))
        if replies:
            console.print(demo_replies.summary(replies))
    missing = [one for one in results if one.state != "done"]
    for one in missing:
        progress_console.print(
            Text(f"Not analysed ({one.state}): {one.sent.customer.name}: {one.sent.text}  {one.sent.wamid}", "red")
        )
    return 1 if missing or not all(reply.read_s is not None for reply in replies) else 0


def _running(state: StateDir, *, allow_foreign: bool) -> dict[str, Any]:
    stack = state.read_stack() if state.path.exists() else None
    if stack is None:
        raise StackError("Start it first: make run (in another terminal)")
    refuse_foreign(embedded=stack["database"]["embedded"], allowed=allow_foreign, what="The demo is")
    if stack["sign_in"] is None:
        raise StackError(
            "The demo signs in and writes through the sandbox: start the stack with it, with api, without SUPABASE_URL."
        )
    return stack


async def _sign_in(http: httpx.AsyncClient, stack: dict[str, Any]) -> str:
    response = await http.post(
        f"{stack['addresses']['sandbox']}/auth/v1/token",
        params={"grant_type": "password"},
        json={"email": INES.email, "password": PASSWORD},  # she works for both
    )
    response.raise_for_status()
    token: str = response.json()["access_token"]
    return token


async def _send_all(http: httpx.AsyncClient, stack: dict[str, Any], progress: Progress) -> list[Sent]:
    chance = random.Random()
    customers = {name: new_customer(name, chance) for name, _, _ in LINES}
    total = sum(len(texts) for _, _, texts in LINES)
    task = progress.add_task("Customers write", total=total)
    sent = []
    for turn in range(max(len(texts) for _, _, texts in LINES)):
        for name, workspace, texts in LINES:
            if turn < len(texts):
                sent.append(await _send(http, stack, customers[name], workspace, texts[turn]))
                progress.advance(task)
    return sent


async def _send(
    http: httpx.AsyncClient, stack: dict[str, Any], customer: Customer, workspace: Workspace, text: str
) -> Sent:
    response = await http.post(
        f"{stack['addresses']['sandbox']}/sandbox/messages",
        json={
            "from": {"name": customer.name, "wa_id": customer.wa_id, "user_id": customer.user_id},
            "phone_number_id": workspace.channels[0].phone_number_id,
            "text": text,
        },
    )
    at = datetime.now(UTC)
    response.raise_for_status()
    return Sent(response.json()["wamid"], customer, workspace, text, at)


async def _watch(
    http: httpx.AsyncClient,
    stack: dict[str, Any],
    token: str,
    sent: Sequence[Sent],
    outcomes: dict[str, Outcome],
    progress: Progress,
) -> None:
    """Poll until every message is analysed, or has failed, or the deadline has passed."""
    task = progress.add_task("Claude reads", total=len(sent))
    ours = {one.wamid: one for one in sent}
    finished: set[str] = set()
    give_up_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up_at:
        for workspace in {one.workspace.id for one in sent if one.wamid not in finished}:
            waiting = {
                wamid: one for wamid, one in ours.items() if wamid not in finished and one.workspace.id == workspace
            }
            async for message in _messages(http, stack["addresses"]["api"], token, workspace, waiting):
                outcomes[message["wamid"]] = _outcome(waiting[message["wamid"]], message)
        finished = {wamid for wamid, one in outcomes.items() if one.state in ("done", "failed")}
        progress.update(task, completed=len(finished))
        if len(finished) == len(sent):
            return
        await asyncio.sleep(POLL_EVERY_S)


async def _reply(
    http: httpx.AsyncClient, stack: dict[str, Any], token: str, outcomes: dict[str, Outcome], progress: Progress
) -> list[Reply]:
    """Answer the last message of each customer with what Claude suggests."""
    if not stack["addresses"]["sender"]:
        return []
    last = {one.conversation_id: one for one in sorted(outcomes.values(), key=lambda one: one.sent.at)}
    questions = [
        Question(one.sent.workspace.id, one.conversation_id, one.suggested_response)
        for one in last.values()
        if one.conversation_id and one.suggested_response
    ]
    task = progress.add_task("An agent answers", total=len(questions))
    replies = await demo_replies.answer_all(http, stack["addresses"], token, questions)
    progress.update(task, completed=sum(reply.read_s is not None for reply in replies))
    return replies


async def _messages(
    http: httpx.AsyncClient, api: str, token: str, workspace_id: str, ours: dict[str, Sent]
) -> AsyncIterator[dict[str, Any]]:
    """Yield those of our messages the API shows in a workspace."""
    names = {one.customer.name for one in ours.values()}
    url, headers = f"{api}/api/whatsapp/conversations", {"Authorization": f"Bearer {token}"}
    params: dict[str, str] = {"workspace_id": workspace_id}
    for _ in range(MOST_PAGES):
        page = (await http.get(url, params=params, headers=headers)).raise_for_status().json()
        for conversation in page["items"]:
            if (conversation.get("contact") or {}).get("name") not in names or not _is_recent(conversation, ours):
                continue
            answer = await http.get(
                f"{url}/{conversation['id']}/messages", params={"workspace_id": workspace_id}, headers=headers
            )
            for message in answer.raise_for_status().json()["items"]:
                if message["wamid"] in ours:
                    yield message
        if not page.get("next_cursor") or not any(_is_recent(one, ours) for one in page["items"]):
            return
        params["cursor"] = page["next_cursor"]


def _is_recent(conversation: dict[str, Any], ours: dict[str, Sent]) -> bool:
    first = min(one.at for one in ours.values()) - timedelta(seconds=5)  # Meta's time is in whole seconds
    return datetime.fromisoformat(conversation["last_message_at"]) >= first


def _outcome(sent: Sent, message: dict[str, Any]) -> Outcome:
    state = str((message.get("analysis") or {}).get("state") or "pending")
    at = message.get("analysed_at")
    seconds = (datetime.fromisoformat(at) - sent.at).total_seconds() if at else None
    return Outcome(
        sent,
        state,
        None if seconds is None else max(seconds, 0.0),
        message.get("sentiment"),
        message.get("intent"),
        message.get("priority"),
        message.get("suggested_response"),
        message["conversation_id"],
    )


@contextlib.contextmanager
def _progress(console: Console) -> Any:
    progress = Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        yield progress


SENTIMENTS = {"positive": "green", "negative": "red", "neutral": "dim", "mixed": "yellow"}
PRIORITIES = {"urgent": "bold red", "high": "yellow", "normal": "", "low": "dim"}


def result_table(results: Sequence[Outcome], *, wide: bool) -> RenderableType:
    """Return the table; a wide terminal shows the suggested answers too."""
    table = Table(box=None, padding=(0, 1), header_style="bold", expand=True, pad_edge=False)
    table.add_column("Customer", no_wrap=True)
    table.add_column("Message", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("Sentiment", no_wrap=True)
    table.add_column("Intent", no_wrap=True, overflow="ellipsis", max_width=16)
    table.add_column("Priority", no_wrap=True)
    if wide:
        table.add_column("Suggested answer", no_wrap=True, overflow="ellipsis", ratio=2, style="dim")
    table.add_column("s", justify="right", no_wrap=True)
    for one in results:
        cells: list[str | Text] = [
            one.sent.customer.name.split()[0],
            one.sent.text,
            Text(one.sentiment or "–", SENTIMENTS.get(one.sentiment or "", "")),
            one.intent or "–",
            Text(one.priority or "–", PRIORITIES.get(one.priority or "", "")),
        ]
        if wide:
            cells.append(one.suggested_response or "–")
        seconds = "–" if one.seconds is None else f"{one.seconds:.1f}"
        table.add_row(*cells, seconds)
    return table


def _summary(results: Sequence[Outcome]) -> Text:
    seconds = [one.seconds for one in results if one.seconds is not None]
    done = sum(one.state == "done" for one in results)
    text = f"\n{done} of {len(results)} messages analysed."
    if seconds:
        text += f"\nFrom webhook to analysis: median {median(seconds):.1f} s, slowest {max(seconds):.1f} s."
    return Text(text, "green" if done == len(results) else "red")


def _as_json(results: Sequence[Outcome], replies: Sequence[Reply], known: Sequence[Known]) -> dict[str, Any]:
    seconds = [one.seconds for one in results if one.seconds is not None]
    return {
        "messages": [
            {
                "wamid": one.sent.wamid,
                "customer": one.sent.customer.name,
                "workspace": one.sent.workspace.name,
                "text": one.sent.text,
                "state": one.state,
                "sentiment": one.sentiment,
                "intent": one.intent,
                "priority": one.priority,
                "suggested_response": one.suggested_response,
                "seconds": one.seconds,
            }
            for one in results
        ],
        "replies": demo_replies.as_json(replies),
        "contacts": demo_contacts.as_json(known),
        "analysed": sum(one.state == "done" for one in results),
        "median_s": median(seconds) if seconds else None,
        "slowest_s": max(seconds) if seconds else None,
    }
