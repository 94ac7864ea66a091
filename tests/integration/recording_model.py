"""What the rows are, as a function of the set of events: docs/decisions/0008, in Python, knowing nothing of the SQL.

Names are short, so that a shrunk example reads aloud: channels A1, A2, B1 (the first letter is the workspace), user ids
U1…, phones P1…, messages m1…; times are minutes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

RANKS = ("queued", "sent", "failed", "delivered", "read", "played")
HISTORY_STATUSES = {"SENT": "sent", "DELIVERED": "delivered", "READ": "read", "PLAYED": "played", "ERROR": "failed"}
ORIGINS = ("history", "app", "live")


class ShortRepr:
    """Shows what was given, not what was left alone."""

    def __repr__(self) -> str:
        shown = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if f.default is MISSING:
                shown.append(f"{value!r}")
            elif value != f.default:
                shown.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would show everything


@dataclass(frozen=True)
class Ids:
    """A person as one event shows them."""

    user: str | None = None
    phone: str | None = None

    def __repr__(self) -> str:
        return "+".join(x for x in (self.user, self.phone) if x) or "nobody"


# --- What Meta tells ---


@dataclass(frozen=True, repr=False)
class Told(ShortRepr):
    """Any event. `wamid`: its own id."""

    channel: str
    wamid: str
    at: int


@dataclass(frozen=True, repr=False)
class Letter(Told):
    """A message, in one of its copies. `text`: None is an image without a caption, or a placeholder."""

    who: Ids  # the customer: who wrote it, or to whom we did
    text: str | None = None
    type: str = "text"  # text, image, media_placeholder
    origin: str = "live"
    outbound: bool = False
    told: str | None = None  # history: Meta's word for its status
    name: str | None = None
    username: str | None = None
    reply_to: str | None = None
    group: str | None = None


@dataclass(frozen=True, repr=False)
class Status(Told):
    """`wamid`: the message's."""

    who: Ids
    status: str
    name: str | None = None
    error: ClassVar = (131026, "Message undeliverable")


@dataclass(frozen=True, repr=False)
class Reaction(Told):
    who: Ids
    target: str
    emoji: str
    name: str | None = None


@dataclass(frozen=True, repr=False)
class Edit(Told):
    who: Ids
    target: str
    text: str
    name: str | None = None
    outbound: bool = False


@dataclass(frozen=True, repr=False)
class Revoke(Told):
    who: Ids
    target: str
    name: str | None = None
    outbound: bool = False


@dataclass(frozen=True, repr=False)
class Change(Told):
    """A person goes on under other ids. Without `user`: the legacy shape."""

    previous: str | None = None
    old_phone: str | None = None
    user: str | None = None
    phone: str | None = None


@dataclass(frozen=True, repr=False)
class Call(Told):
    who: Ids
    by_customer: bool = True


@dataclass(frozen=True, repr=False)
class Preference(Told):
    """`wamid`: nothing Meta sends; tells two apart."""

    who: Ids
    stop: bool


Event = Letter | Status | Reaction | Edit | Revoke | Change | Call | Preference


# --- What agents did before ---


@dataclass(frozen=True, repr=False)
class Block(ShortRepr):
    """Of the person who has this user id; until: None is still."""

    workspace: str
    user: str
    since: float
    until: float | None = None


@dataclass(frozen=True, repr=False)
class Archive(ShortRepr):
    """Of the conversation with the person who has this user id."""

    channel: str
    user: str
    at: float


@dataclass(frozen=True, repr=False)
class Agents(ShortRepr):
    """What agents did before the events, and how the workspaces are set."""

    blocks: tuple[Block, ...] = ()
    archives: tuple[Archive, ...] = ()
    reopens: bool = False


# --- What the rows then are ---

People = frozenset[str]  # contacts, each as its ids
Key = tuple[str, str]  # channel, wamid
ChatKey = tuple[str, People | str]  # channel, contact's ids or group id


@dataclass(frozen=True)
class Contact:
    name: str | None
    username: str | None
    opted_out_at: int | None
    first_seen_at: int
    blocked: bool


@dataclass(frozen=True)
class Chat:
    status: str
    unread: int
    last_message_at: float
    last_inbound_at: int | None
    window_hours_after_inbound: int | None


@dataclass(frozen=True)
class Message:
    contact: People
    chat: ChatKey
    direction: str
    type: str
    content: str | None
    status: str | None
    origin: str
    edited_at: int | None
    revoked_at: int | None
    suppressed: bool
    content_version: int
    is_pending: bool | None  # for Claude; None: the page does not say
    reply_to: str | None


