"""A database with every service's schema."""

from shared.db import migrate
from shared.service import prepare_partitions
from throughline.services import SERVICES


def prepare_database(url: str) -> None:
    """Migrate every service."""
    for service in SERVICES:
        migrate(service, url)
        prepare_partitions(url, service)
