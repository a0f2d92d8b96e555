"""Processes that die or freeze: nothing acknowledged is lost, nothing happens twice."""

import signal

import pytest

from tests.faults.cluster import Cluster
from tests.faults.oracle import Load, Oracle


def whole(oracle: Oracle) -> None:
    """The invariants after every fault: all that was acknowledged is there once, and only 503 said no."""
    account = oracle.account()
    assert account.acknowledged > 0
    assert (account.lost, account.doubled) == ([], 0), oracle.stands()
    assert oracle.wrong == []
    found, expected = oracle.scored()
    assert found == expected


def test_f1_killed_api_loses_nothing_it_acknowledged(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        for _ in range(3):
            load.wait_sent(40)
            cluster.kill("capture-api")
        load.wait_sent(40)
    assert oracle.refused > 0
    whole(oracle)


def test_f1_api_that_dies_between_commit_and_answer_takes_the_retry_as_the_same(
    cluster: Cluster, oracle: Oracle
) -> None:
    cluster.arm("capture-api", "after_commit_before_ack:3")
    deaths = cluster.roles["capture-api"].deaths
    with Load(oracle, cluster) as load:
        cluster.wait_deaths("capture-api", deaths + 1)
        load.wait_sent(20)
    whole(oracle)


@pytest.mark.parametrize("failpoint", ["after_produce_before_cursor", "after_cursor"])
def test_f2_relay_killed_at(failpoint: str, cluster: Cluster, oracle: Oracle) -> None:
    cluster.arm("capture-worker", f"{failpoint}:2")
    deaths = cluster.roles["capture-worker"].deaths
    with Load(oracle, cluster) as load:
        cluster.wait_deaths("capture-worker", deaths + 1)
        load.wait_sent(20)
    whole(oracle)


@pytest.mark.parametrize("failpoint", ["before_consumer_commit", "after_tx_before_kafka_commit"])
@pytest.mark.parametrize("consumer", ["attribution", "scoring"])
def test_f3_consumer_killed_at(failpoint: str, consumer: str, cluster: Cluster, oracle: Oracle) -> None:
    cluster.arm(consumer, f"{failpoint}:2")
    deaths = cluster.roles[consumer].deaths
    with Load(oracle, cluster) as load:
        cluster.wait_deaths(consumer, deaths + 1)
        load.wait_sent(20)
    whole(oracle)


def test_f5_frozen_consumer_wakes_up_after_another_took_over(cluster: Cluster, oracle: Oracle) -> None:
    cluster.add("attribution-2", "attribution", ("consumer",))
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
    with cluster.frozen("attribution"):
        with Load(oracle, cluster) as load:
            load.wait_sent(20)
        whole(oracle)
    with Load(oracle, cluster) as load:
        load.wait_sent(20)
    whole(oracle)
    cluster.remove("attribution-2")


def test_a_terminated_process_ends_cleanly_and_loses_nothing(cluster: Cluster, oracle: Oracle) -> None:
    with Load(oracle, cluster) as load:
        for name in ("capture-api", "capture-worker", "attribution", "scoring"):
            load.wait_sent(20)
            cluster.kill(name, signal.SIGTERM)
        load.wait_sent(20)
    whole(oracle)