@dataclass(frozen=True)
class State:
    """What was told of a message that we may not have. `rank`: None if we have it: its status says."""

    rank: str | None
    times: tuple[tuple[str, int], ...]
    revoked_at: int | None
    edited_at: int | None
    edits: int


@dataclass(frozen=True)
class Fact:
    """An event about a message: `at` is the earliest."""

    channel: str
    wamid: str
    kind: str
    key: str
    at: int
    contact: People | None


@dataclass
class Rows:
    """All of them, comparable: equal means equal up to our ids."""

    contacts: dict[tuple[str, People], Contact] = field(default_factory=dict)
    chats: dict[ChatKey, Chat] = field(default_factory=dict)
    messages: dict[Key, Message] = field(default_factory=dict)
    states: dict[Key, State] = field(default_factory=dict)
    facts: set[Fact] = field(default_factory=set)
    reactions: dict[tuple[str, str, People], str] = field(default_factory=dict)  # channel, wamid, whose: emoji
    media: set[Key] = field(default_factory=set)


def differences(expected: Rows, actual: Rows) -> list[str]:
    """Say where they differ, one line each: what is missing (-), what is too much (+)."""
    lines = []
    for name in (f.name for f in fields(Rows)):
        want, have = _flat(getattr(expected, name)), _flat(getattr(actual, name))
        lines += [f"- {name}: {line}" for line in sorted(want - have)] + [
            f"+ {name}: {line}" for line in sorted(have - want)
        ]
    return lines


def _flat(values: dict[object, object] | set[object]) -> set[str]:
    if isinstance(values, dict):
        return {f"{_plain(key)} = {_plain(value)}" for key, value in values.items()}
    return {_plain(value) for value in values}


def _plain(value: object) -> str:
    if isinstance(value, frozenset):
        return "{" + ",".join(sorted(value)) + "}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "(" + ", ".join(_plain(v) for v in value) + ")"
    if hasattr(value, "__dataclass_fields__"):
        return (
            type(value).__name__
            + "("
            + ", ".join(f"{f.name}={_plain(getattr(value, f.name))}" for f in fields(value))  # type: ignore[arg-type]
            + ")"
        )
    return repr(value)


def expected_rows(events: Iterable[Event], agents: Agents) -> Rows:
    """Compute the rows from the set of events."""
    rows = Rows()
    of_workspace: dict[str, set[Event]] = defaultdict(set)
    for event in events:
        of_workspace[event.channel[0]].add(event)
    for workspace, told in of_workspace.items():
        _Workspace(workspace, told, agents, rows).fill()
    return rows


class Identities:
    """Who is who among the ids of one workspace."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.sightings = sorted({s for event in events for s in sightings(event)}, key=repr)
        # phone → user id → when the two were first shown together
        self._pairs: dict[str, dict[str, int]] = defaultdict(dict)
        for ids, at in self.sightings:
            if ids.user and ids.phone:
                first = self._pairs[ids.phone].get(ids.user, at)
                self._pairs[ids.phone][ids.user] = min(first, at)
        self._joined: dict[str, str] = {}
        for change in (e for e in events if isinstance(e, Change)):
            old = change.previous or (change.old_phone and self.owner(change.old_phone, change.at, besides=change))
            new = change.user or (change.phone and self.owner(change.phone, change.at))
            if old and new:
                self._joined[self._root(old)] = self._root(new)

    def owner(self, phone: str, at: int, besides: Change | None = None) -> str:
        """Return the user id a phone belongs to just then; the phone itself if to none."""
        pairs = dict(self._pairs.get(phone, {}))
        if besides and besides.phone == phone and besides.user:
            pairs.pop(besides.user, None)
        if not pairs:
            return phone
        before = [(seen, user) for user, seen in pairs.items() if seen <= at]
        return max(before)[1] if before else min((seen, user) for user, seen in pairs.items())[1]

    def person(self, ids: Ids, at: int) -> str:
        """Return who goes by these ids at that time, as a name that all ids of a person share."""
        assert ids.user or ids.phone
        return self._root(ids.user or self.owner(ids.phone or "", at))

    def people(self) -> dict[str, People]:
        """Return everybody's ids."""
        found: dict[str, set[str]] = defaultdict(set)
        for ids, at in self.sightings:
            found[self.person(ids, at)] |= {i for i in (ids.user, ids.phone) if i}
        return {person: frozenset(ids) for person, ids in found.items()}

    def _root(self, one: str) -> str:
        while one in self._joined and self._joined[one] != one:
            one = self._joined[one]
        return one


