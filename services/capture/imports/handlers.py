"""An import from its making to its end, but for the rows: those are the worker's."""

import hashlib
from dataclasses import replace
from typing import Any

import orjson

from services.capture.errors import ImportNotOpen, NoSuchImport
from services.capture.imports import queries
from services.capture.imports.columns import guessed_mapping, says_who
from services.capture.imports.domain import BadRow, RowMapping, missing_columns, settings_faults
from services.capture.imports.files import StoredFile, piece_at
from services.capture.imports.inputs import ImportInput, ImportPatch, ImportPreview, PreviewedRow
from services.capture.imports.queries import Import, State
from services.capture.imports.rows import Row, Shape, shape_of
from services.capture.imports.telling import Outcome, Teller
from shared.db import Connection, Tx
from shared.errors import FieldError, Invalid
from shared.ids import new_id
from shared.service import Runtime

PREVIEWED = 10
OPEN: tuple[State, ...] = ("waiting", "ready")
OVER: tuple[State, ...] = ("done", "cancelled", "failed")


class _TakenBack(Exception):
    """A preview ends so."""


async def add_import(asked: ImportInput, actor: str, tx: Tx) -> Import:
    """Make an import that waits for its file. Raises Invalid."""
    if faults := settings_faults(asked.kind, asked.mapping, asked.defaults):
        raise Invalid("look at the mapping or the defaults", faults[:100])
    import_id = new_id()
    await tx.connection.execute(
        queries.ADD,
        import_id,
        asked.name or f"{asked.kind} {import_id[:8]}",
        asked.kind,
        asked.format,
        asked.source,
        asked.mapping,
        asked.defaults,
        asked.delimiter,
        asked.encoding,
        asked.dry_run,
        actor,
    )
    return await found_import(tx.connection, import_id)


async def found_import(connection: Connection, import_id: str, *, lock: bool = False) -> Import:
    """An import. Raises NoSuchImport."""
    job = await queries.import_of(connection, import_id, lock=lock)
    if job is None:
        raise NoSuchImport(f"there is no import {import_id[:40]!r}")
    return job


async def set_file(import_id: str, file: StoredFile, tx: Tx) -> Import:
    """Give an import its file, in place of the one it had."""
    job = await _open_import(import_id, tx)
    shape = _shape_in(job, file.sample, file.size)
    await tx.connection.execute(
        queries.SET_FILE, job.import_id, file.file_id, file.size, file.lines, file.sha256, list(shape.columns)
    )
    if job.file_id is not None:
        await tx.connection.execute(queries.DROP_FILE, job.file_id)
    return await found_import(tx.connection, job.import_id)


async def change_import(import_id: str, asked: ImportPatch, tx: Tx) -> Import:
    """Change how the file of an import is read, before it starts."""
    job = await _open_import(import_id, tx)
    changed = asked.model_fields_set
    mapping = asked.mapping if "mapping" in changed else job.mapping
    defaults = asked.defaults if asked.defaults is not None else job.defaults
    if faults := settings_faults(job.kind, mapping, defaults):
        raise Invalid("look at the mapping or the defaults", faults[:100])
    await tx.connection.execute(
        queries.CHANGE,
        job.import_id,
        asked.name or job.name,
        asked.source or job.source,
        mapping,
        defaults,
        asked.delimiter if "delimiter" in changed else job.delimiter,
        asked.encoding if "encoding" in changed else job.encoding,
    )
    return await found_import(tx.connection, job.import_id)


async def start_import(import_id: str, dry_run: bool | None, actor: str, tx: Tx, runtime: Runtime) -> Import:
    """Queue an import for the worker. Raises Invalid when its rows could not be about anything."""
    job = await _open_import(import_id, tx)
    if job.state != "ready":
        raise ImportNotOpen("the import has no file yet; PUT one to its file_url")
    shape = _shape_in(job, await piece_at(job, 0, runtime), job.file_bytes or 0)
    mapping = _mapping_of(job, shape)
    if faults := _faults_of(job, shape, mapping):
        raise Invalid("; ".join(fault.detail for fault in faults[:3]), faults[:100])
    dry = job.dry_run if dry_run is None else dry_run
    await tx.connection.execute(
        queries.QUEUE,
        job.import_id,
        dry,
        mapping,
        list(shape.columns),
        shape.delimiter or None,
        shape.encoding,
        shape.begin.position,
        shape.begin.line,
        _content_of(job, shape, mapping),
        runtime.clock.now(),
    )
    detail = {"kind": job.kind, "dry_run": dry, "sha256": job.file_sha256}
    await tx.connection.execute(queries.AUDIT, actor, "import.started", job.import_id, detail)
    return await found_import(tx.connection, job.import_id)


