"""`make bench`: every measure as a ratio to its bare limit, a table on screen and the figures as JSON."""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import endtoend, identity, measures
from bench.measures import Pair
from bench.stack import Servers, servers

FIGURES = Path(".bench/figures.json")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    product: float
    bare: float | None
    ratio: float | None
    goal: str
    met: bool


PAIRED: dict[str, tuple[str, Callable[[Servers, int], list[Pair]], float]] = {
    "single": ("single touches through HTTP, durable / no-op route", measures.single_touches, 0.65),
    "hooks": ("webhooks through HTTP, kept encrypted / no-op route", measures.webhooks, 0.50),
    "identity": ("calls about 5 persons, 50 at once / about a person each", identity.concurrent_leads, 0.50),
    "batch": ("batches of 100 through HTTP, two api processes / COPY of 100 rows", measures.touch_batches, 0.50),
    "journeys": ("touches from Kafka into journeys / getmany + COPY", measures.journeys, 0.60),
    "relay": ("relay, catching up / send() from memory", measures.relay, 1.0),
}


def main() -> None:
    """Measure, print, write the figures."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each paired measure")
    parser.add_argument("--only", nargs="*", choices=[*PAIRED, "endtoend"], help="measure only these")
    options = parser.parse_args()
    chosen = options.only or [*PAIRED, "endtoend"]
    console = Console()
    rows: list[Row] = []
    with servers() as made:
        for key in [name for name in PAIRED if name in chosen]:
            title, measure, goal = PAIRED[key]
            console.print(f"measuring: {title}")
            pairs = measure(made, options.rounds)
            ratio = statistics.median(pair.product / pair.bare for pair in pairs)
            product, bare = (statistics.median(getattr(pair, side) for pair in pairs) for side in ("product", "bare"))
            rows.append(Row(title, product, bare, ratio, f">= {goal}", ratio >= goal))
    if "endtoend" in chosen:
        console.print("measuring: everything on")
        figures = endtoend.measure()
        rows.append(
            Row(
                "sustained end to end, everything on, touches a second",
                figures.sustained,
                None,
                None,
                ">= 1700",
                figures.sustained >= endtoend.SUSTAINED_GOAL,
            )
        )
        rows.append(
            Row(
                "webhook to rep assigned at half of it, p99 ms",
                figures.p99_ms,
                None,
                None,
                "<= 150",
                figures.p99_ms <= endtoend.P99_GOAL_MS,
            )
        )
    table = Table(title="medians")
    for column in ("what", "per second", "bare limit", "ratio", "goal", "met"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.product:,.0f}",
            "" if row.bare is None else f"{row.bare:,.0f}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.goal,
            "yes" if row.met else "no",
        )
    console.print(table)
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(
        json.dumps({"at": datetime.now(UTC).isoformat(), "rows": [asdict(row) for row in rows]}, indent=2)
    )
    console.print(f"figures: {FIGURES}")


if __name__ == "__main__":
    main()
