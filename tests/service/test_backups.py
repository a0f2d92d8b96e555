"""A backup tells nothing of somebody who is erased after it was taken, and gives everybody else back whole."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psycopg
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typer.testing import CliRunner, Result

from deploy.embedded.postgres import binaries
from shared.secrets import Secrets
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.company import Company
from tests.service.personal_marks import MARKS, MONEY, NAMED, columns_with
from throughline.main import app
from throughline.services import SERVICES, service_code

pytestmark = pytest.mark.timeout(1200)  # two services with Kafka, twice
BLOCK = re.compile(rb"[A-Za-z0-9+/]{60,}={0,2}")
RUNNING = ("capture", "routing")
KEYS = "SELECT lead_id, wrapped_key FROM {}.person_keys WHERE wrapped_key IS NOT NULL"
NOT_UNDERSTOOD = f"no JSON at all from <{NAMED % 'qzemailgoes'}>"
DROP = "DROP SCHEMA {0} CASCADE; DROP SCHEMA IF EXISTS {0}_projection CASCADE"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, kafka_settings: Settings) -> Settings:
    """The servers of a test, in the environment of commands."""
    monkeypatch.setenv("THROUGHLINE_DATABASE_URL", kafka_settings.database_url.get_secret_value())
    monkeypatch.setenv("THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS", kafka_settings.kafka_bootstrap_servers)
    monkeypatch.setenv("THROUGHLINE_SECRET", kafka_settings.secret.get_secret_value())
    return kafka_settings


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Company]:
    """Capture, which makes keys, and routing, which only reads them, with their consumers and relays."""
    async with AsyncExitStack() as stack:
        yield Company(
            {
                name: await stack.enter_async_context(harness(service_code(name), settings, kafka=True))
                for name in RUNNING
            }
        )


async def throughline(*words: str) -> Result:
    """A command."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(words))


async def arrives(everybody: Company, name: str) -> tuple[str, str]:
    """Somebody whose marks end in `name` becomes a lead with a deal; answers the ids of both."""
    marks = {what: f"{mark}{name}" for what, mark in MARKS.items() if mark.isalpha()}
    address = f"https://a.example/?q={marks['query of a page']}"
    evidence = {"method": "form", "text": marks["consent text"], "ip": "203.0.113.88"}
    lead = await everybody.capture.lead(
        email=NAMED % marks["email"],
        external_id=marks["external id"],
        anonymous_id=marks["browser"],
        first_name=marks["first name"],
        last_name=marks["last name"],
        title=marks["title"],
        attributes={"note": marks["attribute"]},
        consents=[{"channel": "email", "state": "granted", "evidence": evidence}],
        touch={"type": "demo_requested", "properties": {"p": marks["property of a touch"]}, "url": address},
    )
    lead_id = str(lead["lead_id"])
    deal = {"lead_id": lead_id, "name": f"Deal of {marks['deal']}", **MONEY}

    async def opened() -> str:
        answer = await everybody.services["routing"].client.post("/v1/deals", json=deal, headers=_key(name))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["deal_id"])

    return lead_id, await eventually(opened, within=240)


def _key(name: str) -> dict[str, str]:
    return {"idempotency-key": f"qzcall{name}"}


async def shown(everybody: Company, lead_id: str, deal_id: str) -> dict[str, Any]:
    """What the services show of somebody, once all of them do."""

    async def seen() -> dict[str, Any]:
        lead = await everybody.capture.get(f"leads/{lead_id}")
        answers = {
            "capture": lead,
            "fields": await everybody.capture.get(f"leads/{lead_id}/fields"),
            "consent": await everybody.capture.get(f"leads/{lead_id}/consent"),
            "deal": await everybody.services["routing"].client.get(f"/v1/deals/{deal_id}"),
        }
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 200)
        return {name: answer.json() for name, answer in answers.items()}

    return await eventually(seen, within=240)


async def erased(everybody: Company, lead_id: str) -> list[str]:
    """Erase somebody everywhere; answers their ids."""
    receipt = (await everybody.capture.post(f"leads/{lead_id}:erase", None)).json()

    async def done() -> None:
        state = (await everybody.capture.get(f"erasures/{receipt['receipt_id']}")).json()
        assert {state["services"][name]["state"] for name in RUNNING} == {"done"}, state

    await eventually(done, within=240)
    return list(receipt["lead_ids"])


async def kept_requests(everybody: Company, number: int) -> None:
    """So many requests are kept that were not understood."""
    rows = await everybody.capture.rows("SELECT 1 FROM deliveries WHERE state = 'quarantined' AND sealed IS NOT NULL")
    assert len(rows) == number


def content_of(file: Path) -> dict[str, bytes]:
    """Everything in a backup, unpacked; the dump as SQL."""
    with ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    command = [str(binaries() / "pg_restore"), "--file=-"]
    content["sql"] = subprocess.run(command, input=content["database.dump"], check=True, capture_output=True).stdout
    return content


