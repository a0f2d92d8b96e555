"""Many paths at once get what each gets alone."""

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.attribution.channels.domain import DIRECT
from services.attribution.domain import SHARE_UNITS, Model, Path, Touch
from services.attribution.domain import divide as divide_one
from services.attribution.models.columns import NOWHERE, Paths, divide, divides, totals
from services.attribution.models.custom import CustomModel, ModelDocument, compile_model
from services.attribution.models.domain import BUILT_IN
from shared.ids import TouchId

CONVERTED = datetime(2026, 11, 1, tzinfo=UTC)
CHANNELS = ("Email", DIRECT, "Paid Search")
MICROSECOND = timedelta(microseconds=1)

DOCUMENTS = (
    {"base": "time_decay", "half_life_days": 0.5},
    {"base": "position_based", "weights": {"first": 1, "middle": 0, "last": 2}},
    {"base": "full_path", "weights": {"first": 0, "lead": 3, "deal": 5, "close": 0, "rest": 1}},
)
CUSTOM = [
    model
    for document in DOCUMENTS
    if isinstance(model := compile_model("own", 1, ModelDocument.model_validate(document)), CustomModel)
]

ages = st.one_of(
    st.integers(0, 3), st.integers(0, 90 * 86_400_000_000), st.sampled_from([86_400_000_000, 7 * 86_400_000_000])
)
one_path = st.tuples(
    st.lists(st.tuples(st.sampled_from(range(3)), ages), min_size=1, max_size=9),
    st.one_of(st.integers(0, 7), st.integers(0, 10**6), st.integers(0, 10**15)),
    st.integers(NOWHERE, 8),
    st.integers(NOWHERE, 8),
)


def columns(paths: list[Path], values: list[int]) -> Paths:
    touches = [(path, touch) for path in paths for touch in path.touches]
    return Paths(
        starts=np.cumsum([0, *(len(path.touches) for path in paths)]),
        channels=np.array([CHANNELS.index(touch.channel) for _, touch in touches]),
        ages_us=np.array([(path.at - touch.occurred_at) // MICROSECOND for path, touch in touches]),
        values=np.array(values),
        lead=np.array([NOWHERE if path.lead is None else path.lead for path in paths]),
        deal=np.array([NOWHERE if path.deal is None else path.deal for path in paths]),
        direct=CHANNELS.index(DIRECT),
    )


def path_of(touches: list[tuple[int, int]], lead: int, deal: int) -> Path:
    ordered = sorted(touches, key=lambda touch: -touch[1])
    made = tuple(
        Touch(
            "api", TouchId(f"t{index:03}"), CONVERTED - age * MICROSECOND, CONVERTED, "page_view", CHANNELS[channel], ""
        )
        for index, (channel, age) in enumerate(ordered)
    )
    return Path(CONVERTED, made, *(place if 0 <= place < len(made) else None for place in (lead, deal)))


@settings(max_examples=300, deadline=None)
@given(st.lists(one_path, min_size=1, max_size=12))
def test_each_touch_earns_what_it_earns_alone(drawn: list[tuple[list[tuple[int, int]], int, int, int]]) -> None:
    paths = [path_of(touches, lead, deal) for touches, _, lead, deal in drawn]
    values = [value for _, value, _, _ in drawn]
    together = columns(paths, values)
    models: list[Model] = [*filter(divides, BUILT_IN.values()), *CUSTOM]
    for model in models:
        division = divide(together, model)
        for index, (path, value) in enumerate(zip(paths, values, strict=True)):
            alone = divide_one(path, value, model)
            mine = slice(int(together.starts[index]), int(together.starts[index + 1]))
            assert (0, *division.units[mine].tolist()) == alone.units, model.model_id
            assert (0, *division.value_minor[mine].tolist()) == alone.value_minor, model.model_id


def test_sums_keep_the_last_unit_of_a_large_history() -> None:
    keys, amounts = np.arange(300_000) % 2, np.full(300_000, SHARE_UNITS + 1)
    assert totals(keys, amounts, 3) == [150_000 * (SHARE_UNITS + 1), 150_000 * (SHARE_UNITS + 1), 0]
