"""Proofs that do not cover what is told: each is good for one body."""

from collections import OrderedDict
from collections.abc import Mapping

from services.capture.adapters.errors import BadSignature

MOST_KEPT = 100_000  # newer than any that is still of now, at three a second


class UsedProofs:
    """The proofs that this process has seen, by source, with the hash of what they came with."""

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._told: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._most_kept = most_kept

    def require_unused(self, source_id: str, proofs: Mapping[str, str]) -> None:
        """BadSignature if one of them came with something else before."""
        if any(self._told.get((source_id, proof), told) != told for proof, told in proofs.items()):
            raise BadSignature("the signature was used for another body")
        for proof, told in proofs.items():
            self._told[source_id, proof] = told
        while len(self._told) > self._most_kept:
            self._told.popitem(last=False)
