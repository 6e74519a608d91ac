"""Exact samples of p(x) p(c | x)^w agree with numerical integration; guidance agrees with them at w = 1 only."""

import pytest
import torch

from minidiff.course.tilted import tilted
from minidiff.diffusion import flow, guide, heun, ideal, uniform

POINTS = torch.tensor([[-1.0], [0.1], [0.8]], dtype=torch.float64)
WANTED, STD = torch.tensor([False, True, True]), 0.5  # the classes overlap


def moments(w):
    """Mean and standard deviation of the tilted density, by numerical integration."""
    x = torch.linspace(-6, 6, 20_001, dtype=torch.float64)[:, None]
    bells = torch.exp(-((x - POINTS.T) ** 2) / (2 * STD**2))
    density = bells.sum(1) * (bells[:, WANTED].sum(1) / bells.sum(1)) ** w
    density /= density.sum()
    mean = (density * x[:, 0]).sum()
    return mean.item(), ((density * (x[:, 0] - mean) ** 2).sum() ** 0.5).item()


@pytest.mark.parametrize("w", [0, 1, 4, 16])
def test_it_agrees_with_numerical_integration(w):
    x = tilted(POINTS, WANTED, w, STD, n=200_000)
    assert x.shape == (200_000, 1)
    mean, std = moments(w)
    assert abs(x.mean().item() - mean) < 0.01 * std and x.std().item() == pytest.approx(std, rel=0.01)


def test_guidance_agrees_with_it_at_scale_1_only():
    path = flow()

    def log_p(x, t, x0_hat):
        alpha, sigma = path.at(t, x)
        squares = (x - alpha * POINTS.T) ** 2
        return torch.log_softmax(-squares / (2 * (alpha**2 * STD**2 + sigma**2)), 1)[:, WANTED].logsumexp(1)

    start = torch.special.ndtri(torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64))[:, None]
    apart = {}
    for w in (1, 16):
        times = uniform(200, path).clamp(max=0.99)
        *_, last = heun(guide(ideal(POINTS, path, STD), log_p, path, w), start, times, path)
        mean, std = moments(w)
        apart[w] = abs(last.x.mean().item() - mean) / std, abs(last.x.std().item() / std - 1)
    assert max(apart[1]) < 0.03 and max(apart[16]) > 0.3
