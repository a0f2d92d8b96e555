"""Tokens are taken back before they expire: in every process, over its restarts, and no longer than needed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
from typer.testing import CliRunner

from shared.secrets import Secrets
from shared.service import upkeep
from shared.settings import Settings
from shared.testing import eventually
from shared.web import create_token
from tests.service.api_process import serving
from tests.service.runtime_world import environment_of, execute, fetch, runtime_of
from throughline.main import app
from throughline.services import SERVICES

PATH = "/scoring/v1/rules/versions"
HOUR = timedelta(hours=1)
REVOKED = "the token was revoked; make a new one"
NAMES = "SELECT name FROM revoked_tokens ORDER BY name"
ADD = "INSERT INTO revoked_tokens (kind, name, expires_at) VALUES ('token', $1, clock_timestamp() + $2)"


def made(settings: Settings, subject: str = "ann", at: datetime | None = None) -> str:
    secrets = Secrets(settings.secret.get_secret_value())
    return create_token(secrets, ["scoring:read"], 2 * HOUR, at or datetime.now(UTC), subject)


def id_of(token: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})["jti"])


async def run(*words: str) -> str:
    """A command that is carried out; what it printed."""
    done = await asyncio.to_thread(CliRunner().invoke, app, list(words))
    assert done.exit_code == 0, done.stderr
    return done.stdout


class Company:
    """A database, and perhaps an API."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._address = ""

    @asynccontextmanager
    async def api(self) -> AsyncIterator[None]:
        """Scoring's API for the length of a block, once it is ready."""
        async with serving("scoring", self.settings) as port:
            self._address = f"http://127.0.0.1:{port}"
            yield

    async def answer(self, token: str) -> tuple[int, str]:
        """What a token is answered: the status, and why."""
        async with httpx.AsyncClient(base_url=self._address, timeout=30) as client:
            answer = await client.get(PATH, headers={"authorization": f"Bearer {token}"})
        return answer.status_code, answer.json().get("detail", "")

    async def is_refused(self, token: str) -> bool:
        return await self.answer(token) == (401, REVOKED)

    async def is_taken(self, token: str) -> bool:
        return await self.answer(token) == (200, "")


@pytest.fixture
def company(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Company:
    """The commands work on it too."""
    for name, content in environment_of(settings).items():
        monkeypatch.setenv(name, content)
    return Company(settings)


async def test_a_revoked_token_is_refused_by_who_took_it_before_and_by_who_starts_later(company: Company) -> None:
    leaked, named, other = (made(company.settings) for _ in range(3))
    async with company.api():
        for token in (leaked, named, other):
            assert await company.is_taken(token)
        await run("tokens", "revoke", leaked)
        await run("tokens", "revoke", id_of(named))
        await eventually(lambda: company.is_refused(leaked))
        await eventually(lambda: company.is_refused(named))
        assert await company.is_taken(other)
    async with company.api():
        assert await company.is_refused(leaked)
        assert await company.is_refused(named)
        assert await company.is_taken(other)


async def test_those_of_a_subject_that_were_made_before_are_refused_and_later_ones_are_not(company: Company) -> None:
    now = datetime.now(UTC)
    old, older, others = made(company.settings), made(company.settings, at=now - HOUR), made(company.settings, "bob")
    async with company.api():
        before = (now - HOUR / 2).isoformat()
        await run("tokens", "revoke", "--subject", "ann", "--before", before)
        await eventually(lambda: company.is_refused(older))
        assert await company.is_taken(old)
        await run("tokens", "revoke", "--subject", "ann")
        later = made(company.settings)
        await run("tokens", "revoke", "--subject", "ann", "--before", before)
        await eventually(lambda: company.is_refused(old))
        assert await company.is_refused(older)
        assert await company.is_taken(later)
        assert await company.is_taken(others)


async def test_what_is_revoked_is_known_to_every_service_listed_and_audited(company: Company) -> None:
    token = made(company.settings)
    await run("tokens", "revoke", token)
    await run("tokens", "revoke", "--subject", "ann", "--service", "routing")
    listed = json.loads(await run("tokens", "list", "--json"))
    found = [(row["service"], row["kind"], row["name"]) for row in listed]
    assert sorted(found) == sorted(
        [*((each, "token", id_of(token)) for each in SERVICES), ("routing", "subject", "ann")]
    )
    ends = jwt.decode(token, options={"verify_signature": False})["exp"]
    assert {datetime.fromisoformat(row["expires_at"]).timestamp() for row in listed if row["kind"] == "token"} == {ends}
    async with runtime_of(company.settings) as runtime:
        audited = await fetch(runtime.database, "SELECT actor, action, target FROM audit_entries")
    assert [tuple(row) for row in audited] == [("cli", "token.revoked", id_of(token))]


async def test_what_has_expired_by_itself_is_forgotten(settings: Settings) -> None:
    async with runtime_of(settings) as runtime:
        for name, hours in (("long ago", -25), ("just now", -23), ("to come", 1)):
            await execute(runtime.database, ADD, name, hours * HOUR)
        await upkeep(runtime).run()
        assert [row["name"] for row in await fetch(runtime.database, NAMES)] == ["just now", "to come"]


def test_no_token_is_good_for_longer_than_a_revocation_is_known(settings: Settings) -> None:
    with pytest.raises(ValueError, match="3650 days"):
        create_token(
            Secrets(settings.secret.get_secret_value()), ["scoring:read"], timedelta(days=3_651), datetime.now(UTC)
        )
