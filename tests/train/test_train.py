from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from qtable.cli import main
from qtable.cli.train import _show as show
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.proxies import PROXIES
from qtable.jpeg.tables import QTables
from qtable.photos.sets import SPLITS, ImageSet, Photos
from qtable.tasks.base import ModelError
from qtable.tasks.classification import Classifier, ClassOutcomes
from qtable.train.draws import Crops, Draw, Draws, crop_side, together
from qtable.train.joint import Joint, calibrate, slopes, task_loss
from qtable.train.recipe import Recipe, TrainingError
from qtable.train.run import train
from qtable.train.validation import validate, validation_of
from search.joint import Family, places
from tests.conftest import remount

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    '''Two convolutions with batch norm: tells fine noise from coarse.'''
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(8, 2)

    def forward(self, rgb):
        return self.head(self.body((rgb - 128) / 40).square().mean((2, 3)))

def net(): return Net()
"""


class Small(nn.Module):
    """A network without batch norm, so that a batch in two processes is the batch in one."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 2)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(F.relu(self.first((rgb - 128) / 40)).square().mean((2, 3)))
        return logits


def photos(count: int, seed: int, side: tuple[int, int] = (24, 32)) -> Photos:
    """Class 0: coarse noise; class 1: the same with fine noise on it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = []
    for label in labels:
        coarse = rng.normal(0, 25, (side[0] // 4, side[1] // 4, 3)).repeat(4, 0).repeat(4, 1)
        images.append((coarse + label * rng.normal(0, 25, (*side, 3)) + 128).clip(0, 255).astype(np.uint8))
    return Photos(tuple(images), labels.astype(np.int64), tuple(map(str, range(count))))


def labels_of(some: Photos) -> torch.Tensor:
    """int64 [n]."""
    return torch.from_numpy(np.asarray(some.annotations))


def logits_of(network: nn.Module, images: Sequence[RGB]) -> torch.Tensor:
    """What a network says of photos of one size."""
    with torch.no_grad():
        logits: torch.Tensor = network(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float())
    return logits


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return ImageSet(photos(40, 0), photos(20, 1), photos(20, 2), source="made")


SHORT = Recipe(loss="annotations", steps=12, batch=8, every=4, table_rate=0.1, network_rate=3e-3, average=0.5)
STARTS = [QTables.standard(60), QTables.standard(15)]


def run(images: ImageSet, out: Path, recipe: Recipe = SHORT, **more: Any) -> Any:
    more = {"starts": STARTS, "multipliers": [0.1, 0.3], "identity": {}, "codec": Codec("4:4:4"), **more}
    return train(Classifier(Small()), images=images, recipe=recipe, out=out, **more)


# ---- examples -------------------------------------------------------------------------------------------------


def test_every_epoch_shows_every_photo_and_processes_share_a_batch() -> None:
    recipe = replace(SHORT, steps=10, batch=12)
    steps = list(Draws(30, recipe))
    shown = [draw.photo for step in steps for draw in step]
    assert all(sorted(shown[i : i + 30]) == list(range(30)) for i in range(0, 120, 30))
    assert shown[:30] != shown[30:60]
    assert list(Draws(30, recipe, first=4)) == steps[4:]
    shares = [list(Draws(30, recipe, rank=rank, world=2, points=3)) for rank in (0, 1)]
    for whole, a, b in zip(steps, *shares, strict=True):
        assert [*a, *b] == [*whole[:3], *whole[6:9], *whole[3:6], *whole[9:]]
        assert [whole.index(draw) % 3 for draw in a] == [i % 3 for i in range(6)]


def test_crops_are_cut_and_mirrored_before_compression() -> None:
    some = photos(2, 5, side=(24, 40))
    crop, label = Crops(some, 16, Classifier(Small()))[Draw(1, 0.999, 0.5, mirrored=True)]
    expected = some.images[1][8:24, 12:28][:, ::-1]
    assert np.array_equal(crop.permute(1, 2, 0).numpy(), expected)
    assert label == 1
    assert crop_side(some, SHORT) == 24
    with pytest.raises(TrainingError, match="crop 32: the smallest photo has a side of 24 pixels"):
        crop_side(some, replace(SHORT, crop=32))


def test_the_task_crops_annotations_as_photos_are_cropped() -> None:
    class Pointing(Classifier):
        def crop(self, annotation: Any, top: int, left: int, side: int, mirrored: bool) -> Any:
            row, column = annotation[0] - top, annotation[1] - left
            return row, side - 1 - column if mirrored else column

    images = tuple(np.zeros((24, 32, 3), np.uint8) for _ in range(2))
    places = ((11, 14), (13, 17))
    for image, place in zip(images, places, strict=True):
        image[place] = 255
    crops = Crops(Photos(images, places, ("0", "1")), 16, Pointing(Small()))
    draws = [Draw(photo, share, 1 - share, m) for photo in (0, 1) for share in (0.3, 0.6) for m in (False, True)]
    rgb, known = together([crops[draw] for draw in draws])
    assert isinstance(known, tuple)
    assert [tuple(np.argwhere(crop[0].numpy())[0]) for crop in rgb] == list(known)
    assert len({*known}) == 8
    _, labels = together([Crops(photos(4, 0), 16, Classifier(Small()))[Draw(i, 0, 0, False)] for i in (1, 2, 3)])
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [1, 0, 1]
    assert labels.dtype == np.int64


# ---- the loss -------------------------------------------------------------------------------------------------


def test_losses_and_bytes_are_those_of_real_files(images: ImageSet) -> None:
    codec = Codec()
    joint = Joint(Classifier(Small()), STARTS, codec, SHORT).eval()
    joint.rate = calibrate(joint, images.fit.images, SHORT)
    rgb = torch.from_numpy(np.stack(images.fit.images[:9])).permute(0, 3, 1, 2)
    labels = labels_of(images.fit)[:9]
    with torch.no_grad():
        losses, sizes = joint(rgb, labels.numpy())
    for point, tables in enumerate(STARTS):
        files = [codec.encode(image, tables) for image in images.fit.images[point:9:2]]
        decoded = torch.from_numpy(np.stack([codec.decode(file) for file in files])).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            expected = F.cross_entropy(joint.network(decoded), labels[point::2])
        assert float(losses[point]) == pytest.approx(float(expected), rel=1e-5)
        assert float(sizes[point]) == pytest.approx(np.mean([len(file) for file in files]), rel=0.02)


def test_distillation_is_the_divergence_from_the_clean_answer() -> None:
    rng = torch.Generator().manual_seed(0)
    clean, other = torch.randn(5, 3, generator=rng), torch.randn(5, 3, generator=rng)
    p, q = clean.softmax(1), other.softmax(1)
    task = Classifier(Small())
    expected = (p * (p / q).log()).sum(1)
    assert torch.allclose(task_loss(task, "distillation", other, clean), expected, atol=1e-6)
    assert torch.allclose(task_loss(task, "distillation", clean, clean), torch.zeros(5), atol=1e-6)


@pytest.mark.parametrize("rate", PROXIES)
def test_every_proxy_is_calibrated_to_bytes(images: ImageSet, rate: str) -> None:
    recipe = replace(SHORT, rate=rate)
    joint = Joint(Classifier(Small()), STARTS, Codec(), recipe)
    joint.rate = calibrate(joint, images.fit.images, recipe)
    rgb = torch.from_numpy(np.stack(images.fit.images)).permute(0, 3, 1, 2)
    _, sizes = joint(rgb, images.fit.annotations)
    real = [np.mean([len(Codec().encode(i, t)) for i in images.fit.images[p::2]]) for p, t in enumerate(STARTS)]
    assert sizes.tolist() == pytest.approx(real, rel=0.12)
    sizes.sum().backward()
    for layer in joint.layers:
        gradient = layer.log_steps.grad
        assert isinstance(gradient, torch.Tensor)
        assert float(gradient.sum()) < 0  # larger steps, fewer bytes


def test_learning_rates_rise_and_fall_and_tables_end_first() -> None:
    recipe = replace(SHORT, steps=100, settle=0.3)
    tables, network = np.array([recipe.rates(step) for step in range(101)]).T
    assert tables.max() == pytest.approx(0.1, rel=0.02)
    assert (tables[70:] == 0).all()
    assert (tables[:70] > 0).all()
    assert network[0] < network[5] > network[60] > network[99] > network[100] == 0
    assert not np.array([replace(recipe, learn="tables").rates(step)[1] for step in range(100)]).any()
    assert not np.array([replace(recipe, learn="network").rates(step)[0] for step in range(100)]).any()


def test_multipliers_are_the_slope_of_real_losses_and_bytes(images: ImageSet) -> None:
    path = [QTables.standard(q) for q in range(90, 5, -5)]
    found = slopes(Classifier(Small()), images.fit, Codec(), path, [8], SHORT, reach=1)
    loss, bits = [], []
    network = Small()
    for tables in (path[7], path[9]):
        files = [Codec().encode(image, tables) for image in images.fit.images]
        decoded = torch.from_numpy(np.stack([Codec().decode(f) for f in files])).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            loss.append(float(F.cross_entropy(network(decoded), labels_of(images.fit))))
        bits.append(8 * sum(map(len, files)) / (40 * 24 * 32))
    assert found == pytest.approx([max(1e-4, (loss[1] - loss[0]) / (bits[0] - bits[1]))], rel=1e-4)


def test_points_start_at_the_sizes_asked_for(images: ImageSet) -> None:
    path = [QTables.flat(step) for step in range(1, 200)]
    where = places(path, images.fit, Codec(), Family(points=3, largest=60, smallest=10))

    def size(tables: QTables) -> float:
        return float(np.mean([len(Codec().encode(image, tables)) for image in images.fit.images]))

    ends = size(QTables.standard(60)), size(QTables.standard(10))
    wanted = [ends[0], np.sqrt(ends[0] * ends[1]), ends[1]]
    assert [size(path[i]) for i in where] == pytest.approx(wanted, rel=0.06)


# ---- whole runs -----------------------------------------------------------------------------------------------


def test_what_was_validated_is_what_files_of_the_exported_tables_give(images: ImageSet, tmp_path: Path) -> None:
    network = Small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    task = Classifier(network)
    trained = train(task, STARTS, [0.1, 0.3], images, Codec(), SHORT, tmp_path, {})
    scores = validate(task, trained.network, trained.tables, images.search, Codec())
    assert [s.bytes for s in scores] == trained.best.bytes
    assert [s.score for s in scores] == trained.best.score
    assert [v.step for v in trained.history] == [0, 4, 8, 12]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert any(not torch.equal(v, before[n]) for n, v in trained.network.state_dict().items())
    assert trained.tables != STARTS


def test_agreement_is_with_the_untrained_network_and_needs_no_annotations(images: ImageSet, tmp_path: Path) -> None:
    fit, search, test = (replace(images[split], annotations=None) for split in SPLITS)
    bare = replace(images, fit=fit, search=search, test=test)
    task, multipliers = Classifier(Small(), "agreement"), [0.1, 0.3]
    recipe = replace(SHORT, loss="distillation")
    trained = train(task, STARTS, multipliers, bare, Codec(), recipe, tmp_path, {})
    contrary = copy.deepcopy(trained.network)
    with torch.no_grad():
        for parameter in contrary.get_submodule("head").parameters():
            parameter.neg_()
    clean = logits_of(Small(), search.images).argmax(1)
    objectives = []
    for network in (trained.network, contrary):
        scores = validate(task, network, trained.tables, search, Codec())
        for score, tables, multiplier in zip(scores, trained.tables, multipliers, strict=True):
            files = [Codec().encode(image, tables) for image in search.images]
            logits = logits_of(network, [Codec().decode(file) for file in files])
            assert score.score == float((logits.argmax(1) == clean).double().mean())
            bits = 8 * np.mean([len(file) for file in files]) / (24 * 32)
            objectives.append(float(F.cross_entropy(logits, clean)) + multiplier * bits)
        assert [s.score > 0.5 for s in scores] == [network is trained.network] * 2
    assert trained.best.objective == pytest.approx(np.mean(objectives[:2]), rel=1e-5)


def test_tables_stay_while_the_network_settles(images: ImageSet, tmp_path: Path) -> None:
    recipe = replace(SHORT, steps=12, settle=0.5, every=1, network_rate=1e-2)
    sizes = [tuple(v.bytes) for v in run(images, tmp_path, recipe).history]
    assert len({*sizes[6:]}) == 1
    assert len({*sizes[:7]}) > 3


@pytest.mark.parametrize("learn", ["tables", "network"])
def test_what_does_not_learn_stays(images: ImageSet, tmp_path: Path, learn: Any) -> None:
    """A quick objective that must fall: bytes cost much for the tables, labels are learnt by the network."""
    more: dict[str, Any] = {"multipliers": [5.0, 5.0]} if learn == "tables" else {"multipliers": [0.0, 0.0]}
    trained = run(images, tmp_path, replace(SHORT, learn=learn, network_rate=2e-2, flip=False), **more)
    weights = zip(trained.network.state_dict().values(), Small().state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights) == (learn == "tables")
    assert (trained.tables == STARTS) == (learn == "network")
    assert trained.best.objective < trained.history[0].objective


def test_patience_ends_a_run_that_does_not_improve(images: ImageSet, tmp_path: Path) -> None:
    recipe = replace(SHORT, every=1, steps=40, patience=2, network_rate=0.5, table_rate=1.0)
    trained = run(images, tmp_path, recipe)
    assert len(trained.history) < 41
    assert trained.history[-1].step == trained.best.step + 2


def test_a_folder_with_another_training_is_refused(images: ImageSet, tmp_path: Path) -> None:
    run(images, tmp_path)
    with pytest.raises(
        TrainingError, match=r"holds another training: --seed was 0, now 1; --table-rate was .*, now 9\.0; ch"
    ):
        run(images, tmp_path, replace(SHORT, seed=1, table_rate=9.0))
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="not a checkpoint of this training"):
        run(images, tmp_path)


@pytest.mark.parametrize("multiplier", [0.0, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("recipe", [SHORT, replace(SHORT, table_rate=1.0, network_rate=3e-2)], ids=["usual", "x10"])
def test_stress_ends_in_valid_tables_or_a_clear_refusal(
    images: ImageSet, tmp_path: Path, multiplier: float, recipe: Recipe
) -> None:
    recipe = replace(recipe, steps=60, every=30, average=0.1)
    try:
        trained = run(images, tmp_path, recipe, multipliers=[multiplier] * 2)
    except TrainingError as error:
        assert "training diverged at step" in str(error)  # noqa: PT017
        return
    assert all(np.isfinite(v.objective) for v in trained.history)
    assert all(t.values.min() >= 1 and t.values.max() <= 255 for t in trained.tables)


def test_entries_come_back_from_a_bound(images: ImageSet, tmp_path: Path) -> None:
    """Bytes that cost nothing and a loss that wants detail: steps of 255 must fall, although they begin at the end."""
    recipe = replace(SHORT, steps=40, every=40, learn="tables", loss="distillation", average=0.1)
    trained = run(images, tmp_path, recipe, starts=[QTables.flat(255)] * 2, multipliers=[0.0, 0.0])
    first, *_, last = trained.history
    assert min(last.bytes) > max(first.bytes)
    cheap = run(images, tmp_path / "b", recipe, starts=[QTables.flat(1)] * 2, multipliers=[1e4, 1e4])
    assert all((t.values > 2).mean() > 0.5 for t in cheap.tables)


def test_a_diverging_run_is_given_up_in_one_line(images: ImageSet, tmp_path: Path) -> None:
    class Exploding(Small):
        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            out = super().forward(rgb)
            return out * float("nan") if self.training else out

    with pytest.raises(TrainingError, match="training diverged at step 20: loss nan; lower the learning rates"):
        train(Classifier(Exploding()), STARTS, [0.1, 0.1], images, Codec(), replace(SHORT, steps=40), tmp_path, {})


def test_recipes_that_cannot_be_are_refused() -> None:
    for wrong, words in (
        ({"learn": "nothing"}, "learn 'nothing' is unknown; allowed: both, tables, network"),
        ({"loss": "mse"}, "loss 'mse' is unknown"),
        ({"rate": "zip"}, "rate 'zip' is unknown"),
        ({"steps": 0}, "steps 0; allowed: above 0"),
        ({"table_rate": float("nan")}, "table_rate nan"),
        ({"settle": 1.0}, "settle 1.0; allowed: from 0 to below 1"),
        ({"patience": 0}, "patience 0"),
        ({"crop": 4}, "crop 4"),
    ):
        with pytest.raises(ValueError, match=words):
            Recipe(**wrong)


def test_training_on_annotations_that_are_not_there_is_refused(images: ImageSet, tmp_path: Path) -> None:
    bare = replace(images, fit=replace(images.fit, annotations=None))
    with pytest.raises(ModelError, match="photos without labels: their likelihood cannot be asked for"):
        train(Classifier(Small(), "agreement"), STARTS, [0.1, 0.3], bare, Codec(), SHORT, tmp_path, {})


def test_outcomes_without_losses_are_refused_in_one_line(images: ImageSet) -> None:
    class Silent(ClassOutcomes, kind="silent"):
        def losses(self) -> None:  # type: ignore[override]
            return None

    (score,) = validate(Classifier(Small()), Small(), STARTS[:1], images.search, Codec())
    assert isinstance(score.outcomes, ClassOutcomes)
    silent = Silent(score.outcomes.metric, score.outcomes.hits, score.outcomes.cross_entropy)
    with pytest.raises(TrainingError, match="outcomes of this task have no losses in nats"):
        validation_of(0, [replace(score, outcomes=silent)], [0.1], images.search, {})


def test_a_copy_of_the_joint_model_keeps_the_task_itself() -> None:
    task = Classifier(Small())
    joint = Joint(task, STARTS, Codec(), SHORT)
    copied = copy.deepcopy(joint)
    assert copied.task is joint.task is task
    assert copied.network is not joint.network
    assert joint.network is not task.model
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert joint.tables() == STARTS
    assert all(
        torch.equal(a, b)
        for a, b in zip(joint.network.state_dict().values(), Small().state_dict().values(), strict=True)
    )


# ---- the command ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    some = photos(90, 7)
    for name in ("coarse", "fine"):
        (root / "photos" / name).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(some.images, labels_of(some).tolist(), strict=True)):
        Image.fromarray(image).save(root / "photos" / ("coarse", "fine")[label] / f"{i}.png")
    (root / "model.py").write_text(MODEL)
    return root


def command(folder: Path, out: Path, *more: str | Path) -> list[str]:
    arguments = ["train", "--data", folder / "photos", "--model", f"{folder / 'model.py'}:net", "--out", out]
    recipe = ["--points", "2", "--steps", "30", "--batch", "8", "--every", "3", "--loss", "annotations"]
    return [*map(str, arguments), *recipe, *map(str, more)]


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""With more of them torch's sums depend on the load of the machine, in their last bits."""


