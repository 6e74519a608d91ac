"""The noise levels a model was trained on and the times it is sampled at: Timing, and diffusers' scheduler_config.json.

A small model names its schedule, prediction and grid in its model.json. A folder in diffusers' layout has a scheduler's
config instead, and what that means is known here alone. There the times also depend on the sampler: each of diffusers'
schedulers counts its own way, see `InDiffusers`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minidiff.diffusion.grids import GRIDS
from minidiff.diffusion.more_schedules import zero_terminal_snr
from minidiff.diffusion.predictions import EPS, FLOW, X0, Prediction, V
from minidiff.diffusion.samplers import DEFAULT_SAMPLER, IN_DIFFUSERS, InDiffusers
from minidiff.diffusion.schedules import SCHEDULES, Schedule, table
from minidiff.registry import UserError


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


def timing_of(config: dict, where: str = "the scheduler's config") -> Timing:
    """What a scheduler's config of diffusers means. where: its name. Raises UserError for what is not known here."""
    kind, predicted = config.get("_class_name"), config.get("prediction_type", "epsilon")
    if kind not in (known := OTHERS.union(like.scheduler for like in IN_DIFFUSERS.values())):
        raise UserError(f"{where}: minidiff does not know {kind}; it knows {', '.join(sorted(known))}")
    if predicted not in PREDICTED:
        raise UserError(f"{where}: unknown prediction_type {predicted!r}; there is {', '.join(PREDICTED)}")
    n, prediction = config.get("num_train_timesteps", 1000), PREDICTED[predicted]
    if config.get("use_flow_sigmas"):
        if config.get("flow_shift", 1.0) != 1 or prediction is not FLOW:
            raise UserError(f"{where}: of the flows, minidiff knows flow_prediction with flow_shift 1 alone")
        schedule = replace(SCHEDULES["flow"](), net_time=lambda t: (n * t).trunc())  # diffusers tells it whole times
        return Timing(schedule, prediction, lambda steps, sampler: _flow_times(steps, n), config=config)
    if prediction is FLOW:
        raise UserError(f"{where}: flow_prediction needs use_flow_sigmas")
    schedule = _betas(config, n, where)
    spacing = config.get("timestep_spacing")
    if spacing not in (None, "leading", "linspace", "trailing"):
        raise UserError(f"{where}: unknown timestep_spacing {spacing!r}; there is leading, linspace, trailing")

    def times(steps: int, sampler: str) -> Tensor:
        if config.get("use_karras_sigmas"):
            return GRIDS["karras"](steps, schedule)
        like = IN_DIFFUSERS.get(sampler, InDiffusers())
        grid = spacing or like.spacing
        how = {} if grid == "trailing" else {"spare": like.spare}
        if grid == "leading":
            how["offset"] = 1  # whatever the config says: the pipelines of diffusers set it to 1
        if grid != "linspace" and like.ends_at_first:
            how["to_first"] = not config.get("set_alpha_to_one", True)
        return GRIDS[grid](steps, schedule, **how)

    def scaled(sampler: str) -> bool:
        like = IN_DIFFUSERS.get(sampler, InDiffusers())
        return like.scales_noise and (spacing or like.spacing) != "leading"

    return Timing(schedule, prediction, times, scaled, config)


def _betas(config: dict, n: int, where: str) -> Schedule:
    first, last, kind = (config.get(f"beta_{name}") for name in ("start", "end", "schedule"))
    kind = kind or "linear"
    if config.get("trained_betas") is not None:
        schedule = table(torch.cumprod(1 - torch.tensor(config["trained_betas"], dtype=torch.float64), dim=0).sqrt())
    elif kind in TABLES:
        schedule = SCHEDULES[kind](n, 1e-4 if first is None else first, 0.02 if last is None else last)
    else:
        raise UserError(f"{where}: unknown beta_schedule {kind!r}; there is {', '.join(TABLES)}")
    return zero_terminal_snr(schedule) if config.get("rescale_betas_zero_snr") else schedule


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
