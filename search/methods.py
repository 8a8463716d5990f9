"""What `qtable optimize --method NAME` means: a space, where to start in it, and a searcher."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.measure.front import pareto
from qtable.measure.sensitivity import Sensitivity, measure
from qtable.photos.sets import Photos
from qtable.progress import Progress
from qtable.tasks.base import DifferentiableTask
from search.base import Box, Points, Searcher
from search.bayesian import Bayesian, Sampler
from search.closed_form import FIRST_COMPONENTS, Lagrangian, Path, Sweep, shrinkage_for
from search.evolution import CMAES, DifferentialEvolution
from search.genetic import Genetic, NotebookGenetic
from search.mcmc import Annealing, NotebookWalk, Tempering
from search.published import PUBLISHED
from search.random_search import RandomSearch
from search.refine import RunAware, coefficients_of
from search.space import Bands, Full, Modulated, Plain, Sorted, Space, TableSpace
from search.swarm import Firefly, ParticleSwarm

STANDARD_START: Final = "standard"
CLOSED_FORM_START: Final = "closed-form"
DISTILLED_AT: Final = QTables.standard(20)
SWEPT: Final = 33
"""So many points of the closed form come first; what is left of a budget goes to tables around them."""


@dataclass(frozen=True)
class Setting:
    """What a method may use: number of tables, a seeded generator, the `fit` photos, the task and the codec.

    start: None, "standard", "closed-form", or the folder of another run. statistics: file in which sensitivity
    statistics of these photos are kept, so that a run that continues has them.
    """

    count: int
    rng: np.random.Generator
    fit: Photos
    task: DifferentiableTask
    codec: Codec
    statistics: pathlib.Path
    start: str | None = None
    measure: Callable[..., Sensitivity] = field(default=measure)
    progress: Progress | None = None

    def sensitivity(self) -> Sensitivity:
        """Statistics of the `fit` photos, measured once.

        Where the score is about annotations, of their likelihood; else of the divergence from the clean answer, where
        the tables `DISTILLED_AT` leave the photos (results/imagenet-sample compares).
        """
        if self.statistics.exists():
            return Sensitivity.load(self.statistics)
        target = {"target": "annotations"} if self.task.annotated else {"target": "distillation", "at": DISTILLED_AT}
        measured = self.measure(self.fit, self.task, self.codec, progress=self.progress, **target)
        measured.save(self.statistics)
        return measured

    def closed_form(self) -> tuple[QTables, ...]:
        """The closed form's whole path, from many bytes to few."""
        statistics = self.sensitivity()
        problem = Lagrangian.of(statistics, self.count)
        neighbourhoods = coefficients_of(self.fit, self.codec.subsampling)
        path = RunAware.of(problem, statistics.levels, neighbourhoods, shrinkage_for(statistics.photos))
        return tuple(path.tables(np.array([i])) for i in range(path.path.steps + 1))

    def family(self) -> tuple[QTables, ...]:
        """The tables that `start` names, from many bytes to few. ValueError if it names none."""
        if self.start == STANDARD_START:
            components = list(FIRST_COMPONENTS[self.count - 1])
            return tuple(QTables(QTables.standard(q).components()[components]) for q in range(95, 2, -1))
        if self.start == CLOSED_FORM_START:
            return self.closed_form()
        file = pathlib.Path(str(self.start)) / "archive.jsonl"
        if not file.is_file():
            raise ValueError(
                f"--start {self.start}: no run there; allowed: {STANDARD_START}, {CLOSED_FORM_START}, a run folder"
            )
        scores = [r.score for r in Archive(file).records("search") if r.score.tables.count == self.count]
        front = pareto([s.bytes for s in scores], [s.score for s in scores])
        if not len(front):
            raise ValueError(f"--start {self.start}: no tables there with {self.count} to a set")
        return tuple(scores[i].tables for i in front[::-1])


Method = Callable[[Setting], tuple[TableSpace, Searcher]]
MakeSearcher = Callable[[Box, np.random.Generator, Points | None], Searcher]


def _in(cold: Callable[[int], TableSpace], make: MakeSearcher, points: int = 8) -> Method:
    """`make` in the space `cold`(number of tables), or, with a start, in the space around that, from `points` of it."""

    def method(setting: Setting) -> tuple[TableSpace, Searcher]:
        if setting.start is None:
            space = cold(setting.count)
            return space, make(space.box, setting.rng, None)
        around = Modulated(setting.family())
        return around, make(around.box, setting.rng, around.start(points))

    return method


