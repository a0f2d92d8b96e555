"""Instagram lead ads. https://developers.facebook.com/docs/marketing-api/guides/lead-ads"""

from typing import ClassVar

from services.capture.adapters.meta import MetaLeadAds


class Instagram(MetaLeadAds):
    """Leads of the pages that are tied to one app."""

    kind: ClassVar[str] = "instagram"


ADAPTER = Instagram()
