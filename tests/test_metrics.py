"""Measures that do what they say: by hand on a few points, then on digits damaged more and more."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from minidiff import data
from minidiff.evaluation.judges import judged
from minidiff.evaluation.metrics import (
    bootstrap,
    calibration_error,
    diversity,
    floor,
    frechet,
    memorisation,
    nearest,
    precision_recall,
)
from minidiff.formats.model_folder import load_classifier

N = 1000


@pytest.fixture(scope="module")
def judge():
    return load_classifier("judge")


@pytest.fixture(scope="module")
def real(judge):
    """Validation digits and their features."""
    digits = data.mnist("validation")
    return digits, judged(judge, digits.images)[0]


# By hand -----------------------------------------------------------------------------------


def cloud(n, mean, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64) * torch.tensor(scale) + torch.tensor(mean)


def exactly(mean, scale):
    """Six points whose mean and (sample) standard deviations are exactly these, uncorrelated."""
    axes = torch.eye(3, dtype=torch.float64)
    points = torch.cat([axes, -axes]) * math.sqrt(5 / 2)
    return points * torch.tensor(scale, dtype=torch.float64) + torch.tensor(mean, dtype=torch.float64)


def test_frechet_by_hand():
    a, b = exactly([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]), exactly([1.0, 1.0, 0.0], [2.0, 2.0, 0.5])
    # for axis-aligned Gaussians: squared distances of the means and of the standard deviations
    assert frechet(a, b) == pytest.approx(1 + 0 + 4 + 1 + 0 + 6.25)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9) and frechet(a, b) == pytest.approx(frechet(b, a))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b))
    one, other = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
    assert frechet(one, other) == pytest.approx(2**2 + 1**2)
    with pytest.raises(ValueError, match="at least two"):
        frechet(a[:1], b)


def test_frechet_of_full_covariances():
    """Against the definition, with the matrix root of A B taken from its eigenvalues."""
    mix = torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.0, -0.7], [0.2, 0.0, 1.0]], dtype=torch.float64)
    a, b = cloud(400, [0.0, 0.0, 0.0], [1.0, 2.0, 0.5], 0) @ mix, cloud(300, [0.3, 0.0, 0.0], [1.0, 1.0, 1.0], 1)
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root = torch.linalg.eigvals(cov_a @ cov_b).real.sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root
    assert frechet(a, b) == pytest.approx(float(expected), rel=1e-9)


def test_the_bootstrap_gives_the_error_of_a_mean():
    rows = cloud(400, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 0)[:, 0]
    draws = bootstrap(lambda part: float(part.mean()), rows, draws=2000)
    assert float(draws.std()) == pytest.approx(float(rows.std()) / 20, rel=0.06)  # sigma / sqrt(n)
    torch.testing.assert_close(draws, bootstrap(lambda part: float(part.mean()), rows, draws=2000))


def test_precision_and_recall_by_hand():
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])  # two kinds of pictures
    good = torch.tensor([[0.5], [1.5], [1.0]])  # all of the first kind
    assert precision_recall(line, good, k=1) == (1.0, 3 / 6)  # balls of 0.5 around 0.5, 1, 1.5 hold 0, 1, 2
    bad = torch.tensor([[0.5], [5.0], [6.0], [50.0]])
    precision, recall = precision_recall(line, bad, k=1)
    assert precision == 1 / 4
    assert precision_recall(line, line, k=1) == (1.0, 1.0)
    with pytest.raises(ValueError, match="k must lie between 1 and 2"):
        precision_recall(line, good, k=3)


def test_diversity_counts_pairs_of_a_class_once():
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 100.0], [0.0, 101.0], [0.0, 102.0], [7.0, 7.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    assert diversity(points, labels) == pytest.approx((5 + 1 + 1 + 2) / 4)
    with pytest.raises(ValueError, match="no class has two"):
        diversity(points[:2], torch.tensor([0, 1]))


def test_nearest_and_memorisation_by_hand():
    queries, pool = torch.tensor([[[0.0, 0.0]], [[6.0, 8.0]]]), torch.tensor([[[1.0, 0.0]], [[3.0, 4.0]]])
    distances, rows = nearest(queries, pool)
    assert distances.tolist() == [1.0, 5.0] and rows.tolist() == [0, 1]
    assert memorisation(queries, pool, pool + 0) == 1.0
    assert memorisation(queries, torch.cat([pool, queries]), pool) == pytest.approx(0, abs=1e-3)


def test_calibration_by_hand():
    sure, right = torch.tensor([0.9] * 10), torch.tensor([True] * 9 + [False])
    assert calibration_error(sure, right) == pytest.approx(0, abs=1e-6)
    assert calibration_error(sure, torch.zeros(10, dtype=torch.bool)) == pytest.approx(0.9, abs=1e-6)
    both = torch.cat([sure, torch.full((10,), 0.3)]), torch.cat([right, torch.ones(10, dtype=torch.bool)])
    assert calibration_error(*both) == pytest.approx(0.35, abs=1e-6)  # half of them are 0.7 too modest


def test_calibration_is_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(500, 10, generator=generator), torch.randint(10, (500,), generator=generator)
    confidence, answers = (3 * logits).softmax(1).max(1)
    theirs = multiclass_calibration_error((3 * logits).softmax(1), labels, num_classes=10, n_bins=15)
    assert calibration_error(confidence, answers == labels) == pytest.approx(float(theirs), abs=1e-5)


def test_frechet_is_torchmetrics(judge, real):
    """The same features through torchmetrics' FID."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Features(torch.nn.Module):
        num_features = 64

        def forward(self, pictures):
            return judged(judge, pictures.float() / 127.5 - 1)[0]

    digits, features = real
    theirs = FrechetInceptionDistance(feature=Features()).set_dtype(torch.float64)
    pixels = ((digits.images[:2000] + 1) * 127.5).round().byte()
    theirs.update(pixels[:500], real=False)
    theirs.update(pixels[500:], real=True)
    assert frechet(features[:500], features[500:2000]) == pytest.approx(float(theirs.compute()), rel=1e-4)