def _swept(path: Callable[[Sensitivity, int], Path]) -> Method:
    def method(setting: Setting) -> tuple[TableSpace, Searcher]:
        _refuse_start(setting)
        space = path(setting.sensitivity(), setting.count)
        return space, Sweep(space.box)

    return method


def _closed_form_first(setting: Setting) -> tuple[TableSpace, Searcher]:
    """`SWEPT` points of the closed form, middle after middle, then a genetic search around them."""
    _refuse_start(setting)
    space = Modulated(setting.closed_form())
    sweep = Sweep(Box(space.box.low[:1], space.box.high[:1]))
    start = np.zeros((SWEPT, space.box.dimension), np.int64)
    start[:, :1] = np.concatenate([sweep.ask() for _ in range(SWEPT)])
    return space, Genetic(space.box, setting.rng, start=start)


def _notebook(make: MakeSearcher) -> Method:
    """In the notebook's setting: every entry by itself, from fifteen sorted random tables."""

    def method(setting: Setting) -> tuple[TableSpace, Searcher]:
        _refuse_start(setting)
        space, prior = Full(setting.count), Sorted(setting.count)
        drawn = RandomSearch(prior.box, setting.rng, 15).ask()
        start = np.array([prior.tables(point).values.ravel() for point in drawn], dtype=np.int64)
        return space, make(space.box, setting.rng, start)

    return method


def _refuse_start(setting: Setting) -> None:
    if setting.start is not None:
        raise ValueError(f"--start {setting.start}: this method begins where it must; leave --start out")


def _bands(count: int) -> TableSpace:
    """8 knots per table: at most 16 dimensions for two tables."""
    return Bands(8, count)


def _bayesian(sampler: Sampler) -> Method:
    """Its study is kept in study.db beside the statistics: `optuna-dashboard sqlite:///RUN/study.db` opens it."""

    def method(setting: Setting) -> tuple[TableSpace, Searcher]:
        storage = f"sqlite:///{setting.statistics.with_name('study.db').resolve()}"
        make = _in(_bands, lambda b, rng, start: Bayesian(b, rng, start=start, sampler=sampler, storage=storage))
        return make(setting)

    return method


METHODS: Final[dict[str, Method]] = {
    "closed-form": _closed_form_first,
    "random": _in(Full, lambda box, rng, start: RandomSearch(box, rng, start=start)),
    "sorted-random": _in(Sorted, lambda box, rng, start: RandomSearch(box, rng, start=start)),
    "genetic": _in(_bands, lambda box, rng, start: Genetic(box, rng, start=start)),
    "genetic-spea2": _in(_bands, lambda box, rng, start: Genetic(box, rng, start=start, selection="spea2")),
    "mcmc": _in(_bands, lambda box, rng, start: Tempering(box, rng, start=start)),
    "annealing": _in(_bands, lambda box, rng, start: Annealing(box, rng, start=start)),
    "bayesian": _bayesian("tpe"),
    "bayesian-gp": _bayesian("gp"),
    "quasi-random": _bayesian("qmc"),
    "cma-es": _in(_bands, lambda box, rng, start: CMAES(box, rng, start=start)),
    "differential-evolution": _in(_bands, lambda box, rng, start: DifferentialEvolution(box, rng, start=start)),
    "particle-swarm": _in(_bands, lambda box, rng, start: ParticleSwarm(box, rng, start=start)),
    "firefly": _in(_bands, lambda box, rng, start: Firefly(box, rng, start=start)),
    "notebook-ga-product": _notebook(lambda box, rng, start: NotebookGenetic(box, rng, start=start)),
    "notebook-ga-curve": _notebook(lambda box, rng, start: NotebookGenetic(box, rng, start=start, fitness="curve")),
    "notebook-mcmc-step": _notebook(lambda box, rng, start: NotebookWalk(box, rng, start=start)),
    "notebook-mcmc-average": _notebook(lambda box, rng, start: NotebookWalk(box, rng, start=start, proposal="average")),
    **{name: _swept(path) for name, path in PUBLISHED.items()},
}
"""Searchers by name, and published tables as baselines."""


def candidates(method: str, setting: Setting) -> tuple[Space, Searcher]:
    """The coders that a method (a key of `METHODS`) looks among, and how it looks."""
    space, searcher = METHODS[method](setting)
    return Plain(space, setting.codec), searcher


def needs_gradients(method: str, start: str | None) -> bool:
    """Whether a method uses statistics that come from the model's gradients."""
    return method == "closed-form" or method in PUBLISHED or start == CLOSED_FORM_START
