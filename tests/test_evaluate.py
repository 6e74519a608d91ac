"""Measures that do what they say, and the shipped model measured with them."""

import math

import pytest
import torch

from minidiff import TextToImage, data
from minidiff.evaluate import evaluate, floor, frechet, judge_accuracy, judged, load_judge


@pytest.fixture(scope="module")
def real():
    """Features, answers and pictures of the validation digits."""
    digits = data.mnist("validation")
    return *judged(load_judge(), digits.images), digits


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


def test_the_floor_falls_with_n_and_is_what_two_halves_score(real):
    features, *_ = real
    small, large = floor(features, 250)[0], floor(features, 1000)[0]
    assert 0 < large < small
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(5))
    mean, std = floor(features, 1000)
    assert abs(frechet(features[order[:1000]], features[order[1000:]]) - mean) < 4 * std


def test_damage_is_noticed_in_order(real):
    features, _, digits = real
    pictures, judge = digits.images[:1000], load_judge()
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    scores = [frechet(judged(judge, pictures + s * noise)[0], features[1000:]) for s in (0.0, 0.1, 0.2, 0.4, 0.8)]
    assert scores == sorted(scores) and scores[-1] > 5 * scores[0]


def test_the_judge_reads_unseen_digits():
    assert judge_accuracy(load_judge(), "test") >= 0.995


def test_the_judge_gives_the_same_answers_whatever_the_batch(real):
    features, _, digits = real
    torch.testing.assert_close(judged(load_judge(), digits.images[7:9])[0], features[7:9], rtol=1e-4, atol=1e-4)


def test_the_shipped_model_draws_what_it_is_asked_for():
    pipe = TextToImage.load("mnist", device="cpu")
    report = evaluate(pipe, 200, split="validation", seed=1)
    assert report.accuracy >= 0.97 and report.accuracy_real >= 0.99
    assert 0.5 * report.frechet_floor < report.frechet < 4 * report.frechet_floor
    assert all(word in str(report) for word in ("digit accuracy", "n = 200", "seed 1", "20 steps of dpmpp_2m", "torch"))
    ignoring = evaluate(pipe, 100, split="validation", scale=0.0, steps=8)
    assert ignoring.accuracy < 0.4  # no prompt, no digit


def test_a_model_that_draws_noise_is_seen_through():
    pipe = TextToImage.load("mnist", device="cpu")
    for parameter in pipe.net.unet.conv_out.parameters():
        parameter.zero_()
    report = evaluate(pipe, 100, split="validation", steps=2)
    assert report.accuracy < 0.4 and report.frechet > 10 * report.frechet_floor


@pytest.mark.parametrize("n", [0, 64, 5000])
def test_too_few_or_too_many(n):
    with pytest.raises(ValueError, match="n must lie between 65"):
        evaluate(TextToImage.load("mnist", device="cpu"), n, split="validation")
