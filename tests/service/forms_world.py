"""A company's forms and the people who fill them in: what the tests of hosted forms tell stories with."""

import asyncio
import hashlib
import re
from datetime import timedelta
from html import unescape
from itertools import count
from typing import Any

import httpx

from shared.testing import FrozenClock
from tests.service.capture_world import Capture

ANN = "ann@example.com"
ACME = "https://www.acme.com"
FORM: dict[str, Any] = {
    "name": "Contact",
    "language": "en",
    "origins": [ACME],
    "texts": {"title": {"en": "Talk to us", "de": "Sprechen Sie mit uns"}},
    "fields": [
        {"id": "email", "type": "email", "label": {"en": "Work email", "de": "E-Mail"}, "required": True},
        {"id": "first_name", "label": "First name"},
        {"id": "phone", "type": "phone", "label": "Phone", "country": "DE"},
        {"id": "size", "type": "select", "label": "Size", "options": [{"value": "s"}, {"value": "l"}]},
        {"id": "zip", "label": "Zip", "pattern": "[0-9]{5}", "maps_to": "attributes.postcode"},
        {"id": "campaign", "type": "hidden", "value": "spring"},
    ],
    "consents": [{"id": "news", "purpose": "newsletter", "text": {"en": "Send me news.", "de": "Schickt mir Neues."}}],
}


class Forms:
    """Capture with a clock, and somebody who fills in forms by hand, without a script."""

    def __init__(self, capture: Capture, clock: FrozenClock) -> None:
        self.capture = capture
        self.clock = clock
        self.client = capture.harness.client

    async def made(self, **changes: Any) -> str:
        answer = await self.capture.post("forms", {**FORM, **changes})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["form_id"])

    async def opened(self, form_id: str, query: str = "", **headers: str) -> dict[str, str]:
        """What a form carries, as its page has it; read for ten seconds."""
        page = await self.client.get(f"/f/{form_id}{query}", headers={"accept": "text/html", **headers})
        assert page.status_code == 200, page.text
        self.clock.move(timedelta(seconds=10))
        return carried(page.text)

    async def sent(self, form_id: str, fields: dict[str, Any], **headers: str) -> httpx.Response:
        return await self.client.post(f"/f/{form_id}", data=fields, headers={"accept": "text/html", **headers})

    async def filled(self, form_id: str, **fields: Any) -> httpx.Response:
        """A form opened, filled in and sent."""
        return await self.sent(form_id, {**await self.opened(form_id), **fields})

    async def lead(self, email: str = ANN) -> dict[str, Any] | None:
        items = (await self.capture.get("leads", email=email)).json()["items"]
        return dict(items[0]) if items else None

    async def submissions(self, form_id: str, **params: str) -> list[dict[str, Any]]:
        answer = await self.capture.get(f"forms/{form_id}/submissions", **params)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])


def carried(page: str) -> dict[str, str]:
    """The hidden fields of a page."""
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
    return {name: unescape(value) for name, value in found}


def proof_for(token: str, bits: int = 13) -> str:
    """The work that a script would do."""
    for number in count():
        digest = hashlib.sha256(f"{token}:{number}".encode()).digest()
        if int.from_bytes(digest, "big") >> (256 - bits) == 0:
            return str(number)
    raise AssertionError("numbers do not end")


class Line:
    """The way to PostgreSQL, which can be cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []
        self.cut = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.close()
            return
        to_server = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, to_server[1]]
        await asyncio.gather(self._pass_on(reader, to_server[1]), self._pass_on(to_server[0], writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    def hang_up(self) -> None:
        """Cut the line, and everything that runs over it."""
        self.cut = True
        for writer in self._writers:
            writer.transport.abort()
