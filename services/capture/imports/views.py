"""Imports as the API shows them, and their bad rows as files."""

import csv
import io
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson

from services.capture.exports.cells import harmless
from services.capture.imports import queries
from services.capture.imports.columns import MARKS
from services.capture.imports.inputs import ImportOut
from services.capture.imports.queries import Import
from shared.service import Runtime

PACKS_AT_ONCE = 20


def import_out(job: Import, public_url: str) -> ImportOut:
    """An import, with what is known of the rows that are left."""
    total = _rows_total(job)
    going = job.state in ("queued", "running")
    left = max((total or 0) - job.rows_done, 0) if total is not None else None
    seconds_left = round(left / job.rate, 1) if going and job.rate and left is not None else None
    address = f"{public_url.rstrip('/')}/capture/v1/imports/{job.import_id}"
    return ImportOut(
        import_id=job.import_id,
        name=job.name,
        kind=job.kind,
        format=job.format,
        source=job.source,
        dry_run=job.dry_run,
        state=job.state,
        reason=job.reason,
        mapping=job.mapping,
        defaults=job.defaults,
        delimiter=job.delimiter,
        encoding=job.encoding,
        columns=list(job.columns),
        file_url=f"{address}/file",
        errors_url=f"{address}/errors",
        file_bytes=job.file_bytes,
        file_sha256=job.file_sha256,
        rows_total=total,
        rows_done=job.rows_done,
        created=job.created,
        updated=job.updated,
        unchanged=job.unchanged,
        failed=job.failed,
        rows_per_second=_rows_per_second(job),
        seconds_left=seconds_left,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _rows_total(job: Import) -> int | None:
    """How many rows there are: by the lines of the file, and once some are done by how long those were."""
    if job.state == "done":
        return job.rows_done
    if job.file_bytes is None or job.file_lines is None:
        return None
    if job.rows_done and job.position:
        return max(job.rows_done, round(job.rows_done * job.file_bytes / job.position))
    return max(job.file_lines - (job.format == "csv"), 0)


def _rows_per_second(job: Import) -> float | None:
    if job.finished_at is not None and job.started_at is not None:
        seconds = (job.finished_at - job.started_at).total_seconds()
        return round(job.rows_done / seconds, 1) if seconds > 0 else None
    return round(job.rate, 1) if job.rate else None


async def bad_rows(job: Import, runtime: Runtime) -> AsyncIterator[bytes]:
    """The bad rows of an import in its own format, each with its line and the reason, to be corrected."""
    after = 0
    if job.format == "csv":
        yield b"\xef\xbb\xbf" + _csv([[*MARKS, *job.columns]], job.delimiter)
    while True:
        async with runtime.database.reading() as connection:
            packs = await connection.fetch(queries.BAD, job.import_id, after, PACKS_AT_ONCE)
        for pack in packs:
            after = pack["line"]
            content = zlib.decompress(runtime.keys.open_bytes(pack["sealed"], f"{job.import_id}/{after}"))
            rows: list[tuple[int, str, Any]] = orjson.loads(content)
            if job.format == "csv":
                yield _csv([[str(line), reason, *_cells(values)] for line, reason, values in rows], job.delimiter)
            else:
                yield b"".join(orjson.dumps(_object(*row)) + b"\n" for row in rows)
        if len(packs) < PACKS_AT_ONCE:
            return


def _cells(values: Any) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


def _object(line: int, reason: str, values: Any) -> Mapping[str, Any]:
    content = values if isinstance(values, dict) else {"text": values}
    return {**dict(zip(MARKS, (line, reason), strict=True)), **content}


def _csv(rows: Sequence[Sequence[str]], delimiter: str | None) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter or ",")
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return out.getvalue().encode()
