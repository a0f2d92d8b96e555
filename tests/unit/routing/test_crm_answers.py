"""What answers of CRMs mean: what somebody there has to mend, or time does, gives up nothing that waits."""

import json

import pytest

from services.routing.crm.salesforce import Salesforce
from shared.outbound import Answer


def salesforce_says(status: int, code: str) -> Answer:
    """An error as Salesforce's REST API writes it."""
    return Answer(status, {}, json.dumps([{"message": "as it says", "errorCode": code}]).encode())


@pytest.mark.parametrize(
    ("status", "code", "what", "rest_s"),
    [
        (401, "INVALID_SESSION_ID", "expired", None),
        (403, "API_DISABLED_FOR_ORG", "expired", None),
        (403, "REQUEST_LIMIT_EXCEEDED", "later", 900),
        (403, "STORAGE_LIMIT_EXCEEDED", "later", 3_600),
        (400, "STORAGE_LIMIT_EXCEEDED", "later", 3_600),
        (400, "UNABLE_TO_LOCK_ROW", "later", None),
        (400, "API_CURRENTLY_DISABLED", "later", None),
        (400, "REQUEST_RUNNING_TOO_LONG", "later", None),
        (500, "UNKNOWN_EXCEPTION", "later", None),
        (400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "refused", None),
        (403, "INSUFFICIENT_ACCESS", "refused", None),
    ],
)
def test_salesforce_refuses_for_good_what_is_wrong_with_a_record_alone(
    status: int, code: str, what: str, rest_s: int | None
) -> None:
    reading = Salesforce().read(salesforce_says(status, code))
    assert (reading.what, reading.rest_s) == (what, rest_s)
    assert code in reading.said
