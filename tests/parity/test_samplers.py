"""Our samplers on our grids visit the times of diffusers' schedulers, and arrive at the same image.

Each row of ROWS is one way to call diffusers, and what it is called here.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
    scheduling_euler_discrete,
    scheduling_unipc_multistep,
)

from minidiff.diffusion import (
    EPS,
    V,
    ddim,
    ddpm,
    denoiser,
    dpmpp_2m,
    dpmpp_2m_sde,
    euler,
    karras,
    leading,
    linspace,
    scaled_linear,
    table,
    trailing,
    unipc,
    zero_terminal_snr,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # np.array(tensor)

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
DDPM = partial(DDPMScheduler, **BETAS, clip_sample=False, variance_type="fixed_small")
DDIM = partial(DDIMScheduler, **BETAS, clip_sample=False)
EULER = partial(EulerDiscreteScheduler, **BETAS)
DPM = partial(
    DPMSolverMultistepScheduler, **BETAS, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint"
)

SDE = partial(
    DPMSolverMultistepScheduler, **BETAS, algorithm_type="sde-dpmsolver++", solver_order=2, solver_type="midpoint"
)
UNIPC = partial(UniPCMultistepScheduler, **BETAS, solver_order=2)

LEADING, TRAILING, LINSPACE = ({"timestep_spacing": spacing} for spacing in ("leading", "trailing", "linspace"))
TO_0 = {"set_alpha_to_one": True}  # DDIM ends at t = 0 ...
TO_FIRST = {"set_alpha_to_one": False}  # ... or at index 0 of the table

ROWS = {  # name: (our sampler, our grid, their scheduler, its options)
    "ddpm leading 1": (ddpm, partial(leading, offset=1), DDPM, LEADING | {"steps_offset": 1}),
    "ddim leading 0": (ddim, leading, DDIM, LEADING | TO_0),
    "ddim leading 1": (ddim, partial(leading, offset=1), DDIM, LEADING | TO_0 | {"steps_offset": 1}),
    "ddim leading 0 to first": (ddim, partial(leading, to_first=True), DDIM, LEADING | TO_FIRST),
    "ddim leading 1 to first": (
        ddim, partial(leading, offset=1, to_first=True), DDIM, LEADING | TO_FIRST | {"steps_offset": 1},
    ),
    "ddim trailing": (ddim, trailing, DDIM, TRAILING | TO_0),
    "ddim trailing to first": (ddim, partial(trailing, to_first=True), DDIM, TRAILING | TO_FIRST),
    "euler leading 0": (euler, leading, EULER, LEADING),
    "euler leading 1": (euler, partial(leading, offset=1), EULER, LEADING | {"steps_offset": 1}),
    "euler trailing": (euler, trailing, EULER, TRAILING),
    "euler linspace": (euler, linspace, EULER, LINSPACE),
    "2m leading 0": (dpmpp_2m, partial(leading, spare=1), DPM, LEADING),
    "2m leading 1": (dpmpp_2m, partial(leading, spare=1, offset=1), DPM, LEADING | {"steps_offset": 1}),
    "2m trailing": (dpmpp_2m, trailing, DPM, TRAILING),
    "2m linspace": (dpmpp_2m, partial(linspace, spare=1), DPM, LINSPACE),
    "2m sde leading 1": (dpmpp_2m_sde, partial(leading, spare=1, offset=1), SDE, LEADING | {"steps_offset": 1}),
    "2m sde trailing": (dpmpp_2m_sde, trailing, SDE, TRAILING),
    "2m sde linspace": (dpmpp_2m_sde, partial(linspace, spare=1), SDE, LINSPACE),
    "unipc leading 1": (unipc, partial(leading, spare=1, offset=1), UNIPC, LEADING | {"steps_offset": 1}),
    "unipc trailing": (unipc, trailing, UNIPC, TRAILING),
    "unipc linspace": (unipc, partial(linspace, spare=1), UNIPC, LINSPACE),
}  # fmt: skip
CLOSE = {  # their times are not ours: Euler interpolates them in sigma / alpha, 2M rounds them
    "euler karras": (euler, karras, EULER, LINSPACE | {"use_karras_sigmas": True}),
    "2m karras": (dpmpp_2m, karras, DPM, LINSPACE | {"use_karras_sigmas": True}),
}
SCALED = (
    "euler trailing",
    "euler linspace",
    "euler karras",
)  # start at sigma * latents, all others at the latents themselves

CASES = [
    (row, n)
    for row in ROWS
    for n in (1, 10, 20, 25, 30, 50)
    if not (row.startswith("ddim trailing") and n == 30)  # 30 does not divide 1000: diffusers steps beside its own grid
    and not (row == "euler linspace" and n == 1)  # diffusers' only index is then 0, the cleanest; ours is 999
]
PREDICTIONS = {"epsilon": EPS, "v_prediction": V}
SCHEDULE = scaled_linear()
GENERATOR = torch.Generator().manual_seed(1)
LATENTS = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net:
    """A smooth stand-in for a UNet. It notes the times that it is told."""

    def __init__(self):
        self.times = []

    def __call__(self, x, time, context=None):
        time = time.flatten()[0].to(x.dtype)
        self.times.append(time.item())
        return torch.tanh(0.3 * x + 0.1 * torch.sin(time / 100))


def compare(row, n, prediction, tolerance, latents=LATENTS, schedule=SCHEDULE, apart=1e-4, **more):
    """Sample both ways and compare. apart: how far the times may be, of 0 .. 999; more: further options of the scheduler."""
    sampler, grid, scheduler_class, options = (ROWS | CLOSE)[row]

    ours, times = Net(), grid(n, schedule)
    x = latents * schedule.sigma(times[0]).to(latents) if row in SCALED else latents
    drawn = [torch.randn(latents.shape, generator=GENERATOR, dtype=latents.dtype) for _ in range(n)]  # for both
    noise = iter(drawn)
    denoise = denoiser(ours, schedule, PREDICTIONS[prediction])
    for step in sampler(denoise, x, times, schedule, noise=lambda x: next(noise)):
        x = step.x

    scheduler = scheduler_class(**options | more, prediction_type=prediction)
    scheduler.set_timesteps(n)
    theirs, y = Net(), latents * scheduler.init_noise_sigma
    for t, eps in zip(scheduler.timesteps, drawn, strict=True):
        out = theirs(scheduler.scale_model_input(y, t), t)
        how = {"variance_noise": eps} if scheduler_class is SDE else {}
        with pytest.MonkeyPatch.context() as patch:  # DDPM draws for itself
            patch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, eps=eps, **__: eps)
            y = scheduler.step(out, t, y, **how).prev_sample

    assert ours.times == pytest.approx(theirs.times, rel=0, abs=apart)
    assert x.dtype == y.dtype == latents.dtype
    assert (x - y).abs().max() <= tolerance * y.abs().max()


@pytest.fixture
def double(monkeypatch):
    """Where the schedulers say float32 they get float64: what still differs is not rounding."""
    modules = (
        scheduling_ddim,
        scheduling_ddpm,
        scheduling_euler_discrete,
        scheduling_dpmsolver_multistep,
        scheduling_unipc_multistep,
    )
    for module in modules:
        for name, library in (("torch", torch), ("np", np)):
            monkeypatch.setattr(module, name, SimpleNamespace(**{**vars(library), "float32": library.float64}))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("row", "n"), CASES)
def test_same_walk(double, row, n, prediction):
    # euler linspace stops between the table's entries, where diffusers interpolates sigma / alpha and we the angle
    # ddpm: diffusers never lets the noise that it adds be less than 1e-10, not even in the last step
    tolerance = {"euler linspace": 1e-6, "ddpm leading 1": 1e-9}.get(row, 1e-13)
    compare(row, n, prediction, tolerance)


@pytest.mark.parametrize("n", [10, 25, 50])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_karras(double, prediction, n):
    """The ramp runs between the table's own ends: down to 0.002, as it is for `edm`, 2M differed by 0.05."""
    compare("euler karras", n, prediction, tolerance=1e-6, apart=0.05)
    compare("2m karras", n, prediction, tolerance=1e-4, apart=0.5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("row", "n"), CASES)
