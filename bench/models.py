"""All models from scratch in memory, beside the packages that compute some of them: seconds, memory, agreement.

Run as `python -m bench.models PEOPLE` it computes and prints one JSON document; `measure` runs that and the packages,
each in a process of its own, over the same journeys.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.journeys import CHANNELS, Journeys, journeys
from services.attribution.domain import SHARE_UNITS, Game, Model
from services.attribution.models.columns import NOWHERE, Paths, divide, divides, totals
from services.attribution.models.domain import BUILT_IN
from services.attribution.totals.chains import ORDERS, removal_effects
from services.attribution.totals.columns import Journeys as Columns
from services.attribution.totals.columns import chain_of, sets_of
from services.attribution.totals.games import shapley

SIZES = (10_000, 100_000, 1_000_000)
PACKAGES = ("ChannelAttribution==2.2.5", "marketing-attribution-models==2.1.1")
BUILD = ("setuptools", "wheel", "cython", "numpy", "pandas", "scipy", "matplotlib")
GAMES: tuple[Game, ...] = ("subset_rate", "subset_conversions", "observed_set_rate")
SECONDS_GOAL = 10
MIB_GOAL = 500
CLOCK_S = 0.001
"""A step of a package that took less was done in the one before it."""
FOLDER = Path(".bench/packages")


@dataclass(frozen=True, slots=True)
class Computed:
    """What one process made of the journeys: by step its seconds, and the credited conversions by channel."""

    seconds: dict[str, float]
    channels: dict[str, dict[str, float]]
    mib: float


def measure(people: int) -> dict[str, Computed]:
    """Ours (`throughline`) and each package over the same journeys."""
    with TemporaryDirectory(prefix="throughline-bench-") as folder:
        file = Path(folder) / "journeys.npz"
        journeys(people).save(file)
        found = {"throughline": _computed([sys.executable, "-m", "bench.models", str(people)])}
        python = _interpreter_with_packages()
        for package in PACKAGES:
            name = package.partition("==")[0]
            found[name] = _computed([str(python), "bench/packages.py", name, str(file)])
    return found


def _computed(command: list[str]) -> Computed:
    lines = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).splitlines()
    steps = [json.loads(line) for line in lines if line.startswith("{")]
    return Computed(
        seconds={step["step"]: step["seconds"] for step in steps if "seconds" in step},
        channels={step["step"]: step["channels"] for step in steps if "channels" in step},
        mib=next(step["mib"] for step in steps if step["step"] == "memory"),
    )


def _interpreter_with_packages() -> Path:
    """A virtual environment with the packages, built once; they are no part of the product."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / "complete").exists():
        uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", str(python)]
        subprocess.run([uv[0], "venv", "--quiet", "--clear", str(FOLDER)], check=True)
        subprocess.run([*uv, *BUILD], check=True)
        subprocess.run([*uv, "--no-build-isolation", *PACKAGES], check=True)
        (FOLDER / "complete").touch()
    return python


def steps(of: Journeys) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Every model, as a step that answers the credited conversions by channel."""
    converting = np.flatnonzero(of.converted)
    lengths = np.diff(of.starts)[converting]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(of.starts[converting] - starts[:-1], lengths) + np.arange(starts[-1])
    nowhere = np.full(len(converting), NOWHERE)
    paths = Paths(
        starts,
        of.channels[places],
        of.ages_us[places],
        of.values[converting],
        lead=lengths // 2,
        deal=nowhere,
        direct=CHANNELS.index("Direct"),
    )
    for model in filter(divides, BUILT_IN.values()):
        yield model.model_id, partial(_split, paths, model)
    columns = Columns(CHANNELS, of.starts, of.channels, of.converted, of.values)
    total = float(of.converted.sum())
    for order in ORDERS:
        yield f"markov_{order}" if order > 1 else "markov", partial(_markov, columns, order, total)
    for game in GAMES:
        yield "shapley" if game == GAMES[0] else f"shapley_{game}", partial(_shapley, columns, game)


def _split(paths: Paths, model: Model) -> dict[str, float]:
    division = divide(paths, model)
    totals(paths.channels, division.value_minor, len(CHANNELS))
    units = totals(paths.channels, division.units, len(CHANNELS))
    return {name: one / SHARE_UNITS for name, one in zip(CHANNELS, units, strict=True)}


def _markov(columns: Columns, order: int, total: float) -> dict[str, float]:
    effects = removal_effects(chain_of(columns, order), order).conversions
    whole = sum(effects.values())
    return {name: effect / whole * total for name, effect in effects.items()}


def _shapley(columns: Columns, game: Game) -> dict[str, float]:
    return {name: float(value) for name, value in shapley(sets_of(columns), game).conversions.items()}


def main() -> None:
    """Compute every model once and print what it took."""
    of = journeys(int(sys.argv[1]))
    told: list[dict[str, Any]] = []
    for name, compute in steps(of):
        began = time.perf_counter()
        channels = compute()
        told.append({"step": name, "seconds": time.perf_counter() - began, "channels": channels})
    told.append({"step": "memory", "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    sys.stdout.writelines(json.dumps(line) + "\n" for line in told)


if __name__ == "__main__":
    main()
