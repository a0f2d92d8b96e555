"""The models there are: those that ship with the product, and the versions of custom ones."""

from typing import Any

from services.attribution.domain import CreditingRun, Model, TotalsModel
from services.attribution.models import queries
from services.attribution.models.custom import STORE, ModelDocument, compile_model
from services.attribution.models.domain import SHIPPED
from shared.db import Connection
from shared.rules import CompiledVersions


class Catalogue:
    """Looks up the runs that count now; each version of a custom model is compiled once."""

    def __init__(self) -> None:
        self._versions = CompiledVersions(_compiled)

    async def crediting(self, connection: Connection) -> list[CreditingRun]:
        """The runs to credit by, which stay the same until the end of the transaction."""
        return [
            CreditingRun(run.run, await self.model(connection, run.model_id, run.version))
            for run in await queries.share_runs(connection)
            if run.state != "retiring"
        ]

    async def dividing(self, connection: Connection) -> list[CreditingRun]:
        """The runs that answer, of models that divide single conversions."""
        runs = [
            CreditingRun(run.run, await self.model(connection, run.model_id, run.version))
            for run in await queries.runs(connection)
            if run.state == "serving"
        ]
        return [run for run in runs if not isinstance(run.model, TotalsModel)]

    async def model(self, connection: Connection, model_id: str, version: int) -> Model | TotalsModel:
        """One version of a model."""
        if model_id in SHIPPED:
            return SHIPPED[model_id]
        return await self._versions.get(connection, STORE, model_id, version)

    async def gives_whole(self, connection: Connection, run: queries.Run) -> bool:
        """Whether each channel on a path has the conversion whole."""
        model = await self.model(connection, run.model_id, run.version)
        return not isinstance(model, TotalsModel) and model.whole

    async def active(self, connection: Connection) -> dict[str, Model | TotalsModel]:
        """The version of each model that counts by now, whether its credits are there or not."""
        found: dict[str, Model | TotalsModel] = dict(SHIPPED)
        for name in await STORE.names(connection):
            version = await STORE.active_version(connection, name)
            if version is not None:
                found[name] = await self.model(connection, name, version)
        return found


def _compiled(model_id: str, version: int, document: dict[str, Any]) -> Model | TotalsModel:
    return compile_model(model_id, version, ModelDocument.model_validate(document))
