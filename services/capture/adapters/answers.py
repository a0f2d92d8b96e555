"""What a text means that somebody sends back: the words that carriers and networks agree on."""

_STOP = frozenset(
    {"STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "OPT OUT", "OPT-OUT"}
)
_START = frozenset({"START", "UNSTOP"})  # "YES", which Twilio takes too, may be the answer to a question
CONSENT = {"unsubscribed": "denied", "resubscribed": "granted"}
"""What they say about consent to the channel."""


def meaning_of(said: str | None) -> str:
    """`unsubscribed`, `resubscribed`, or `replied`."""
    word = (said or "").upper().strip(" .!\"'\r\n\t")
    return "unsubscribed" if word in _STOP else "resubscribed" if word in _START else "replied"
