"""Commands that need no stack: parked facts, tokens, settings, and what a wrong call is answered."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
from typer.testing import CliRunner, Result

from shared.db import Tx
from shared.events import TouchRecorded
from shared.ids import EventId, LeadId, TouchId
from shared.kafka import on
from shared.secrets import Secrets
from shared.service import ServiceCode
from shared.settings import Settings
from shared.testing import harness
from throughline.main import app
from throughline.services import SERVICES

LEAD = LeadId("0190a000-0000-8000-8000-00000000000a")
SECRET = "5e" * 32


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No stack and no settings but those of a test."""
    for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "SECRET", "DATA_DIR", "PORT"):
        monkeypatch.delenv(f"THROUGHLINE_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Settings:
    """The settings of a test, in the environment."""
    monkeypatch.setenv("THROUGHLINE_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS", settings.kafka_bootstrap_servers)
    monkeypatch.setenv("THROUGHLINE_SECRET", settings.secret.get_secret_value())
    return settings


def throughline(*words: str) -> Result:
    """A command."""
    return CliRunner().invoke(app, list(words))


def touch(number: int) -> TouchRecorded:
    return TouchRecorded(
        event_id=EventId(f"touch:{number}"),
        source="capture",
        occurred_at=datetime(2026, 11, 20, 12, number, tzinfo=UTC),
        received_at=datetime(2026, 11, 20, 12, number, tzinfo=UTC),
        lead_id=LEAD,
        touch_id=TouchId(f"t{number}"),
        type="page_view",
        position=number,
    )


async def refuse(event: TouchRecorded, tx: Tx) -> None:
    raise ValueError("this can never be carried out")


def park(settings: Settings, facts: int) -> None:
    """Park facts of one lead in scoring: the first for its fault, the others behind it."""
    code = ServiceCode("scoring", lambda _: (), lambda _: (on(TouchRecorded, refuse),), lambda _: ())

    async def run() -> None:
        async with harness(code, settings) as scoring:
            await scoring.deliver(*(touch(number) for number in range(1, facts + 1)))

    asyncio.run(run())


def parked() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(throughline("parked", "list", "--service", "scoring", "--json").stdout)
    return rows


def test_parked_facts_are_listed_and_shown_with_their_fault(given: Settings) -> None:
    park(given, 2)
    first, second = parked()
    assert (first["lead_id"], first["type"]) == (LEAD, "throughline.touch.recorded.v1")
    assert second["slug"] == "parked/waits-behind-parked"
    shown = json.loads(throughline("parked", "show", "scoring", str(first["id"])).stdout)
    assert shown["error"].startswith("ValueError at ")
    assert shown["value"]["touch_id"] == "t1"
    listed = throughline("parked", "list", "--service", "scoring").stdout.splitlines()
    assert [LEAD in line and "throughline.touch.recorded.v1" in line for line in listed] == [False, True, True]
    assert throughline("parked", "show", "scoring", "9" * 20).exit_code == 64
    assert throughline("parked", "show", "scoring", "999999").exit_code == 1


def test_a_retry_carries_parked_facts_out(given: Settings) -> None:
    park(given, 3)
    assert throughline("parked", "list", "--service", "routing", "--json").stdout == "[]\n"
    retried = throughline("parked", "retry", "scoring", "--lead", LEAD)
    assert (retried.exit_code, retried.stdout) == (0, f"{LEAD}: carried out\n")
    assert parked() == []
    assert throughline("parked", "retry", "scoring").stdout == "Nothing is parked in scoring.\n"


BURY = """
INSERT INTO scoring.dead_letters (consumer, topic, partition, "offset", key, headers, value, error)
VALUES ('scoring.v1', 'touches', 3, %s, 'k', %s::jsonb, %s, 'unknown')
"""


def sql(settings: Settings, statement: str, *values: Any) -> Any:
    """A statement; answers its first value, if it has any."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        cursor = connection.execute(statement.encode(), values)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def bury(settings: Settings) -> None:
    """Scoring has met bytes that are no fact, and a fact under a name that it does not know."""
    for offset, (name, value) in enumerate([("", b"\xff{"), ("throughline.touch.recorded.v9", touch(1).encode())]):
        sql(settings, BURY, offset, json.dumps([["ce_type", name.encode().hex()]]), value)


def dead() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(throughline("dead", "list", "--service", "scoring", "--json").stdout)
    return rows


def test_dead_letters_are_listed_read_again_once_they_can_be_and_discarded(given: Settings) -> None:
    bury(given)
    broken, later = dead()
    assert (broken["topic"], broken["partition"], broken["offset"]) == ("touches", 3, 0)
    shown = json.loads(throughline("dead", "show", "scoring", str(broken["id"])).stdout)
    assert (shown["key"], shown["value"]) == ("k", "\\xff{")
    assert throughline("dead", "retry", "scoring").exit_code == 1
    assert len(dead()) == 2
    known = "UPDATE scoring.dead_letters SET headers = replace(headers::text, '7639', '7631')::jsonb WHERE id = %s"
    sql(given, known, later["id"])
    assert throughline("dead", "retry", "scoring", str(later["id"])).stdout == f"{later['id']}: read\n"
    assert sql(given, "SELECT count(*) FROM scoring.inbox") == 1
    asked = throughline("dead", "discard", "scoring", str(broken["id"]))
    assert (asked.exit_code, dead()) == (3, [broken])
    assert throughline("dead", "discard", "scoring", str(broken["id"]), "--yes").exit_code == 0
    assert dead() == []
    assert throughline("dead", "show", "scoring", str(broken["id"])).exit_code == 1
    assert sql(given, "SELECT count(*) FROM scoring.audit_entries WHERE starts_with(action, 'dead.')") == 4


def test_a_discard_is_told_first_and_frees_what_waited(given: Settings) -> None:
    park(given, 2)
    cause = str(parked()[0]["id"])
    asked = throughline("parked", "discard", "scoring", cause)
    assert asked.exit_code == 3
    assert "say --yes to do it" in asked.stderr
    assert len(parked()) == 2
    done = throughline("parked", "discard", "scoring", cause, "--yes")
    assert (done.exit_code, parked()) == (0, [])
    assert done.stdout.endswith("0 of its facts are still parked.\n")


def test_a_token_says_its_scopes_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROUGHLINE_SECRET", SECRET)
    made = throughline("tokens", "create", "--scope", "capture:write", "--scope", "scoring:read", "--expires", "30d")
    claims = jwt.decode(made.stdout.strip(), Secrets(SECRET).tokens, ["HS256"])
    assert claims["scope"] == "capture:write scoring:read"
    assert timedelta(seconds=claims["exp"] - int(claims["iat"])) == timedelta(days=30)
    wrong = throughline("tokens", "create", "--scope", "capture:read", "--scope", "billing:read")
    assert (wrong.exit_code, wrong.stdout) == (64, "")
    assert "unknown scopes: billing:read" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("run", "billing", "api"), 64, "'billing' is no service"),
        (("run", "capture", "cook"), 64, "'cook' is no role"),
        (("tokens", "create", "--scope", "capture:read", "--expires", "soon"), 64, "'soon' is no length of time"),
        (("tokens", "revoke"), 64, "name a token, or a subject"),
        (("tokens", "revoke", "one", "--subject", "ann"), 64, "name a token, or a subject"),
        (("tokens", "revoke", "one", "--before", "2026-01-01T00:00:00Z"), 64, "--before goes with --subject"),
        (("tokens", "revoke", "--subject", "ann", "--before", "2026-01-01"), 64, "write its zone too"),
        (("tokens", "revoke", "--subject", "ann", "--before", "9999-01-01T00:00:00Z"), 64, "has not come yet"),
        (("nothing",), 64, "No such command 'nothing'"),
        (("lag",), 78, "THROUGHLINE_DATABASE_URL"),
        (("tokens", "create", "--scope", "capture:read"), 78, "There is no secret"),
        (("ps",), 0, "Nothing runs on .throughline."),
        (("down",), 0, "Nothing runs on"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(words: tuple[str, ...], status: int, sentence: str) -> None:
    done = throughline(*words)
    assert done.exit_code == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(".throughline").exists()


def test_half_a_token_is_not_taken_for_the_id_of_one(given: Settings) -> None:
    done = throughline("tokens", "revoke", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Nothing was revoked: it is no token")


def test_a_wrong_setting_is_named(given: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROUGHLINE_TOPIC_PARTITIONS", "many")
    done = throughline("lag")
    assert done.exit_code == 78
    assert "THROUGHLINE_TOPIC_PARTITIONS: " in done.stderr


def test_servers_that_are_away_are_named(given: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Kafka at 127.0.0.1:1 does not answer" in throughline("topics", "apply").stderr
    monkeypatch.setenv("THROUGHLINE_DATABASE_URL", "postgresql://a:b@127.0.0.1:1/c")
    done = throughline("migrate")
    assert done.exit_code == 1
    assert done.stderr.startswith("PostgreSQL cannot be worked with: ")
    assert done.stderr.count("\n") == 1


def test_migrations_can_be_run_again(given: Settings) -> None:
    for _ in range(2):
        done = throughline("migrate")
        assert (done.exit_code, len(done.stdout.splitlines())) == (0, len(SERVICES))


def test_service_that_folds_nothing_has_nothing_to_rebuild(given: Settings) -> None:
    done = throughline("rebuild", "capture")
    assert (done.exit_code, done.output) == (0, "capture: has no projection, so there is nothing to rebuild\n")
