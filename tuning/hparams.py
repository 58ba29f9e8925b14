"""A search as event files for TensorBoard's HParams page; TensorFlow is not imported.

`tensorboard.plugins.hparams.api`, the public face of `summary_v2`, would import it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuning.results import SearchSummary, TrialSummary
from zoo.weights.store import atomic_path

SCORE = "score"  # tag of a trial's score; the objective's own tag holds its learning curve
_FILE = "events.out.tfevents.search"  # the same each time: writing again replaces, never adds


def write_hparams(summary: SearchSummary, folder: Path | str) -> Path:
    """Writes one run per trial: its hyperparameters, metrics per epoch, score and outcome.

    Look at it with `tensorboard --logdir FOLDER`.

    Args:
        summary: The search.
        folder: Folder for the runs; made if missing, earlier files of the same trials replaced.
    """
    from tensorboard.plugins.hparams import summary_v2

    folder = Path(folder)
    begin = time.time() - sum(_duration(trial) for trial in summary.trials)
    metrics = sorted({name for trial in summary.trials for name in trial.history})
    config = summary_v2.hparams_config_pb(
        hparams=[
            summary_v2.HParam(name, _domain(summary, name)) for name in summary.hyperparameters
        ],
        metrics=[
            summary_v2.Metric(
                SCORE, display_name=f"score ({summary.objective}, {summary.direction})"
            ),
            *map(summary_v2.Metric, metrics),
        ],
        time_created_secs=begin,
    )
    _write_events(folder / _FILE, [_event(begin, 0, config)])
    for trial in summary.trials:
        before = sum(found.epochs for found in summary.lineage(trial.trial)[:-1])
        # Quoted: a name must not lead out of the folder.
        path = folder / f"trial-{quote(trial.trial, safe='')}" / _FILE
        _write_events(path, _trial_events(trial, begin, before))
        begin += _duration(trial)
    return folder


def _duration(trial: TrialSummary) -> float:
    return trial.seconds if math.isfinite(trial.seconds) else 0.0


def _domain(summary: SearchSummary, name: str) -> Any:
    """Returns the values that were taken, as an interval of numbers or a list of others."""
    from tensorboard.plugins.hparams import summary_v2

    values = [trial.values[name] for trial in summary.trials if name in trial.values]
    types = set(map(type, values))
    if types <= {int, float}:
        finite = [number for number in map(float, values) if math.isfinite(number)]
        return summary_v2.RealInterval(min(finite), max(finite)) if finite else None
    # TensorBoard has no domain of mixed types.
    return summary_v2.Discrete(sorted(set(values))) if len(types) == 1 else None


def _trial_events(trial: TrialSummary, begin: float, before: int) -> Iterator[Any]:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

    start = summary_v2.hparams_pb(dict(trial.values), trial_id=trial.trial, start_time_secs=begin)
    yield _event(begin, 0, start)
    end = begin + _duration(trial)
    for name, values in trial.history.items():
        for epoch, value in enumerate(values, 1):
            share = epoch / trial.epochs
            yield _event(begin + share * (end - begin), before + epoch, _scalar(name, value))
    if trial.ranked_score is not None:
        yield _event(end, before + trial.epochs, _scalar(SCORE, trial.ranked_score))
    failed = trial.status == "failed"
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    outcome = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=end)
    content = plugin_data_pb2.HParamsPluginData(session_end_info=outcome)
    closing = _summary(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    yield _event(end, 0, closing)


def _scalar(tag: str, value: float) -> Any:
    return _summary(tag=tag, simple_value=value)


def _summary(**value: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(**value)])


def _event(seconds: float, step: int, summary: Any) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=seconds, step=step, summary=summary)


def _write_events(path: Path, events: Sequence[Any] | Iterator[Any]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with atomic_path(path) as partial, partial.open("wb") as file:
        writer = RecordWriter(file)
        for event in (Event(file_version="brain.Event:2"), *events):
            writer.write(event.SerializeToString())
