"""Our VAE has the parameter names of diffusers' AutoencoderKL, and computes the same."""

import pytest
import torch
from diffusers import AutoencoderKL

from minidiff.networks import VAE, VAEConfig

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
TINY = {
    "three levels": VAEConfig(channels=(8, 16, 24), layers=2, groups=4),
    "one level": VAEConfig(channels=(12,), layers=1, latent_channels=3, groups=4, scaling=0.7),
    "gray": VAEConfig(in_channels=1, channels=(8, 8), layers=3, latent_channels=2, groups=8),
}


def theirs_of(config, **more):
    levels = len(config.channels)
    fields = {
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": config.channels,
        "layers_per_block": config.layers,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.groups,
        "scaling_factor": config.scaling,
    }
    return AutoencoderKL(**(fields | more))


@torch.no_grad()
def pair(config, **more):
    """Theirs and ours with the same random weights: norms start at 1 and 0, shaken so that no two are alike."""
    torch.manual_seed(0)
    theirs = theirs_of(config, **more).eval()
    for p in theirs.parameters():
        p += 0.1 * torch.randn_like(p)
    ours = VAE(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("size", [(16, 16), (8, 20), (4, 4)])
@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_same_output(name, size):
    config = TINY[name]
    ours, theirs = pair(config)
    x = torch.rand(2, config.in_channels, *size) * 2 - 1
    want, posterior = theirs.encode(x).latent_dist, ours.posterior(x)
    assert want.mean.std() > 0.1 and want.std.std() > 0.05
    torch.testing.assert_close(posterior.mean, want.mean, **CLOSE)
    torch.testing.assert_close(posterior.std, want.std, **CLOSE)
    z = torch.randn_like(want.mean)
    picture = theirs.decode(z).sample
    assert picture.std() > 0.1
    torch.testing.assert_close(ours.decode(config.scaling * z), picture, **CLOSE)
    torch.testing.assert_close(ours.encode(x), config.scaling * want.mean, **CLOSE)
    torch.testing.assert_close(ours.encode(x, z), config.scaling * (want.mean + want.std * z), **CLOSE)


def test_same_parameters_as_stable_diffusion():
    with torch.device("meta"):  # shapes without numbers
        ours, theirs = VAE().state_dict(), theirs_of(VAEConfig()).state_dict()
    assert {name: p.shape for name, p in ours.items()} == {name: p.shape for name, p in theirs.items()}
    assert len(ours) == 248
    assert sum(p.numel() for p in ours.values()) == 83_653_863


def test_a_config_without_a_scaling_factor_means_stable_diffusions():
    with torch.device("meta"):
        assert AutoencoderKL().config.scaling_factor == VAEConfig().scaling
