"""`make soak MINUTES=n SEED=s`: random faults under load, then the ledger. Anything but 0 lost or doubled is a defect.

The schedule follows from the seed alone, so that a run can be repeated. Messages go to a local inbox; a message that
arrives twice for one person and step counts as sent twice. With `--calm` nothing is broken, and the memory of each
process is told by the minute.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.embedded.ports import free_port
from tests.faults.cluster import Cluster
from tests.faults.oracle import Load, Oracle
from throughline.demo.inbox import Inbox, inbox

PAUSE_S = (2.0, 10.0)
FROZEN_S = (1.0, 12.0)
DOWN_S = (1.0, 25.0)
FORMS_A_FAULT = 5
WARM_S = 300
"""After this a process has imported and cached what it needs, and what it grows by from then on would go on growing."""

FAILPOINTS = {
    "capture-api": ("after_commit_before_ack",),
    "capture-worker": ("after_produce_before_cursor", "after_cursor", "before_consumer_commit"),
    "scoring": ("before_consumer_commit", "after_tx_before_kafka_commit"),
    "attribution": ("before_consumer_commit", "after_tx_before_kafka_commit"),
    "nurture": ("after_intent_before_call", "after_call_before_outcome", "before_consumer_commit"),
}


def main() -> int:
    """Break things for so many minutes; 0 when nothing was lost, doubled or sent twice."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="break nothing, and look at memory")
    options = parser.parse_args()
    console = Console()
    rng = random.Random(options.seed)  # a schedule, not a secret
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="throughline-soak-") as folder, inbox("127.0.0.1", port) as mails:
        Path(folder).chmod(0o755)
        cluster = Cluster(Path(folder), smtp_url=f"smtp://127.0.0.1:{port}", everything=True)
        try:
            cluster.start()
            return _soak(cluster, None if options.calm else rng, options.minutes * 60, console, mails)
        finally:
            cluster.stop()


def _soak(cluster: Cluster, rng: random.Random | None, seconds: float, console: Console, mails: Inbox) -> int:
    """Load for so many seconds, and faults if there is something to draw them by."""
    oracle = Oracle(cluster)
    people: list[str] = []
    began = time.monotonic()
    memory = [(0.0, _memory(cluster))]
    with Load(oracle, cluster):
        while (so_far := time.monotonic() - began) < seconds:
            time.sleep(rng.uniform(*PAUSE_S) if rng else sum(PAUSE_S) / 2)
            people += oracle.submit_forms(FORMS_A_FAULT)
            if so_far >= memory[-1][0] + 60:
                memory.append((so_far, _memory(cluster)))
            if rng is not None:
                name, fault = _fault(cluster, rng)
                console.print(f"{so_far:7.1f}s  {name}")
                fault()
    for server in ("postgres", "kafka"):
        cluster.wait_server(server)
    cluster.wait_ready()
    memory.append((time.monotonic() - began, _memory(cluster)))
    account = oracle.account()
    scored, _ = oracle.scored()
    twice = sum(times - 1 for times in Counter((mail.to, mail.subject) for mail in mails.all()).values())
    table = Table(title=f"after {seconds / 60:.0f} minutes")
    for column in ("acknowledged", "applied", "duplicated", "lost", "sent twice"):
        table.add_column(column, justify="right")
    applied = account.acknowledged - len(account.lost)
    table.add_row(*map(str, (account.acknowledged, applied, account.doubled, len(account.lost), twice)))
    console.print(table)
    console.print(
        f"scoring gave points for {scored}; {len(people)} people sent a form; {len(mails.all())} messages came"
    )
    console.print(_grown(memory))
    if oracle.wrong:
        console.print(f"answers that were neither 2xx nor 503: {Counter(oracle.wrong)}")
    return 1 if account.doubled or account.lost or twice or oracle.wrong or scored != account.acknowledged else 0


def _memory(cluster: Cluster) -> dict[str, int]:
    return {name: cluster.memory(name) for name in cluster.roles}


def _grown(memory: Sequence[tuple[float, dict[str, int]]]) -> Table:
    """What each process had at the beginning, when it was warm and at the end, and by how much it grew since then.

    A process that was killed begins anew.
    """
    warm = next((at for at in memory if at[0] >= WARM_S), memory[0])
    table = Table(title=f"resident memory, MiB; warm after {warm[0] / 60:.0f} minutes")
    for column in ("process", "at first", "warm", "at last", "at last / warm", "an hour"):
        table.add_column(column, justify="left" if column == "process" else "right")
    hours = (memory[-1][0] - warm[0]) / 3600
    for name, first in memory[0][1].items():
        before, after = warm[1][name], memory[-1][1][name]
        an_hour = f"{(after - before) / hours:+.0f}" if hours else ""
        table.add_row(name, str(first), str(before), str(after), f"{after / before:.2f}" if before else "", an_hour)
    return table


def _fault(cluster: Cluster, rng: random.Random) -> tuple[str, Callable[[], None]]:
    roles = sorted(cluster.roles)
    kind = rng.choice(("kill", "kill", "arm", "freeze", "broker", "broker away", "database"))
    name = rng.choice(roles)
    match kind:
        case "kill":
            return f"kill -9 {name}", lambda: cluster.kill(name)
        case "arm":
            armed = rng.choice(sorted(FAILPOINTS))
            point, times = rng.choice(FAILPOINTS[armed]), rng.choice((1, 2, 7))
            return f"{armed} dies at {point}, time {times}", lambda: cluster.arm(armed, f"{point}:{times}")
        case "freeze":
            return f"{name} frozen", lambda: _freeze(cluster, name, rng.uniform(*FROZEN_S))
        case "broker":
            return "kill -9 kafka", lambda: cluster.kill("kafka")
        case "broker away":
            return "kafka away", lambda: _away(cluster, rng.uniform(*DOWN_S))
        case _:
            return "postgres stopped at once", lambda: cluster.kill("postgres", signal.SIGQUIT)


def _freeze(cluster: Cluster, name: str, seconds: float) -> None:
    with cluster.frozen(name):
        time.sleep(seconds)


def _away(cluster: Cluster, seconds: float) -> None:
    with cluster.down("kafka"):
        time.sleep(seconds)


if __name__ == "__main__":
    sys.exit(main())
