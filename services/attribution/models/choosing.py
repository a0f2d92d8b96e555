"""Which model a request asks for, and whether it can have it."""

from services.attribution.errors import ModelNotAvailable, NoSuchModel
from services.attribution.models.custom import STORE
from services.attribution.models.domain import SHIPPED
from services.attribution.models.queries import Run, serving
from shared.db import Connection
from shared.errors import FieldError, Unavailable


async def serving_run(connection: Connection, model_id: str, parameter: str = "model") -> Run:
    """The run that answers for a model that divides the credit of single conversions.

    Raises what `serving_model` does, and ModelNotAvailable.
    """
    run = await serving_model(connection, model_id, parameter)
    if not run.splits:
        detail = f"{model_id} gives totals by channel and does not split single conversions"
        raise ModelNotAvailable(detail, [FieldError(f"query:{parameter}", detail)])
    return run


async def serving_model(connection: Connection, model_id: str, parameter: str = "model") -> Run:
    """The run that answers for a model of any kind.

    Raises NoSuchModel, and Unavailable while a new model is credited for the first time.
    """
    run = await serving(connection, model_id)
    if run is not None:
        return run
    custom = [name for name in await STORE.names(connection) if await STORE.active_version(connection, name)]
    known = [*SHIPPED, *custom]
    if model_id in known:
        raise Unavailable(f"{model_id} is new; conversions are being credited by it")
    detail = f"there is no such model; there are {', '.join(known)}"
    raise NoSuchModel(detail, [FieldError(f"query:{parameter}", detail)])
