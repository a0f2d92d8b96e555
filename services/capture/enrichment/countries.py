"""ISO 3166 codes of countries by the names people write, in English and the languages of our neighbours."""

import gettext
from functools import cache, lru_cache

import pycountry

LONGEST = 100
_LANGUAGES = ("de", "fr", "es", "it", "nl", "pt", "pl", "sv", "da")
# What people write and ISO does not.
_ALSO = {
    "uk": "GB",
    "u.k.": "GB",
    "great britain": "GB",
    "england": "GB",
    "scotland": "GB",
    "wales": "GB",
    "northern ireland": "GB",
    "u.s.": "US",
    "u.s.a.": "US",
    "us of a": "US",
    "united states of america": "US",
    "america": "US",
    "holland": "NL",
    "the netherlands": "NL",
    "russia": "RU",
    "turkey": "TR",
    "ivory coast": "CI",
    "czech republic": "CZ",
    "macedonia": "MK",
    "swaziland": "SZ",
    "burma": "MM",
    "cape verde": "CV",
    "south korea": "KR",
    "north korea": "KP",
    "palestine": "PS",
    "vatican": "VA",
    "uae": "AE",
    "emirates": "AE",
    "brasil": "BR",
    "españa": "ES",
    "schweiz": "CH",
    "suisse": "CH",
    "deutschland": "DE",
    "österreich": "AT",
}


@lru_cache(maxsize=1_000)
def country_code(written: str) -> str | None:
    """The two-letter code of a country by its name, or by its two- or three-letter code; None for anything else."""
    text = " ".join(written[:LONGEST].casefold().split())
    return _codes().get(text) or _codes().get(text.removeprefix("the "))


@cache
def _codes() -> dict[str, str]:
    """Every name that means one country only; a name in English counts before one in another language."""
    codes: dict[str, str] = {}
    for country in pycountry.countries:
        other = [getattr(country, name, None) for name in ("common_name", "official_name")]
        written = [country.alpha_2, country.alpha_3, country.name, *other]
        codes |= {name.casefold(): country.alpha_2 for name in written if name}
    for language in _LANGUAGES:
        translated = gettext.translation("iso3166-1", pycountry.LOCALES_DIR, languages=[language], fallback=True)
        for country in pycountry.countries:
            for name in (country.name, getattr(country, "common_name", country.name)):
                codes.setdefault(translated.gettext(name).casefold(), country.alpha_2)
    return codes | _ALSO
