"""`make faults`: faults that take their time, on the cluster of the other fault tests. F7, F10, F14, F16-F18, F22, F36.

Not in the default run; each ends as those do, with what was acknowledged found once.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import libfaketime
import psycopg
import pytest

from deploy.embedded.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.oracle import Load, Oracle
from tests.faults.test_processes import whole

pytestmark = pytest.mark.timeout(1_200)
STORM = 120.0
EVERY = 2.0
DUTY = 0.05
STARVED = 20.0
FROZEN_BROKER = 40.0
FROZEN_DATABASE = 30.0
HELD = 20.0
SKEWED = (timedelta(days=2), -timedelta(days=2))
END_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE starts_with(application_name, 'throughl')"
LIBRARY = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"))


def test_f7_members_come_and_go_for_two_minutes(cluster: Cluster, oracle: Oracle) -> None:
    names = ("attribution-2", "attribution-3")
    over = time.monotonic() + STORM
    with Load(oracle, cluster) as load:
        while time.monotonic() < over:
            for name in names:
                cluster.start_member(name, "attribution", ("consumer",))
                time.sleep(EVERY)
            for name in names:
                cluster.remove(name)
                time.sleep(EVERY)
        load.wait_sent(20)
    whole(oracle)


def test_f10_broker_that_accepts_and_never_answers(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
        with cluster.frozen("kafka"):
            refused = oracle.refused
            load.wait_sent(20)
            time.sleep(FROZEN_BROKER)
            load.wait_sent(20)
            assert oracle.refused == refused, "capture needs PostgreSQL alone"
    whole(oracle)


def test_f14_both_servers_restart_at_once(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(40)
        cluster.kill("postgres", signal.SIGQUIT)
        cluster.kill("kafka")
        load.wait_sent(40)
    for server in ("postgres", "kafka"):
        cluster.wait_server(server)
    whole(oracle)


def test_f16_database_that_accepts_and_never_answers(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
        with cluster.frozen("postgres"):
            assert wait_until(lambda: oracle.refused > 0, 60), "callers were left waiting"
            time.sleep(FROZEN_DATABASE)
        load.wait_sent(20)
    whole(oracle)


def test_f17_table_that_somebody_holds_for_long(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
        with psycopg.connect(cluster.postgres.url) as holding:
            holding.execute("LOCK TABLE capture.event_log IN ACCESS EXCLUSIVE MODE")
            time.sleep(HELD)
        load.wait_sent(20)
    whole(oracle)


def test_f18_others_take_every_connection_and_give_them_back(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
        with psycopg.connect(cluster.postgres.url, autocommit=True) as owner, every_connection(cluster):
            assert wait_until(lambda: not owner.execute(END_OURS).fetchall(), 60), "ours could not be taken"
            assert wait_until(lambda: oracle.refused > 0, 60), "nobody noticed"
        load.wait_sent(20)
    whole(oracle)


@pytest.mark.parametrize("by", SKEWED, ids=["ahead", "behind"])
def test_f22_process_whose_clock_is_two_days_off(by: timedelta, cluster: Cluster, oracle: Oracle) -> None:
    """The clock of days; leases and due times are PostgreSQL's, and waiting is by the clock that only goes forward."""
    skew = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME": f"{int(by.total_seconds()):+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
        for name in ("capture-worker", "attribution", "scoring"):
            cluster.restart(name, skew)
        load.wait_sent(60)
    whole(oracle)
    for name in ("capture-worker", "attribution", "scoring"):
        cluster.restart(name, {})
    cluster.wait_ready()


def test_f36_processes_that_get_half_of_the_time_in_slices(cluster: Cluster, oracle: Oracle) -> None:
    deaths = {name: role.deaths for name, role in cluster.roles.items()}
    with ExitStack() as starved:
        for name in ("attribution", "scoring", "capture-worker"):
            starved.enter_context(half_of_the_time(cluster, name))
        over = time.monotonic() + STARVED
        with Load(oracle, cluster) as load:
            while time.monotonic() < over:
                load.wait_sent(20)
    whole(oracle)
    assert {name: role.deaths for name, role in cluster.roles.items()} == deaths


@contextmanager
def every_connection(cluster: Cluster) -> Iterator[None]:
    """Hold all connections that PostgreSQL gives to others than its owner, and take those that become free."""
    held: list[psycopg.Connection[tuple[object, ...]]] = []
    over = threading.Event()

    def take() -> None:
        while not over.wait(0.01):
            try:
                held.append(psycopg.connect(cluster.postgres.url, autocommit=True))
            except psycopg.OperationalError:
                over.wait(0.01)

    taking = threading.Thread(target=take)
    taking.start()
    try:
        yield
    finally:
        over.set()
        taking.join()
        for connection in held:
            connection.close()


@contextmanager
def half_of_the_time(cluster: Cluster, name: str) -> Iterator[None]:
    """Stop a process for every other 50 ms."""
    process = cluster.roles[name].process
    assert process is not None
    over = threading.Event()

    def starve() -> None:
        while not over.is_set():
            os.kill(process.pid, signal.SIGSTOP)
            over.wait(DUTY)
            os.kill(process.pid, signal.SIGCONT)
            over.wait(DUTY)

    starving = threading.Thread(target=starve)
    starving.start()
    try:
        yield
    finally:
        over.set()
        starving.join()
