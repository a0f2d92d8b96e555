"""What scoring's handlers are given."""

from dataclasses import dataclass

from services.scoring.rules.document import RuleSet, rule_set, shipped_document
from shared.clock import Clock
from shared.personal import PersonKeys
from shared.rules import ActiveDocument, DocumentStore
from shared.service import Runtime


@dataclass(frozen=True, slots=True)
class Parts:
    """The rules, the clock and the keys of persons. `decides` is false in a rebuild, which takes no decision."""

    rules: ActiveDocument[RuleSet]
    keys: PersonKeys
    clock: Clock
    decides: bool


def make_parts(runtime: Runtime) -> Parts:
    """The parts of one process."""
    documents = ActiveDocument(scoring_documents(), rule_set)
    return Parts(documents, runtime.keys, runtime.clock, decides=not runtime.database.muted)


def scoring_documents() -> DocumentStore:
    """The scoring document's versions."""
    return DocumentStore("scoring", shipped_document())
