"""`throughline export`: what a running system knows, as a file."""

import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from throughline.errors import CommandFailed
from throughline.imports import Format
from throughline.options import DEFAULT_DATA_DIR, DataDir
from throughline.remote import Token, Url, connected, said


class Exported(StrEnum):
    """What can be exported."""

    leads = "leads"
    consent = "consent"
    deliveries = "deliveries"


def export(  # noqa: PLR0913  # the options
    kind: Annotated[Exported, typer.Argument(help="What to export.")] = Exported.leads,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.csv,
    output: Annotated[Path | None, typer.Option(help="Where to; by default the standard output.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what changed at or after this time, as 2026-11-01T00:00Z.")
    ] = None,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write everything of a kind as it stands now: merged leads once, erased ones not."""
    params = {"format": form.value, **({"since": since} if since else {})}
    with ExitStack() as stack:
        client = stack.enter_context(connected(url, token, data_dir))
        answer = stack.enter_context(client.stream("GET", f"exports/{kind.value}", params=params))
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
