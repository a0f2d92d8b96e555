"""What scoring's handlers are given."""

from dataclasses import dataclass

from services.scoring.rules.document import RuleSet, rule_set, shipped_document
from shared.clock import Clock
from shared.personal import PersonKeys
from shared.rules import ActiveDocument, DocumentStore


@dataclass(frozen=True, slots=True)
class Parts:
    """The rules, the clock and the keys of persons."""

    rules: ActiveDocument[RuleSet]
    keys: PersonKeys
    clock: Clock


def make_parts(keys: PersonKeys, clock: Clock) -> Parts:
    """The parts of one process."""
    return Parts(ActiveDocument(scoring_documents(), rule_set), keys, clock)


def scoring_documents() -> DocumentStore:
    """The scoring document's versions."""
    return DocumentStore("scoring", shipped_document())
