"""Which touches are a rep's own doing."""

from typing import Literal, get_args

Contact = Literal["call_attempted", "call_connected", "meeting_booked", "meeting_held", "rep_emailed", "rep_messaged"]
CONTACTS: tuple[Contact, ...] = get_args(Contact)
"""The types of touches that are a rep's own doing: the first of them is the first contact. `chat_started` and the
replies of a lead are not: a person answering is not yet a rep answering."""
