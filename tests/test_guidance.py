"""Guidance: the two conventions, one batch or two, rescaling, the interval, and an exact classifier."""

import pytest
import torch
from exact import TWO_MOONS

from minidiff.diffusion import (
    FLOW,
    GUIDANCES,
    X0,
    V,
    amplified,
    autoguidance,
    cfg,
    clipped,
    cosine,
    denoiser,
    edm,
    flow,
    guide,
    rescaled,
    to_x0,
)
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


@pytest.mark.parametrize("w", [-1.0, 0.0, 0.5, 6.5])
def test_the_papers_convention_is_ours_shifted_by_one(w):
    """Ho and Salimans 2022, equation 6: (1 + w) eps(x, c) - w eps(x); their w = 0 is our scale 1."""
    t = torch.tensor(0.4)
    time = flow().net_time(t).to(X.dtype).expand(3)
    theirs = (1 + w) * net(X, time, CONTEXT) - w * net(X, time, NULL.expand(3, -1, -1))
    ours = cfg(net, flow(), FLOW, CONTEXT, NULL, 1 + w)(X, t)
    torch.testing.assert_close(ours, to_x0(FLOW, theirs, X, *flow().at(t, X)), rtol=0, atol=1e-5)


def test_rescaling_gives_each_picture_the_spread_of_its_own_answer():
    quiet, loud = torch.randn(2, 3, 8, 8), 5 * torch.randn(2, 3, 8, 8) + 1
    loud[1] *= 3  # each picture by itself: not one spread for the batch
    full, half = rescaled(loud, quiet, 1.0), rescaled(loud, quiet, 0.5)
    torch.testing.assert_close(full.std((1, 2, 3)), quiet.std((1, 2, 3)))
    torch.testing.assert_close(half, (loud + full) / 2)
    assert torch.equal(rescaled(loud, quiet, 0.0), loud)
    assert torch.equal(rescaled(loud[:1], quiet[:1], 0.7), rescaled(loud, quiet, 0.7)[:1])


def test_rescaling_is_part_of_cfg():
    plain, with_text = (cfg(net, flow(), X0, CONTEXT, NULL, scale)(X, 0.5) for scale in (4.0, 1.0))
    brought_back = cfg(net, flow(), X0, CONTEXT, NULL, 4.0, rescale=0.7)(X, 0.5)
    torch.testing.assert_close(brought_back, rescaled(plain, with_text, 0.7))


def test_outside_its_interval_the_scale_is_1():
    t = torch.tensor([0.2, 0.5, 0.8])
    everywhere, nowhere = (cfg(net, flow(), FLOW, CONTEXT, NULL, scale)(X, t) for scale in (4.0, 1.0))
    within = cfg(net, flow(), FLOW, CONTEXT, NULL, 4.0, interval=(0.3, 0.7))(X, t)
    torch.testing.assert_close(within, torch.stack([nowhere[0], everywhere[1], nowhere[2]]))
    for number, expected in zip(t, within, strict=True):  # one time for the whole batch
        whole = cfg(net, flow(), FLOW, CONTEXT, NULL, 4.0, interval=(0.3, 0.7))(X, float(number))
        assert any(torch.allclose(row, expected) for row in whole)


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


@pytest.mark.parametrize("schedule, pred", [(flow(), FLOW), (cosine(), V), (edm(), V)])
def test_cfg_is_two_denoisers_amplified(schedule, pred):
    without, with_text = (denoiser(net, schedule, pred, c) for c in (NULL.expand(3, -1, -1), CONTEXT))
    for interval in ((0.0, 1.0), (0.3, 0.6)):
        for t in (0.5, 0.8):
            composed = amplified(with_text, without, 3.0, interval)(X, t)
            fused = cfg(net, schedule, pred, CONTEXT, NULL, 3.0, interval=interval)(X, t)
            torch.testing.assert_close(fused, composed, rtol=0, atol=1e-4)


def test_autoguidance_leads_away_from_the_weak_model():
    weak = denoiser(lambda x, time, context: 0.5 * net(x, time, context), flow(), FLOW, CONTEXT)
    good = denoiser(net, flow(), FLOW, CONTEXT)
    for scale in (0.0, 1.0, 2.5):
        guided = autoguidance(net, flow(), FLOW, CONTEXT, NULL, scale, weak=weak)(X, 0.4)
        torch.testing.assert_close(guided, weak(X, 0.4) + scale * (good(X, 0.4) - weak(X, 0.4)))


@pytest.mark.parametrize("name", GUIDANCES)
def test_every_guidance_is_the_conditional_prediction_at_scale_1(name):
    options = {"weak": lambda x, t: torch.zeros_like(x)} if name == "autoguidance" else {}
    guided = GUIDANCES[name](net, flow(), FLOW, CONTEXT, NULL, 1.0, **options)(X, 0.4)
    torch.testing.assert_close(guided, denoiser(net, flow(), FLOW, CONTEXT)(X, 0.4), rtol=0, atol=1e-6)
