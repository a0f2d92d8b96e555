"""The segments that a document names, each with its place. Pure."""

import re
from collections.abc import Iterator

from services.nurture.sequences.document import SequenceDocument

_QUOTED = r"""(?:'([^']+)'|"([^"]+)")"""
_IN_CONDITION = re.compile(
    rf"{_QUOTED}\s+in\s+segments\b|\bevent\.segment\s*[!=]=\s*{_QUOTED}|{_QUOTED}\s*[!=]=\s*event\.segment\b"
)


def segments_named(document: SequenceDocument) -> list[tuple[str, str]]:
    """Places in the document and the segments they name, each pair once."""
    found = [(place, segment) for place, source in _conditions(document) for segment in segments_in(source)]
    found += [
        (f"/steps/{index}/wait_until/segment", step.wait_until.segment)
        for index, step in enumerate(document.steps)
        if step.wait_until is not None and step.wait_until.segment is not None
    ]
    return list(dict.fromkeys(found))


def segments_in(source: str) -> list[str]:
    """The segments that a condition compares with, as `'eu' in segments` and `event.segment == 'eu'` do."""
    return [next(name for name in match.groups() if name) for match in _IN_CONDITION.finditer(source)]


def _conditions(document: SequenceDocument) -> Iterator[tuple[str, str]]:
    for name in ("trigger", "goal", "exit"):
        if (source := getattr(document, name)) is not None:
            yield f"/{name}", source
    for index, step in enumerate(document.steps):
        for number, turn in enumerate(step.branch or ()):
            yield f"/steps/{index}/branch/{number}/when", turn.when
        if step.wait_until is not None and step.wait_until.event is not None:
            yield f"/steps/{index}/wait_until/event", step.wait_until.event
        if step.goal is not None and step.goal.when is not None:
            yield f"/steps/{index}/goal/when", step.goal.when
