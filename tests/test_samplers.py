"""Samplers against exact answers: order of convergence, and the chain of Gaussians."""

import pytest
import torch
from exact import TWO_MOONS, Mixture

from minidiff.diffusion import SAMPLERS, cosine, ddim, ddpm, dpmpp_2m, edm, euler, flow, heun, linear, uniform

START = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DETERMINISTIC = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2}  # name: order


def last(steps):
    *_, step = steps
    return step


@pytest.fixture(scope="module", params=[cosine(), flow()], ids=["cosine", "flow"])
def reference(request):
    schedule = request.param
    denoise = TWO_MOONS.denoiser(schedule)
    return schedule, denoise, last(heun(denoise, START, uniform(4000, schedule, 0.98, 0.02), schedule)).x


@pytest.mark.parametrize("name, order", DETERMINISTIC.items())
def test_order_of_convergence(reference, name, order):
    schedule, denoise, truth = reference
    counts = torch.tensor([40, 80, 160, 320])
    errors = []
    for n in counts.tolist():
        x = last(SAMPLERS[name](denoise, START, uniform(n, schedule, 0.98, 0.02), schedule)).x
        errors.append(float((x - truth).norm(dim=1).mean()))
    log_n, log_error = counts.double().log(), torch.tensor(errors).double().log()
    centred = log_n - log_n.mean()
    slope = float((centred * log_error).sum() / centred.square().sum())
    assert -slope == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("schedule", [cosine(), flow(), linear(), edm()])
def test_euler_is_ddim_without_noise(schedule):
    denoise = TWO_MOONS.denoiser(schedule)
    times = uniform(17, schedule, 0.99, 0.0)
    a, b = (last(s(denoise, START, times, schedule)).x for s in (euler, ddim))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_heun_at_alpha_one_is_karras_algorithm_1():
    schedule = edm()
    denoise = TWO_MOONS.denoiser(schedule)
    times = uniform(9, schedule, 0.1, 0.0)
    x = 8 * START
    for t, t_next in zip(times, times[1:], strict=False):
        sigma, sigma_next = 80 * t, 80 * t_next
        slope = (x - denoise(x, t)) / sigma
        ahead = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope = (slope + (ahead - denoise(ahead, t_next)) / sigma_next) / 2
        x = x + (sigma_next - sigma) * slope
    torch.testing.assert_close(last(heun(denoise, 8 * START, times, schedule)).x, x, rtol=0, atol=1e-12)


# A Gaussian stays a Gaussian: each step's mean and variance are known exactly ------------------


def chain_by_hand(schedule, times, mean, width, large):
    """Mean and variance after every step, if x0 ~ N(mean, width^2) and the start is N(0, sigma^2).

    Derived by conditioning the joint Gaussian of (x_next, x) given x0, unlike the sampler.
    """
    alphas, sigmas = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    m, v = 0.0, sigmas[0] ** 2
    for alpha, sigma, alpha_to, sigma_to in zip(alphas, sigmas, alphas[1:], sigmas[1:], strict=False):
        covariance = alpha / alpha_to * sigma_to**2  # of x_next and x, given x0
        gain = covariance / sigma**2
        see = alpha * width**2 / (alpha**2 * width**2 + sigma**2)  # x0_hat = mean + see (x - alpha mean)
        factor = gain + (alpha_to - gain * alpha) * see
        m = factor * m + (alpha_to - gain * alpha) * (mean - see * alpha * mean)
        fresh = sigma_to**2 - gain * covariance
        if large:
            fresh = sigma**2 - (alpha / alpha_to * sigma_to) ** 2
        v = factor**2 * v + (fresh if sigma_to > 0 else 0.0)
    return m, v


