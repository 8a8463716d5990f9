"""`Chance`: a clean score no better than chance, or far below what another numbering of labels gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.special import bdtrc

Labels = npt.NDArray[np.int64]
Numbering = Callable[[Labels, Labels, Labels], dict[int, int]]
_SHOWN: Final = 3
_MOST: Final = 2000
"""Labels and answers that a renumbering is looked for among; the rarer ones count as wrong."""


@dataclass(frozen=True)
class Chance:
    """Answers on uncompressed photos that labels as they are numbered do not explain.

    photos: how many with labels. right: share of right answers. chance: share of the most frequent label. above:
    whether more are right than that explains. renumbered: share that is right under another numbering (all labels
    shifted alike, or any one to one), found on one half of the photos and scored on the other, both ways. found:
    whether that is a better numbering. pairs: (label, output) of the one found on all photos, by label.
    most: the most frequent answer. share: of the photos that get it.
    """

    photos: int
    right: float
    chance: float
    above: bool
    renumbered: float
    found: bool
    pairs: tuple[tuple[int, int], ...]
    most: int
    share: float

    def sentences(self) -> list[str]:
        """For people: what is seen, the evidence, and what to try."""
        score = f"{self.right:.1%} of {self.photos:,} answers on uncompressed photos are right"
        alone = f"the most frequent label alone is {self.chance:.1%}"
        seen = f"only {score} ({alone})" if self.above else f"{score}, no better than chance: {alone}"
        if self.found:
            some = ", ".join(f"label {label} is output {output}" for label, output in self.pairs[:_SHOWN])
            more = ", ..." if len(self.pairs) > _SHOWN else ""
            evidence = (
                f"labels are numbered otherwise than the network's outputs: renumbered as half of the photos say"
                f" ({some}{more}), {self.renumbered:.1%} of the other half are right"
            )
            return [seen, evidence, "give the classes in the order of the outputs: --classes FILE"]
        constant = f"the network answers {self.most} on {self.share:.0%} of the photos"
        advice = (
            f"no other numbering of labels does better ({self.renumbered:.1%}, on photos that it was not found on):"
            " look at the preprocessing; a model gets RGB 0..255 and must resize, scale and normalize it as in"
            " training (qtable.Preprocess)"
        )
        return [seen, *([constant] if self.share > 0.5 else []), advice]


def at_chance(answers: Labels, labels: Labels, level: float = 0.01) -> Chance | None:
    """What is wrong if answers are no better than chance, or if another numbering of labels mends most mistakes.

    answers: int64 [n], the network's outputs, 0 and up. labels: int64 [n], -1 where there is none. level: of the tests.
    None if all is well, and if too few photos can tell.

    Chance is the share of the most frequent label, which is 1 / classes or more. Answers are at chance if a binomial
    test does not find them above it, but would find a network halfway between chance and no mistake. A weak network
    among unequal classes is neither: its answers depend on the labels as they are numbered (see `_expected`).
    Another numbering is one that is above chance and better than the present one on photos that it was not found on; if
    that one is above chance, too, it has to mend half of the mistakes.
    """
    known = labels >= 0
    answers, labels = answers[known], labels[known]
    n, (present, counts) = len(labels), np.unique(labels, return_counts=True)
    if len(present) < 2:
        return None
    chance = float(counts.max() / n)
    enough = (
        int(np.argmax(bdtrc(np.arange(n + 1), n, chance) <= level)) + 1
    )  # right answers: the fewest that chance does not explain
    right = int((answers == labels).sum())
    renumbered, numbering = max(((_held_out(answers, labels, find), find) for find in _NUMBERINGS), key=lambda x: x[0])
    better = bool(bdtrc(renumbered - 1, renumbered + right, 0.5) < level)
    found = renumbered >= enough and better and (right < enough or renumbered - right > (n - right) / 2)
    tells = bdtrc(enough - 1, n, (1 + chance) / 2) >= 1 - level
    mean, deviation = _expected(answers, labels)
    if not found and (right >= enough or not tells or right > mean + 3 * deviation):
        return None
    outputs, times = np.unique(answers, return_counts=True)
    most = int(times.argmax())
    return Chance(
        photos=n,
        right=right / n,
        chance=chance,
        above=right >= enough,
        renumbered=renumbered / n,
        found=found,
        pairs=tuple(sorted(numbering(answers, labels, present).items())),
        most=int(outputs[most]),
        share=float(times[most] / n),
    )


def _expected(answers: Labels, labels: Labels) -> tuple[float, float]:
    """Mean and standard deviation of the right answers if labels are dealt out anew at random (Hoeffding 1951)."""
    size = int(max(answers.max(), labels.max())) + 1
    a, b = (np.bincount(values, minlength=size).astype(np.float64) for values in (answers, labels))
    n, total = len(labels), float(a @ b)
    spread = total - float(a @ b**2) / n - float(b @ a**2) / n + total**2 / n**2
    return total / n, float(np.sqrt(max(spread, 0.0) / max(n - 1, 1)))


def _held_out(answers: Labels, labels: Labels, numbering: Numbering) -> int:
    """Right answers under the numbering of each half of the photos that the other half has chosen."""
    order, present = np.random.default_rng(0).permutation(len(labels)), np.unique(labels)
    halves = order[::2], order[1::2]
    right = 0
    for chosen, scored in (halves, halves[::-1]):
        outputs = numbering(answers[chosen], labels[chosen], present)
        pairs = zip(labels[scored].tolist(), answers[scored].tolist(), strict=True)
        right += sum(outputs.get(label) == answer for label, answer in pairs)
    return right


def _shifted(answers: Labels, labels: Labels, present: Labels) -> dict[int, int]:
    """Each label plus the same number, so that most answers are right: a class too many or too few at the start."""
    if not len(labels):
        return {}
    shifts, counts = np.unique(answers - labels, return_counts=True)
    shift = int(shifts[counts.argmax()])
    return {label: label + shift for label in present.tolist()}


def _one_to_one(answers: Labels, labels: Labels, present: Labels) -> dict[int, int]:
    """For each label one output, none twice, so that most answers are right; labels that no answer goes with have none.

    scipy.optimize.linear_sum_assignment on the counts of (label, answer).
    """
    known, rows = _ranked(labels)
    given, columns = _ranked(answers)
    kept = (rows < _MOST) & (columns < _MOST)
    counts = np.zeros((min(len(known), _MOST), min(len(given), _MOST)), np.int64)
    np.add.at(counts, (rows[kept], columns[kept]), 1)
    pairs = zip(*linear_sum_assignment(counts, maximize=True), strict=True)
    return {int(known[i]): int(given[j]) for i, j in pairs if counts[i, j]}


_NUMBERINGS: Final[tuple[Numbering, ...]] = (_shifted, _one_to_one)
"""From answers and labels, int64 [n], and all labels that occur, to the output of each label."""


def _ranked(values: Labels) -> tuple[Labels, Labels]:
    """The different values, the most frequent first, and the place of each of `values` among them."""
    different, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return different[order], np.argsort(order)[inverse]
