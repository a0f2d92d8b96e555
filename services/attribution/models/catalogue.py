"""The models there are: those that ship with the product, and the active version of each custom one."""

from datetime import timedelta

from services.attribution.domain import Model
from services.attribution.models.custom import STORE, CustomModel, ModelDocument, compile_model
from services.attribution.models.domain import BUILT_IN
from shared.db import Connection


class Catalogue:
    """Looks up the models that count now; a custom one is compiled once per version."""

    def __init__(self) -> None:
        self._compiled: dict[str, CustomModel] = {}

    async def models(self, connection: Connection) -> dict[str, Model]:
        """All models by id, in the order they are listed."""
        return {**BUILT_IN, **{model.model_id: model for model in await self.custom(connection)}}

    async def custom(self, connection: Connection) -> list[CustomModel]:
        """The custom models that have an active version."""
        names = await STORE.names(connection)
        return [model for name in names if (model := await self._custom(connection, name)) is not None]

    async def longest_lookback(self, connection: Connection) -> timedelta | None:
        """How old a touch can be and still earn by some model; None when one has no limit."""
        lookbacks = [model.lookback for model in (await self.models(connection)).values()]
        return None if None in lookbacks else max(one for one in lookbacks if one is not None)

    async def _custom(self, connection: Connection, name: str) -> CustomModel | None:
        version = await STORE.active_version(connection, name)
        if version is None:
            return None
        known = self._compiled.get(name)
        if known is None or known.version != version:
            document = (await STORE.version(connection, version, name)).document
            known = compile_model(name, version, ModelDocument.model_validate(document))
            self._compiled[name] = known
        return known
