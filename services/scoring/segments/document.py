"""A segment as it is written: a list of people, or a condition on them, compiled with all that it depends on."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from services.scoring.rules.document import LEAD, PERSONAL, STANDING
from shared.ids import SegmentId
from shared.rules import (
    INTEGER,
    NUMBER,
    TEXT,
    TEXTS,
    TIME,
    Expression,
    ExpressionFault,
    Kind,
    Vocabulary,
    compile_expression,
    place,
    tokens_in,
)
from shared.web import Input

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Condition = Annotated[str, Field(min_length=1, max_length=4_000)]
ANY = "any"
LONGEST_WINDOW = 1_000
LIST = "list"
"""What a list depends on, named like the variable that a condition reads."""
PERSON = "person"
"""What every segment depends on: that there is the person."""
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WINDOW = re.compile(r"days_([1-9][0-9]{0,3})")
_PLAIN = {"ever": INTEGER, "first_at": TIME, "last_at": TIME}
_SHOWN_TYPES = (ANY, "form_submitted", "page_view", "email_clicked")
_SHOWN_WINDOWS = ("days_1", "days_7", "days_30", "days_90")


def _days(name: str) -> int | None:
    match = _WINDOW.fullmatch(name)
    return int(match[1]) if match is not None and int(match[1]) <= LONGEST_WINDOW else None


class _Tallies(Mapping[str, Kind]):
    """What is known of the touches of one type: how many ever and within windows, the first and the last."""

    def __getitem__(self, name: str) -> Kind:
        if name in _PLAIN:
            return _PLAIN[name]
        if _days(name) is None:
            raise KeyError(name)
        return INTEGER

    def __iter__(self) -> Iterator[str]:
        return iter((*_PLAIN, *_SHOWN_WINDOWS))

    def __len__(self) -> int:
        return len(_PLAIN) + len(_SHOWN_WINDOWS)


class _Types(Mapping[str, Mapping[str, Kind]]):
    """Every type of touch there may be, and `any` for all of them together."""

    def __getitem__(self, name: str) -> Mapping[str, Kind]:
        if _TYPE.fullmatch(name) is None:
            raise KeyError(name)
        return _Tallies()

    def __iter__(self) -> Iterator[str]:
        return iter(_SHOWN_TYPES)

    def __len__(self) -> int:
        return len(_SHOWN_TYPES)


class _Scores(Mapping[str, Kind]):
    """Every score that a scoring document may name beside the main one; whether the active one does is seen later."""

    def __getitem__(self, name: str) -> Kind:
        if _TYPE.fullmatch(name) is None:
            raise KeyError(name)
        return NUMBER

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


ACCOUNT = {
    **dict.fromkeys(("account_id", "parent_id", "industry", "country"), TEXT),
    **dict.fromkeys(("employees", "annual_revenue"), INTEGER),
}
VOCABULARY = Vocabulary(
    {
        **STANDING,
        "lead": {**LEAD, "account": ACCOUNT},
        "scores": _Scores(),
        "touches": _Types(),
        "segments": TEXTS,
    }
)


class Tally(NamedTuple):
    """Touches of one type, ever or within some days: what a condition counts. -1 days: ever."""

    type: str
    days: int


class ConditionIn(Input):
    """A condition that is not saved."""

    when: Condition


class SegmentDocument(Input):
    """A segment: `dynamic` holds whoever meets `when`, `static` whoever is put into it."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Literal["dynamic", "static"]
    when: Condition | None = None

    @model_validator(mode="after")
    def _says_who(self) -> "SegmentDocument":
        if (self.kind == "dynamic") != (self.when is not None):
            raise ValueError("a dynamic segment has a condition in when, a static one has none")
        return self

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored."""
        return self.model_dump(mode="json", exclude_none=True, include={"name", "kind", "when"})


class NewSegment(SegmentDocument):
    """A segment to be made, under an id of its own or a given one."""

    segment_id: Identifier | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One version of a segment, compiled. `reads` names the variables that it depends on, `nested` other segments."""

    segment_id: SegmentId
    version: int
    name: str
    when: Expression | None
    reads: frozenset[str]
    nested: frozenset[SegmentId]
    tallies: frozenset[Tally]

    @property
    def key(self) -> tuple[SegmentId, int]:
        """What its members are kept under."""
        return self.segment_id, self.version

    @property
    def source(self) -> str | None:
        """The condition as it is written."""
        return None if self.when is None else self.when.source

    @property
    def scores(self) -> frozenset[str]:
        """The named scores that it reads."""
        paths = () if self.when is None else self.when.references
        return frozenset(path[1] for path in paths if path[0] == "scores")

    @property
    def reads_account(self) -> bool:
        """Whether it depends on the account."""
        return self.when is not None and self.when.reads("lead", "account")

    @property
    def reads_personal(self) -> bool:
        """Whether it depends on what is personal in a profile."""
        return self.when is not None and any(self.when.reads("lead", name) for name in PERSONAL)


def compile_segment(segment_id: str, version: int, document: Mapping[str, Any]) -> Segment:
    """Compile a stored document. Raises ExpressionFault."""
    return _segment(SegmentId(segment_id), version, document["name"], document.get("when"))


def compile_condition(when: str) -> Segment:
    """A condition that is not saved. Raises ExpressionFault."""
    return _segment(SegmentId(""), 0, "", when)


def _segment(segment_id: SegmentId, version: int, name: str, source: str | None) -> Segment:
    if source is None:
        return Segment(segment_id, version, name, None, frozenset({PERSON, LIST}), frozenset(), frozenset())
    when = compile_expression(source, VOCABULARY, "/when")
    tallies = {tally for path in when.references if path[0] == "touches" for tally in _tallies_of(path)}
    if tallies:
        when = compile_expression(source, _exact(when), "/when")  # tried out on just the windows that it names
    return Segment(
        segment_id,
        version,
        name,
        when,
        frozenset({PERSON, *(path[0] for path in when.references)}),
        _nested(source),
        frozenset(tallies),
    )


def _tallies_of(path: tuple[str, ...]) -> Iterator[Tally]:
    _, kind, name = path[:3]
    yield Tally(kind, _days(name) or -1)


def _exact(when: Expression) -> Vocabulary:
    types: dict[str, dict[str, Kind]] = {}
    for path in when.references:
        if path[0] == "touches":
            types.setdefault(path[1], {})[path[2]] = _Tallies()[path[2]]
    return Vocabulary({**VOCABULARY.names, "touches": types})


def _nested(source: str) -> frozenset[SegmentId]:
    """The segments that a condition names. Which they are must be plain to see: `'id' in segments`."""
    tokens = tokens_in(source)
    found = set()
    for index, token in enumerate(tokens):
        if token.kind != "name" or token.text != "segments" or (index and tokens[index - 1].text == "."):
            continue
        before = tokens[max(index - 2, 0) : index]
        after = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if [one.text for one in before[1:]] != ["in"] or before[0].kind != "text" or after in (".", "["):
            line, column = place(source, token.start)
            raise ExpressionFault("/when", column, "ask for a segment by its id: 'some-id' in segments", line)
        found.add(SegmentId(before[0].text.strip("'\"")))
    return frozenset(found)
