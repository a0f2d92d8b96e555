"""`throughline import`: a file to a running system, with its progress."""

import json
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from throughline.errors import FAILED, FOUND, CommandFailed
from throughline.options import DEFAULT_DATA_DIR, AsJson, DataDir
from throughline.remote import Token, Url, answered, connected

if TYPE_CHECKING:
    import httpx
    from rich.progress import Progress

PIECE = 1 << 18
EVERY_S = 0.5
PATIENCE_S = 60.0
OVER = ("done", "cancelled", "failed")


class Kind(StrEnum):
    """What the rows of a file are."""

    leads = "leads"
    touches = "touches"
    conversions = "conversions"
    costs = "costs"


class Format(StrEnum):
    """How a file is written."""

    csv = "csv"
    ndjson = "ndjson"


def import_file(  # noqa: PLR0913  # the options
    file: Annotated[Path, typer.Argument(help="A CSV or NDJSON file, also with .gz; - is the standard input.")],
    kind: Annotated[Kind, typer.Option(help="What its rows are.")] = Kind.leads,
    form: Annotated[Format | None, typer.Option("--format", help="By default that of the file's name.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="A JSON file: where fields stand, and defaults.")] = None,
    source: Annotated[str, typer.Option(help="Whose external ids are meant.")] = "api",
    delimiter: Annotated[str | None, typer.Option(help="By default it is found out.")] = None,
    encoding: Annotated[str | None, typer.Option(help="By default it is found out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything, and take it back.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show what the first rows would make, and stop.")] = False,
    errors: Annotated[Path | None, typer.Option(help="Where to write the bad rows.")] = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Import a file. Ends with status 2 where some of its rows were bad."""
    asked: dict[str, Any] = {
        "name": file.name[:200],
        "kind": kind.value,
        "format": (form or _format_of(file)).value,
        "source": source,
        "delimiter": delimiter,
        "encoding": encoding,
        "dry_run": dry_run,
        **_mapping_in(mapping),
    }
    with connected(url, token, data_dir) as client, _progress() as progress:
        job = answered(client.post("imports", json=asked))
        try:
            _send(file, job, client, progress)
        except CommandFailed:
            client.post(f"imports/{job['import_id']}:cancel")  # nobody would send it any more
            raise
        if preview:
            print(json.dumps(answered(client.get(f"imports/{job['import_id']}:preview")), ensure_ascii=False, indent=2))
            answered(client.post(f"imports/{job['import_id']}:cancel"))
            return 0
        started = client.post(f"imports/{job['import_id']}:start")
        if not started.is_success:
            client.post(f"imports/{job['import_id']}:cancel")  # nobody would start it any more
        answered(started)
        job = _watch(job, client, progress)
        if errors is not None and job["failed"]:
            _download(f"imports/{job['import_id']}/errors", errors, client)
    print(json.dumps(job, indent=2) if as_json else _summary(job, errors))
    if job["state"] != "done":
        return FAILED
    return FOUND if job["failed"] else 0


def _format_of(file: Path) -> Format:
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    return Format.ndjson if suffixes and suffixes[-1] in (".ndjson", ".jsonl", ".jsonlines") else Format.csv


def _mapping_in(file: Path | None) -> dict[str, Any]:
    """What a mapping file says: the mapping itself, or an object with `mapping` and `defaults`."""
    if file is None:
        return {}
    try:
        content = json.loads(file.read_bytes())
    except OSError as exc:
        raise CommandFailed(f"{file} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise CommandFailed(f"{file} is not JSON: {exc}.") from exc
    if not isinstance(content, dict):
        raise CommandFailed(f"{file} is not a JSON object of fields and where they stand.")
    if content.keys() <= {"mapping", "defaults"}:
        return content
    return {"mapping": content}


def _send(file: Path, job: Any, client: "httpx.Client", progress: "Progress") -> None:
    headers = {"content-encoding": "gzip"} if file.suffix.lower() == ".gz" else {}
    path = f"imports/{job['import_id']}/file"
    try:
        if str(file) == "-":
            answered(client.put(path, content=_pieces(sys.stdin.buffer, None, progress), headers=headers))
            return
        with file.open("rb") as opened:
            pieces = _pieces(opened, file.stat().st_size, progress)
            answered(client.put(path, content=pieces, headers=headers))
    except OSError as exc:
        raise CommandFailed(f"{file} cannot be read: {exc.strerror}.") from exc


def _pieces(opened: BinaryIO, size: int | None, progress: "Progress") -> Iterator[bytes]:
    task = progress.add_task("sending", total=size, unit="bytes")
    while piece := opened.read(PIECE):
        yield piece
        progress.update(task, advance=len(piece))
    progress.remove_task(task)


def _watch(job: Any, client: "httpx.Client", progress: "Progress") -> Any:
    """Show how far the import is until it is over; a system that restarts is waited for."""
    import httpx

    task = progress.add_task("importing", total=job.get("rows_total"), unit="rows")
    heard = time.monotonic()
    while True:
        try:
            answer = client.get(f"imports/{job['import_id']}")
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                job, heard = answered(answer), time.monotonic()
        except httpx.TransportError:
            if time.monotonic() - heard > PATIENCE_S:
                raise
        progress.update(task, total=job["rows_total"], completed=job["rows_done"])
        if job["state"] in OVER:
            return job
        if time.monotonic() - heard > PATIENCE_S:
            raise CommandFailed(f"The system does not say how far import {job['import_id']} is; it goes on there.")
        time.sleep(EVERY_S)


def _download(path: str, to: Path, client: "httpx.Client") -> None:
    try:
        with client.stream("GET", path) as answer, to.open("wb") as opened:
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                opened.write(piece)
    except OSError as exc:
        raise CommandFailed(f"{to} cannot be written: {exc.strerror}.") from exc


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second."""

        def render(self, task: Any) -> Text:
            rate = task.finished_speed or task.speed
            return Text(f"{rate:,.0f} {task.fields['unit']}/s" if rate else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _summary(job: Any, errors: Path | None) -> str:
    counts = ", ".join(f"{job[name]:,} {name}" for name in ("created", "updated", "unchanged", "failed"))
    told = f"{job['kind']}: {counts}" + (" (dry run: nothing was kept)" if job["dry_run"] else "")
    if job["state"] != "done":
        return f"{told}; the import is {job['state']}" + (f": {job['reason']}" if job["reason"] else "")
    if job["failed"]:
        told += (
            f"; the bad rows are in {errors}" if errors else f"; the bad rows: --errors FILE, or {job['errors_url']}"
        )
    return told
