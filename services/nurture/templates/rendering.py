"""The way to the renderer: a process of its own, ended when it takes too long and started again when needed."""

import asyncio
import os
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from services.nurture.sequences.document import Template

SCRIPT = Path(__file__).with_name("renderer.py")
ANSWER_LIMIT = 8 * 1024 * 1024
_ENVIRONMENT = {name: os.devnull for name in ("HOME", "TMPDIR")} | {"PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}


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
        self._process: Process | None = None
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

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _answer(self, request: bytes) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                process = await self._running()
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(request + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readuntil(b"\n")
        except TimeoutError:
            await self.close()
            raise CannotRender("rendering took too long") from None
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as exc:
            await self.close()
            raise CannotRender("the renderer ended: too much time, memory or text") from exc
        except BaseException:
            await self.close()  # its answer would be taken for the next request's
            raise
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(SCRIPT),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env=_ENVIRONMENT,
                limit=ANSWER_LIMIT,
            )
        return self._process
