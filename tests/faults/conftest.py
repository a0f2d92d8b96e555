"""One cluster for all faults: each test leaves it whole."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.oracle import Oracle


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Every process, ready."""
    with tempfile.TemporaryDirectory(prefix="throughline-faults-") as folder:
        Path(folder).chmod(0o755)
        made = Cluster(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def oracle(cluster: Cluster) -> Oracle:
    """A ledger of this test's own, on a cluster that is ready."""
    cluster.wait_ready()
    return Oracle(cluster)
