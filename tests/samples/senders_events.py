"""How analytics, chat, mail and SMS providers sign, by kind."""

from tests.samples.sender import Signer

SIGNERS: dict[str, Signer] = {}
