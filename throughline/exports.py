"""`throughline export`: what a running system knows, as a file, or as a folder of parts that can be gone on with."""

import json
import sys
import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from throughline.errors import BadSettings, CommandFailed
from throughline.options import DEFAULT_DATA_DIR, DataDir
from throughline.remote import Token, Url, answered, connected, said

if TYPE_CHECKING:
    import httpx

EVERY_S = 0.5
PATIENCE_S = 60.0
JOB_FILE = "export.json"


class Exported(StrEnum):
    """What can be exported."""

    leads = "leads"
    consent = "consent"
    deliveries = "deliveries"
    journeys = "journeys"
    conversions = "conversions"
    credits = "credits"


class Format(StrEnum):
    """How it is written."""

    csv = "csv"
    ndjson = "ndjson"
    parquet = "parquet"


OF_ATTRIBUTION = (Exported.journeys, Exported.conversions, Exported.credits)


def export(  # noqa: PLR0913  # the options
    kind: Annotated[Exported, typer.Argument(help="What to export.")] = Exported.leads,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="csv or ndjson; of journeys, conversions and credits ndjson or parquet."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where to; by default the standard output.")] = None,
    parts: Annotated[
        Path | None,
        typer.Option(help="A folder for parts, in place of one file; the same command again goes on where it ended."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what changed or occurred at or after this time, as 2026-11-01T00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only what occurred before this time.")] = None,
    model: Annotated[str | None, typer.Option(help="Of credits: by this model only.")] = None,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write everything of a kind as it stands now: merged leads once, erased ones not."""
    of_attribution = kind in OF_ATTRIBUTION
    form = form or (Format.ndjson if of_attribution else Format.csv)
    if not of_attribution and (until or model or parts):
        raise BadSettings("--until, --model and --parts are for journeys, conversions and credits.")
    if parts is not None and output is not None:
        raise BadSettings("Take --output for one file, or --parts for a folder, not both.")
    named = {"format": form.value, "from" if of_attribution else "since": since, "to": until, "model": model}
    wanted = {name: value for name, value in named.items() if value is not None}
    with connected(url, token, data_dir, "attribution" if of_attribution else "capture") as client:
        if parts is not None:
            _fetch_parts({"kind": kind.value, **wanted}, parts, client)
        else:
            _fetch_file(f"exports/{kind.value}", wanted, output, client)


def _fetch_file(path: str, params: dict[str, str], output: Path | None, client: "httpx.Client") -> None:
    with ExitStack() as stack:
        answer = stack.enter_context(client.stream("GET", path, params=params))
        if not answer.is_success:
            answer.read()
            raise CommandFailed(said(answer))
        try:
            to = stack.enter_context(output.open("wb")) if output else sys.stdout.buffer
            for piece in answer.iter_bytes():
                to.write(piece)
            to.flush()
        except BrokenPipeError:
            return  # whoever read it has seen enough
        except OSError as exc:
            raise CommandFailed(f"{output} cannot be written: {exc.strerror}.") from exc


def _fetch_parts(wanted: dict[str, str], folder: Path, client: "httpx.Client") -> None:
    """Fetch the parts of an export as they are written; those that are in the folder already are not fetched again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        job = _job(wanted, folder, client)
        number, heard = 1, time.monotonic()
        while True:
            while number <= job["parts"]:
                _fetch_part(job, number, folder, client)
                number += 1
                heard = time.monotonic()
            if job["state"] == "failed":
                raise CommandFailed("The export could not be written; the worker's log says why.")
            if job["state"] == "done":
                break
            if time.monotonic() - heard > PATIENCE_S:
                raise CommandFailed("The system has written nothing for a while; the same command goes on later.")
            time.sleep(EVERY_S)
            job = answered(client.get(f"exports/{job['export_id']}"))
    except OSError as exc:
        raise CommandFailed(f"{folder} cannot be written: {exc.strerror}.") from exc
    print(f"{job['parts']} parts in {folder}")


def _job(wanted: dict[str, str], folder: Path, client: "httpx.Client") -> Any:
    """The export that the folder is for, made if there is none."""
    file = folder / JOB_FILE
    if not file.exists():
        job = answered(client.post("exports", json=wanted))
        file.write_text(json.dumps({"export_id": job["export_id"], "wanted": wanted}))
        return job
    begun = json.loads(file.read_bytes())
    if begun.get("wanted") != wanted:
        raise CommandFailed(f"{folder} holds another export; take another folder, or empty it.")
    return answered(client.get(f"exports/{begun['export_id']}"))


def _fetch_part(job: Any, number: int, folder: Path, client: "httpx.Client") -> None:
    name = f"{job['kind']}-{number:05}.{'ndjson.gz' if job['format'] == 'ndjson' else job['format']}"
    if (folder / name).exists():
        return
    with client.stream("GET", f"exports/{job['export_id']}/parts/{number}") as answer:
        if not answer.is_success:
            answer.read()
            raise CommandFailed(said(answer))
        unfinished = folder / f"{name}.unfinished"
        with unfinished.open("wb") as opened:
            for piece in answer.iter_raw():
                opened.write(piece)
        unfinished.rename(folder / name)
