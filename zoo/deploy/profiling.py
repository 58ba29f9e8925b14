"""What a model costs: parameters, multiply-accumulates, memory, time on every engine present."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.deploy.counting import (
    OperationCost,
    Step,
    item_bytes,
    operation_costs,
    peak_activations,
    steps,
    uncounted,
)
from zoo.deploy.engines import Engine, available_engines, cores, make_engine
from zoo.errors import ExportError, OptionValueError

Array = np.ndarray[Any, np.dtype[Any]]

LOW, HIGH = 10, 90  # percentiles of the interval
WARM_UP = 3  # calls before the clock
FEWEST = 10  # calls of each engine, however slow
MOST_STAGES = 10  # timed and drawn; a transformer's blocks are put together
SPANS = 4  # that its blocks are put together to


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of one call on one engine."""

    engine: str
    precision: str
    median_s: float
    low_s: float  # a tenth of the calls were faster
    high_s: float  # a tenth were slower
    calls: int
    images_per_s: float  # at the median
    memory_bytes: int | None  # by which the process grew: library, weights, activations


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """A stage of the graph; `seconds` of a call is None where nothing was timed."""

    name: str
    params: int
    macs: int  # of one example
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a model costs; print it with `rich`, or draw it."""

    model: str
    input_shape: tuple[int, ...]  # of one example, (H, W, C)
    batch: int
    params: int
    trainable_params: int
    weight_bytes: int
    macs: int  # of one example
    macs_by_kind: Mapping[str, int]
    uncounted: tuple[str, ...]  # operations whose multiply-accumulates are not known
    peak_activation_bytes: int  # of the batch, by the graph alone: see `peak_activations`
    peak_operation: str  # that runs when it is reached
    stages: tuple[StageCost, ...]
    stage_engine: str  # that timed the stages; empty where none did
    latencies: tuple[Latency, ...]
    skipped: tuple[str, ...]  # engines that are installed and cannot run the model, and why
    processor: str
    cores: int  # that this process may use

    def to_json(self) -> dict[str, Any]:
        """Plain data: dicts, lists, numbers, strings."""
        return dataclasses.asdict(self)

    def save_picture(self, path: str | os.PathLike[str]) -> None:
        """Draws time, MACs and parameters of the stages and the engines' latency to a PNG.

        Raises:
            OptionValueError: Another suffix.
        """
        from zoo.deploy.profile_picture import save_picture

        save_picture(self, Path(path))

    def __rich__(self) -> Any:
        from zoo.deploy.profile_table import render

        return render(self)


def profile(
    model: keras.Model | str | os.PathLike[str],
    engines: Sequence[str | Engine] | None = None,
    batch: int = 1,
    *,
    precision: str = "float32",
    seconds: float = 2.0,
) -> Profile:
    """Counts what a model costs and times it on every engine present.

    Engines are called in turn, so that whatever else the machine does meets them alike.

    Args:
        model: A model of a fixed input size, or a name of the catalog, which gets random weights.
        engines: Names, or engines already made, such as what `zoo.deploy.quantize` returns. None:
            all that are installed and can run the model. An empty list: nothing is timed.
        batch: Examples in a call.
        precision: Of the engines that are made here.
        seconds: For which each engine is timed; at least 10 calls whatever that takes.

    Raises:
        ExportError: An engine that was named cannot hold the model.
        OptionValueError: `batch` or `seconds` is not positive, the size of the input is not fixed,
            the model is no functional graph, or an engine is not known or not installed.
        UnknownModelError: No such model.
    """
    _check_positive(batch=batch, seconds=seconds)
    opened: Any = model
    if isinstance(model, str | os.PathLike):
        from zoo.factory import create_model

        opened = create_model(os.fspath(model))
    costs = operation_costs(opened)
    peak = peak_activations(opened, batch)
    shape = tuple(opened.input_shape[1:])
    inputs = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
    chosen, skipped = _engines(opened, engines, precision, inputs)
    latencies = _latencies(chosen, inputs, seconds)
    groups = stage_groups([cost.stage for cost in costs])
    timer = next((one.engine.name for one in chosen if one.is_own), "")
    times = _stage_seconds(opened, groups, timer, inputs, seconds) if timer else {}
    kinds = dict.fromkeys(cost.kind for cost in costs if cost.macs)
    return Profile(
        model=opened.name,
        input_shape=shape,
        batch=batch,
        params=opened.count_params(),
        trainable_params=sum(math.prod(v.shape) for v in opened.trainable_variables),
        weight_bytes=sum(math.prod(v.shape) * item_bytes(v.dtype) for v in opened.weights),
        macs=sum(cost.macs for cost in costs),
        macs_by_kind={k: sum(c.macs for c in costs if c.kind == k) for k in kinds},
        uncounted=uncounted(opened),
        peak_activation_bytes=peak.bytes,
        peak_operation=peak.operation,
        stages=tuple(_stage_costs(costs, groups, times)),
        stage_engine=timer,
        latencies=latencies,
        skipped=skipped,
        processor=_processor(),
        cores=cores(),
    )


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not value > 0:
            raise OptionValueError(f"`{name}` must be positive; got {name}={value!r}.")


# --- stages -------------------------------------------------------------------------------------


def stage_groups(stages: Sequence[str]) -> dict[str, str]:
    """Names what each stage is shown as: itself, or a span where there are too many of them.

    A transformer of 12 blocks is shown as `block1-3`, `block4-6`, ...
    """
    names = list(dict.fromkeys(name for name in stages))
    blocks = [name for name in names if re.fullmatch(r"(block|stage)\d+", name)]
    shown = {name: name or "start" for name in names}
    if len(names) <= MOST_STAGES:
        return shown
    for span in np.array_split(np.asarray(blocks), SPANS):
        first, last = str(span[0]), re.sub(r"\D", "", str(span[-1]))
        shown |= {str(name): first if len(span) == 1 else f"{first}-{last}" for name in span}
    return shown


def _stage_costs(
    costs: Sequence[OperationCost], groups: Mapping[str, str], times: Mapping[str, float]
) -> Iterator[StageCost]:
    for shown in dict.fromkeys(groups.values()):
        own = [cost for cost in costs if groups[cost.stage] == shown]
        yield StageCost(
            name=shown,
            params=sum(cost.params for cost in own),
            macs=sum(cost.macs for cost in own),
            seconds=times.get(shown),
        )


def _stage_seconds(
    model: keras.Model, groups: Mapping[str, str], engine: str, inputs: Array, seconds: float
) -> dict[str, float]:
    """Seconds of each stage in a call, from models that end after one stage more each."""
    order = steps(model)
    ends: dict[str, Step] = {groups[step.stage]: step for step in order if step.stage in groups}
    parts = [keras.Model(model.inputs, step.outputs[0]) for step in ends.values()]
    calls = [_caller(make_engine(part, engine, precision="float32"), inputs) for part in parts]
    rounds = np.asarray(alternate(calls, seconds))  # (calls, stages)
    alone = np.diff(rounds, axis=1, prepend=0.0)
    return {name: max(0.0, float(t)) for name, t in zip(ends, np.median(alone, 0), strict=True)}


# --- time ---------------------------------------------------------------------------------------


def alternate(calls: Sequence[Callable[[], Any]], seconds: float) -> list[list[float]]:
    """Calls each in turn, over and over; returns the seconds of each call, a row per round."""
    for call in calls:
        for _ in range(WARM_UP):
            call()
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds * len(calls)
    while len(rounds) < FEWEST or time.perf_counter() < end:
        row = []
        for call in calls:
            start = time.perf_counter()
            call()
            row.append(time.perf_counter() - start)
        rounds.append(row)
    return rounds


def _caller(engine: Engine, inputs: Array) -> Callable[[], Any]:
    return lambda: engine(inputs)


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """An engine to time."""

    engine: Engine
    grown: int | None  # bytes that the process grew by when it was made and first called
    is_own: bool  # made here, not handed over


def _engines(
    model: keras.Model, engines: Sequence[str | Engine] | None, precision: str, inputs: Array
) -> tuple[list[_Timed], tuple[str, ...]]:
    """The engines, and of those that nobody named the ones that cannot run the model."""
    found: list[_Timed] = []
    skipped = []
    for one in available_engines() if engines is None else engines:
        if not isinstance(one, str):
            found.append(_Timed(engine=one, grown=None, is_own=False))
            continue
        try:
            found.append(_own(model, one, precision, inputs))
        except (OptionValueError, ExportError) as error:
            if engines is not None:
                raise
            skipped.append(f"{one}: {error}")
    return found, tuple(skipped)


def _own(model: keras.Model, name: str, precision: str, inputs: Array) -> _Timed:
    before = resident_bytes()
    engine = make_engine(model, name, precision=precision)
    engine(inputs)
    after = resident_bytes()
    grown = None if before is None or after is None else max(0, after - before)
    return _Timed(engine=engine, grown=grown, is_own=True)


def _latencies(engines: Sequence[_Timed], inputs: Array, seconds: float) -> tuple[Latency, ...]:
    if not engines:
        return ()
    rounds = np.asarray(alternate([_caller(one.engine, inputs) for one in engines], seconds))
    low, median, high = np.percentile(rounds, (LOW, 50, HIGH), axis=0)
    return tuple(
        Latency(
            engine=one.engine.name,
            precision=one.engine.precision,
            median_s=float(median[i]),
            low_s=float(low[i]),
            high_s=float(high[i]),
            calls=len(rounds),
            images_per_s=float(len(inputs) / median[i]),
            memory_bytes=one.grown,
        )
        for i, one in enumerate(engines)
    )


# --- machine ------------------------------------------------------------------------------------


def resident_bytes() -> int | None:
    """Memory that the process holds; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    match = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
    return int(match[1]) * 1024 if match else None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", path.read_text()) if path.exists() else None
    return match[1].strip() if match else platform.processor() or platform.machine()
