"""What scoring's handlers are given."""

from dataclasses import dataclass
from datetime import datetime

from services.scoring.rules.document import RuleSet, rule_set, shipped_document
from services.scoring.segments.catalogue import Catalogue
from shared.clock import Clock
from shared.db import Connection, Tx, agreed_in, agreed_now
from shared.personal import PersonKeys
from shared.rules import ActiveDocument, DocumentStore
from shared.service import Runtime


@dataclass(frozen=True, slots=True)
class Parts:
    """Rules, segments, the clock and the keys of persons. `decides` is false in a rebuild, which takes no decision.

    `beside` is the version of the rules whose rows are at hand, when these are not the ones that serve.
    """

    rules: ActiveDocument[RuleSet]
    segments: Catalogue
    keys: PersonKeys
    clock: Clock
    decides: bool
    beside: int | None = None

    async def present(self, connection: Connection) -> datetime:
        """Now, by the one clock that all processes share."""
        return await agreed_now(connection, self.clock)

    async def present_in(self, tx: Tx) -> datetime:
        """Now, asked once a transaction: all that it judges is judged at one moment."""
        return await agreed_in(tx, self.clock)


def make_parts(runtime: Runtime) -> Parts:
    """The parts of one process."""
    documents = ActiveDocument(scoring_documents(), rule_set)
    return Parts(documents, Catalogue(), runtime.keys, runtime.clock, decides=not runtime.database.muted)


def scoring_documents() -> DocumentStore:
    """The scoring document's versions."""
    return DocumentStore("scoring", shipped_document())
