"""A running system, as commands talk to it over its API: given by address and token, else the one of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.embedded.folder import DataFolder
from throughline.errors import BadSettings, CommandFailed
from throughline.settings import load_secret

if TYPE_CHECKING:
    import httpx

TOKEN_FOR = timedelta(hours=12)
TIMEOUT_S = 60.0

Url = Annotated[
    str | None,
    typer.Option(envvar="THROUGHLINE_PUBLIC_URL", help="The system's address; else the stack of this machine."),
]
Token = Annotated[
    str | None,
    typer.Option(envvar="THROUGHLINE_TOKEN", help="A token for what is asked; else one is made with its secret."),
]


@contextmanager
def connected(url: str | None, token: str | None, data_dir: Path, service: str = "capture") -> Iterator["httpx.Client"]:
    """A client of one service of the system; what goes wrong on the way is said in a sentence."""
    import httpx

    from shared.secrets import Secrets
    from shared.web import create_token

    if url is None:
        beside = DataFolder(data_dir).read_settings()
        url = beside.get("THROUGHLINE_PUBLIC_URL") if beside else None
    if url is None:
        raise BadSettings(f"No stack runs on {data_dir}; name a system with --url, or its folder with --data-dir.")
    if token is None:
        secrets = Secrets(load_secret(data_dir))
        token = create_token(secrets, [f"{service}:read", f"{service}:write"], TOKEN_FOR, datetime.now(UTC), "cli")
    headers = {"authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=f"{url.rstrip('/')}/{service}/v1/", headers=headers, timeout=TIMEOUT_S) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise CommandFailed(f"{url} did not answer: {type(exc).__name__}.") from exc


def answered(answer: "httpx.Response") -> Any:
    """What an answer holds. Raises CommandFailed with what the system says instead."""
    if answer.is_success:
        return answer.json()
    raise CommandFailed(said(answer))


def said(answer: "httpx.Response") -> str:
    """A problem in a sentence."""
    try:
        problem = answer.json()
        faults = "; ".join(f"{fault['pointer']} {fault['detail']}" for fault in problem.get("errors", ())[:5])
        return f"{problem['title']}: {problem['detail']}" + (f" ({faults})" if faults else "")
    except (ValueError, KeyError, TypeError):
        return f"The system answered {answer.status_code}."
