"""What routing's handlers are given, built once per role."""

from dataclasses import dataclass
from typing import Any

from services.routing.deals.pipeline import PipelineDocument
from services.routing.deals.pipelines import Pipelines
from services.routing.deals.stages import Pipeline, compile_pipeline
from services.routing.rules.document import DEFAULT, RoutingDocument
from services.routing.rules.domain import Rules, compile_rules
from shared.rules import ActiveDocument, DocumentStore
from shared.service import Runtime


@dataclass(frozen=True, slots=True)
class Parts:
    """The runtime, and the active documents, compiled."""

    runtime: Runtime
    rules: ActiveDocument[Rules]
    pipelines: Pipelines


def make_parts(runtime: Runtime) -> Parts:
    """Routing's parts for one role."""
    return Parts(
        runtime=runtime,
        rules=ActiveDocument(DocumentStore("routing", DEFAULT.as_json()), rules_of),
        pipelines=Pipelines(),
    )


def rules_of(version: int, document: dict[str, Any]) -> Rules:
    """Compiled rules. Raises ValidationError for a wrong shape, InvalidDocument for parts that cannot work."""
    return compile_rules(version, RoutingDocument.model_validate(document))


def pipeline_of(version: int, document: dict[str, Any]) -> Pipeline:
    """A pipeline. Raises ValidationError for a wrong shape, InvalidDocument for parts that cannot work."""
    return compile_pipeline(version, PipelineDocument.model_validate(document))
