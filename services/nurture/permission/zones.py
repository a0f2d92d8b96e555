"""In which time zone somebody is: told, or from the phone number, or the country. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from phonenumbers import NumberParseException
from phonenumbers.timezone import time_zones_for_number

from shared.phones import parts_of

TOLD_AS = ("time_zone", "timezone", "tz")
# Where the list of zones does not begin with the one that most people live in.
_MAIN = {
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "CA": "America/Toronto",
    "CD": "Africa/Kinshasa",
    "FM": "Pacific/Pohnpei",
    "GL": "America/Nuuk",
    "ID": "Asia/Jakarta",
    "KI": "Pacific/Tarawa",
    "KZ": "Asia/Almaty",
    "MN": "Asia/Ulaanbaatar",
    "MX": "America/Mexico_City",
    "PF": "Pacific/Tahiti",
    "RU": "Europe/Moscow",
    "UM": "Pacific/Wake",
    "US": "America/New_York",
    "UZ": "Asia/Tashkent",
}


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A time zone, and how it is known."""

    zone: ZoneInfo
    known_by: str


def whereabouts(fields: Mapping[str, Any], default: str) -> Whereabouts:
    """The zone of a profile: what was told, else the phone number's, else the country's main one, else the default."""
    attributes = fields.get("attributes") or {}
    for name in TOLD_AS:
        if (zone := zone_named(attributes.get(name))) is not None:
            return Whereabouts(zone, "the profile")
    if (zone := _of_phone(fields.get("phone"))) is not None:
        return Whereabouts(zone, "the phone number")
    if (zone := zone_named(main_zone(str(fields.get("country") or "")))) is not None:
        return Whereabouts(zone, "the country")
    return Whereabouts(ZoneInfo(default), "the default")


def zone_named(name: object) -> ZoneInfo | None:
    """The zone of this name; None where there is none."""
    return _zone(name) if isinstance(name, str) and 0 < len(name) <= 64 else None


@lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as Europe
        return None


@lru_cache(maxsize=10_000)
def _of_phone(phone: object) -> ZoneInfo | None:
    """The zone of a number, where all numbers like it are in one."""
    if not isinstance(phone, str):
        return None
    try:
        zones = time_zones_for_number(parts_of(phone))
    except NumberParseException:
        return None
    return zone_named(zones[0]) if len(zones) == 1 else None


def main_zone(country: str) -> str | None:
    """The zone in which most people of a country (ISO 3166) live; None for what is no country."""
    country = country.upper()
    return _MAIN.get(country) or _first_zones().get(country)


@cache
def _first_zones() -> Mapping[str, str]:
    """The first zone of each country in the list that comes with the time zone database."""
    listed = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text("utf-8")
    zones: dict[str, str] = {}
    for line in listed.splitlines():
        if line and not line.startswith("#"):
            country, _, zone, *_ = line.split("\t")
            zones.setdefault(country, zone)
    return zones
