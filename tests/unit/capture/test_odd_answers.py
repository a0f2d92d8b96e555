"""Whatever a provider answers to a second call, and whatever asked for it, an adapter says Unmappable or a fact."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture.adapters import adapters
from services.capture.adapters.adapter import Unmappable
from tests.samples.signed import KINDS, sample
from tests.unit.capture.test_odd_requests import BODIES, _changed, request_with

pytestmark = pytest.mark.slow

ASKING = [kind for kind in KINDS if adapters()[kind].lookups(sample(kind).request)]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=20),
    st.sampled_from(
        [[], {}, [1], [{}], {"a": []}, "\0", "\ud800", "x" * 600, "1772624430263", "2099-01-01", b"", {1: 2}]
    ),
)


@pytest.mark.parametrize("kind", ASKING)
@settings(max_examples=20, deadline=None)
@given(places=st.lists(st.integers(0, 30), max_size=7), odd=ODD)
def test_an_answer_with_something_odd_in_it_is_mapped_or_not(kind: str, places: list[int], odd: Any) -> None:
    known = sample(kind)
    found = {path: _changed(answer, places, odd) for path, answer in known.request.found.items()}
    with suppress(Unmappable):
        for fact in adapters()[kind].facts(replace(known.request, found=found), known.settings):
            orjson.dumps(fact, default=dict)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(body=BODIES)
def test_no_body_breaks_what_is_asked_for(kind: str, body: bytes) -> None:
    assert all(path.startswith("/") for path in adapters()[kind].lookups(request_with([], body)))
