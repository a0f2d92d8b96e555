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

from bench import (
    broadcasting,
    clocks,
    due,
    endtoend,
    identity,
    importing,
    measures,
    models,
    reporting,
    rulesets,
    sending,
    simulating,
    steps,
)
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
    "due": ("stages ended by decay, judged in full (2,000 wanted), 10^6 waiting / 10^3 waiting", due.settled, 0.95),
    "taken": ("stages due by decay claimed (2,000 wanted), 10^6 waiting / 10^3 waiting", due.claimed, 0.95),
    "steps": ("due steps of sequences carried out, 10^6 waiting / 10^3 waiting", steps.taken, 0.95),
    "claims": ("due steps of sequences claimed (2,000 wanted), 10^6 waiting / 10^3 waiting", steps.claimed, 0.95),
    "sending": ("messages handed to a mail server / a bare loop over one connection", sending.handed_over, 0.5),
    "relay": ("relay, catching up / send() from memory", measures.relay, 1.0),
}
OTHERS = ("broadcast", "import", "models", "reports", "simulate", "rules", "clocks", "endtoend")


def imported(made: Servers, console: Console) -> list[Row]:
    """Files of leads: rows a second at each size, and how memory grows from the smallest to the largest."""
    console.print("measuring: files of leads")
    found = importing.measure(made)
    goal = importing.RATE_GOAL
    rows = [
        Row(
            f"rows of a file of {each.rows:,} leads imported",
            each.per_second,
            None,
            None,
            f">= {goal}",
            each.per_second >= goal,
        )
        for each in found
    ]
    least, most = found[0].peak_mib, found[-1].peak_mib
    ratio = most / least
    title = f"the worker's peak memory, MiB: file of {found[-1].rows:,} / of {found[0].rows:,}"
    return [*rows, Row(title, most, least, ratio, f"<= {importing.MEMORY_GOAL}", ratio <= importing.MEMORY_GOAL)]


def computed(console: Console) -> list[Row]:
    """All models from scratch over 10^6 journeys in memory, and every model that a package has beside it."""
    console.print("measuring: all models in memory, beside other packages")
    people = models.SIZES[-1]
    found = models.measure(people)
    ours = found.pop("throughline")
    seconds = sum(ours.seconds.values())
    rows = [
        Row(
            f"all models over {people:,} journeys in memory, seconds",
            seconds,
            None,
            None,
            f"<= {models.SECONDS_GOAL}",
            seconds <= models.SECONDS_GOAL,
        ),
        Row("the memory of that, MiB", ours.mib, None, None, f"<= {models.MIB_GOAL}", ours.mib <= models.MIB_GOAL),
    ]
    for package, theirs in found.items():
        for step, took in theirs.seconds.items():
            mine = [ours.seconds[model] for model in step.split(",") if model in ours.seconds]
            if mine and took > models.CLOCK_S:
                title = f"{step}: seconds, ours / {package}"
                rows.append(Row(title, sum(mine), took, sum(mine) / took, "<= 1.0", sum(mine) <= took))
    return rows


def reported(made: Servers, console: Console) -> list[Row]:
    """Reports over HTTP at growing sizes: the slowest one at the largest size, and how each grew."""
    console.print("measuring: reports at growing sizes")
    found = reporting.measure(made)
    rows = []
    for name, medians, growth in reporting.slower(found):
        met = max(medians) <= reporting.MILLISECONDS_GOAL and growth <= reporting.GROWTH_GOAL
        title = f"report {name}: ms at {found[-1].people:,} / at {found[0].people:,} people"
        rows.append(Row(title, medians[-1], medians[0], growth, f"<= {reporting.GROWTH_GOAL}, 20 ms", met))
    at_most = [max(answered.standing.values()) for answered in (found[0], found[-1])]
    title = f"slowest report that stands: ms at {found[-1].people:,} / at {found[0].people:,} people"
    rows.append(
        Row(
            title,
            at_most[1],
            at_most[0],
            at_most[1] / at_most[0],
            "<= 20 ms",
            at_most[1] <= reporting.MILLISECONDS_GOAL,
        )
    )
    for name in reporting.FILTERED:
        taken = found[-1].milliseconds[name]
        title = f"report {name}: ms at {found[-1].people:,} people"
        goal = reporting.FILTERED_GOAL
        rows.append(Row(title, taken, None, None, f"<= {goal}", taken <= goal))
    return rows


def timed(made: Servers, console: Console) -> Row:
    """Steps of clocks that are due, taken while a million wait."""
    console.print("measuring: due clocks")
    taken = clocks.measure(made).per_second
    title = f"due steps of clocks taken, {clocks.WAITING:,} waiting"
    return Row(title, taken, None, None, f">= {clocks.PER_SECOND_GOAL}", taken >= clocks.PER_SECOND_GOAL)


