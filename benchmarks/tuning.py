"""Searches of KerasTuner and of keras-zoo in one run: equal trials, workers, target, overhead.

    python -m benchmarks.tuning                     # all parts; hours, on a quiet machine
    python -m benchmarks.tuning equal workers       # two of them
    python -m benchmarks.tuning equal --only resnet18
    python -m benchmarks.tuning target --seeds 0 1 2 --images 3000
    python -m benchmarks.tuning --smoke             # a few minutes: noise, tiny sizes

* equal: the same trials by KerasTuner's RandomSearch, by ours, and by ours returning to Python
  after every batch, as it does where a callback looks at batches;
* workers: two worker processes beside one;
* target: seconds to the score that KerasTuner's RandomSearch ends on;
* overhead: what a search costs beside its training, in time, memory and on the disk.

TensorFlow, arrays in memory. The contestants take turns within every round, after one warm-up of
each; a search is timed from making its tuner to its end. Prints Markdown tables and writes
`tuning_<part>.json` with all samples, in seconds. Models are compiled without XLA for both, since
compiling it in every trial would cost KerasTuner most of its time on a CPU; `--jit` takes Keras'
default instead.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import tuning_equal, tuning_overhead, tuning_target, tuning_workers
from benchmarks.tuning_results import RESULTS

PARTS = ("equal", "workers", "target", "overhead")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="*", help=f"among {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, help="samples of each (default: 5, smoke: 1)")
    parser.add_argument("--smoke", action="store_true", help="noise, tiny sizes, another folder")
    parser.add_argument("--jit", action="store_true", help="compile with Keras' default, XLA")
    parser.add_argument("--only", nargs="+", default=[], help="of equal: words of tasks' names")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of target")
    parser.add_argument("--images", type=int, default=3_000, help="of target")
    parser.add_argument("--fresh", action="store_true", help="of target: run ours again")
    parser.add_argument("--results", type=Path, help="folder of the JSON files")
    parsed = parser.parse_args(arguments)
    parsed.part = parsed.part or list(PARTS)
    unknown = [name for name in parsed.part if name not in PARTS]
    if unknown:
        parser.error(f"a part is one of {', '.join(PARTS)}; got {', '.join(unknown)}.")
    if parsed.rounds is None:
        parsed.rounds = 1 if parsed.smoke else 5
    if parsed.rounds < 1:
        parser.error(f"`--rounds` must be 1 or more; got {parsed.rounds}.")
    if parsed.results is None:
        smoke = Path(tempfile.gettempdir()) / "keras-zoo-benchmarks"
        parsed.results = smoke if parsed.smoke else RESULTS
    return parsed


def main() -> None:
    asked = parse()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    jit = "auto" if asked.jit else False
    common = {"smoke": asked.smoke, "jit": jit}
    if "equal" in asked.part:
        tuning_equal.run(asked.results, rounds=asked.rounds, only=asked.only, **common)
    if "workers" in asked.part:
        tuning_workers.run(asked.results, rounds=asked.rounds, **common)
    if "target" in asked.part:
        chosen = {"images": asked.images, "seeds": asked.seeds, "fresh": asked.fresh}
        tuning_target.run(asked.results, **chosen, **common)
    if "overhead" in asked.part:
        tuning_overhead.run(asked.results, rounds=asked.rounds, **common)
    print(f"Written to {asked.results}")


if __name__ == "__main__":
    main()
