"""The policy: what counts as a human taking over, whom it pauses marketing for, and when marketing resumes."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from services.nurture.sequences.document import Purpose
from services.nurture.templates.document import Shape
from shared.consents import TRANSACTIONAL
from shared.contacts import CONTACTS, Contact
from shared.rules import DocumentStore

Reply = Literal["email_replied", "sms_replied", "whatsapp_replied", "chat_started"]
Meeting = Literal["meeting_booked", "meeting_rescheduled", "meeting_canceled", "meeting_held"]
REPLIES: tuple[Reply, ...] = get_args(Reply)
MEETINGS: tuple[Meeting, ...] = get_args(Meeting)
TELLING = frozenset({*REPLIES, *MEETINGS, *CONTACTS})
"""The types of touches that may show that a human has taken over."""
Reach = Literal["nobody", "person", "account"]
DealReach = Literal["nobody", "person", "deal", "account"]
Days = Annotated[int, Field(ge=1, le=3_650)]


class AfterSilence(Shape):
    """Whom it pauses, and after how many days in which nobody is in touch with the person marketing resumes.

    Without `resume_after_days` it resumes by hand.
    """

    pauses: Reach = "person"
    resume_after_days: Days | None = None


class OfAssignments(AfterSilence):
    """A rep has the lead: from the offer on, or once they accepted. Rejected, expired or replaced it ends.

    An offer lets the first message of a run through that answers, within some minutes, what the person did before it.
    """

    since: Literal["offered", "accepted"] = "offered"
    answer_within_minutes: Annotated[int, Field(ge=0, le=1_440)] = 15


class OfReplies(AfterSilence):
    """The person answered."""

    types: list[Reply] = Field(min_length=1)


class OfContacts(AfterSilence):
    """A rep was in touch."""

    types: list[Contact] = Field(min_length=1)


class OfMeetings(Shape):
    """A meeting is agreed: marketing resumes so many days after it, at once when it is called off."""

    pauses: Reach = "person"
    resume_after_days: Days | None = None


class OfDeals(Shape):
    """A deal is open; `deal` pauses for all who have a part in it. It ends when the deal is won, or days after a loss.

    With `resume_after_days` it ends as well when the deal did not change for so long.
    """

    pauses: DealReach = "person"
    resume_after_days: Days | None = None
    resume_days_after_loss: Annotated[int, Field(ge=0, le=3_650)] = 0


class TakeoverDocument(Shape):
    """The policy as it is written. `spares` are the purposes that nothing of this holds.

    A run whose message was held for `end_after_days` ends; without it, it waits as long as it takes.
    """

    assignment: OfAssignments
    reply: OfReplies
    contact: OfContacts
    meeting: OfMeetings
    deal: OfDeals
    spares: list[Purpose] = Field(default=[TRANSACTIONAL, "onboarding"], max_length=50)
    end_after_days: Days | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A version of the policy."""

    version: int
    says: TakeoverDocument

    @property
    def for_accounts(self) -> bool:
        """Whether anything pauses for a whole company."""
        says = self.says
        parts = (says.assignment, says.reply, says.contact, says.meeting, says.deal)
        return any(part.pauses == "account" for part in parts)


def policy(version: int, document: dict[str, Any]) -> Policy:
    """The policy that a document says. Raises pydantic's ValidationError."""
    return Policy(version, TakeoverDocument.model_validate(document))


SHIPPED = TakeoverDocument(
    assignment=OfAssignments(resume_after_days=30),
    reply=OfReplies(types=["email_replied", "sms_replied", "whatsapp_replied"], resume_after_days=14),
    contact=OfContacts(types=["call_connected", "rep_emailed", "rep_messaged"], resume_after_days=14),
    meeting=OfMeetings(resume_after_days=7),
    deal=OfDeals(),
    end_after_days=90,
)
STORE = DocumentStore("takeover", SHIPPED.model_dump(mode="json"))
