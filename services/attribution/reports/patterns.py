"""Regular expressions as CEL writes them (RE2), written for PostgreSQL, as far as both mean the same."""

import re

LONGEST = 500
MOST_REPEATS = 100
_PART = re.compile(
    r"""\\(?P<escape>.)
      | (?P<group>\(\?:|\((?!\?))
      | (?P<special>\(\?)
      | (?P<repeat>\{(?P<low>\d+)(?:,(?P<high>\d*))?\})
      | (?P<open>\[\^?\]?)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_SAME = frozenset("dDwWsStnr")
_OTHERS = {"b": "\\y", "B": "\\Y", "A": "\\A", "z": "\\Z"}
_NAMED = re.compile(r"\[:(?:alnum|alpha|digit|lower|punct|space|upper|xdigit):\]")


class PatternFault(ValueError):
    """A pattern that PostgreSQL would understand otherwise, or not at all."""


def postgres_pattern(pattern: str) -> str:
    """The pattern for PostgreSQL's `~`. Raises PatternFault. It has passed CEL's own check, so that it is one of RE2.

    `(?p)` makes the dot stop at the end of a line, as RE2's does.
    """
    if len(pattern) > LONGEST:
        raise PatternFault(f"a pattern has at most {LONGEST} characters")
    ignoring_case = pattern.startswith("(?i)")
    rest = pattern[4:] if ignoring_case else pattern
    made, place, inside = ["(?ip)" if ignoring_case else "(?p)"], 0, False
    while place < len(rest):
        named = _NAMED.match(rest, place) if inside else None
        found = named or _PART.match(rest, place)
        assert found is not None
        place = found.end()
        if named:
            made.append(named.group())
        elif inside:
            inside = _inside(found, made)
        else:
            inside = _outside(found, made)
    return "".join(made)


def _outside(found: re.Match[str], made: list[str]) -> bool:
    """Takes over a part that stands outside of brackets; answers whether it opens one."""
    if found["escape"] is not None:
        made.append(_escaped(found["escape"], _OTHERS))
    elif found["special"] is not None:
        raise PatternFault("of the groups with (? a pattern can have (?: anywhere, and (?i) at its beginning")
    elif found["repeat"] is not None and max(int(found["low"]), int(found["high"] or 0)) > MOST_REPEATS:
        raise PatternFault(f"a pattern repeats something {MOST_REPEATS} times at most")
    else:
        made.append(found.group())
    return found["open"] is not None


def _inside(found: re.Match[str], made: list[str]) -> bool:
    """Takes over a part that stands in brackets; answers whether they are still open."""
    if found["escape"] is not None:
        made.append(_escaped(found["escape"], {}))
        return True
    text = found.group()
    if "[" in text:
        raise PatternFault("brackets in brackets are classes like [:alpha:] only")
    if text in {"&", "~"} and made[-1] == text:
        raise PatternFault(f"{text}{text} in brackets means different things to different engines; leave it out")
    made.append(text)
    return "]" not in text


def _escaped(char: str, others: dict[str, str]) -> str:
    if char in _SAME or not (char.isalnum() or char == "_"):
        return f"\\{char}"
    if char in others:
        return others[char]
    raise PatternFault(f"\\{char} is not understood in a pattern")
