"""`throughline tokens`: access for people and programs, and how it is taken back."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from throughline.errors import BadSettings, CommandFailed
from throughline.options import DEFAULT_DATA_DIR, AsJson, DataDir
from throughline.services import SERVICES
from throughline.settings import load_secret
from throughline.tables import AUDIT, MaybeService, list_rows, with_runtime

if TYPE_CHECKING:
    from shared.secrets import Secrets
    from shared.service import Runtime

REVOKE = """
INSERT INTO revoked_tokens (kind, name, issued_before, expires_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind, name) DO UPDATE SET
    issued_before = greatest(revoked_tokens.issued_before, excluded.issued_before),
    expires_at = greatest(revoked_tokens.expires_at, excluded.expires_at)
"""
LIST = """
SELECT kind, name, issued_before::text AS issued_before, revoked_at::text AS revoked_at, expires_at::text AS expires_at
FROM revoked_tokens ORDER BY kind DESC, name
"""
COLUMNS = ("kind", "name", "issued_before", "revoked_at", "expires_at")
LOOKS_ENCODED = "eyJ"
"""How every token begins: `{"`, in Base64."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span(text: str) -> timedelta:
    """A length of time such as 90d, 12h, 30m or 45s."""
    found = re.fullmatch(r"([1-9]\d{0,5})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no length of time; write 90d, 12h, 30m or 45s")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def moment(text: str) -> datetime:
    """A moment with its zone, such as 2026-11-28T12:00:00Z, that has come."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise typer.BadParameter(f"{text!r} is no moment; write its zone too, as in 2026-11-28T12:00:00Z")
    if at > datetime.now(UTC):
        raise typer.BadParameter(f"{text} has not come yet")
    return at


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
    from shared.web import create_token

    secrets = _secrets(data_dir)
    try:
        print(create_token(secrets, scope, expires, datetime.now(UTC), subject))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def revoke(
    token: Annotated[
        str | None, typer.Argument(metavar="[TOKEN]", help="A token, or its id: what `jti` says in it.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Revoke all that were made for this subject.")] = None,
    before: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="MOMENT", help="Only those of the subject made before; now by default."),
    ] = None,
    service: MaybeService = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Take tokens back before they expire: every process refuses them within seconds."""
    if (token is None) == (subject is None) or not (token or subject):
        raise typer.BadParameter("name a token, or a subject with --subject")
    if token is not None and before is not None:
        raise typer.BadParameter("--before goes with --subject")
    kind, name, issued_before, expires_at = _revocation(token, subject, before, data_dir)

    async def work(runtime: "Runtime") -> None:
        detail = {"issued_before": issued_before and issued_before.isoformat(), "expires_at": expires_at.isoformat()}
        async with runtime.database.transaction() as tx:
            await tx.connection.execute(REVOKE, kind, name, issued_before, expires_at)
            await tx.connection.execute(AUDIT, f"{kind}.revoked", name, detail)

    for each in (service,) if service else SERVICES:
        with_runtime(each, data_dir, work)
        print(f"{each}: {kind} {name} is revoked" + (f" before {issued_before}" if issued_before else ""))


def _revocation(
    token: str | None, subject: str | None, before: datetime | None, data_dir: Path
) -> tuple[str, str, datetime | None, datetime]:
    """What is revoked: its kind, its name, before when it was made, and when all of it has expired by itself."""
    from shared.web import LONGEST, read_token

    now = datetime.now(UTC)
    if subject is not None:
        before = before or now
        return "subject", subject, before, before + LONGEST
    given = (token or "").removeprefix("Bearer ").strip()
    if not given.startswith(LOOKS_ENCODED):
        return "token", given, None, now + LONGEST
    try:
        token_id, expires_at = read_token(_secrets(data_dir), given)
    except ValueError as exc:
        raise CommandFailed(f"Nothing was revoked: {exc}; what its subject has can be revoked with --subject.") from exc
    return "token", token_id, None, expires_at or now + LONGEST


def list_revoked(service: MaybeService = None, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List what is revoked and would be good otherwise. Tokens that were made are written down nowhere."""
    list_rows(service, data_dir, COLUMNS, LIST, as_json=as_json)


def _secrets(data_dir: Path) -> "Secrets":
    from shared.secrets import Secrets

    try:
        return Secrets(load_secret(data_dir))
    except ValueError as exc:
        raise BadSettings("THROUGHLINE_SECRET is not hexadecimal.") from exc