def sightings(event: Event) -> Iterator[tuple[Ids, int]]:
    """Yield the ids an event shows, each as shown together, and when."""
    if not isinstance(event, Change):
        if event.who != Ids():
            yield event.who, event.at
        return
    if event.user or event.phone:
        yield Ids(event.user, event.phone), event.at
    if event.previous or event.old_phone:
        yield Ids(event.previous, event.old_phone), event.at


class _Workspace:
    """Fills in the rows of one workspace."""

    def __init__(self, workspace: str, events: set[Event], agents: Agents, rows: Rows) -> None:
        self.workspace, self.events, self.agents, self.rows = workspace, events, agents, rows
        self.identities = Identities(events)
        self.people = self.identities.people()

    def fill(self) -> None:
        letters = self._winning_letters()
        for person, ids in self.people.items():
            self.rows.contacts[self.workspace, ids] = self._contact(person)
        for letter in letters.values():
            self._message(letter)
        self._states(letters)
        self._facts()
        self._chats(letters)

    def _person(self, event: Event) -> str:
        assert not isinstance(event, Change)
        return self.identities.person(event.who, event.at)

    def _ids(self, event: Event) -> People:
        return self.people[self._person(event)]

    # People

    def _contact(self, person: str) -> Contact:
        mine = [e for e in self.events if not isinstance(e, Change) and e.who != Ids() and self._person(e) == person]
        shown = [(e.at, e.name or "", getattr(e, "username", None) or "", e) for e in mine if getattr(e, "name", None)]
        profiles = [s[:3] for s in shown if not isinstance(s[3], Status)]
        profile = max(profiles or [s[:3] for s in shown], default=(0, "", ""))
        wish = max(((e.at, e.stop) for e in mine if isinstance(e, Preference)), default=(0, False))
        first = min(at for ids, at in self.identities.sightings if self.identities.person(ids, at) == person)
        return Contact(
            name=profile[1] or None,
            username=profile[2] or None,
            opted_out_at=wish[0] if wish[1] else None,
            first_seen_at=first,
            blocked=any(b.until is None for b in self._blocks(person)),
        )

    def _blocks(self, person: str) -> list[Block]:
        return [
            b
            for b in self.agents.blocks
            if b.workspace == self.workspace and self.identities.person(Ids(user=b.user), 0) == person
        ]

    def _is_suppressed(self, event: Event) -> bool:
        """Only what a blocked customer sent to us: neither ours, nor from before we were connected, nor in groups."""
        if isinstance(event, Letter) and (event.outbound or event.origin == "history" or event.group):
            return False
        blocks = self._blocks(self._person(event))
        return any(b.since <= event.at and (b.until is None or event.at < b.until) for b in blocks)

    # Messages

    def _winning_letters(self) -> dict[Key, Letter]:
        copies: dict[Key, list[Letter]] = defaultdict(list)
        for event in self.events:
            if isinstance(event, Letter):
                copies[event.channel, event.wamid].append(event)
        winners = {}
        for key, letters in copies.items():
            best = max(letters, key=lambda c: (ORIGINS.index(c.origin), c.type != "media_placeholder", c.who != Ids()))
            # The file of one of our history messages does not say whose it is: the placeholder does.
            who = best.who if best.who != Ids() else next((c.who for c in letters if c.who != Ids()), None)
            if who:
                winners[key] = Letter(**{f.name: getattr(best, f.name) for f in fields(Letter)} | {"who": who})
        return winners

    def _about(self, kind: type, channel: str, wamid: str) -> list:  # type: ignore[type-arg]
        name = "wamid" if kind is Status else "target"
        return [e for e in self.events if isinstance(e, kind) and (e.channel, getattr(e, name)) == (channel, wamid)]

    def _statuses_told(self, channel: str, wamid: str) -> set[str]:
        told = {s.status for s in self._about(Status, channel, wamid)} & set(RANKS)
        copies = [e for e in self.events if isinstance(e, Letter) and (e.channel, e.wamid) == (channel, wamid)]
        return told | {HISTORY_STATUSES.get(c.told or "", "sent") for c in copies if c.outbound}

    def _message(self, letter: Letter) -> None:
        key = letter.channel, letter.wamid
        edits = sorted((e.at, e.text) for e in self._about(Edit, *key))
        revoked_at = min((e.at for e in self._about(Revoke, *key)), default=None)
        is_suppressed = self._is_suppressed(letter)
        content = edits[-1][1] if edits else letter.text
        told = self._statuses_told(*key)
        if letter.outbound or letter.origin == "history" or is_suppressed or revoked_at is not None:
            is_pending: bool | None = False
        elif letter.type != "text" or self._blocks(self._person(letter)):
            is_pending = None
        else:
            is_pending = bool(content)
        self.rows.messages[key] = Message(
            contact=self._ids(letter),
            chat=self._chat_key(letter),
            direction="outbound" if letter.outbound else "inbound",
            type=letter.type,
            content=None if revoked_at is not None else content,
            status=max(told, key=RANKS.index, default=None) if letter.outbound else None,
            origin=letter.origin,
            edited_at=edits[-1][0] if edits else None,
            revoked_at=revoked_at,
            suppressed=is_suppressed,
            content_version=1 + len(edits),
            is_pending=is_pending,
            reply_to=letter.reply_to,
        )
        if letter.type == "image" and revoked_at is None:
            self.rows.media.add(key)

    def _states(self, letters: dict[Key, Letter]) -> None:
        about = {(e.channel, e.wamid) for e in self.events if isinstance(e, Status)}
        about |= {(e.channel, e.target) for e in self.events if isinstance(e, Edit | Revoke)}
        # A file whose placeholder has not come yet.
        about |= {(e.channel, e.wamid) for e in self.events if isinstance(e, Letter)}
        for key in about:
            statuses = self._about(Status, *key)
            names = {s.status for s in statuses} & set(RANKS)
            edits = self._about(Edit, *key)
            state = State(
                rank=None if key in letters else max(self._statuses_told(*key), key=RANKS.index, default=None),
                times=tuple((n, min(s.at for s in statuses if s.status == n)) for n in RANKS if n in names),
                revoked_at=min((e.at for e in self._about(Revoke, *key)), default=None),
                edited_at=max((e.at for e in edits), default=None),
                edits=len(edits),
            )
            if state != State(None, (), None, None, 0):
                self.rows.states[key] = state

    # Events

    def _facts(self) -> None:
        latest: dict[tuple[str, str, People], tuple[int, str]] = {}
        for e in self.events:
            if isinstance(e, Status):
                at = min(s.at for s in self._about(Status, e.channel, e.wamid) if s.status == e.status)
                self.rows.facts.add(Fact(e.channel, e.wamid, e.status, "", at, None))
            elif isinstance(e, Edit | Revoke):
                kind = type(e).__name__.lower()
                self.rows.facts.add(Fact(e.channel, e.target, kind, e.wamid, e.at, None))
            elif isinstance(e, Reaction):
                self.rows.facts.add(Fact(e.channel, e.target, "reaction", e.wamid, e.at, self._ids(e)))
                whose = e.channel, e.target, self._ids(e)
                latest[whose] = max(latest.get(whose, (0, "")), (e.at, e.emoji))
            elif isinstance(e, Call):
                kind = "call_connect" if e.by_customer else "call_terminate"
                self.rows.facts.add(Fact(e.channel, e.wamid, kind, "", e.at, self._ids(e)))
        self.rows.reactions = self.rows.reactions | {whose: emoji for whose, (_, emoji) in latest.items() if emoji}

    # Conversations

    def _chat_key(self, event: Event) -> ChatKey:
        group = getattr(event, "group", None)
        return event.channel, group or self._ids(event)

    def _chats(self, letters: dict[Key, Letter]) -> None:
        chats: dict[ChatKey, list[Letter]] = defaultdict(list)
        for letter in letters.values():
            chats[self._chat_key(letter)].append(letter)
        for key, those in chats.items():
            self.rows.chats[key] = self._chat(key, those)

    def _chat(self, key: ChatKey, letters: list[Letter]) -> Chat:
        counted = [m for m in letters if not self._is_suppressed(m)]
        live = [m for m in counted if m.origin == "live" and not m.outbound]
        blocks = [b for m in letters for b in self._blocks(self._person(m))]
        acts = [
            e.at
            for e in self.events
            if (isinstance(e, Reaction) or (isinstance(e, Call) and e.by_customer))
            and self._chat_key(e) == key
            and not self._is_suppressed(e)
        ]
        last_inbound_at = max([m.at for m in live] + acts, default=None)
        is_blocked = isinstance(key[1], frozenset) and any(b.until is None for b in blocks)
        archived = [
            a.at
            for a in self.agents.archives
            if a.channel == key[0] and self.people[self.identities.person(Ids(a.user), 0)] == key[1]
        ]
        if is_blocked:
            status = "blocked"
        elif archived and not (self.agents.reopens and any(m.at > archived[0] for m in live)):
            status = "archived"
        else:
            status = "open"
        revoked = {(e.channel, e.target) for e in self.events if isinstance(e, Revoke)}
        return Chat(
            status=status,
            unread=sum((m.channel, m.wamid) not in revoked for m in live),
            last_message_at=max(m.at for m in counted) if counted else min(b.since for b in blocks),
            last_inbound_at=last_inbound_at,
            window_hours_after_inbound=None if last_inbound_at is None else 24,
        )
