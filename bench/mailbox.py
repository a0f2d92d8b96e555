"""A mail server in a process of its own that notes each message it accepts: `python -m bench.mailbox PORT FILE`.

A line is written before the message is acknowledged: whatever the client learns, what was accepted is in the file.
"""

import asyncio
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from aiosmtpd.smtp import SMTP, Envelope, Session

MESSAGE_ID = re.compile(rb"^Message-ID: *<([^>]+)>", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Accepted:
    """What a mailbox has accepted."""

    by_recipient: Counter[str]
    by_message: Counter[str]

    @property
    def twice(self) -> int:
        """How many people, or messages, came more than once."""
        counts = (self.by_recipient, self.by_message)
        return max(sum(number > 1 for number in count.values()) for count in counts)


class Notes:
    """Takes everything."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    async def handle_DATA(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Note the message, then acknowledge it."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        found = MESSAGE_ID.search(content)
        self._file.write(f"{envelope.rcpt_tos[0]} {found[1].decode() if found else '-'}\n")
        return "250 OK"


def accepted_in(path: Path) -> Accepted:
    """What stands in the file of a mailbox."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return Accepted(Counter(to for to, _ in lines), Counter(message for _, message in lines))


async def _serve(port: int, path: Path) -> None:
    with path.open("a", buffering=1) as file:
        notes, loop = Notes(file), asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(notes, enable_SMTPUTF8=False, loop=loop), "127.0.0.1", port)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
