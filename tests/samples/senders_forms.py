"""How form builders, sheets and automation tools sign, by kind."""

from tests.samples.sender import Signer

SIGNERS: dict[str, Signer] = {}
