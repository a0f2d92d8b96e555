"""What nurture's handlers are given, built once per role."""

from dataclasses import dataclass

from services.nurture.people.domain import Addresses
from services.nurture.sequences.catalogue import Catalogue
from services.nurture.settings import NurtureSettings
from shared.service import Runtime


@dataclass(frozen=True, slots=True)
class Parts:
    """The runtime, and what nurture makes of it."""

    runtime: Runtime
    settings: NurtureSettings
    catalogue: Catalogue
    addresses: Addresses

    @property
    def site_url(self) -> str:
        """Where the links of shipped messages lead."""
        return (self.settings.site_url or self.runtime.settings.public_url).rstrip("/")


def make_parts(runtime: Runtime) -> Parts:
    """Nurture's parts for one role."""
    return Parts(
        runtime=runtime,
        settings=NurtureSettings(),
        catalogue=Catalogue(),
        addresses=Addresses(runtime.secrets.derive("nurture-addresses")),
    )