def blocks_in(content: dict[str, bytes]) -> list[bytes]:
    """All that can be an encrypted block, in the dump and in the facts of the log."""
    rows = (line.split(b"\t") for line in content["event_log.copy"].splitlines())
    facts = [bytes.fromhex(row[9][3:].decode()) for row in rows if row[9].startswith(b"\\\\x")]
    return [block for text in (content["sql"], *facts) for block in BLOCK.findall(text)]


def opener(keys: list[AESGCM], lead_ids: list[str]) -> Callable[[bytes], bool]:
    """Whether a block opens by any of these keys as one of these persons'."""
    from base64 import b64decode

    def opens(block: bytes) -> bool:
        raw = b64decode(block + b"=" * (-len(block) % 4))
        for key in keys:
            for lead_id in lead_ids:
                try:
                    key.decrypt(raw[:12], raw[12:], lead_id.encode())
                except InvalidTag:
                    continue
                return True
        return False

    return opens


def keys_there_are(settings: Settings) -> list[AESGCM]:
    """Every key: those of persons that any service has, and that of the installation."""
    from base64 import b64decode

    wrapper = AESGCM(Secrets(settings.secret.get_secret_value()).wrapping)
    keys = [wrapper]
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        for service in SERVICES:
            for lead_id, wrapped in connection.execute(KEYS.format(service).encode()):
                raw = b64decode(wrapped)
                keys.append(AESGCM(wrapper.decrypt(raw[:12], raw[12:], lead_id.encode())))
    return keys


async def destroy(settings: Settings) -> None:
    """The database is lost."""
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        for service in SERVICES:
            connection.execute(DROP.format(service).encode())


async def test_who_was_erased_since_cannot_be_read_in_it_and_the_others_come_back_whole(
    given: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "company.backup"
    async with running(given) as everybody:
        stays, deal = await arrives(everybody, "stays")
        goes, _ = await arrives(everybody, "goes")
        hook = await everybody.capture.hook(await everybody.capture.source(), NOT_UNDERSTOOD.encode())
        assert hook.status_code == 200, hook.text
        before = await shown(everybody, stays, deal)
        await eventually(lambda: kept_requests(everybody, 1), within=240)
        assert "qzdealstays" in str(before["deal"]) and "qzfirststays" in str(before["capture"]).lower()
        taken = await throughline("backup", str(file))
        assert taken.exit_code == 0, taken.output
        again = await throughline("backup", str(file))
        assert again.exit_code == 3 and "is there already" in again.output
        gone = await erased(everybody, goes)
    content = content_of(file)
    read = [(name, mark) for name, text in content.items() for mark in MARKS.values() if mark.encode() in text.lower()]
    assert read == []
    assert b"COPY routing.assignments" in content["sql"] and b"COPY capture.person_keys" not in content["sql"]
    await destroy(given)
    restored = await throughline("restore", str(file))
    assert restored.exit_code == 0, restored.output
    assert (await throughline("restore", str(file))).exit_code == 3
    async with harness(service_code("capture"), given) as capture:  # nobody has read the keys yet
        assert (await capture.client.get(f"/v1/leads/{stays}")).status_code == 503
        told = {"email": NAMED % "qzemailstays", "type": "page_view", "url": "https://a.example/?q=1"}
        assert (await capture.client.post("/v1/touches", json=told)).status_code == 503
        assert (await capture.client.post("/v1/leads", json={"email": "new@example.com"})).status_code == 503
    async with running(given) as everybody:
        assert await shown(everybody, stays, deal) == before

        async def forgotten() -> None:
            assert (await everybody.capture.get(f"leads/{goes}")).status_code == 410

        await eventually(forgotten, within=240)
        await eventually(lambda: kept_requests(everybody, 0), within=240)
        found = await columns_with(given.database_url.get_secret_value(), MARKS)
        assert found == {}
        keys, blocks = keys_there_are(given), blocks_in(content)
        assert any(map(opener(keys, [stays]), blocks))
        assert not any(map(opener(keys, gone), blocks))
        assert (await everybody.capture.post("leads", {"email": "new@example.com"})).status_code == 201


async def test_what_is_no_backup_or_of_another_installation_is_refused_in_a_sentence(
    given: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = tmp_path / "none.backup"
    none.write_bytes(b"no archive")
    refused = await throughline("restore", str(none))
    assert refused.exit_code == 1 and "cannot be read as a backup" in refused.output
    other = tmp_path / "other.backup"
    with ZipFile(other, "w") as archive:
        archive.writestr("manifest.json", '{"format": 1, "revisions": {}, "identity_key": "another"}')
    refused = await throughline("restore", str(other))
    assert refused.exit_code == 1 and "under another secret" in refused.output
    with ZipFile(other, "w") as archive:
        archive.writestr("manifest.json", '{"format": 9}')
    refused = await throughline("restore", str(other))
    assert refused.exit_code == 1 and "format 9" in refused.output