def tried(made: Servers, console: Console) -> list[Row]:
    """Scoring rules tried on the last 90 days of leads, its memory, and all leads scored anew under other rules."""
    console.print("measuring: other scoring rules")
    least, *_, most = rulesets.measure(made)
    ratio = most.peak_mib / least.peak_mib
    leads = f"{most.people:,} leads"
    return [
        Row(
            f"scoring rules tried on {leads} over 90 days, seconds",
            most.simulated_s,
            None,
            None,
            f"<= {rulesets.SECONDS_GOAL}",
            most.simulated_s <= rulesets.SECONDS_GOAL,
        ),
        Row(
            f"the memory of that, MiB: {leads} / {least.people:,}",
            most.peak_mib,
            least.peak_mib,
            ratio,
            f"<= {rulesets.MEMORY_GOAL}",
            ratio <= rulesets.MEMORY_GOAL,
        ),
        Row(f"{leads} scored anew under other rules, seconds", most.rescored_s, None, None, "", met=True),
    ]


def simulated(made: Servers, console: Console) -> list[Row]:
    """Routing rules tried on the leads of ninety days, and how memory grows."""
    console.print("measuring: routing rules tried on past leads")
    goal = simulating.SECONDS_GOAL
    rows = []
    for found in simulating.measure(made):
        title = f"routing rules tried on {found.leads:,} leads, seconds"
        rows.append(Row(title, found.seconds, None, None, f"<= {goal}", found.seconds <= goal))
        title = f"the process after {found.leads:,} leads / before, MiB"
        growth = found.after_mib / found.before_mib
        rows.append(Row(title, found.after_mib, found.before_mib, growth, "<= 1.5", growth <= 1.5))
    return rows


def broadcast(made: Servers, console: Console) -> list[Row]:
    """A broadcast whose worker is killed again and again, counted at the mail server."""
    console.print("measuring: a broadcast, its worker killed again and again")
    found = broadcasting.measure(made)
    title = f"broadcast to {found.people:,}, worker killed {found.kills} times:"
    listed = f"{title} listed as unknown / of them received"
    return [
        Row(f"{title} got it twice", found.twice, None, None, "0", found.twice == 0),
        Row(f"{title} neither got it nor are listed", found.missing, None, None, "0", found.missing == 0),
        Row(listed, found.unknown, found.unknown_received, None, "", met=True),
        Row(f"{title} messages a second, restarts included", found.people / found.seconds, None, None, "", met=True),
    ]


def everything(figures: endtoend.Figures) -> list[Row]:
    """All services together: what they take, and how long it takes through them."""
    goal = endtoend.SUSTAINED_GOAL
    taken = figures.sustained
    rows = [
        Row("sustained end to end, everything on, touches a second", taken, None, None, f">= {goal}", taken >= goal)
    ]
    for what, took, most in (
        ("webhook to rep assigned at half of it", figures.p99_ms, endtoend.P99_GOAL_MS),
        ("webhook to rep assigned at nine tenths of it", figures.busy_p99_ms, endtoend.BUSY_P99_GOAL_MS),
        ("late touch to the report it changed at half of it", figures.late_p99_ms, endtoend.LATE_P99_GOAL_MS),
    ):
        rows.append(Row(f"{what}, p99 ms", took, None, None, f"<= {most}", took <= most))
    return rows


def main() -> None:
    """Measure, print, write the figures."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each paired measure")
    parser.add_argument("--only", nargs="*", choices=[*PAIRED, *OTHERS], help="measure only these")
    options = parser.parse_args()
    chosen = options.only or [*PAIRED, *OTHERS]
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
        if "broadcast" in chosen:
            rows += broadcast(made, console)
        if "import" in chosen:
            rows += imported(made, console)
        if "reports" in chosen:
            rows += reported(made, console)
        if "clocks" in chosen:
            rows.append(timed(made, console))
        if "simulate" in chosen:
            rows += simulated(made, console)
        if "rules" in chosen:
            rows += tried(made, console)
    if "models" in chosen:
        rows += computed(console)
    if "endtoend" in chosen:
        console.print("measuring: everything on")
        rows += everything(endtoend.measure())
    table = Table(title="medians")
    for column in ("what", "per second", "bare limit", "ratio", "goal", "met"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(
            row.name,
            _figure(row.product),
            "" if row.bare is None else _figure(row.bare),
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


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # three digits of each


if __name__ == "__main__":
    main()
