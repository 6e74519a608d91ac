"""The ideal denoiser of a cloud is that of the mixture it is."""

import pytest
import torch
from exact import Mixture

from minidiff.diffusion import cosine, edm, flow, heun, ideal, score, uniform

POINTS = [[1.5, 0.0], [-1.0, 0.8], [-0.4, -1.2]]
CLOUD = torch.tensor(POINTS, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [flow(), cosine(), edm()])
def test_it_is_the_posterior_mean(schedule):
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = [0.01, 0.3, 0.9, 1.0]
    exact, denoise = Mixture(POINTS, [1 / 3] * 3, 0.3).denoiser(schedule), ideal(CLOUD, schedule, std=0.3)
    expected = torch.cat([exact(row[None], t) for row, t in zip(x, times, strict=True)])
    together = denoise(x, torch.tensor(times, dtype=torch.float64))  # one time a row
    one_by_one = torch.cat([denoise(row[None], t) for row, t in zip(x, times, strict=True)])
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(one_by_one, expected, rtol=0, atol=1e-9)


def test_pictures_keep_their_shape():
    pictures = torch.randn(5, 1, 4, 3)
    assert ideal(pictures, flow())(torch.randn(2, 1, 4, 3), 0.5).shape == (2, 1, 4, 3)


def test_the_score_is_the_slope_of_the_log_density():
    mixture, schedule, t = Mixture(POINTS, [1 / 3] * 3, 0.3), cosine(), 0.4
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    alpha, sigma = schedule.at(t, x)
    (expected,) = torch.autograd.grad(mixture.log_shares(x, alpha, sigma).logsumexp(1).sum(), x)
    got = score(ideal(CLOUD, schedule, std=0.3), schedule)(x.detach(), t)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_without_spread_every_walk_ends_on_a_point():
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    *_, last = heun(ideal(CLOUD, flow()), x, uniform(40, flow()), flow())
    assert torch.cdist(last.x, CLOUD).min(dim=1).values.max() < 1e-3
