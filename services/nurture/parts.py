"""What nurture's handlers are given, built once per role."""

from dataclasses import dataclass
from datetime import datetime

from services.nurture.channels.settings import ChannelSettings
from services.nurture.people.domain import Addresses
from services.nurture.permission.document import POLICIES, SendingPolicy
from services.nurture.permission.document import checked as policy_checked
from services.nurture.preferences.document import PAGES, PreferencePage
from services.nurture.preferences.document import checked as page_checked
from services.nurture.preferences.tokens import PreferenceLinks
from services.nurture.sequences.catalogue import Catalogue
from services.nurture.settings import NurtureSettings
from services.nurture.takeover import document as takeover
from services.nurture.templates.catalogue import Templates
from services.nurture.templates.rendering import Renderer
from services.nurture.tracking.links import Links
from shared.db import Connection, Tx, agreed_in, agreed_now
from shared.rules import ActiveDocument
from shared.service import Runtime


@dataclass(frozen=True, slots=True)
class Parts:
    """The runtime, and what nurture makes of it."""

    runtime: Runtime
    settings: NurtureSettings
    channels: ChannelSettings
    catalogue: Catalogue
    addresses: Addresses
    templates: Templates
    renderer: Renderer
    policy: ActiveDocument[SendingPolicy]
    preferences: ActiveDocument[PreferencePage]
    links: Links
    preference_links: PreferenceLinks
    takeover: ActiveDocument[takeover.Policy]

    @property
    def site_url(self) -> str:
        """Where the links of shipped messages lead."""
        return (self.settings.site_url or self.runtime.settings.public_url).rstrip("/")

    async def present(self, connection: Connection) -> datetime:
        """Now, by the one clock that all processes share."""
        return await agreed_now(connection, self.runtime.clock)

    async def present_in(self, tx: Tx) -> datetime:
        """Now, asked once a transaction."""
        return await agreed_in(tx, self.runtime.clock)


def make_parts(runtime: Runtime) -> Parts:
    """Nurture's parts for one role."""
    settings, public_url = NurtureSettings(), runtime.settings.public_url
    return Parts(
        runtime=runtime,
        settings=settings,
        channels=ChannelSettings(),
        catalogue=Catalogue(),
        addresses=Addresses(runtime.secrets.derive("nurture-addresses")),
        templates=Templates(runtime.database),
        renderer=Renderer(settings.renderer_patience.total_seconds()),
        policy=ActiveDocument(POLICIES, lambda _, document: policy_checked(document)),
        preferences=ActiveDocument(PAGES, lambda version, document: PreferencePage(version, page_checked(document))),
        links=Links(runtime.secrets.links, public_url, traps=settings.trap_links, short_url=settings.short_links_url),
        preference_links=PreferenceLinks(runtime.secrets.derive("nurture-preferences"), public_url),
        takeover=ActiveDocument(takeover.STORE, takeover.policy),
    )
