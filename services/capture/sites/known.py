"""Sites as the door needs them: their origins, without asking the database for every page view."""

import asyncio
from collections import OrderedDict

from services.capture.errors import NoSuchSite
from services.capture.sites import queries
from services.capture.sites.queries import SiteRow
from shared.db import TRANSIENT
from shared.errors import Unavailable
from shared.service import Runtime

FRESH_S = 5.0
MOST_KNOWN = 10_000


class KnownSites:
    """Sites used lately, at most five seconds old while PostgreSQL answers; so long an old origin is still taken."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: OrderedDict[str, tuple[float, SiteRow]] = OrderedDict()

    async def get(self, site_id: str) -> SiteRow:
        """The site. Raises NoSuchSite when the database says so, Unavailable when it cannot be asked."""
        now = asyncio.get_running_loop().time()
        entry = self._known.get(site_id)
        if entry is not None and now - entry[0] < FRESH_S:
            return entry[1]
        try:
            async with self._runtime.database.reading() as connection:
                row = await queries.site(connection, site_id)
        except (Unavailable, *TRANSIENT):
            if entry is None:
                raise
            return entry[1]
        if row is None:
            self._known.pop(site_id, None)
            raise NoSuchSite("there is no such site; look at data-site in the page")
        self._known[site_id] = (now, row)
        self._known.move_to_end(site_id)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return row

    def changed(self, site_id: str) -> None:
        """Ask the database next time."""
        self._known.pop(site_id, None)
