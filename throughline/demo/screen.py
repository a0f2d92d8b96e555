"""What the demo shows: a line a step with its time, and tables."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table


class Screen:
    """The console, with a clock that began with the demo."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        self._console = console if console.is_terminal else Console(highlight=False, width=120)
        self._began = time.monotonic()
        self._last = self._began

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self._console.rule(f"[bold]{text}", align="left")

    def step(self, text: str) -> None:
        """A thing that was done, with the time since the beginning and since the step before."""
        now = time.monotonic()
        self._console.print(f"[dim]{now - self._began:5.1f}s {f'+{now - self._last:.2f}':>7}[/dim]  {text}")
        self._last = now

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Some rows; numbers stand on the right."""
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        rows = [list(row) for row in rows]
        for index, column in enumerate(columns):
            numeric = all(isinstance(row[index], int | float) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(cell) for cell in row))
        self._console.print(table)
        self._console.print()

    def panel(self, title: str, text: str) -> None:
        """A text in a frame."""
        self._console.print(Panel(text, title=title, title_align="left", width=92))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return "" if value is None else str(value)


def money(minor: int, currency: str = "EUR") -> str:
    """Minor units of a two-decimal currency as people read them."""
    return f"{minor / 100:,.2f} {currency}"
