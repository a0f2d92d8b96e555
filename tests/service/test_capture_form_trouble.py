"""Hosted forms in trouble: bodies that are none, floods, an erasure, a database that is away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from pydantic import SecretStr

from shared.events import OptinRequested
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.capture_world import Capture
from tests.service.forms_world import ANN, Forms, Line, carried
from throughline.services import service_code


@pytest_asyncio.fixture
async def forms(settings: Settings) -> AsyncIterator[Forms]:
    clock = FrozenClock(datetime.now(UTC))
    async with harness(service_code("capture"), settings, clock=clock) as made:
        yield Forms(Capture(made), clock)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"email": 1e400}', "application/json", 400),
        (b'{"email": {"a": 1}}', "application/json", 422),
        (b'{"email": "\\u0000"}', "application/json", 422),
        (b"x" * 140_000, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a=1" for _ in range(500)), "application/x-www-form-urlencoded", 400),
        (b"nonsense", "multipart/form-data; boundary=x", 400),
        (b"nonsense", "multipart/form-data", 400),
        (b"<a/>", "application/xml", 415),
        (b"\xff\xfe=%ff", "application/x-www-form-urlencoded", 422),
        (b"", "application/x-www-form-urlencoded", 422),
    ],
)
async def test_a_body_that_is_none_is_refused(forms: Forms, content: bytes, kind: str, status: int) -> None:
    form_id = await forms.made()
    answer = await forms.client.post(f"/f/{form_id}", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert await forms.submissions(form_id) == []


async def test_a_flood_is_told_to_wait_and_loses_nothing_that_was_typed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THROUGHLINE_CAPTURE_FORM_POSTS_AT_ONCE", "2")
    monkeypatch.setenv("THROUGHLINE_CAPTURE_FORM_POSTS_A_SECOND", "0.001")
    clock = FrozenClock(datetime.now(UTC))
    async with harness(service_code("capture"), settings, clock=clock) as made:
        forms = Forms(Capture(made), clock)
        form_id = await forms.made()
        answers = [await forms.filled(form_id, email=f"p{number}@example.com") for number in range(3)]
        assert [answer.status_code for answer in answers] == [303, 303, 429]
        assert int(answers[2].headers["retry-after"]) > 0
        assert 'value="p2@example.com"' in answers[2].text


async def test_an_unknown_form_is_a_page_that_says_so(forms: Forms) -> None:
    for path in ("/f/nonsense", "/f/00000000-0000-4000-8000-000000000000", "/f/nonsense/thanks"):
        page = await forms.client.get(path)
        assert (page.status_code, "<h1>There is no such form</h1>" in page.text) == (404, True)
    assert (await forms.client.get("/f/nonsense.js")).status_code == 404
    assert (await forms.client.post("/f/nonsense", json={})).status_code == 404


async def test_erasing_a_person_empties_what_waits_for_a_review(forms: Forms) -> None:
    form_id = await forms.made(double_opt_in=True)
    await forms.filled(form_id, email=ANN, news="on")
    await forms.filled(form_id, email=ANN, first_name="Other", homepage="x")
    lead = await forms.lead()
    assert lead is not None
    assert len(await forms.capture.harness.told(OptinRequested)) == 1
    erased = await forms.client.post(f"/v1/leads/{lead['lead_id']}:erase")
    assert erased.status_code == 200
    kept = await forms.capture.rows(
        "SELECT sealed FROM form_submissions UNION ALL SELECT sealed FROM optins UNION ALL"
        " SELECT nullif(address_hash, '') FROM optins"
    )
    assert {row["sealed"] for row in kept} == {None}


async def test_while_the_database_is_away_a_form_says_so_and_keeps_what_was_typed(settings: Settings) -> None:
    url = urlsplit(settings.database_url.get_secret_value())
    line = Line(url.port or 5_432)
    server = await asyncio.start_server(line, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    over_line = SecretStr(settings.database_url.get_secret_value().replace(f":{url.port}/", f":{port}/"))
    clock = FrozenClock(datetime.now(UTC))
    async with (
        server,
        harness(service_code("capture"), settings.model_copy(update={"database_url": over_line}), clock=clock) as made,
    ):
        forms = Forms(Capture(made), clock)
        form_id = await forms.made()
        fields = {**await forms.opened(form_id), "email": ANN, "first_name": "Ann"}
        line.hang_up()
        page = await forms.sent(form_id, fields)
        assert (page.status_code, page.headers["retry-after"]) == (503, "1")
        assert f'value="{ANN}"' in page.text
        assert carried(page.text)["_token"] == fields["_token"]
        in_json = await forms.client.post(f"/f/{form_id}", json={"email": ANN})
        assert (in_json.status_code, in_json.headers["content-type"]) == (503, "application/problem+json")
        assert (await forms.client.get("/f/00000000-0000-4000-8000-000000000000")).status_code == 503
        line.cut = False
        assert (await forms.sent(form_id, fields)).status_code == 303
        assert await forms.lead() is not None
