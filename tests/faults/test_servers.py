"""Kafka and PostgreSQL that die, stay away, lose their tail, or answer into nothing."""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import pytest

from deploy.embedded.processes import wait_until
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import token
from tests.faults.cluster import Cluster
from tests.faults.oracle import Load, Oracle
from tests.faults.proxy import cut_replies
from tests.faults.test_processes import whole
from throughline.services import service_code

WAITING_ROWS = 600


def test_f8_killed_broker_comes_back(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(40)
        cluster.kill("kafka")
        load.wait_sent(40)
    cluster.wait_server("kafka")
    whole(oracle)


def test_f9_capture_goes_on_while_the_broker_is_away_for_long(cluster: Cluster, oracle: Oracle) -> None:
    """Longer than the relay waits for a confirmation, so that its producer is thrown away."""
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
        with cluster.down("kafka"):
            refused = oracle.refused
            assert wait_until(lambda: _unpublished(cluster) > WAITING_ROWS, 120)
            assert oracle.refused == refused
        load.wait_sent(20)
    whole(oracle)


def test_f12_postgres_stopped_at_once(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(40)
        cluster.kill("postgres", signal.SIGQUIT)
        load.wait_sent(40)
    cluster.wait_server("postgres")
    whole(oracle)


def test_f15_reply_lost_after_the_commit_is_one_touch_after_the_retry(cluster: Cluster, oracle: Oracle) -> None:
    with cut_replies(cluster) as (proxied, cut):
        with cluster.client("capture-api") as direct:
            oracle.send(direct)
        cut.set()
        with httpx.Client(base_url=proxied, headers=_auth(cluster.settings), timeout=20) as client:
            touch = {"email": oracle.email(0), "touch_id": "cut-1", "type": "content_downloaded"}
            first = _try(client, touch)
            assert first != httpx.codes.ACCEPTED
            cut.clear()
            assert wait_until(lambda: _try(client, touch) == httpx.codes.ACCEPTED, 60)
    with cluster.client("attribution-api") as client:

        def shown() -> int:
            answer = client.get("/attribution/v1/journey", params={"email": oracle.email(0), "limit": "1000"})
            return sum(touch["touch_id"] == "cut-1" for touch in answer.json().get("touches", []))

        assert wait_until(lambda: shown() == 1, 60)
        stored = "SELECT count(DISTINCT position) FROM capture.event_log WHERE type LIKE '%%touch%%' AND value LIKE %s"
        assert int(str(cluster.query(stored, b"%cut-1%")[0][0])) >= 1


def test_f24_everything_delivered_twice(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(40)
    whole(oracle)
    with cluster.down("capture-worker"):
        cluster.query("UPDATE capture.relay_cursors SET position = greatest(position - 5000, 0)")
    assert wait_until(lambda: _unpublished(cluster) == 0, 60)
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
    whole(oracle)


@pytest.mark.parametrize("server", ["kafka", "postgres"])
def test_a_server_cut_back_to_an_earlier_copy(server: str, cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(40)
    whole(oracle)
    with cluster.copied(server) as copy:
        with Load(oracle, cluster) as load:
            load.wait_sent(60)
        whole(oracle)
        cluster.restore(server, copy)
        with Load(oracle, cluster) as load:
            load.wait_sent(60)
        whole(oracle)


@pytest.mark.parametrize("fault", ["down", "frozen"])
def test_a_rebuild_waits_for_a_broker_that_does_not_answer_and_ends_equal(
    fault: str, cluster: Cluster, oracle: Oracle
) -> None:
    with Load(oracle, cluster) as load:
        load.wait_sent(40)
    whole(oracle)
    waits = Event()

    def progress(line: str) -> None:
        if "waits for Kafka" in line:
            waits.set()

    with ThreadPoolExecutor(1) as beside:
        with getattr(cluster, fault)("kafka"):
            rebuilding = beside.submit(
                lambda: asyncio.run(rebuild(service_code("scoring"), cluster.settings, progress))
            )
            assert waits.wait(120)
        equal = rebuilding.result(180)
    assert equal
    assert all(equal.values()), equal
    whole(oracle)


def _unpublished(cluster: Cluster) -> int:
    rows = cluster.query(
        "SELECT count(*) FROM capture.event_log AS row JOIN capture.relay_cursors AS cursor USING (log) "
        "WHERE row.position > cursor.position"
    )
    return int(str(rows[0][0]))


def _auth(settings: Settings) -> dict[str, str]:
    return {"authorization": f"Bearer {token(settings)}"}


def _try(client: httpx.Client, touch: dict[str, str]) -> int:
    try:
        return client.post("/capture/v1/touches", json=touch).status_code
    except httpx.TransportError:
        return 0
