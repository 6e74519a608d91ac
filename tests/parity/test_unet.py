"""Our UNet has the parameter names of diffusers' UNet2DConditionModel, and computes the same."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel

from minidiff.networks import UNet, UNetConfig

TINY = {  # our config, and theirs
    "1.x": (
        UNetConfig(channels=(16, 32, 64), attention=(True, True, False), heads=8, context_dim=24, groups=8),
        {
            "block_out_channels": (16, 32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "attention_head_dim": 8,  # the number of heads, whatever its name
            "cross_attention_dim": 24,
            "norm_num_groups": 8,
        },
    ),
    "2.x": (
        UNetConfig(
            in_channels=9,  # as for inpainting
            channels=(16, 32, 64),
            attention=(False, True, True),
            layers=1,
            heads=(1, 2, 4),
            context_dim=40,
            groups=4,
            linear_projection=True,
        ),
        {
            "in_channels": 9,
            "block_out_channels": (16, 32, 64),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "attention_head_dim": [1, 2, 4],
            "cross_attention_dim": 40,
            "norm_num_groups": 4,
            "use_linear_projection": True,
        },
    ),
}


@pytest.mark.parametrize("size", [(8, 8), (10, 14), (9, 13), (1, 3)])
@pytest.mark.parametrize("version", TINY)
@torch.no_grad()
def test_same_output(version, size):
    torch.manual_seed(0)
    config, theirs_config = TINY[version]
    theirs = UNet2DConditionModel(**theirs_config).eval()
    for p in theirs.parameters():  # norms start at 1 and 0: shaken, so that no two of them are alike
        p += 0.1 * torch.randn_like(p)
    ours = UNet(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)

    x, context = torch.randn(2, config.in_channels, *size), torch.randn(2, 5, config.context_dim)
    time = torch.tensor([0.0, 976.5])
    want = theirs(x, time, context).sample
    assert want.std() > 0.1
    torch.testing.assert_close(ours(x, time, context), want, rtol=1e-5, atol=1e-5)


STABLE_DIFFUSION = {  # our config, theirs (beyond its defaults), and the number of parameters
    "1.x": (UNetConfig(), {"cross_attention_dim": 768}, 859_520_964),
    "2.x": (
        UNetConfig(context_dim=1024, heads=(5, 10, 20, 20), linear_projection=True),
        {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        865_910_724,
    ),
}


@pytest.mark.parametrize("version", STABLE_DIFFUSION)
def test_same_parameters_as_stable_diffusion(version):
    config, theirs_config, count = STABLE_DIFFUSION[version]
    with torch.device("meta"):  # shapes without numbers
        ours, theirs = UNet(config).state_dict(), UNet2DConditionModel(**theirs_config).state_dict()
    assert {name: p.shape for name, p in ours.items()} == {name: p.shape for name, p in theirs.items()}
    assert len(ours) == 686
    assert sum(p.numel() for p in ours.values()) == count


@torch.no_grad()
def test_a_summary_of_the_text_joins_the_time():
    torch.manual_seed(0)
    config, theirs_config = TINY["1.x"]
    theirs = UNet2DConditionModel(
        **theirs_config, addition_embed_type="text", addition_embed_type_num_heads=config.heads
    ).eval()
    ours = UNet(replace(config, pooled=True))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, time, context = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 500.0]), torch.randn(2, 5, 24)
    torch.testing.assert_close(ours(x, time, context), theirs(x, time, context).sample, rtol=0, atol=1e-5)
    assert not torch.allclose(ours(x, time, context), ours(x, time, context.flip(0)), atol=1e-3)
