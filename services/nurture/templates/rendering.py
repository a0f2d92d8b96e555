"""The way to the renderer: a process of its own, ended when it takes too long and started again when needed."""

import asyncio
import os
import secrets
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import orjson

from services.nurture.sequences.document import Template

SCRIPT = Path(__file__).with_name("renderer.py")
ANSWER_LIMIT = 8 * 1024 * 1024
_ENVIRONMENT = {"HOME": os.devnull, "TMPDIR": os.devnull, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}


class CannotRender(Exception):
    """This template cannot be filled with these values; trying again gives the same."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message's words. In `html` the n-th of `links` stands as `<marker><n>.`."""

    subject: str
    text: str
    html: str
    links: tuple[str, ...]
    marker: str


class Renderer:
    """Fills templates, one at a time, in a process without our memory, environment or files."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._process: Popen[bytes] | None = None
        self._turn = asyncio.Lock()

    async def render(self, template: Template, context: Mapping[str, Any], *, footer: bool) -> Rendered:
        """Fill a template; `footer` adds a way to unsubscribe where it has none. Raises CannotRender."""
        marker = f"link-{secrets.token_hex(16)}-"
        request = {
            "subject": template.subject,
            "html": template.html,
            "text": template.text,
            "context": context,
            "marker": marker,
            "footer": footer,
        }
        async with self._turn:
            answer = await self._answer(orjson.dumps(request))
        if "fault" in answer:
            raise CannotRender(answer["fault"])
        return Rendered(answer["subject"], answer["text"], answer["html"], tuple(answer["links"]), marker)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
        self._process = None

    async def _answer(self, request: bytes) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await asyncio.to_thread(_exchange, self._running(), request)
        except TimeoutError:
            self.close()
            raise CannotRender("rendering took too long") from None
        except BaseException:
            self.close()  # its answer would be taken for the next request's
            raise
        if not line.endswith(b"\n"):
            self.close()
            raise CannotRender("the renderer ended: too much time, memory or text")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def _running(self) -> "Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self.close()
            command = [sys.executable, "-I", str(SCRIPT)]
            self._process = Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_ENVIRONMENT)
            weakref.finalize(self, _end, self._process)
        return self._process


def _exchange(process: "Popen[bytes]", request: bytes) -> bytes:
    """Send a line, await a line; what is short of a line means that the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request + b"\n")
        process.stdin.flush()
        return process.stdout.readline(ANSWER_LIMIT)
    except (BrokenPipeError, ValueError):
        return b""


def _end(process: "Popen[bytes]") -> None:
    """Kill a process and reap it; closing its pipes wakes whoever reads from it."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError, ValueError):
                pipe.close()
