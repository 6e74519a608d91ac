"""What a scheduler's config means."""

import pytest
import torch

from minidiff.diffusion import (
    EPS,
    FLOW,
    GRIDS,
    IN_DIFFUSERS,
    SAMPLERS,
    SCHEDULES,
    X0,
    V,
    karras,
    leading,
    linspace,
    trailing,
    uniform,
)
from minidiff.formats.scheduler_config import FIXED, PREDICTED, scheduler_config, timing_of
from minidiff.registry import UserError

SD = {  # as Stable Diffusion 1.x has it
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}  # fmt: skip
T = torch.tensor([0.001, 0.3, 0.777, 1.0], dtype=torch.float64)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_stable_diffusion():
    timing, schedule = timing_of(SD), SCHEDULES["scaled_linear"]()
    assert timing.prediction is EPS
    same(timing.schedule.alpha(T), schedule.alpha(T))
    same(timing.times(20, "ddim"), leading(20, schedule, offset=1, to_first=True))
    same(timing.times(20, "euler"), linspace(20, schedule))
    same(timing.times(20, "dpmpp_2m"), linspace(20, schedule, spare=1))
    assert [timing.scaled(sampler) for sampler in ("ddim", "ddpm", "euler", "heun", "dpmpp_2m")] == [0, 0, 1, 1, 0]


def test_samplers_that_declare_nothing_follow_the_default_one():
    timing, schedule = timing_of(SD), SCHEDULES["scaled_linear"]()
    for sampler in ("unipc", "dpmpp_2m_sde", "somebody's own"):
        same(timing.times(20, sampler), linspace(20, schedule, spare=1))
        assert float(timing.times(20, sampler)[0]) == 1.0 and not timing.scaled(sampler)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_a_sampler_declares_is_so(name):
    import diffusers

    like, drawn = IN_DIFFUSERS[name], []
    assert hasattr(diffusers, like.scheduler) and like.spacing in GRIDS
    timing_of({"_class_name": like.scheduler})  # a config that names it is read
    schedule = SCHEDULES["flow"]()

    def noise(x):
        drawn.append(x)
        return torch.randn_like(x)

    list(SAMPLERS[name](lambda x, t: x / 2, torch.ones(1, 2), uniform(3, schedule), schedule, noise=noise))
    assert bool(drawn) == like.draws_noise


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_a_spacing_that_is_said(sampler):
    schedule, more = SCHEDULES["scaled_linear"](), {"set_alpha_to_one": True}
    same(timing_of(SD | more | {"timestep_spacing": "trailing"}).times(20, sampler), trailing(20, schedule))
    timing = timing_of(SD | more | {"timestep_spacing": "leading"})
    same(timing.times(20, sampler), leading(20, schedule, offset=1, spare=sampler == "dpmpp_2m"))
    assert not timing.scaled(sampler)
    same(timing_of(SD | {"use_karras_sigmas": True}).times(20, sampler), karras(20, schedule))


@pytest.mark.parametrize(("word", "prediction"), PREDICTED.items())
def test_predictions(word, prediction):
    more = {"use_flow_sigmas": True} if prediction is FLOW else {}
    assert timing_of(SD | more | {"prediction_type": word}).prediction is prediction


def test_tables():
    same(timing_of({"_class_name": "DDPMScheduler"}).schedule.alpha(T), SCHEDULES["linear"]().alpha(T))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).tolist()
    same(timing_of(SD | {"trained_betas": betas}).schedule.alpha(T), SCHEDULES["linear"]().alpha(T))
    assert timing_of(SD | {"rescale_betas_zero_snr": True}).schedule.alpha(T)[-1] < 1e-12


def test_flow_begins_a_step_below_noise_and_tells_whole_times():
    timing = timing_of(scheduler_config("flow", "flow"))
    times = timing.times(20, "dpmpp_2m")
    assert len(times) == 21 and float(times[0]) == 0.999 and float(times[-1]) == 0
    assert timing.schedule.net_time(times).tolist()[:3] == [999, 949, 899]
    with pytest.raises(ValueError, match="steps must be at least 1"):
        timing.times(0, "euler")


@pytest.mark.parametrize(
    ("schedule", "prediction"), [("flow", FLOW), ("linear", EPS), ("scaled_linear", V), ("scaled_linear", X0)]
)
def test_what_is_written_means_the_same(schedule, prediction):
    timing = timing_of(scheduler_config(schedule, prediction.name))
    assert timing.prediction is prediction
    same(timing.schedule.alpha(T), SCHEDULES[schedule]().alpha(T))


@pytest.mark.parametrize(
    ("schedule", "prediction"), [("cosine", "eps"), ("edm", "x0"), ("linear", "flow"), ("flow", "v")]
)
def test_what_diffusers_has_no_word_for(schedule, prediction):
    with pytest.raises(ValueError, match=f"no scheduler for {prediction}-prediction on the {schedule} schedule"):
        scheduler_config(schedule, prediction)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"prediction_type": "flow_prediction"}, "flow_prediction needs use_flow_sigmas"),
        ({"use_flow_sigmas": True}, "flow_prediction needs use_flow_sigmas"),
        ({"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}, "flow_shift is 3.0"),
        ({"_class_name": None}, "_class_name is None"),
        ({"beta_start": "0.1"}, "beta_start is '0.1': "),
        ({"beta_end": 1.5}, "betas must lie between 0 and 1"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas has 2 entries for 1000 steps"),
        ({"num_train_timesteps": 2**62}, "num_train_timesteps is 4611686018427387904"),
        ({"timestep_spacing": "quadratic"}, "timestep_spacing is 'quadratic': Input should be 'leading'"),
        *(({name: "else"}, f"{name} is else, and minidiff knows") for name in FIXED),
    ],
)
def test_what_is_not_known(more, complaint):
    with pytest.raises(UserError, match=complaint):
        timing_of(SD | more)
