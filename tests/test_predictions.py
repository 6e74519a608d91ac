"""Predictions: one inversion for all of them, on every schedule."""

import pytest
import torch

from minidiff.diffusion import (
    EPS,
    FLOW,
    PREDICTIONS,
    SCHEDULES,
    X0,
    V,
    cosine,
    denoiser,
    edm,
    flow,
    linear,
    predict,
    target,
    to_x0,
    zero_terminal_snr,
)

SCHEDULE_LIST = [make() for make in SCHEDULES.values()] + [zero_terminal_snr(linear())]


@pytest.mark.parametrize("pred", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULE_LIST)
def test_the_inversion_undoes_the_target(pred, schedule):
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(1e-3, 1 - 1e-3, 200, dtype=torch.float64)
    x0, eps = torch.randn(2, 200, 1, 3, 3, dtype=torch.float64, generator=generator)
    alpha, sigma = schedule.at(t, x0)
    x = schedule.add_noise(x0, eps, t)
    found = to_x0(pred, target(pred, x0, eps, alpha, sigma), x, alpha, sigma)
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-10)


def test_the_four_targets_by_hand():
    x0, eps = torch.tensor(2.0), torch.tensor(-1.0)
    alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
    by_hand = {EPS: -1.0, X0: 2.0, V: 0.8 * -1 - 0.6 * 2, FLOW: -1.0 - 2.0}
    for pred, value in by_hand.items():
        torch.testing.assert_close(target(pred, x0, eps, alpha, sigma), torch.tensor(value))


def test_v_on_edm_is_the_preconditioning_of_karras():
    """D = c_skip x + c_out F with sigma_data = 1 (Karras et al. 2022, table 1); F is minus our v."""
    sigma, x, out = torch.tensor(3.0).double(), torch.tensor(1.7).double(), torch.tensor(-0.4).double()
    expected = x / (1 + sigma**2) + sigma / (1 + sigma**2).sqrt() * -out
    torch.testing.assert_close(to_x0(V, out, x, torch.ones_like(sigma), sigma), expected)


def test_eps_is_refused_where_nothing_of_the_picture_is_left():
    x = torch.zeros(1, 1, 2, 2)
    for schedule in (cosine(), flow(), zero_terminal_snr(linear())):
        with pytest.raises(ValueError, match="zero terminal SNR.*v-prediction"):
            to_x0(EPS, x, x, *schedule.at(1.0, x))
        for pred in (X0, V, FLOW):
            assert to_x0(pred, x, x, *schedule.at(1.0, x)).isfinite().all()


def test_at_no_noise_the_x0_prediction_is_the_picture():
    x = torch.full((1, 1, 2, 2), 0.3)
    torch.testing.assert_close(to_x0(X0, x, x, *flow().at(0.0, x)), x)


def test_the_network_is_told_time_and_scale_and_keeps_the_dtype():
    told = {}

    def net(x, time, context):
        told.update(x=x, time=time, context=context)
        return x.half()  # a network that runs in half precision

    x, context = torch.ones(3, 1, 2, 2), torch.ones(3, 2, 4)
    out = predict(net, edm(), x, 1.0, context)
    assert out.dtype == torch.float32 and told["time"].shape == (3,) and told["context"] is context
    torch.testing.assert_close(told["x"], x / (1 + 80**2) ** 0.5)
    assert denoiser(net, edm(), V, context)(x, 0.5).dtype == torch.float32
    predict(net, flow(), x, torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(told["time"], torch.tensor([100.0, 200.0, 300.0]))