def chain_measured(sampler, schedule, times, mean, width, **options):
    """The same from the sampler itself. It is affine in its start and its noises, so unit inputs suffice."""
    denoise = Mixture([[mean]], [1.0], width).denoiser(schedule)
    count = len(times)  # one run for the start, one for each draw of noise, one with nothing
    start = torch.zeros(count + 1, 1, dtype=torch.float64)
    start[1] = 1.0
    drawn = iter(range(2, count + 1))

    def noise(x):
        unit = torch.zeros_like(x)
        unit[next(drawn)] = 1.0
        return unit

    out = last(sampler(denoise, start, times, schedule, noise=noise, **options)).x[:, 0]
    effects = out[1:] - out[0]
    return float(out[0]), float(effects[0] ** 2 * schedule.sigma(times)[0] ** 2 + effects[1:].square().sum())


@pytest.mark.parametrize("schedule, start", [(linear(), 1.0), (cosine(), 1.0), (flow(), 1.0), (edm(), 0.3)])
@pytest.mark.parametrize("end", [0.0, 0.05])
@pytest.mark.parametrize(
    "sampler, options, large",
    [(ddpm, {"variance": "small"}, False), (ddpm, {"variance": "large"}, True), (ddim, {"eta": 1.0}, False)],
    ids=["ddpm-small", "ddpm-large", "ddim-eta-1"],
)
def test_the_chain_of_gaussians(schedule, start, end, sampler, options, large):
    times = uniform(12, schedule, start, end)
    measured = chain_measured(sampler, schedule, times, 0.7, 0.4, **options)
    assert measured == pytest.approx(chain_by_hand(schedule, times, 0.7, 0.4, large), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_many_small_ddpm_steps_end_at_the_data(variance):
    mean, var = chain_measured(ddpm, cosine(), uniform(2000, cosine()), 0.7, 0.4, variance=variance)
    assert mean == pytest.approx(0.7, abs=2e-3) and var == pytest.approx(0.16, rel=2e-2)


# The common signature -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_yielded_and_says_where_it_is(name):
    schedule, times = flow(), uniform(5, flow())
    beliefs = []

    def denoise(x, t):
        assert not torch.is_grad_enabled()
        beliefs.append(TWO_MOONS.denoiser(schedule)(x, t))
        return beliefs[-1]

    steps = list(SAMPLERS[name](denoise, START, times, schedule))
    assert [float(step.t) for step in steps] == pytest.approx(times[1:].tolist())
    torch.testing.assert_close(steps[-1].x, steps[-1].x0_hat)  # at t = 0 they are one
    torch.testing.assert_close(steps[-1].x0_hat, beliefs[-1])
    assert not torch.equal(steps[-1].x, steps[-2].x)  # the last step does something
    assert len(beliefs) == (9 if name == "heun" else 5)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_no_noise_is_added_at_the_last_step(name):
    drawn = []

    def noise(x):
        drawn.append(x)
        return torch.randn_like(x)

    options = {"eta": 1.0} if name == "ddim" else {"variance": "large"}
    list(SAMPLERS[name](TWO_MOONS.denoiser(flow()), START, uniform(5, flow()), flow(), noise=noise, **options))
    assert len(drawn) == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_times_that_cannot_be_walked(name):
    denoise = TWO_MOONS.denoiser(flow())
    for wrong in ([0.5], [0.1, 0.5], [1.1, 0.0], [float("nan"), 0.0], [0.5, 0.0, 0.0], [[0.5, 0.0]]):
        with pytest.raises(ValueError, match="times must"):
            next(SAMPLERS[name](denoise, START, torch.tensor(wrong), flow()))


def test_options_out_of_range():
    denoise = TWO_MOONS.denoiser(flow())
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        next(ddim(denoise, START, uniform(2, flow()), flow(), eta=1.5))
    with pytest.raises(ValueError, match='"small" or "large"'):
        next(ddpm(denoise, START, uniform(2, flow()), flow(), variance="medium"))


def test_second_order_survives_a_start_without_any_picture():
    """flow has alpha = 0 at t = 1: its log-SNR is minus infinity there."""
    denoise = TWO_MOONS.denoiser(flow())
    assert last(dpmpp_2m(denoise, START, uniform(10, flow()), flow())).x.isfinite().all()