# On digits ---------------------------------------------------------------------------------


def noised(pictures, amount):  # up to where the judge reads nothing any more, and no distance can tell more from most
    return pictures + 0.6 * amount * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))


def blurred(pictures, amount):
    reach = torch.arange(-7, 8)
    kernel = torch.exp(-(reach**2) / (2 * (4 * amount) ** 2))
    kernel = (kernel / kernel.sum())[None, None]
    padded = F.pad(pictures, (7, 7, 7, 7), value=-1)
    return F.conv2d(F.conv2d(padded, kernel[..., None]), kernel[:, :, None])


def smeared(pictures, amount):
    """Mixed with the mean digit."""
    return pictures.lerp(pictures.mean(0, keepdim=True), amount)


@pytest.mark.parametrize("damage", [noised, blurred, smeared])
def test_more_damage_is_a_larger_distance_and_a_lower_precision(damage, judge, real):
    digits, features = real
    amounts = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    damaged = [judged(judge, damage(digits.images[:N], amount))[0] for amount in amounts]
    distances = [frechet(each, features[N:]) for each in damaged]
    assert spearmanr(amounts, distances).statistic >= 0.99
    precisions = [precision_recall(features[N : 2 * N], each)[0] for each in damaged[::2]]
    assert spearmanr(amounts[::2], precisions).statistic <= -0.99


def test_two_halves_of_the_real_digits_are_alike(real):
    digits, features = real
    mean, std = floor(features, 2500)
    shares = []
    for seed in range(4):  # shuffled: neighbours in the file share a writer
        one, other = torch.randperm(5000, generator=torch.Generator().manual_seed(seed)).split(2500)
        assert abs(frechet(features[one], features[other]) - mean) < 4 * std
        precision, recall = precision_recall(features[one], features[other])
        assert precision > 0.9 and recall > 0.9 and abs(precision - recall) < 0.03
        halves = [diversity(features[half], digits.labels[half]) for half in (one, other)]
        shares.append(halves[0] / halves[1])
    assert sum(shares) / 4 == pytest.approx(1, abs=0.03)


def test_the_floor_falls_with_n(real):
    _, features = real
    scores = [floor(features, n)[0] for n in (125, 250, 500, 1000)]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0


def test_dropped_modes_are_missed_by_precision_and_noticed_by_recall(real):
    digits, features = real
    kept = features[:2500][digits.labels[:2500] < 5][:N]
    assert len(kept) == N
    others = features[2500 : 2500 + N]
    precision, recall = precision_recall(others, kept)
    assert precision > 0.9 and recall < 0.6
    assert frechet(kept, features[2500:]) > 10 * floor(features, N)[0]


def test_one_picture_a_class_is_noticed_by_diversity_and_recall(real):
    digits, features = real
    prototypes = torch.stack([features[digits.labels == label][0] for label in range(10)])
    copies = prototypes[digits.labels[:N]]
    assert diversity(copies, digits.labels[:N]) < 1e-6
    few = copies + 1e-3 * torch.randn(copies.shape, generator=torch.Generator().manual_seed(0))
    precision, recall = precision_recall(features[N : 2 * N], few)
    assert precision > 0.9 and recall < 0.05


def test_copies_of_training_digits_are_noticed_by_memorisation_alone(judge, real):
    digits, features = real
    train = data.mnist("train").images
    # with a little noise, which no eye would see: exact copies would be too easy
    copies = noised(train[:500], 0.02)
    distance, (mean, std) = frechet(judged(judge, copies)[0], features), floor(features, 500)
    assert distance < mean + 4 * std  # as good as real
    honest = memorisation(digits.images[:500], train, digits.images[500:])
    assert 0.8 < honest < 1 and memorisation(copies, train, digits.images[500:]) < honest / 5
    held_out = memorisation(digits.images[500:1000], train, digits.images[1000:])
    assert held_out == pytest.approx(honest, rel=0.05)
