"""What other packages take for the same journeys. Run by an interpreter that has them: `python packages.py NAME FILE`.

Prints a JSON line for each step, `{"step", "seconds", "channels"?}`, and one with the peak memory. Each package gets
the form that it asks for, made before its clock starts.
"""

# mypy: ignore-errors

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise

import numpy as np

SEPARATOR = " > "


def told(step: str, work: Callable[[], object], channels: Callable[[object], dict[str, float]] | None = None) -> object:
    """Do a step, and tell how long it took and what it found."""
    began = time.perf_counter()
    found = work()
    line = {"step": step, "seconds": time.perf_counter() - began}
    print(json.dumps(line if channels is None else line | {"channels": channels(found)}), flush=True)
    return found


def channel_attribution(data: dict, paths: list[str]) -> None:
    """ChannelAttribution: its three heuristics come in one call; the Markov model by its simulation."""
    package, pandas = import_module("ChannelAttribution"), import_module("pandas")
    frame = pandas.DataFrame(
        {
            "path": paths,
            "conversions": data["converted"].astype(int),
            "value": data["values"].astype(float),
            "null": (~data["converted"]).astype(int),
        }
    )
    columns = {"first_touch": "first_touch_conversions", "last_touch": "last_touch_conversions"}
    columns["linear"] = "linear_touch_conversions"
    found = told(
        "first_touch,last_touch,linear",
        lambda: package.heuristic_models(frame, "path", "conversions", var_value="value", flg_pro=False),
    )
    for model, column in columns.items():
        told(model, lambda: None, lambda _, column=column: dict(zip(found["channel_name"], found[column], strict=True)))
    told(
        "markov",
        lambda: package.markov_model(
            frame, "path", "conversions", var_value="value", var_null="null", flg_pro=False, verbose=False
        ),
        lambda one: dict(zip(one["channel_name"], one["total_conversions"], strict=True)),
    )


def marketing_attribution_models(data: dict, paths: list[str]) -> None:
    """marketing-attribution-models: journeys are parsed once, then each model is computed."""
    package, polars = import_module("mam"), import_module("polars")
    hours = data["ages_us"] / 3.6e9
    starts = data["starts"].tolist()
    ages = [SEPARATOR.join(map(repr, hours[one:end].tolist())) for one, end in pairwise(starts)]
    frame = polars.DataFrame(
        {
            "id": np.arange(len(paths)),
            "path": paths,
            "ages": ages,
            "converted": data["converted"],
            "one": data["converted"].astype(float),
        }
    )
    model = told(
        "reading",
        lambda: package.MAM(
            frame,
            "journey",
            "path",
            "converted",
            user_id_colname="id",
            time_till_conv_colname="ages",
            conversion_value_colname="one",
        ),
    )
    for step, name in (
        ("first_touch", "run_first_click"),
        ("last_touch", "run_last_click"),
        ("linear", "run_linear"),
        ("position_based", "run_position_based"),
        ("time_decay", "run_time_decay"),
        ("markov", "run_markov"),
        ("shapley", "run_shapley"),
    ):
        told(
            step,
            lambda name=name: getattr(model, name)().to_dict(),
            lambda one: dict(zip(one["channels"], one["attribution"], strict=True)),
        )


def main() -> None:
    """Read the journeys, run one package."""
    package, file = sys.argv[1:]
    with np.load(file) as read:
        data = {name: read[name] for name in read.files}
    names = data["names"][data["channels"]]
    starts = data["starts"].tolist()
    paths = [SEPARATOR.join(names[one:end]) for one, end in pairwise(starts)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    {"ChannelAttribution": channel_attribution, "marketing-attribution-models": marketing_attribution_models}[package](
        data, paths
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"step": "memory", "mib": after / 1024, "before_mib": before / 1024}))


if __name__ == "__main__":
    main()
