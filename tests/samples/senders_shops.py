"""How schedulers, shops and payments sign, by kind."""

from tests.samples.sender import Signer

SIGNERS: dict[str, Signer] = {}
