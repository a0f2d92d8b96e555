"""The reasons that may be given for a decision about a stage: a list kept as data, with a life like rules have."""

from importlib import resources
from typing import Any, Literal

import orjson
from pydantic import Field

from services.scoring.decisions.domain import Kind
from shared.errors import FieldError, Invalid
from shared.rules import DocumentStore, InvalidDocument
from shared.web import Input


class ReasonIn(Input):
    """One reason. With `note` required a note has to say more; `about` a record it stays when people are merged."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")
    title: str = Field(min_length=1, max_length=200)
    note: Literal["optional", "required"] = "optional"
    about: Literal["person", "record"] = "person"


class ReasonsIn(Input):
    """The reasons for each kind of decision; there is at least one, or none could be taken."""

    disqualify: list[ReasonIn] = Field(min_length=1, max_length=200)
    recycle: list[ReasonIn] = Field(min_length=1, max_length=200)
    set_stage: list[ReasonIn] = Field(min_length=1, max_length=200)
    requalify: list[ReasonIn] = Field(min_length=1, max_length=200)

    def of(self, kind: Kind) -> list[ReasonIn]:
        """The reasons for one kind of decision."""
        listed: list[ReasonIn] = getattr(self, kind)
        return listed


def reasons(_version: int, document: dict[str, Any]) -> ReasonsIn:
    """Check a document. Raises pydantic.ValidationError, or InvalidDocument for ids used twice."""
    parsed = ReasonsIn.model_validate(document)
    faults = []
    for kind in ReasonsIn.model_fields:
        ids = [reason.id for reason in getattr(parsed, kind)]
        faults += [
            FieldError(f"/{kind}/{place}/id", f"{name} is used before")
            for place, name in enumerate(ids)
            if name in ids[:place]
        ]
    if faults:
        raise InvalidDocument(f"look at {faults[0].pointer}", faults)
    return parsed


def check_reason(known: ReasonsIn, kind: Kind, reason: str, note: str | None) -> ReasonIn:
    """The reason of this id. Raises Invalid where there is none, or where it needs a note."""
    listed = known.of(kind)
    found = next((one for one in listed if one.id == reason), None)
    if found is None:
        detail = f"there is no such reason to {kind}; there are {', '.join(one.id for one in listed)}"
        raise Invalid("look at /reason", [FieldError("/reason", detail)])
    if found.note == "required" and not (note or "").strip():
        raise Invalid("look at /note", [FieldError("/note", f"the reason {reason} needs a note that says more")])
    return found


def shipped_reasons() -> dict[str, Any]:
    """The list that a new installation starts with."""
    document: dict[str, Any] = orjson.loads(resources.files(__package__).joinpath("reasons.json").read_bytes())
    return document


def reasons_documents() -> DocumentStore:
    """The versions of the list."""
    return DocumentStore("stage_reasons", shipped_reasons())
