"""Which model a request asks for, and whether it can have it."""

from services.attribution.errors import ModelNotAvailable, NoSuchModel
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.domain import NOT_A_SPLIT
from services.attribution.models.queries import Run, serving
from shared.db import Connection
from shared.errors import FieldError, Unavailable


async def serving_run(connection: Connection, catalogue: Catalogue, model_id: str, parameter: str = "model") -> Run:
    """The run that answers for a model that divides the credit of single conversions.

    Raises NoSuchModel or ModelNotAvailable, and Unavailable while a new model is credited for the first time.
    """
    if model_id in NOT_A_SPLIT:
        detail = f"{model_id} is not available yet; it gives totals by channel and does not split single conversions"
        raise ModelNotAvailable(detail, [FieldError(f"query:{parameter}", detail)])
    run = await serving(connection, model_id)
    if run is not None:
        return run
    known = list(await catalogue.active(connection))
    if model_id in known:
        raise Unavailable(f"{model_id} is new; conversions are being credited by it")
    detail = f"there is no such model; there are {', '.join(known)}"
    raise NoSuchModel(detail, [FieldError(f"query:{parameter}", detail)])
