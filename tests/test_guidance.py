"""Guidance: the two conventions at 0 and 1, one batch or two, and an exact classifier."""

import pytest
import torch
from exact import TWO_MOONS

from minidiff.diffusion import FLOW, V, cfg, clipped, cosine, denoiser, edm, flow, guide
from minidiff.networks import UNet, UNetConfig

X = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
CONTEXT = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
NULL = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(2))


def net(x, time, context):
    return torch.tanh(x * context.mean((1, 2))[:, None, None, None] + torch.sin(time)[:, None, None, None])


@pytest.mark.parametrize("t", [0.7, torch.tensor([0.2, 0.5, 0.9])])
@pytest.mark.parametrize("schedule, pred", [(flow(), FLOW), (cosine(), V), (edm(), V)])
def test_scale_0_is_unconditional_1_is_conditional_and_between_is_a_line(schedule, pred, t):
    without = denoiser(net, schedule, pred, NULL.expand(3, -1, -1))(X, t)
    with_text = denoiser(net, schedule, pred, CONTEXT)(X, t)
    for scale in (0.0, 1.0, 2.5):
        guided = cfg(net, schedule, pred, CONTEXT, NULL, scale)(X, t)
        torch.testing.assert_close(guided, without + scale * (with_text - without), rtol=0, atol=1e-5)


def test_one_batch_is_two_passes_through_a_real_network():
    torch.manual_seed(0)
    unet = UNet(UNetConfig(1, 1, (8, 16), (True, True), layers=1, heads=2, context_dim=4, groups=4))
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        with_text = denoiser(unet, flow(), FLOW, CONTEXT)(x, t)
        without = denoiser(unet, flow(), FLOW, NULL.expand(3, -1, -1))(x, t)
        guided = cfg(unet, flow(), FLOW, CONTEXT, NULL, 3.0)(x, t)
    torch.testing.assert_close(guided, without + 3.0 * (with_text - without), rtol=0, atol=1e-5)


def test_two_copies_travel_in_one_batch():
    sizes = []

    def counting(x, time, context):
        sizes.append((len(x), len(time), len(context)))
        return net(x, time, context)

    cfg(counting, flow(), FLOW, CONTEXT, NULL, 3.0)(X, 0.5)
    assert sizes == [(6, 6, 6)]


@pytest.mark.parametrize("schedule", [cosine(), flow(), edm()])
@pytest.mark.parametrize("t", [0.01, 0.3, 0.9])
def test_an_exact_classifier_at_scale_1_gives_the_conditional_denoiser(schedule, t):
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def log_p(x, t, x0_hat):  # p(component 1 | x_t), exactly
        return TWO_MOONS.log_shares(x, *schedule.at(t, x)).log_softmax(-1)[:, 1]

    with torch.no_grad():  # as inside a sampler
        guided = guide(TWO_MOONS.denoiser(schedule), log_p, schedule, 1.0)(x, t)
        nothing = guide(TWO_MOONS.denoiser(schedule), log_p, schedule, 0.0)(x, t)
    torch.testing.assert_close(guided, TWO_MOONS.denoiser(schedule, component=1)(x, t), rtol=0, atol=1e-11)
    torch.testing.assert_close(nothing, TWO_MOONS.denoiser(schedule)(x, t))
    assert not guided.requires_grad


def test_guide_reaches_through_x0_hat_too():
    x = torch.zeros(2, 2, dtype=torch.float64)

    def log_p(x, t, x0_hat):  # wants x0_hat large: the gradient flows through the denoiser
        return x0_hat.sum(-1)

    denoise = TWO_MOONS.denoiser(flow())
    assert (guide(denoise, log_p, flow(), 1.0)(x, 0.5) > denoise(x, 0.5)).all()


def test_guide_refuses_to_divide_by_zero():
    with pytest.raises(ValueError, match="start just below t = 1"):
        guide(TWO_MOONS.denoiser(flow()), lambda x, t, x0_hat: x.sum(-1), flow(), 1.0)(X.double()[:, 0, 0, :2], 1.0)


def test_clipped_stays_within_pictures():
    assert clipped(lambda x, t: 3 * x)(torch.tensor([-1.0, 0.1, 1.0]), 0.5).tolist() == pytest.approx([-1, 0.3, 1])
