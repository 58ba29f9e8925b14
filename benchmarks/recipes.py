"""The recipes' numbers in the README: runs them at full size and prints what they measured.

Run as `python -m benchmarks.recipes [RECIPE ...]`; about 15 minutes on two cores. With
`--read FOLDER` the numbers come from a finished run. Writes `benchmarks/results/<recipe>.json`:
metrics.json as it is, with versions and machine, less the list of classes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import recipes

RESULTS = Path(__file__).parent / "results"


def rows(metrics: dict[str, Any]) -> list[str]:
    """What a run measured, a line each."""
    head = metrics["headline"]
    test, base = metrics["test"][head], metrics["baseline"][head]
    lines = [
        f"{metrics['recipe']}, seed {metrics['seed']}, {metrics['seconds']['total']:.0f} s",
        f"  test {head}: {test:.4f}",
        f"  {metrics['baseline']['name']}: {base:.4f}",
    ]
    if "classical" in metrics:
        lines.append(f"  {metrics['classical']['name']}: {metrics['classical'][head]:.4f}")
    lines += [
        f"  {arm['name']:10} seed {arm['seed']}: {arm[head]:.4f}, {arm['epochs']} epochs, "
        f"{arm['seconds']:.0f} s"
        for arm in metrics.get("arms", ())
    ]
    versions = ", ".join(f"{k} {v}" for k, v in metrics["versions"].items())
    return [*lines, f"  {versions}"]


def main() -> None:
    """Runs the recipes named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="*", default=recipes.list_recipes())
    parser.add_argument("--read", type=Path, help="a finished run folder")
    options = parser.parse_args()
    if options.read:
        found = [json.loads((options.read / "metrics.json").read_text("utf-8"))]
    else:
        found = [recipes.run(name).metrics for name in options.recipe]
    RESULTS.mkdir(exist_ok=True)
    for metrics in found:
        metrics["data"].pop("classes", None)
        print("\n".join(rows(metrics)))
        target = RESULTS / f"{metrics['recipe']}.json"
        target.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
