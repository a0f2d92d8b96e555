"""The way to the renderer: processes of their own, ended when they take too long and started again when needed."""

import asyncio
import os
import secrets
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import orjson

from services.nurture.templates.document import Template, Utm, Words, in_language
from services.nurture.templates.languages import language_of
from shared.errors import Unavailable

ROOT = Path(__file__).parents[3]
# Alone, without what the environment or the current folder says; our code is found where this file was.
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from services.nurture.templates.renderer import main; main()"
ANSWER_LIMIT = 8 * 1024 * 1024
PROCESSES = 2
AT_ONCE = 16
"""Messages that go to a process together: a message takes about as long as the way there and back."""
_ENVIRONMENT = {"HOME": os.devnull, "TMPDIR": os.devnull, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}


class CannotRender(Exception):
    """This template cannot be filled with these values; trying again gives the same."""


class RendererStarved(Unavailable):
    """The renderer did not get to its answer, which says nothing about the template."""

    slug = "nurture/renderer-starved"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message's words. In `html`, and in `text` where that was asked for, the n-th of `links` is `<marker><n>.`.

    `dropped` are addresses that lead nowhere, `replaced` and `missing` values that were absent, with a default and
    without one; `own_leave` says that the template itself has a place to unsubscribe.
    """

    subject: str
    text: str
    html: str
    links: tuple[str, ...]
    marker: str
    dropped: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wordless_images: tuple[str, ...] = ()
    own_leave: bool = True


@dataclass(eq=False, slots=True)
class _Asked:
    """A request for a process, and what came of it."""

    request: bytes
    answer: dict[str, Any] | None = None
    fault: CannotRender | RendererStarved | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still to be answered."""
        return self.answer is None and self.fault is None


class Renderer:
    """Fills templates in processes without our memory or environment, as many at once as there are processes.

    Messages that are asked for at the same time go to a process together, and one by one where that fails. What a
    template may take is counted in CPU time, by the process itself; `timeout_s` is for a machine that gives it none.
    """

    def __init__(self, timeout_s: float, processes: int = PROCESSES) -> None:
        self._timeout_s = timeout_s
        self._workers = [_Worker() for _ in range(processes)]
        self._turn = asyncio.Semaphore(processes)
        self._waiting: list[_Asked] = []

    async def render(  # noqa: PLR0913  # a message, and how it is wanted
        self,
        template: Template | Words,
        context: Mapping[str, Any],
        *,
        footer: bool,
        utm: Utm | None = None,
        lenient: bool = False,
        mark_text: bool = False,
    ) -> Rendered:
        """Fill a template, in the language of the context's lead where it is not chosen yet.

        Raises CannotRender, and RendererStarved where another time may be better.

        `footer` adds a way to unsubscribe where it has none, `utm` is for a template that has none of its own, and
        `lenient` shows the name of a value that is missing, where a message would not be made. `mark_text` puts markers
        into a text that there is no HTML to.
        """
        words = in_language(template, language_of(context.get("lead"))) if isinstance(template, Template) else template
        utm = words.utm or utm
        marker = f"link-{secrets.token_hex(16)}-"
        answer = await self._ask(
            words,
            context,
            marker=marker,
            footer=footer,
            utm={"marks": utm.marks, "hosts": utm.hosts} if utm else None,
            lenient=lenient,
            mark_text=mark_text,
        )
        told: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in answer.items()
        }
        return Rendered(**told, marker=marker)

    async def try_out(self, words: Words) -> None:
        """Make all of a template that can be made without values. Raises CannotRender."""
        await self._ask(words, None, footer=True, mark_text=False)

    async def _ask(self, words: Words, context: Mapping[str, Any] | None, **more: Any) -> dict[str, Any]:
        parts = {name: getattr(words, name) for name in ("subject", "html", "mjml", "text", "language", "locale")}
        request = {"words": {**parts, "defaults": words.defaults}, "context": context, **more}
        asked = _Asked(orjson.dumps(request))
        self._waiting.append(asked)
        try:
            await asyncio.sleep(0)  # what is asked for at the same time comes together
            async with self._turn:  # whoever is first carries what has come
                if asked.is_open:
                    await self._carry(asked)
        finally:
            self._waiting = [one for one in self._waiting if one is not asked]
        if asked.fault is not None:
            raise asked.fault
        answer = asked.answer
        assert answer is not None, "who has had a turn has an answer"
        if "fault" in answer:
            raise CannotRender(answer["fault"])
        return answer

    async def _carry(self, asked: _Asked) -> None:
        """Have requests answered, this one among them, by a process that is free."""
        fair = min(AT_ONCE, -(-len(self._waiting) // len(self._workers)))
        others = [one for one in self._waiting if one is not asked]
        cut = len(others) - (fair - 1)
        self._waiting, some = others[:cut], [asked, *others[cut:]]  # the last: the first have their own turn next
        worker = self._workers.pop()  # the one that was busy last: others are started only while it is
        try:
            await worker.answer_all(some, self._timeout_s)
        finally:
            self._workers.append(worker)
            self._waiting += [one for one in some if one.is_open]

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process, which answers one line of requests at a time."""

    def __init__(self) -> None:
        self._process: Popen[bytes] | None = None

    async def answer_all(self, some: Sequence[_Asked], timeout_s: float) -> None:
        """Let the process answer requests; where it does not for all of them together, each by itself."""
        try:
            answers = await self._answers([one.request for one in some], timeout_s)
        except RendererStarved as starved:
            for one in some:
                one.fault = starved
        except CannotRender as fault:
            if len(some) == 1:
                some[0].fault = fault
            else:
                for one in some:
                    await self.answer_all([one], timeout_s)
        else:
            for one, answer in zip(some, answers, strict=True):
                one.answer = answer

    async def _answers(self, requests: Sequence[bytes], timeout_s: float) -> list[dict[str, Any]]:
        """What the process answers. Raises CannotRender when it ends instead, RendererStarved when it does neither."""
        try:
            async with asyncio.timeout(timeout_s):
                line = await asyncio.to_thread(_exchange, self._running(), b"[%s]" % b",".join(requests))
        except TimeoutError:
            self.close()
            raise RendererStarved(f"no template was filled in {timeout_s:.0f} s: the machine is overloaded") from None
        except BaseException:
            self.close()  # its answer would be taken for the next request's
            raise
        if not line.endswith(b"\n"):
            self.close()
            raise CannotRender("the renderer ended: too much time, memory or text")
        answers: list[dict[str, Any]] = orjson.loads(line)
        return answers

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
        self._process = None

    def _running(self) -> "Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self.close()
            command = [sys.executable, "-I", "-c", PROGRAM]
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
