"""What a second worker brings: `python -m benchmarks.cluster`.

Evaluations per second of the embedded task's search photos over local clusters of one and of two worker processes,
turn by turn, and their ratio. Says something only where two cores are free.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks import workload
from qtable import ImageSet, QTables
from qtable.codecs.plain import TableCoder
from qtable.measure.cluster import ClusterEvaluator, Job, connect
from qtable.photos.spec import PhotosSpec
from qtable.tasks.opening import TaskSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tables", type=int, default=16, help="tables of one batch")
    arguments = parser.parse_args()
    job = Job(PhotosSpec(), TaskSpec())
    images, task = ImageSet.open(), job.task.open()
    coders = [TableCoder(QTables.standard(20 + i % 60)) for i in range(arguments.tables)]
    rates: dict[int, list[float]] = {1: [], 2: []}
    with connect(workers=1) as one, connect(workers=2) as two:
        evaluators = {n: ClusterEvaluator(job, "search", client, images, task) for n, client in ((1, one), (2, two))}
        for evaluator in evaluators.values():  # every worker opens its photos
            evaluator.many(coders)
        for _ in range(arguments.repeats):
            for n, evaluator in evaluators.items():
                start = time.perf_counter()
                evaluator.many(coders)
                rates[n].append(len(coders) / (time.perf_counter() - start))
    result = workload.save(
        "cluster",
        {
            "photos": len(images.search),
            "tables": len(coders),
            "repeats": arguments.repeats,
            "evaluations_per_s": {str(n): statistics.median(values) for n, values in rates.items()},
            "ratio": statistics.median(b / a for a, b in zip(rates[1], rates[2], strict=True)),
        },
    )
    for n, values in rates.items():
        print(f"{n} workers: {statistics.median(values):.2f} evaluations of {len(images.search)} photos per second")
    print(f"ratio: {result['ratio']:.2f} (at least 1.6 where 2 cores are free; load {result['load_average']:.1f})")


if __name__ == "__main__":
    main()
