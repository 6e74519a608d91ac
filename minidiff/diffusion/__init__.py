"""The mathematics of diffusion: tensors and callables only.

Nothing here knows a network, a data set or a file. Read in this order:
schedules, predictions, ideal, grids, samplers, guidance.
"""
# ruff: noqa: I001

from minidiff.diffusion.schedules import (
    SCHEDULES, Schedule, cosine, edm, flow, linear, scaled_linear, table,
)  # fmt: skip
from minidiff.diffusion.more_schedules import rescheduled, zero_terminal_snr
from minidiff.diffusion.predictions import (
    EPS, FLOW, PREDICTIONS, X0, Denoiser, Prediction, V, denoiser, predict, target, to_x0,
)  # fmt: skip
from minidiff.diffusion.ideal import ideal, score
from minidiff.diffusion.grids import GRIDS, karras, leading, linspace, trailing, uniform
from minidiff.diffusion.samplers import (
    DEFAULT_SAMPLER, IN_DIFFUSERS, SAMPLERS, InDiffusers, Step, ddim, ddpm, dpmpp_2m, euler, heun, sampler,
)  # fmt: skip
from minidiff.diffusion.more_samplers import dpmpp_2m_sde, unipc
from minidiff.diffusion.guidance import GUIDANCES, amplified, autoguidance, cfg, clipped, guide, rescaled

__all__ = [
    "DEFAULT_SAMPLER", "EPS", "FLOW", "GRIDS", "GUIDANCES", "IN_DIFFUSERS", "PREDICTIONS", "SAMPLERS", "SCHEDULES", "X0",
    "Denoiser", "InDiffusers", "Prediction", "Schedule", "Step", "V", "amplified", "autoguidance", "cfg", "clipped",
    "cosine", "ddim", "ddpm", "denoiser", "dpmpp_2m", "dpmpp_2m_sde", "edm", "euler", "flow", "guide", "heun", "ideal",
    "karras", "leading", "linear", "linspace", "predict", "rescaled", "rescheduled", "sampler", "scaled_linear", "score",
    "table", "target", "to_x0", "trailing", "uniform", "unipc", "zero_terminal_snr",
]  # fmt: skip
