"""`make trial MINUTES=n SEED=s`: a whole stack as a stranger runs it, its processes killed at random under traffic.

Kill -9 of services, gateway, template, broker, PostgreSQL's processes, and of the supervisor itself, which is then
started again. Afterwards everything that was answered well is looked for, once, in the API and in the ledgers.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from deploy.embedded.ports import free_port
from tests.faults.checks import Checks
from tests.faults.stack import Stack, running_stack
from tests.faults.traffic import Traffic
from throughline.demo.inbox import inbox

PAUSE_S = (3.0, 15.0)
FROZEN_S = (1.0, 15.0)
PROCESSES = ("capture-api", "capture-worker", "scoring", "routing", "nurture", "attribution", "gateway")
FAULTS = (*PROCESSES, "frozen", "template", "kafka", "postgres", "backend", "supervisor")


def main() -> int:
    """Break a stack for so many minutes; 0 when everything is as it was answered."""
    parser = argparse.ArgumentParser(prog="trial", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="throughline-trial-") as folder, inbox("127.0.0.1", port) as mails:
        Path(folder).chmod(0o755)
        with running_stack(Path(folder) / "data", f"smtp://127.0.0.1:{port}") as stack:
            traffic = Traffic(stack.client, options.seed)
            with traffic:
                _break(stack, random.Random(options.seed), options.minutes * 60, console)  # a schedule, not a secret
            checks = Checks(stack, traffic, mails, console)
            checks.run()
    return 1 if checks.failed else 0


def _break(stack: Stack, rng: random.Random, seconds: float, console: Console) -> None:
    began = time.monotonic()
    turns: list[str] = []
    while time.monotonic() - began < seconds:
        time.sleep(rng.uniform(*PAUSE_S))
        if not turns:
            turns = list(FAULTS)
            rng.shuffle(turns)
        what = turns.pop()
        console.print(f"{time.monotonic() - began:7.1f}s  {what}")
        _fault(stack, rng, what)()


def _fault(stack: Stack, rng: random.Random, what: str) -> Callable[[], None]:
    match what:
        case "frozen":
            return lambda: _freeze(stack, rng.choice(PROCESSES), rng.uniform(*FROZEN_S))
        case "backend":
            return lambda: stack.kill_backend(rng)
        case "supervisor":
            return lambda: _start_again(stack)
        case _:
            return lambda: stack.kill(what)


def _freeze(stack: Stack, name: str, seconds: float) -> None:
    stack.kill(name, signal.SIGSTOP)
    time.sleep(seconds)
    stack.kill(name, signal.SIGCONT)


def _start_again(stack: Stack) -> None:
    stack.kill_supervisor()
    stack.up()


if __name__ == "__main__":
    sys.exit(main())