async def cancel_import(import_id: str, actor: str, tx: Tx) -> Import:
    """End an import where it is. What its rows told stays; it is over already: nothing happens."""
    job = await found_import(tx.connection, import_id, lock=True)
    if job.state not in OVER:
        await queries.end(tx.connection, job.import_id, "cancelled")
        await tx.connection.execute(queries.AUDIT, actor, "import.cancelled", job.import_id, {})
    return await found_import(tx.connection, job.import_id)


async def preview_import(import_id: str, runtime: Runtime) -> ImportPreview:
    """How the file is read, and what its first rows would make: they are carried out and taken back."""
    async with runtime.database.reading() as connection:
        job = await found_import(connection, import_id)
    if job.file_id is None:
        raise ImportNotOpen("the import has no file; PUT one to its file_url while it waits")
    sample = await piece_at(job, 0, runtime)
    shape = _shape_in(job, sample, job.file_bytes or 0)
    mapping = _mapping_of(job, shape)
    reader = shape.reader(job.format)
    rows: list[Row] = []
    for row in reader.feed(sample[shape.begin.position :], last=len(sample) == job.file_bytes):
        rows.append(row)
        if len(rows) == PREVIEWED:
            break
    read = replace(job, columns=shape.columns, mapping=mapping)
    outcomes = await _tried(read, rows, runtime)
    used = {place for place in mapping.values() if isinstance(place, str)}
    in_expressions = " ".join(str(place) for place in mapping.values() if not isinstance(place, str))
    return ImportPreview(
        columns=list(shape.columns),
        delimiter=shape.delimiter or None,
        encoding=shape.encoding,
        mapping=mapping,
        guessed=job.mapping is None,
        ignored=[column for column in shape.columns if column not in used and column not in in_expressions],
        problems=[fault.detail for fault in _faults_of(job, shape, mapping)],
        rows=[_previewed(read, row, outcome) for row, outcome in zip(rows, outcomes, strict=True)],
    )


async def _tried(job: Import, rows: list[Row], runtime: Runtime) -> list[Outcome]:
    outcomes: list[Outcome] = []
    try:
        async with runtime.database.transaction() as tx:
            teller = Teller(job, job.told_at or runtime.clock.now(), runtime)
            outcomes = await teller.tell([teller.read(row) for row in rows], tx)
            raise _TakenBack
    except _TakenBack:
        return outcomes


def _previewed(job: Import, row: Row, outcome: Outcome) -> PreviewedRow:
    mapping = RowMapping(job.kind, job.columns, job.mapping or {}, job.defaults, job.source)
    try:
        body: dict[str, Any] | None = dict(mapping.told_by(row).body)
    except BadRow:
        body = None
    shown = {"text": row.text} if row.fault else dict(mapping.cells(row))
    return PreviewedRow(line=row.line, row=shown, body=body, outcome=outcome.state, reason=outcome.reason)  # type: ignore[arg-type]  # one of them


async def _open_import(import_id: str, tx: Tx) -> Import:
    return open_to_change(await found_import(tx.connection, import_id, lock=True))


def open_to_change(job: Import) -> Import:
    """The import, if it was not started yet. Raises ImportNotOpen."""
    if job.state not in OPEN:
        raise ImportNotOpen(f"the import is {job.state}; make another one")
    return job


def _shape_in(job: Import, sample: bytes, size: int) -> Shape:
    encoding = job.encoding
    if encoding is not None and encoding.startswith(("utf-16", "utf-32")):
        encoding = "utf-8"  # so it is kept
    whole = len(sample) >= size
    return shape_of(job.format, sample, whole=whole, delimiter=job.delimiter, encoding=encoding)


def _mapping_of(job: Import, shape: Shape) -> dict[str, Any]:
    return job.mapping if job.mapping is not None else dict(guessed_mapping(job.kind, shape.columns))


def _faults_of(job: Import, shape: Shape, mapping: dict[str, Any]) -> list[FieldError]:
    faults = settings_faults(job.kind, mapping, job.defaults)
    if job.format == "csv":
        if not shape.columns:
            return [*faults, FieldError("/file", "the file has no first line with the titles of columns")]
        faults += missing_columns(mapping, shape.columns)
    if not says_who(job.kind, [*mapping, *job.defaults]):
        offered = ", ".join(shape.columns[:30])
        detail = f"no field says whom or what a row is about; map one. The file has {offered or 'no columns'}"
        faults.append(FieldError("/mapping", detail))
    return faults


def _content_of(job: Import, shape: Shape, mapping: dict[str, Any]) -> str:
    """What makes two imports the same: the bytes, and how they are read."""
    how = [job.file_sha256, job.kind, job.format, job.source, mapping, job.defaults, shape.delimiter, shape.encoding]
    return hashlib.sha256(orjson.dumps(how, option=orjson.OPT_SORT_KEYS)).hexdigest()