def qtable(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, *launcher, "-m", "qtable.cli", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=240, env=ONE_THREAD)


def test_sigkill_and_the_same_command_end_where_an_undisturbed_run_does(folder: Path, tmp_path: Path) -> None:
    arguments = command(folder, tmp_path / "killed")
    whole_command = [sys.executable, "-m", "qtable.cli", *arguments]
    process = subprocess.Popen(whole_command, stderr=subprocess.DEVNULL, env=ONE_THREAD)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    deadline, seen = time.monotonic() + 120, set[int]()
    while time.monotonic() < deadline and process.poll() is None and len(seen) < 4:
        if checkpoint.exists():
            seen.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()
    again, whole = qtable(*arguments), qtable(*command(folder, tmp_path / "whole"))
    assert again.returncode == whole.returncode == 0, again.stderr + whole.stderr
    for name in ("tables/001.json", "tables/002.json", "network.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("killed", "whole")]
    assert summaries[0]["history"] == summaries[1]["history"]
    assert "bytes at equal score" in whole.stdout


def test_the_exported_network_and_tables_score_in_evaluate_as_in_training(folder: Path, tmp_path: Path) -> None:
    done = qtable(*command(folder, tmp_path / "run", "--json"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    best = next(v for v in summary["history"] if v["step"] == summary["best_step"])
    tables = [f"{tmp_path}/run/tables/00{i}.json" for i in (1, 2)]
    model = f"{folder / 'model.py'}:net@{tmp_path / 'run' / 'network.safetensors'}"
    common = ["--data", str(folder / "photos"), "--model", model, "--json"]
    for split, expected in (("search", list(zip(best["bytes"], best["score"], strict=True))), ("test", None)):
        options = [x for t in tables for x in ("--tables", t)]
        measured = qtable("evaluate", *common, "--split", split, *options)
        assert measured.returncode == 0, measured.stderr
        found = [(r["bytes"], r["score"]) for r in json.loads(measured.stdout)["results"]]
        assert found == (expected or [(p["bytes"], p["score"]) for p in summary["points"]])


def test_a_network_that_only_got_worse_is_said_with_what_may_help(folder: Path, tmp_path: Path) -> None:
    done = qtable(*command(folder, tmp_path / "run", "--steps", "6", "--network-rate", "10"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_step"] == 0
    assert "--network-rate 10): pretrained networks often want" in " ".join(done.stdout.split())


def test_bounds_that_are_not_known_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"metric": "top-5 accuracy", "n_test": 20, "points": [], "bd_rate": None, "bd_rate_ci": [None, None]}
    show({**found, "best_step": 4, "interrupted": False}, tmp_path, SHORT)
    said = " ".join(capsys.readouterr().out.split())
    assert "unknown bytes at equal score [unknown, unknown] against standard tables" in said


def test_two_processes_train_as_one_does(folder: Path, tmp_path: Path) -> None:
    """torchrun with gloo; batch norm would see half a batch, so the network here has none."""
    (tmp_path / "plain.py").write_text(MODEL.replace("nn.BatchNorm2d(8), ", "").replace("bias=False", "bias=True"))
    ends = []
    for name, launcher in (("one", ()), ("two", ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))):
        arguments = command(folder, tmp_path / name, "--steps", "6")
        arguments[arguments.index("--model") + 1] = f"{tmp_path / 'plain.py'}:net"
        done = qtable(*arguments, launcher=launcher)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("executes code") == done.stderr.count(" fit, ") == 1  # one process tells
        ends.append(json.loads((tmp_path / name / "summary.json").read_text()))
    for one, two in zip(ends[0]["history"], ends[1]["history"], strict=True):
        assert two["bytes"] == pytest.approx(one["bytes"], rel=1e-3)
        assert two["objective"] == pytest.approx(one["objective"], rel=1e-3)
        assert two["score"] == pytest.approx(one["score"], abs=0.1)


def test_a_full_disk_ends_training_in_one_line_and_with_space_it_goes_on(
    folder: Path, disk: Path, tmp_path: Path
) -> None:
    """The checkpoints of a larger size than the disk's, then than what is left of it; then there is space."""
    for size, checkpoint in (("8k", False), ("56k", True)):
        remount(disk, f"size={size}")
        done = qtable(*command(folder, disk / "run", "--start", "standard"))
        assert done.returncode == 1
        assert [line for line in done.stderr.splitlines() if line.startswith("qtable: ")] == [
            done.stderr.splitlines()[-1]
        ], done.stderr
        assert "No space left on device" in done.stderr.splitlines()[-1]
        assert (disk / "run" / "checkpoint.safetensors").exists() == checkpoint
        assert not list((disk / "run").glob(".*tmp*"))
    remount(disk, "size=4m")
    again, whole = (
        qtable(*command(folder, disk / "run", "--start", "standard")),
        qtable(*command(folder, tmp_path / "whole", "--start", "standard")),
    )
    assert again.returncode == whole.returncode == 0, again.stderr
    for name in ("tables/001.json", "network.safetensors"):
        assert (disk / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--batch", "1"), "qtable: batch 1 for 2 operating points"),
        (("--crop", "400"), "qtable: crop 400: the smallest photo has a side of 24 pixels"),
        (("--start", "nowhere"), "qtable: --start nowhere: no run there"),
        (("--metric", "top-9"), "qtable: metric 'top-9' is unknown; allowed: top-1, top-5, agreement"),
        (("--largest", "5"), "qtable: qualities 5 to 8; allowed: 1..100, falling"),
    ],
)
def test_clear_words_for_what_cannot_be_trained(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit) as status:
        main(command(folder, tmp_path / "x", *more))
    assert status.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qtable: ")]
    assert words in line
