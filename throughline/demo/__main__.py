"""`make demo`: tell the story on an embedded system, or on a running one.

A running system is named by its base URL and a token for every service's `admin` scope; it must send its mail to the
address given by `--smtp` (`THROUGHLINE_SMTP_URL` there).
"""

import argparse
import sys

from deploy.embedded.errors import CannotStart
from deploy.embedded.ports import free_port
from throughline.demo.inbox import inbox
from throughline.demo.ledger import Ledger
from throughline.demo.screen import Screen
from throughline.demo.story import Story
from throughline.demo.system import GaveUp, embedded, running


def main() -> int:
    """Tell the story; 0 when everything was found as it should be."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--url", help="base URL of a running system")
    parser.add_argument("--token", help="a token for it")
    parser.add_argument("--smtp", default="127.0.0.1", help="host[:port] on which mail is taken")
    options = parser.parse_args()
    host, _, port = options.smtp.partition(":")
    port = int(port or free_port())
    screen = Screen()
    try:
        with inbox(host, port) as mails:
            system = running(options.url, options.token) if options.url else embedded(f"smtp://{host}:{port}")
            screen.step("starting PostgreSQL, Kafka and the five services" if not options.url else options.url)
            with system as found:
                screen.step(f"everything is ready at {found.client.base_url}")
                good = Story(found, mails, screen, Ledger()).tell()
            screen.step("stopped; nothing is left running" if not options.url else "done")
    except (GaveUp, CannotStart) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
