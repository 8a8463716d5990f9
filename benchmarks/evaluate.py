"""What an evaluation costs beside the network: `python -m benchmarks.evaluate`.

Evaluating one table set (encode, decode, infer) against inference alone on the same 300 photos, turn by turn in one
process; and gathering sensitivity statistics and solving 30 operating points against the same inference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks import workload
from qtable import Classifier, Codec, Evaluator, QTables
from qtable.codecs.plain import TableCoder
from qtable.measure.sensitivity import measure
from search.closed_form import Lagrangian
from search.refine import RunAware, coefficients_of

REPEATS = 3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    photos, codec = workload.photos(), Codec()
    task = Classifier(workload.mobilenet())
    alone, whole, statistic, solving = [], [], [], []
    with Evaluator(photos, task) as evaluator:
        evaluator.clean()
        for _ in range(REPEATS):
            alone.append(seconds(evaluator.clean))
            whole.append(seconds(lambda: evaluator(TableCoder(QTables.standard(50), codec))))
            start = time.perf_counter()
            gathered = measure(photos, task, codec)
            statistic.append(time.perf_counter() - start)
            start = time.perf_counter()
            problem, blocks = Lagrangian.of(gathered), coefficients_of(photos, codec.subsampling)
            space = RunAware.of(problem, gathered.levels, blocks)
            for point in np.linspace(0, space.path.steps, 30).astype(int):
                space.tables(np.array([point]))
            solving.append(time.perf_counter() - start)
    inference = statistics.median(alone)
    result = workload.save(
        "evaluate",
        {
            "photos": len(photos),
            "inference_s": inference,
            "evaluation_to_inference": statistics.median(w / a for w, a in zip(whole, alone, strict=True)),
            "statistics_to_inference": statistics.median(s / a for s, a in zip(statistic, alone, strict=True)),
            "solving_30_points_s": statistics.median(solving),
        },
    )
    print(f"inference alone on {len(photos)} photos: {inference:.1f} s")
    print(f"evaluating one table set: {result['evaluation_to_inference']:.2f} x inference (at most 1.25)")
    print(f"sensitivity statistics:   {result['statistics_to_inference']:.2f} x inference (at most 4)")
    print(f"solving 30 operating points: {result['solving_30_points_s']:.2f} s (at most 2)")


if __name__ == "__main__":
    main()
