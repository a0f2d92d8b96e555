"""A mail server that takes everything: `python -m bench.inbox PORT`. NOOP tells how many."""

import asyncio
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session


class Inbox:
    """Counts what it takes, and how often it took the same."""

    def __init__(self) -> None:
        self.taken: dict[tuple[str, bytes], int] = {}

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # its name
        content = envelope.content
        assert isinstance(content, bytes)
        own = next((line for line in content.split(b"\r\n", 40) if line.lower().startswith(b"message-id:")), b"")
        if envelope.rcpt_tos[0].startswith("bare"):
            return "250 OK"
        key = (envelope.rcpt_tos[0], own)
        self.taken[key] = self.taken.get(key, 0) + 1
        return "250 OK"

    async def handle_NOOP(self, server: SMTP, session: Session, envelope: Envelope, arg: str) -> str:  # noqa: N802
        return f"250 {len(self.taken)} {max(self.taken.values(), default=0)}"


async def serve(port: int) -> None:
    """Serve until ended."""
    loop, inbox = asyncio.get_running_loop(), Inbox()
    server = await loop.create_server(lambda: SMTP(inbox, loop=loop), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
