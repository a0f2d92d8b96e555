"""Why something personal cannot be opened or sealed."""

from shared.errors import Rejected, Unavailable


class SealBroken(Rejected):
    """An encrypted block that does not open with its person's key: it was damaged, or moved to another person."""

    slug = "personal/seal-broken"


class KeysAwaited(Unavailable):
    """Facts have come before the keys that open them; `PersonKeys.arrived` says when there are more keys."""

    slug = "personal/keys-awaited"


class PersonErased(Rejected):
    """The person's key is destroyed; nothing personal can be written under this id any more."""

    slug = "personal/person-erased"
    status = 410
    title = "The person was erased"
