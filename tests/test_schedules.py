"""Schedules: end points, monotone noise, inverses, and the one place that broadcasts."""

import pytest
import torch

from minidiff.diffusion import (
    EPS,
    SCHEDULES,
    cosine,
    denoiser,
    edm,
    euler,
    flow,
    linear,
    rescheduled,
    scaled_linear,
    uniform,
    zero_terminal_snr,
)

TIMES = torch.linspace(0, 1, 2001, dtype=torch.float64)
ALL = [make() for make in SCHEDULES.values()] + [zero_terminal_snr(linear()), zero_terminal_snr(scaled_linear())]
VARIANCE_PRESERVING = [linear(), cosine(), scaled_linear(), zero_terminal_snr(scaled_linear())]


@pytest.mark.parametrize("schedule", ALL)
def test_starts_at_data_and_noise_only_grows(schedule):
    alpha, sigma = schedule.alpha(TIMES), schedule.sigma(TIMES)
    assert alpha[0] == 1 and sigma[0] == 0
    assert (torch.atan2(sigma, alpha).diff() > 0).all()


@pytest.mark.parametrize("schedule", VARIANCE_PRESERVING)
def test_variance_is_preserved(schedule):
    total = schedule.alpha(TIMES) ** 2 + schedule.sigma(TIMES) ** 2
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-14)


def test_known_values():
    one = torch.ones((), dtype=torch.float64)
    # the product of 1 - beta over DDPM's and Stable Diffusion's tables
    assert float(linear().alpha(one) ** 2) == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(scaled_linear().alpha(one) ** 2) == pytest.approx(0.0046599, rel=1e-4)
    assert float(scaled_linear().alpha(one / 1000) ** 2) == pytest.approx(1 - 0.00085, abs=1e-12)
    assert float(edm().sigma(one)) == 80
    assert float(cosine().alpha(one / 2)) == pytest.approx(0.5**0.5)
    assert (float(flow().alpha(one / 4)), float(flow().sigma(one / 4))) == (0.75, 0.25)


def test_what_the_network_is_told():
    t = torch.tensor([1 / 1000, 1.0], dtype=torch.float64)
    torch.testing.assert_close(linear().net_time(t), torch.tensor([0.0, 999.0], dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(edm().net_time(torch.tensor(1.0))) == pytest.approx(torch.tensor(80.0).log().item() / 4)
    assert float(edm().net_scale(torch.tensor(1.0))) == pytest.approx((1 + 80**2) ** -0.5)
    assert edm().net_time(torch.zeros(1)).isfinite().all()


@pytest.mark.parametrize("schedule", ALL)
def test_time_of_is_the_inverse(schedule):
    t = torch.linspace(1e-3, 1 - 1e-3, 97, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_of(schedule.sigma(t) / schedule.alpha(t)), t, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ratio", [15.0, -1.0, float("nan")])
def test_time_of_refuses_ratios_that_are_never_reached(ratio):
    with pytest.raises(ValueError, match=r"sigma/alpha must lie in \[0, 14.6"):
        scaled_linear().time_of(ratio)


def test_zero_terminal_snr_leaves_nothing_and_keeps_the_first_step():
    before, after = scaled_linear(), zero_terminal_snr(scaled_linear())
    first, last = torch.tensor([1 / 1000, 1.0], dtype=torch.float64)
    assert float(after.alpha(last)) < 1e-15
    assert float(after.alpha(first)) == pytest.approx(float(before.alpha(first)), abs=1e-14)
    with pytest.raises(ValueError, match="works on a table"):
        zero_terminal_snr(cosine())


def test_times_are_one_number_or_one_a_picture():
    # H = B: the wrong broadcast would give no error, only wrong numbers
    x0, eps = torch.ones(4, 1, 4, 4), torch.zeros(4, 1, 4, 4)
    t = torch.tensor([0.0, 0.25, 0.5, 0.75])
    expected = (1 - t)[:, None, None, None].expand(4, 1, 4, 4)
    torch.testing.assert_close(flow().add_noise(x0, eps, t), expected)
    alpha, sigma = flow().at(0.5, x0)
    assert alpha.shape == sigma.shape == ()
    for wrong in (torch.zeros(3), torch.zeros(4, 1), torch.zeros(4, 1, 1, 1)):
        with pytest.raises(ValueError, match="one number or one an image"):
            flow().at(wrong, x0)


def test_coefficients_are_computed_in_float64_and_cast_last():
    t = torch.tensor([1e-3], dtype=torch.float64)
    alpha, _ = scaled_linear().at(t, torch.zeros(1, 1, 2, 2, dtype=torch.float16))
    assert alpha.dtype == torch.float16
    alpha, _ = scaled_linear().at(t, torch.zeros(1, 1, 2, 2, dtype=torch.float64))
    assert float(alpha**2) == pytest.approx(1 - 0.00085, abs=1e-14)


@pytest.mark.parametrize("path, start", [(edm(), 1.0), (flow(), 0.98), (cosine(), 0.98)])
def test_rescheduled_walks_another_path_to_the_same_picture(path, start):
    """Euler does not care how bright the path is: at the same ratios it ends at the same picture."""
    trained = linear()

    def net(x, time, context):  # a network that knows only what it is given
        return torch.tanh(x + torch.sin(time / 300)[:, None, None, None])

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64)
    times = uniform(7, path, start, 0.01)
    own_times = trained.time_of(path.sigma(times) / path.alpha(times))
    walked = []
    for schedule, grid in ((rescheduled(path, trained), times), (trained, own_times)):
        alpha, sigma = schedule.alpha(grid), schedule.sigma(grid)
        length = torch.hypot(alpha, sigma)
        *_, last = euler(denoiser(net, schedule, EPS), noise * length[0], grid, schedule)
        walked.append(last.x / length[-1])
    torch.testing.assert_close(walked[0], walked[1], rtol=0, atol=1e-9)


def test_a_time_given_as_a_number_keeps_all_its_digits():
    alpha, _ = flow().at(0.3, torch.zeros(1, dtype=torch.float64))
    assert float(alpha) == 1 - 0.3


def test_snr_is_one_where_picture_and_noise_are_equal():
    for make in SCHEDULES.values():
        schedule = make()
        assert float(schedule.snr(schedule.time_of(1.0))) == pytest.approx(1)
        assert schedule.snr(torch.tensor([0.2, 0.4])).diff() < 0
