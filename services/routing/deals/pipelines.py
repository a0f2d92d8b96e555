"""The pipelines there are, by name, each a document of its own."""

from collections.abc import Sequence

from services.routing.deals.domain import Deal
from services.routing.deals.pipeline import DEFAULT_ID, DEFAULT_PIPELINE, RENEWALS, RENEWALS_ID, PipelineDocument
from services.routing.deals.stages import Pipeline, compile_pipeline
from services.routing.errors import NoSuchPipeline
from shared.db import Connection
from shared.rules import ActiveDocument, DocumentStore, NoSuchVersion

KIND = "pipeline"
KEPT = 200


class Pipelines:
    """The active version of each pipeline, compiled once."""

    def __init__(self) -> None:
        self.store = DocumentStore(KIND, DEFAULT_PIPELINE.as_json())
        self._kept: dict[str, ActiveDocument[Pipeline]] = {}

    async def current(self, connection: Connection, pipeline_id: str = DEFAULT_ID) -> Pipeline:
        """What counts now. Raises NoSuchPipeline."""
        if pipeline_id == RENEWALS_ID:
            await self._install_renewals(connection)
        if pipeline_id not in self._kept and len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        active = self._kept.setdefault(pipeline_id, self._document(pipeline_id))
        try:
            return await active.current(connection)
        except NoSuchVersion as exc:
            del self._kept[pipeline_id]
            raise NoSuchPipeline(f"there is no pipeline {pipeline_id[:100]}") from exc

    async def of_deal(self, connection: Connection, pipeline_id: str) -> Pipeline:
        """The pipeline that a deal is in; one that was restored without its pipeline is in the default one."""
        try:
            return await self.current(connection, pipeline_id)
        except NoSuchPipeline:
            return await self.current(connection)

    async def order(self, connection: Connection, deal: Deal) -> Sequence[str]:
        """The stages of the version by which a deal came into its stage, in order; none where that is not known."""
        await self.of_deal(connection, deal.pipeline_id)
        if (kept := self._kept.get(deal.pipeline_id)) is None:
            return ()
        try:
            return tuple((await kept.at_version(connection, deal.pipeline_version)).probabilities)
        except NoSuchVersion:
            return ()

    async def names(self, connection: Connection) -> list[str]:
        """The ids of all pipelines, those that are shipped among them."""
        await self.store.active_version(connection)
        await self._install_renewals(connection)
        return await self.store.names(connection)

    async def _install_renewals(self, connection: Connection) -> None:
        if await self.store.active_version(connection, RENEWALS_ID) is None:
            await self.store.install(connection, RENEWALS.as_json(), RENEWALS_ID)

    def _document(self, pipeline_id: str) -> ActiveDocument[Pipeline]:
        return ActiveDocument(
            self.store,
            lambda version, document: compile_pipeline(version, PipelineDocument.model_validate(document), pipeline_id),
            pipeline_id,
        )
