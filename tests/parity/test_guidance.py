"""Guidance rescale against diffusers, whose pipelines offer it as `guidance_rescale`."""

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from minidiff.diffusion import rescaled


def test_rescale_agrees():
    out, out_text = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for amount in (0.0, 0.3, 0.7, 1.0):
        theirs = rescale_noise_cfg(4 * out, out_text, guidance_rescale=amount)
        torch.testing.assert_close(rescaled(4 * out, out_text, amount), theirs)
