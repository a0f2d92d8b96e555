"""Rules as data: CEL expressions checked when they are saved, in documents that are never overwritten."""

from shared.rules._documents import (
    ActiveDocument,
    DocumentStore,
    InvalidDocument,
    NoSuchVersion,
    StoredDocument,
    invalid_document,
)
from shared.rules._expression import Evaluation, Expression, ExpressionFault, compile_expression, present
from shared.rules._router import DocumentOut, Simulate, Validate, documents_router
from shared.rules._source import Token, place, tokens_in
from shared.rules._vocabulary import BOOLEAN, INTEGER, NUMBER, OPEN, TEXT, TEXTS, TIME, Kind, Vocabulary

__all__ = [
    "BOOLEAN",
    "INTEGER",
    "NUMBER",
    "OPEN",
    "TEXT",
    "TEXTS",
    "TIME",
    "ActiveDocument",
    "DocumentOut",
    "DocumentStore",
    "Evaluation",
    "Expression",
    "ExpressionFault",
    "InvalidDocument",
    "Kind",
    "NoSuchVersion",
    "Simulate",
    "StoredDocument",
    "Token",
    "Validate",
    "Vocabulary",
    "compile_expression",
    "documents_router",
    "invalid_document",
    "place",
    "present",
    "tokens_in",
]
