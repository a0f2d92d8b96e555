"""Documents as they are sent: read, compiled, and compared with what else there is."""

import re
from typing import Any

from pydantic import ValidationError

from services.nurture.parts import Parts
from services.nurture.sequences import queries
from services.nurture.sequences.catalogue import SEQUENCES
from services.nurture.sequences.document import SequenceDocument
from services.nurture.sequences.domain import Plan, compile_plan
from services.nurture.sequences.named import segments_named
from services.nurture.templates.document import TemplateRef
from services.nurture.templates.trying import Trying
from shared.db import Connection
from shared.errors import FieldError
from shared.ids import SequenceId
from shared.rules import FaultOut, InvalidDocument, ValidationOut, faults_of
from shared.web import invalid

NEWEST = 2**31 - 1
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Also what turns the direction of the text behind it."""


def read(document: dict[str, Any]) -> SequenceDocument:
    """A document of the right shape. Raises Invalid."""
    try:
        return SequenceDocument.model_validate(document)
    except ValidationError as exc:
        raise invalid(exc) from exc


def plan_of(sequence_id: str, document: dict[str, Any]) -> Plan:
    """A document that is not saved, compiled. Raises Invalid and InvalidDocument."""
    return compile_plan(SequenceId(sequence_id), 0, read(document))


async def tried(connection: Connection, parts: Parts, sequence_id: str, document: dict[str, Any]) -> ValidationOut:
    """Whether a document could be saved as this sequence, all that is wrong with it, and what may be a mistake.

    What it names is looked at once it makes sense by itself.
    """
    faults = faults_of(lambda sent: plan_of(sequence_id, sent), document)
    if faults:
        return ValidationOut.of(faults)
    written = read(document)
    return ValidationOut.of(
        await faults_outside(connection, parts, written), await missing_segments(connection, segments_named(written))
    )


async def check_outside(parts: Parts, document: SequenceDocument) -> None:
    """Refuse what names other things that do not exist. Raises InvalidDocument that lists every fault.

    In no transaction: reading a template may take longer than one may stand still.
    """
    async with parts.runtime.database.reading() as connection:
        faults = await faults_outside(connection, parts, document)
    if faults:
        raise InvalidDocument(f"the sequence has {len(faults)} faults", errors=faults)


async def warnings_about(connection: Connection, document: SequenceDocument) -> list[FaultOut]:
    """What may be a mistake in a document that is saved all the same."""
    return FaultOut.of(await missing_segments(connection, segments_named(document)))


async def faults_outside(connection: Connection, parts: Parts, document: SequenceDocument) -> list[FieldError]:
    """What is wrong with the templates and the other sequences that steps name, and with how it is named itself.

    That is asked of what is saved alone: a version from before the rule runs on.
    """
    return [
        *_faults_of_name(document.name),
        *await _faults_of_messages(connection, parts, document),
        *await _faults_of_others(connection, document),
    ]


def _faults_of_name(name: str) -> list[FieldError]:
    if not _CONTROLS.search(name):
        return []
    return [FieldError("/name", "holds a control character or a line break: write it on one line, of what is seen")]


async def missing_segments(connection: Connection, named: list[tuple[str, str]]) -> list[FieldError]:
    """Segments that nobody is in, with the places that name them. Which there are only scoring knows."""
    known = await queries.segments_with_people(connection, [segment for _, segment in named]) if named else set()
    why = "as far as scoring has told: see whether the id is right"
    return [
        FieldError(place, f"nobody is in a segment {segment[:100]}, {why}")
        for place, segment in named
        if segment not in known
    ]


async def _faults_of_messages(connection: Connection, parts: Parts, document: SequenceDocument) -> list[FieldError]:
    sends = []
    for index, step in enumerate(document.steps):
        if step.send is None:
            continue
        template = step.send.template or TemplateRef(step.send.template_id or "", step.send.version)
        sends.append((f"/steps/{index}/send", step.send.channel, template))
        sends += [
            (f"/steps/{index}/experiment/variants/{number}", step.send.channel, variant.template)
            for number, variant in enumerate(step.experiment.variants if step.experiment is not None else ())
            if variant.template is not None
        ]
    return await Trying(parts.runtime.database, parts.renderer).sends(connection, sends)


async def _faults_of_others(connection: Connection, document: SequenceDocument) -> list[FieldError]:
    named = [
        (f"/steps/{index}/{part}/sequence", other.sequence)
        for index, step in enumerate(document.steps)
        for part, other in (("enrol", step.enrol), ("remove", step.remove))
        if other is not None
    ]
    known = set(await SEQUENCES.names(connection)) if named else set()
    return [FieldError(place, f"there is no sequence {name}") for place, name in named if name not in known]