def test_same_walk_in_float32(row, n, prediction):
    """diffusers as it comes."""
    compare(row, n, prediction, tolerance=1e-5, latents=LATENTS.float())


def test_ddim_leading_1_ends_at_index_0_above_half_the_table(double):
    """The stride is 1 and the offset is 1: index 0 comes next, whatever `set_alpha_to_one` says."""
    compare("ddim leading 1 to first", 600, "epsilon", tolerance=1e-13, **TO_0)


@pytest.mark.parametrize("n", [10, 25])
@pytest.mark.parametrize("row", [row for row in ROWS if "trailing" in row])
def test_zero_terminal_snr(double, row, n):
    schedule = zero_terminal_snr(SCHEDULE)
    if not row.startswith("ddim"):  # there diffusers keeps a trace of the picture, so that sigma / alpha is finite
        alphas = schedule.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000)
        alphas[-1] = 2**-12  # alpha-bar 2**-24
        schedule = table(alphas)
    compare(row, n, "v_prediction", tolerance=1e-13, schedule=schedule, rescale_betas_zero_snr=True)


@pytest.mark.parametrize("row", ROWS)
def test_start_noise(row):
    """Both start at the same multiple of the latents; diffusers' Euler counts it in x / alpha."""
    sampler, grid, scheduler_class, options = ROWS[row]
    scheduler = scheduler_class(**options)
    scheduler.set_timesteps(20)
    start = grid(20, SCHEDULE)[0]
    theirs = float(scheduler.init_noise_sigma * (SCHEDULE.alpha(start) if sampler is euler else 1))
    ours = SCHEDULE.sigma(start).item() if row in SCALED else 1
    assert theirs == pytest.approx(ours, abs=1e-6)
    assert ours == pytest.approx(0.997667 if row in SCALED else 1, abs=1e-6)


@pytest.mark.parametrize(
    ("grid", "n"), [(partial(leading, offset=1), 1000), (partial(leading, offset=1, spare=1), 999)]
)
def test_a_grid_that_leaves_the_table_is_refused(grid, n):
    with pytest.raises(ValueError, match="beyond the table"):
        grid(n, SCHEDULE)
    grid(n // 2, SCHEDULE)
