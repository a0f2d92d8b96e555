"""Capture, and files for it: what the tests of imports tell stories with."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from services.capture.imports.carrying import Imports
from tests.service.capture_world import Capture

LOG = "SELECT event_id, type, key FROM event_log ORDER BY log, position"


class Importing(Capture):
    """Capture, and files for it."""

    async def send(self, rows: bytes, form: str = "csv", **said: Any) -> dict[str, Any]:  # type: ignore[override]  # files, not deliveries
        """A file as the body; answers the import as it is afterwards."""
        response = await self.post_file(rows, form, **said)
        assert response.status_code == 201, response.text
        await self.work()
        return await self.job(response.json()["import_id"])

    async def post_file(self, rows: bytes, form: str = "csv", **said: Any) -> Any:
        kind = "text/csv" if form == "csv" else "application/x-ndjson"
        headers = {"content-type": kind, **said.pop("headers", {})}
        params = {
            name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in said.items()
        }
        return await self.harness.client.post("/v1/imports", content=rows, params=params, headers=headers)

    async def work(self) -> None:
        """Let the worker do what is queued."""
        assert await Imports(self.harness.consumer_runtime).run() is None

    async def job(self, import_id: str) -> dict[str, Any]:
        return dict((await self.get(f"imports/{import_id}")).json())

    async def made(self, **fields: Any) -> dict[str, Any]:
        """An import that waits for its file."""
        response = await self.post("imports", fields)
        assert response.status_code == 201, response.text
        assert response.json()["state"] == "waiting"
        return dict(response.json())

    async def put(self, job: dict[str, Any], content: Any, **headers: str) -> Any:
        return await self.harness.client.put(f"/v1/imports/{job['import_id']}/file", content=content, headers=headers)

    async def errors(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.get(f"imports/{job['import_id']}/errors")
        if job["format"] == "ndjson":
            return [orjson.loads(line) for line in answer.content.splitlines()]
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        text = answer.content.decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=job["delimiter"]))

    async def log(self) -> list[dict[str, Any]]:
        return await self.rows(LOG)

    async def by_email(self, email: str) -> dict[str, Any]:
        (found,) = (await self.get("leads", email=email)).json()["items"]
        return dict(found)


def counts(job: dict[str, Any]) -> tuple[int, int, int, int]:
    return job["created"], job["updated"], job["unchanged"], job["failed"]


def table(*rows: Sequence[Any], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode()


def people(number: int) -> Iterable[tuple[str, ...]]:
    yield "email", "first_name", "company"
    for index in range(number):
        yield f"p{index}@example.com", f"P{index}", f"Company {index % 7}"
