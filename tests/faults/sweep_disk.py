"""`make faults`: F21. PostgreSQL's disk is full: nothing is acknowledged that is not kept, and then it goes on.

It needs a file system of its own, which only root can make; elsewhere the test says so and is left out.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from deploy.embedded.ports import free_port
from deploy.embedded.postgres import PostgresNode
from deploy.embedded.processes import Running, wait_until
from shared.testing import make_settings, token
from tests.faults.cluster import is_ready
from tests.faults.prepare import prepare_database

SIZE = "400m"
WITHIN = 120.0
TOUCHES = 50
pytestmark = pytest.mark.timeout(900)
COUNT = "SELECT count(DISTINCT event_id) FROM capture.event_log WHERE type LIKE '%touch%'"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds little."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=False).returncode:
        pytest.skip("no file system can be made here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


class Kept:
    """PostgreSQL on that disk, started again when it ends, as any supervisor does."""

    def __init__(self, node: PostgresNode, log: Path) -> None:
        self.node = node
        self._log = log
        node.prepare(os.environ)
        self._process: Running = node.start(log, os.environ)

    def is_up(self) -> bool:
        """Whether it answers; started again where it has ended."""
        if self._process.poll() is not None:
            self.node.prepare(os.environ)
            self._process = self.node.start(self._log, os.environ)
        return self.node.is_ready(self._process.pid)

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            os.kill(self._process.pid, self.node.stop_signal)
            self._process.wait()


@contextmanager
def capture_api(url: str) -> Iterator[httpx.Client]:
    """Capture's api on a database; the broker is away, which it does not mind."""
    port, management = free_port(), free_port()
    settings = make_settings(url)
    environment = {
        **os.environ,
        "THROUGHLINE_DATABASE_URL": url,
        "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "THROUGHLINE_SECRET": settings.secret.get_secret_value(),
        "THROUGHLINE_PORT": str(port),
        "THROUGHLINE_MANAGEMENT_PORT": str(management),
    }
    process = subprocess.Popen([sys.executable, "-m", "throughline", "run", "capture", "api"], env=environment)
    try:
        assert wait_until(lambda: is_ready(management), WITHIN)
        headers = {"authorization": f"Bearer {token(settings)}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def test_f21_full_disk_takes_nothing_and_then_goes_on(small_disk: Path, tmp_path: Path) -> None:
    kept = Kept(PostgresNode(small_disk / "data", free_port(), "full"), tmp_path / "postgres.log")
    acknowledged, refused = 0, 0

    def send() -> bool:
        nonlocal acknowledged, refused
        name = f"{acknowledged}-{refused}"
        touch = {"email": f"p{name}@example.com", "type": "page_view", "properties": {"pad": "x" * 2_000}}
        touches = [{**touch, "touch_id": f"{name}-{number}"} for number in range(TOUCHES)]
        answer = client.post("/capture/v1/touches", json={"touches": touches})
        assert answer.status_code in (202, 503), answer.text
        acknowledged += TOUCHES if answer.status_code == httpx.codes.ACCEPTED else 0
        refused += answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        return answer.status_code == httpx.codes.ACCEPTED

    try:
        assert wait_until(kept.is_up, WITHIN)
        prepare_database(kept.node.url)
        with capture_api(kept.node.url) as client:
            assert send()
            _fill(small_disk / "ballast")
            assert wait_until(lambda: not send(), WITHIN), "it took more than there is room for"
            before = acknowledged
            for _ in range(5):
                kept.is_up()
                send()
            (small_disk / "ballast").unlink()
            assert wait_until(lambda: kept.is_up() and send(), WITHIN), "it does not go on"
            assert acknowledged > before
            assert acknowledged <= _count(kept.node.url) <= acknowledged + refused * TOUCHES
    finally:
        kept.close()


def _fill(ballast: Path) -> None:
    """Leave no room."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
        except OSError:
            return


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        return int(str(connection.execute(COUNT.encode()).fetchall()[0][0]))
