"""`throughline hooks`: recorded webhook requests, judged without a database or sent to a running system."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from throughline.errors import FAILED, FOUND, CommandFailed

Files = Annotated[list[Path], typer.Argument(help="Recorded requests, one JSON object a file.")]
TIMEOUT_S = 10.0


def check(files: Files) -> int:
    """Verify and map recorded requests, and print what would be answered and told: a JSON line for each."""
    from services.capture.hooks.checking import check as judge
    from services.capture.hooks.checking import recorded
    from shared.errors import Rejected

    status = 0
    for file in files:
        try:
            said = judge(recorded(_read(file)))
        except CommandFailed as exc:
            said = {"error": str(exc)}
        except Rejected as exc:
            said = {"error": "; ".join(f"{fault.pointer}: {fault.detail}" for fault in exc.errors) or exc.detail}
        print(json.dumps({"file": str(file), **said}, ensure_ascii=False))
        if "error" in said:
            status = FAILED
    return status


def replay(
    file: Annotated[Path, typer.Argument(help="A recorded request.")],
    to: Annotated[str, typer.Option(help="The address of the source's hook in a running system.")],
) -> int:
    """Send a recorded request, headers and body as they came, to a source of a running system.

    A signature that holds a time is refused when that is more than a few minutes ago, as it should be.
    """
    import httpx

    content = _read(file)
    query = content.url.partition("?")[2]
    headers = list(content.headers.items() if isinstance(content.headers, dict) else content.headers)
    kept = [(name, value) for name, value in headers if name.lower() not in ("host", "content-length")]
    address = f"{to}?{query}" if query else to
    try:
        answer = httpx.request(content.method, address, headers=kept, content=content.body.encode(), timeout=TIMEOUT_S)
    except httpx.HTTPError as exc:
        raise CommandFailed(f"{to} did not answer: {type(exc).__name__}") from exc
    print(json.dumps({"file": str(file), "status": answer.status_code, "answer": answer.text}, ensure_ascii=False))
    return 0 if answer.is_success else FOUND


def _read(file: Path) -> Any:
    from pydantic import ValidationError

    from services.capture.hooks.checking import RecordedRequest

    try:
        return RecordedRequest.model_validate_json(file.read_bytes())
    except OSError as exc:
        raise CommandFailed(f"{file} cannot be read: {exc.strerror}") from exc
    except ValidationError as exc:
        place = exc.errors()[0]
        where = "/".join(str(part) for part in place["loc"])
        raise CommandFailed(f"{file} is not a recorded request: {where or 'the file'}: {place['msg']}") from exc
