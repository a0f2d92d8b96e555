"""The casing of names that were typed all in capitals or all in small letters; a name with both is left as it is."""

import re

LONGEST = 200
SHORTEST = 3  # JP and Jo may be initials, or not
_WRITTEN_SMALL = (
    "af al bin d da dal de degli dei del della den der des di do dos du e el het ibn la las le los op ten ter te van "
    "vande vander von y zu zum zur"
)
_PARTICLES = frozenset(_WRITTEN_SMALL.split())
_ROMAN = frozenset({"ii", "iii", "iv"})
_PART = re.compile(r"[^\s'’\-]+")
_JOINED = re.compile(r"(mc)(\w{2,})", re.IGNORECASE)


def cased(name: str, *, family: bool) -> str:
    """The name in the casing it is written with, as far as that can be known; particles are small in family names."""
    letters = [char for char in name if char.isalpha()]
    if len(name) > LONGEST or len(letters) < SHORTEST or not (name.isupper() or name.islower()):
        return name
    parts = list(_PART.finditer(name))
    written, last = list(name), len(parts) - 1
    for index, part in enumerate(parts):
        alone = family and index < last
        after = name[part.end() : part.end() + 1]
        written[part.start() : part.end()] = list(_part(part[0].lower(), particle=alone and after != "-", after=after))
    result = "".join(written)
    return result if len(result) == len(name) else name


def _part(part: str, *, particle: bool, after: str) -> str:
    if particle and part in _PARTICLES and after not in ("'", "’"):
        return part
    if part in _ROMAN:
        return part.upper()
    if joined := _JOINED.fullmatch(part):
        return f"Mc{joined[2][0].upper()}{joined[2][1:]}"
    return part[:1].upper() + part[1:]
