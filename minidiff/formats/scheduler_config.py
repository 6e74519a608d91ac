"""The noise levels a model was trained on and the times it is sampled at: Timing, and diffusers' scheduler_config.json.

A small model names its schedule, prediction and grid in its model.json. A folder in diffusers' layout has a scheduler's
config instead, and what that means is known here alone. There the times also depend on the sampler: each of diffusers'
schedulers counts its own way, see `InDiffusers`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from minidiff.diffusion.grids import GRIDS
from minidiff.diffusion.more_schedules import zero_terminal_snr
from minidiff.diffusion.predictions import EPS, FLOW, X0, Prediction, V
from minidiff.diffusion.samplers import DEFAULT_SAMPLER, IN_DIFFUSERS, InDiffusers
from minidiff.diffusion.schedules import SCHEDULES, Schedule, table
from minidiff.formats.json_files import checked
from minidiff.registry import UserError
from minidiff.tokenizer import shorten


@dataclass(frozen=True)
class Timing:
    """All that sampling needs beside a network and noise."""

    schedule: Schedule
    prediction: Prediction
    times: Callable[[int, str], Tensor]  # (steps, sampler) -> the times it visits, see grids
    scaled: Callable[[str], bool] = lambda sampler: True  # does x start as sigma * noise, or as the noise itself?
    config: dict | None = None  # the scheduler's config that said so


# what diffusers writes into scheduler_config.json
PREDICTED = {"epsilon": EPS, "v_prediction": V, "sample": X0, "flow_prediction": FLOW}
TABLES = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}  # beta's first and last, of `SCHEDULES`
# schedulers whose configs are read for their betas, prediction and spacing, whatever samples here
OTHERS = {"EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler"}


@dataclass(frozen=True)
class SchedulerConfig:
    """The keys of a scheduler_config.json that are followed; the defaults are diffusers'."""

    num_train_timesteps: int = 1000
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    trained_betas: list[float] | None = None  # in place of the three above
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None  # None: what the sampler has there
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: bool = False
    use_karras_sigmas: bool = False
    use_flow_sigmas: bool = False

    def __post_init__(self):
        if not 1 <= self.num_train_timesteps <= 10**5:
            raise ValueError(f"num_train_timesteps is {self.num_train_timesteps}: it must lie between 1 and 100000")
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas has {len(self.trained_betas)} entries for {self.num_train_timesteps} steps"
            )
        if not all(0 < beta < 1 for beta in self.trained_betas or (self.beta_start, self.beta_end)):
            raise ValueError("betas must lie between 0 and 1")
        if self.use_flow_sigmas != (self.prediction_type == "flow_prediction"):
            raise ValueError("flow_prediction needs use_flow_sigmas, and the other way round")


# What would change the images, and is not done here: the values that are accepted. All other keys do nothing to them:
# tests/parity/test_configs.py says of each why.
FIXED = dict.fromkeys(
    ("thresholding", "use_beta_sigmas", "use_dynamic_shifting", "use_exponential_sigmas", "use_lu_lambdas"), False
) | {
    "final_sigmas_type": "zero", "flow_shift": 1.0, "interpolation_type": "linear", "shift_terminal": None,
    "sigma_max": None, "sigma_min": None, "timestep_type": "discrete",
}  # fmt: skip


def timing_of(fields: dict) -> Timing:
    """What a scheduler's config of diffusers means. Raises UserError for what is not known here."""
    known = OTHERS.union(like.scheduler for like in IN_DIFFUSERS.values())
    if (kind := fields.get("_class_name")) not in list(known):
        raise UserError(f"_class_name is {shorten(str(kind), 60)}: minidiff knows {', '.join(sorted(known))} alone")
    for name, value in FIXED.items():
        if (found := fields.get(name, value)) not in (value, None):
            raise UserError(f"{name} is {shorten(str(found), 60)}, and minidiff knows {value} alone")
    followed = {field.name for field in dataclasses.fields(SchedulerConfig)}
    given = {name: value for name, value in fields.items() if name in followed}
    config: SchedulerConfig = checked(SchedulerConfig, given)
    n, prediction = config.num_train_timesteps, PREDICTED[config.prediction_type]
    if config.use_flow_sigmas:
        schedule = replace(SCHEDULES["flow"](), net_time=lambda t: (n * t).trunc())  # diffusers tells it whole times
        return Timing(schedule, prediction, lambda steps, sampler: _flow_times(steps, n), config=fields)
    schedule = _betas(config)

    def times(steps: int, sampler: str) -> Tensor:
        if config.use_karras_sigmas:
            return GRIDS["karras"](steps, schedule)
        like = IN_DIFFUSERS.get(sampler, InDiffusers())
        grid = config.timestep_spacing or like.spacing
        how = {} if grid == "trailing" else {"spare": like.spare}
        if grid == "leading":
            how["offset"] = 1  # whatever the config says: the pipelines of diffusers set it to 1
        if grid != "linspace" and like.ends_at_first:
            how["to_first"] = not config.set_alpha_to_one
        return GRIDS[grid](steps, schedule, **how)

    def scaled(sampler: str) -> bool:
        like = IN_DIFFUSERS.get(sampler, InDiffusers())
        return like.scales_noise and (config.timestep_spacing or like.spacing) != "leading"

    return Timing(schedule, prediction, times, scaled, fields)


def _betas(config: SchedulerConfig) -> Schedule:
    if config.trained_betas is not None:
        betas = torch.tensor(config.trained_betas, dtype=torch.float64)
        schedule = table(torch.cumprod(1 - betas, dim=0).sqrt())
    else:
        ends = config.beta_start, config.beta_end
        schedule = SCHEDULES[config.beta_schedule](config.num_train_timesteps, *ends)
    return zero_terminal_snr(schedule) if config.rescale_betas_zero_snr else schedule


def _flow_times(steps: int, n: int) -> Tensor:
    """As diffusers has them: it begins one step of the table below t = 1."""
    if steps < 1:
        raise UserError(f"steps must be at least 1, got {steps}")
    return torch.from_numpy(1 - np.linspace(1, 1 / n, steps + 1)).flip(0)  # torch's linspace differs in the last digit


def scheduler_config(schedule: str, prediction: str) -> dict:
    """A config that means the same, for a model that names its schedule and what it predicts.

    Raises UserError where diffusers has no word for it.
    """
    words = {pred.name: word for word, pred in PREDICTED.items()}
    if (schedule, prediction) == ("flow", "flow"):
        how = {"use_flow_sigmas": True, "flow_shift": 1.0, "steps_offset": 1}
    elif schedule in TABLES and prediction in words and prediction != "flow":
        how = dict(zip(("beta_start", "beta_end"), TABLES[schedule], strict=True)) | {"beta_schedule": schedule}
        how |= {"timestep_spacing": "trailing", "steps_offset": 1}
    else:
        raise UserError(f"diffusers has no scheduler for {prediction}-prediction on the {schedule} schedule")
    how |= {"prediction_type": words[prediction], "num_train_timesteps": 1000}
    drawn_with = IN_DIFFUSERS[DEFAULT_SAMPLER].scheduler
    return {"_class_name": drawn_with, "solver_order": 2, "final_sigmas_type": "zero"} | how
