"""How ad platforms and CRMs sign, by kind."""

from tests.samples.sender import Signer

SIGNERS: dict[str, Signer] = {}
