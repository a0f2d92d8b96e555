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
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
"""Named classes are of ASCII alone in CEL, and of all languages in PostgreSQL."""
_NAMED = re.compile(rf"\[:({'|'.join(_CLASSES)}):\]")
_ANY = r"[^\n]"
_DASH = r"\u002D"


class PatternFault(ValueError):
    """A pattern that PostgreSQL would understand otherwise, or not at all."""


def postgres_pattern(pattern: str) -> str:
    """The pattern for PostgreSQL's `~`. Raises PatternFault. It has passed CEL's own check, so that it is one of RE2.

    Of the two, PostgreSQL's dot goes on at the end of a line, while brackets match one in both.
    """
    if len(pattern) > LONGEST:
        raise PatternFault(f"a pattern has at most {LONGEST} characters")
    ignoring_case = pattern.startswith("(?i)")
    rest = pattern[4:] if ignoring_case else pattern
    made, place, inside = ["(?i)" if ignoring_case else ""], 0, False
    while place < len(rest):
        named = _NAMED.match(rest, place) if inside else None
        found = named or _PART.match(rest, place)
        assert found is not None
        place = found.end()
        if named:
            made.append(_class(named.group(1), made))
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
        made.append(_ANY if found["other"] == "." else found.group())
    return found["open"] is not None


def _inside(found: re.Match[str], made: list[str]) -> bool:
    """Takes over a part that stands in brackets; answers whether they are still open."""
    if found["escape"] is not None:
        made.append(_escaped(found["escape"], {}))
        return True
    text = found.group()
    if "[" in text:
        raise PatternFault("brackets in brackets are classes like [:alpha:] only")
    if text in {"&", "~", "-"} and made[-1] in {text, _DASH}:
        raise PatternFault(f"{text}{text} in brackets means different things to different engines; leave it out")
    made.append(_DASH if text == "-" and made[-1] in _CLASSES.values() else text)
    return "]" not in text


def _class(name: str, made: list[str]) -> str:
    if made[-1] == "-" and made[-2] not in {"[", "[^"}:
        raise PatternFault("no range ends with a class; write a dash that stands for itself as \\-")
    return _CLASSES[name]


def _escaped(char: str, others: dict[str, str]) -> str:
    if char in _SAME or not (char.isalnum() or char == "_"):
        return f"\\{char}"
    if char in others:
        return others[char]
    raise PatternFault(f"\\{char} is not understood in a pattern")
