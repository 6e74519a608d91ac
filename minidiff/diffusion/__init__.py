"""The mathematics of diffusion: tensors and callables only.

Nothing here knows a network, a data set or a file. Read in this order:
schedules, predictions, ideal, grids, samplers, guidance.
"""

from minidiff.diffusion.grids import GRIDS, karras, leading, linspace, trailing, uniform
from minidiff.diffusion.guidance import cfg, clipped, guide, rescaled
from minidiff.diffusion.ideal import ideal, score
from minidiff.diffusion.predictions import (
    EPS,
    FLOW,
    PREDICTIONS,
    X0,
    Denoiser,
    Prediction,
    V,
    denoiser,
    predict,
    target,
    to_x0,
)
from minidiff.diffusion.samplers import SAMPLERS, Step, ddim, ddpm, dpmpp_2m, euler, heun
from minidiff.diffusion.schedules import (
    SCHEDULES,
    Schedule,
    cosine,
    edm,
    flow,
    linear,
    rescheduled,
    scaled_linear,
    table,
    zero_terminal_snr,
)

__all__ = [
    "EPS",
    "FLOW",
    "GRIDS",
    "PREDICTIONS",
    "SAMPLERS",
    "SCHEDULES",
    "X0",
    "Denoiser",
    "Prediction",
    "Schedule",
    "Step",
    "V",
    "cfg",
    "clipped",
    "cosine",
    "ddim",
    "ddpm",
    "denoiser",
    "dpmpp_2m",
    "edm",
    "euler",
    "flow",
    "guide",
    "heun",
    "ideal",
    "karras",
    "leading",
    "linear",
    "linspace",
    "predict",
    "rescaled",
    "rescheduled",
    "scaled_linear",
    "score",
    "table",
    "target",
    "to_x0",
    "trailing",
    "uniform",
    "zero_terminal_snr",
]
