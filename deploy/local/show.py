"""What a person sees: the steps of the start, then a box with everything they need."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class Screen:
    """Standard output that survives a closed pipe (`make run | head`): then it asks to stop instead of raising."""

    def __init__(self, *, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed
        self._closed = False
        self.console = Console(highlight=False, soft_wrap=True, no_color=bool(os.environ.get("NO_COLOR")) or None)

    def line(self, text: str) -> None:
        """Print a line that is ready to be printed, colours included."""
        self._guarded(lambda: self._raw(text))

    def show(self, renderable: RenderableType) -> None:
        self._guarded(lambda: self.console.print(renderable, soft_wrap=False))

    def _raw(self, text: str) -> None:
        if self.console._live_stack:  # below the text goes the live display: rich must know
            self.console.print(Text.from_ansi(text))
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def _guarded(self, write: Callable[[], None]) -> None:
        if self._closed:
            return
        try:
            write()
        except (BrokenPipeError, OSError):
            self._closed = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing fails at exit either
            self._on_closed()


@dataclass(slots=True)
class Step:
    title: str
    started_at: float
    seconds: float | None = None
    failed: bool = False
    note: str = ""
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))


class Steps:
    """Progress of the start: a spinner per step on a terminal, one line per finished step elsewhere."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._steps: list[Step] = []
        self._live: Live | None = None
        self._started_at = time.monotonic()

    def __enter__(self) -> Steps:
        if self._screen.console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._screen.console, refresh_per_second=12, transient=False
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started_at

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[Step]:
        """Show a step while its body runs; the body may set `note`."""
        step = Step(title, time.monotonic())
        self._steps.append(step)
        try:
            yield step
        except BaseException:
            step.failed = True
            raise
        finally:
            step.seconds = time.monotonic() - step.started_at
            if not self._live:
                self._screen.show(self._row(step))

    def _render(self) -> RenderableType:
        return Group(*(self._row(step) for step in self._steps))

    def _row(self, step: Step) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(width=16, no_wrap=True)
        grid.add_column(width=6, justify="right", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        done = Text("✗", "red") if step.failed else Text("✓", "green")
        mark: RenderableType = step.spinner if step.seconds is None else done
        taken = step.seconds if step.seconds is not None else time.monotonic() - step.started_at
        grid.add_row(mark, step.title, Text(f"{taken:.1f} s", "dim"), Text(step.note, "dim"))
        return grid


def short(path: Path) -> str:
    """Return the path as one types it here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def box(stack: Mapping[str, Any], *, ready_s: float, moved: Sequence[tuple[str, int, int]]) -> RenderableType:
    """Return what to print when everything is up."""
    addresses = stack["addresses"]
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for title, key in (
        ("Phone page", "sandbox"),
        ("API", "api_docs"),
        ("Sender", "sender_docs"),
        ("Webhook", "webhook"),
        ("PostgreSQL", "postgres"),
        ("Redis", "redis"),
    ):
        if addresses.get(key):
            rows.add_row(title, Text(addresses[key], "cyan"))
    if addresses["metrics"]:
        ports = ", ".join(f"{name} {url.split(':')[-1].split('/')[0]}" for name, url in addresses["metrics"].items())
        rows.add_row("Metrics", Text.assemble(("http://127.0.0.1:PORT/metrics", "cyan"), f"  {ports}"))
    rows.add_row("Logs", f"{short(Path(stack['logs']))}/")
    sign_in = stack["sign_in"]
    if sign_in:
        rows.add_row("", "")
        rows.add_row("Sign in as", Text.assemble((sign_in["email"], "green"), "  ", (sign_in["password"], "green")))
    if stack["real"]:
        rows.add_row("Real here", Text(", ".join(stack["real"]), "yellow"))
    if moved:
        told = ", ".join(f"{what} {wanted} → {got}" for what, wanted, got in moved)
        rows.add_row("Taken ports", Text(told, "yellow"))
    return Panel(
        rows,
        title=f"[bold]Parley is ready[/] [dim]({ready_s:.1f} s)[/]",
        title_align="left",
        border_style="green",
        padding=(1, 2),
        expand=False,
    )


def next_steps(stack: Mapping[str, Any]) -> str:
    """Return what follows the box: lines to copy, so without a frame around them."""
    sign_in, addresses = stack["sign_in"], stack["addresses"]
    if not sign_in:
        return "Stop everything with Ctrl-C."
    return "\n".join(
        (
            "Sign in and list the conversations:",
            "",
            f"TOKEN=$(curl -s '{addresses['sandbox']}/auth/v1/token?grant_type=password' \\",
            "  -H 'Content-Type: application/json' \\",
            f'  -d \'{{"email": "{sign_in["email"]}", "password": "{sign_in["password"]}"}}\' \\',
            "  | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])')",
            f"curl -sG '{addresses['api']}/api/whatsapp/conversations' \\",
            f"  -d workspace_id={sign_in['workspace_id']} \\",
            '  -H "Authorization: Bearer $TOKEN"',
            "",
            *(_how_to_send(stack) if addresses["sender"] else ()),
            "Next: write as a customer on the phone page, or run `make demo` elsewhere.",
            "Stop everything with Ctrl-C.",
        )
    )


def _how_to_send(stack: Mapping[str, Any]) -> tuple[str, ...]:
    address, workspace_id = stack["addresses"]["sender"], stack["sign_in"]["workspace_id"]
    return (
        "Answer a customer who wrote on the phone page (the id of a conversation comes from the list above):",
        "",
        f"curl -s '{address}/api/whatsapp/send?workspace_id={workspace_id}' \\",
        '  -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $(date +%s%N)" \\',
        "  -H 'Content-Type: application/json' \\",
        '  -d \'{"conversation_id": "…", "content": {"type": "text", "body": "We are on it."}}\'',
        "",
    )
