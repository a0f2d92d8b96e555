"""A person's profile out of what each of their ids was told to be: in every service the same."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from shared.ids import LeadId
from shared.rules import BOOLEAN, INTEGER, OPEN, TEXT

LEAD = {
    "email": TEXT,
    "phone": TEXT,
    "first_name": TEXT,
    "last_name": TEXT,
    "title": TEXT,
    "company": TEXT,
    "country": TEXT,
    "region": TEXT,
    "industry": TEXT,
    "employees": INTEGER,
    "annual_revenue": INTEGER,
    "use_case": TEXT,
    "free_mail": BOOLEAN,
    "attributes": OPEN,
    "consent": {"email": TEXT, "sms": TEXT, "whatsapp": TEXT},
}
"""What an expression may read of a `lead`."""


class Profile(Protocol):
    """What one id's newest snapshot said."""

    @property
    def lead_id(self) -> LeadId: ...

    @property
    def captured_at(self) -> datetime: ...

    @property
    def fields(self) -> Mapping[str, Any]: ...


def combine_profiles(person_id: LeadId, profiles: Sequence[Profile]) -> dict[str, Any]:
    """The person's own profile, its gaps filled from the other ids', the newest first."""
    ranked = sorted(profiles, key=lambda profile: (profile.lead_id == person_id, profile.captured_at), reverse=True)
    combined: dict[str, Any] = {}
    for profile in ranked:
        for name, value in profile.fields.items():
            if name == "attributes":
                combined[name] = {**value, **combined.get(name, {})}
            elif value is not None:
                combined.setdefault(name, value)
    return combined
