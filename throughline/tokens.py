"""`throughline tokens`: access for people and programs."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from throughline.errors import BadSettings
from throughline.options import DEFAULT_DATA_DIR, DataDir
from throughline.settings import load_secret

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span(text: str) -> timedelta:
    """A length of time such as 90d, 12h, 30m or 45s."""
    found = re.fullmatch(r"([1-9]\d{0,5})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no length of time; write 90d, 12h, 30m or 45s")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def create(
    scope: Annotated[
        list[str],
        typer.Option(help="<service>:read, :write or :admin; may be given several times."),
    ],
    expires: Annotated[
        timedelta,
        typer.Option(parser=span, metavar="SPAN", help="How long it is good for."),
    ] = "90d",  # type: ignore[assignment]  # parsed
    subject: Annotated[str, typer.Option(help="Who it is for, as the audit log will say.")] = "cli",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print a token, and nothing else."""
    from shared.secrets import Secrets
    from shared.web import create_token

    try:
        secrets = Secrets(load_secret(data_dir))
    except ValueError as exc:
        raise BadSettings("THROUGHLINE_SECRET is not hexadecimal.") from exc
    try:
        print(create_token(secrets, scope, expires, datetime.now(UTC), subject))
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--scope") from exc
