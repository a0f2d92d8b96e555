"""Which model a request asks for, and whether it can have it."""

from services.attribution.domain import Model
from services.attribution.errors import ModelNotAvailable, NoSuchModel
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.domain import NOT_A_SPLIT
from shared.db import Connection
from shared.errors import FieldError


async def splitting_model(
    connection: Connection, catalogue: Catalogue, model_id: str, parameter: str = "model"
) -> Model:
    """A model that divides the credit of single conversions. Raises NoSuchModel or ModelNotAvailable."""
    if model_id in NOT_A_SPLIT:
        detail = f"{model_id} is not available yet; it gives totals by channel and does not split single conversions"
        raise ModelNotAvailable(detail, [FieldError(f"query:{parameter}", detail)])
    models = await catalogue.models(connection)
    if model_id not in models:
        detail = f"there is no such model; there are {', '.join(models)}"
        raise NoSuchModel(detail, [FieldError(f"query:{parameter}", detail)])
    return models[model_id]
