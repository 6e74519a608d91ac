"""Looking inside the network: what is read from it against what is computed by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from minidiff.networks import UNet, UNetConfig, blocks, count, flops, receptive_field, skips

TINY = UNetConfig(3, 3, channels=(8, 16), attention=(False, True), layers=1, heads=2, context_dim=6, groups=4)


def inputs(device="cpu", batch=2, channels=3, size=12, width=6):
    generator = torch.Generator().manual_seed(0)
    x, context = (torch.randn(*s, generator=generator) for s in ((batch, channels, size, size), (batch, 5, width)))
    return x.to(device), torch.linspace(1, 900, batch).to(device), context.to(device)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return UNet(TINY)


def test_the_blocks_in_the_order_of_the_forward_pass(net):
    found = blocks(net, *inputs())
    assert {block.name: block.shape for block in found} == {
        "conv_in": (8, 12, 12),
        "down_blocks.0": (8, 6, 6),
        "down_blocks.1": (16, 6, 6),
        "mid_block": (16, 6, 6),
        "up_blocks.0": (16, 12, 12),
        "up_blocks.1": (8, 12, 12),
        "conv_out": (3, 12, 12),
    }
    assert [block.name for block in found] == list({block.name: 0 for block in found})
    assert all(block.output.shape == (2, *block.shape) and not block.output.requires_grad for block in found)
    with torch.no_grad():
        torch.testing.assert_close(found[0].output, net.conv_in(inputs()[0]))
        torch.testing.assert_close(found[-1].output, net(*inputs()))


def test_skip_connections_are_taken_in_reverse(net):
    found = skips(net, *inputs())
    assert [(skip.source, skip.target, skip.shape) for skip in found] == [
        ("conv_in", "up_blocks.1.resnets.1", (8, 12, 12)),
        ("down_blocks.0.resnets.0", "up_blocks.1.resnets.0", (8, 12, 12)),
        ("down_blocks.0.downsamplers.0", "up_blocks.0.resnets.1", (8, 6, 6)),
        ("down_blocks.1.attentions.0", "up_blocks.0.resnets.0", (16, 6, 6)),  # after the ResBlock, attention
    ]


def test_counts_add_up(net):
    counts = count(net)
    assert sum(counts.values()) == sum(p.numel() for p in net.parameters())
    assert counts["conv_in"] == 8 * 3 * 9 + 8
    assert counts["time_embedding"] == (8 * 32 + 32) + (32 * 32 + 32)
    assert counts["conv_norm_out"] == 16


def test_of_a_pooled_context_the_summary_counts_too():
    net = UNet(replace(TINY, pooled=True))
    counts, counted = count(net), flops(net, *inputs())
    assert sum(counts.values()) == sum(p.numel() for p in net.parameters())
    assert (
        counts["add_embedding"] == sum(p.numel() for p in net.add_embedding.parameters()) and counted["add_embedding"]
    )
    assert "add_embedding" not in [block.name for block in blocks(net, *inputs())]


def test_operations_of_a_known_convolution(net):
    counted = flops(net, *inputs())
    assert counted.keys() == count(net).keys()
    assert counted["conv_in"] == 2 * (2 * 12 * 12) * 8 * (3 * 9)  # two a weight, at every pixel of both images
    assert counted["time_embedding"] == 2 * 2 * (8 * 32 + 32 * 32)
    whole, half = (flops(net, *inputs(batch=b)) for b in (2, 1))
    assert all(whole[name] == 2 * half[name] for name in whole)


def test_operations_of_attention(net):
    """down_blocks.1 by hand: ResBlock 8 -> 16 with shortcut, then attention over 36 pixels and 5 tokens."""
    c, pixels, tokens, width = 16, 36, 5, 6
    resblock = pixels * (8 * c * 9 + c * c * 9 + 8 * c) + 32 * c  # convolutions, shortcut, time
    pixel_wise = pixels * (2 * c * c)  # proj_in, proj_out
    to_itself = pixels * 4 * c * c + 2 * pixels * pixels * c  # q, k, v, out; q k and the mixing of v
    to_context = 2 * pixels * c * c + 2 * tokens * width * c + 2 * pixels * tokens * c
    feed = pixels * (c * 8 * c + 4 * c * c)
    assert flops(net, *inputs(batch=1))["down_blocks.1"] == 2 * (resblock + pixel_wise + to_itself + to_context + feed)


def test_the_same_on_the_meta_device(net):
    ghost = copy.deepcopy(net).to("meta")
    x = inputs("meta")
    assert [block[:2] for block in blocks(ghost, *x)] == [block[:2] for block in blocks(net, *inputs())]
    assert all(block.output.is_meta for block in blocks(ghost, *x))
    assert skips(ghost, *x) == skips(net, *inputs())
    assert count(ghost) == count(net) and flops(ghost, *x) == flops(net, *inputs())


def test_stable_diffusion_on_the_meta_device():
    with torch.device("meta"):
        net, x = UNet(), (torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 77, 768))
    shapes = {block.name: block.shape for block in blocks(net, *x)}
    assert shapes["mid_block"] == (1280, 8, 8) and shapes["up_blocks.2"] == (640, 64, 64)
    found = skips(net, *x)
    assert len(found) == 12
    assert found[3] == ("down_blocks.0.downsamplers.0", "up_blocks.2.resnets.2", (320, 32, 32))
    assert sum(count(net).values()) == 859_520_964
    assert 0.80e12 < sum(flops(net, *x).values()) < 0.81e12


class Convolutions(nn.Module):
    """3x3, then 3x3 with every second pixel left out, or whatever convolutions are given; no norm, no attention."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x, time, context):
        return self.layers(x)


@pytest.mark.parametrize(
    "layers, reach",
    [
        ([nn.Conv2d(2, 3, 1)], 0),
        ([nn.Conv2d(2, 3, 3, padding=1)], 1),
        ([nn.Conv2d(2, 3, 3, padding=1), nn.SiLU(), nn.Conv2d(3, 2, 3, padding=1)], 2),
        ([nn.Conv2d(2, 3, 3, padding=2, dilation=2), nn.Conv2d(3, 1, 3, padding=1)], 3),
    ],
)
def test_the_receptive_field_of_convolutions(layers, reach):
    x, time, context = inputs(channels=2, size=11)
    with torch.no_grad():
        for layer in layers:
            if hasattr(layer, "weight"):
                layer.weight.abs_()
    field = receptive_field(Convolutions(*layers), x, time, context)
    expected = torch.zeros(11, 11, dtype=torch.bool)
    expected[5 - reach : 6 + reach, 5 - reach : 6 + reach] = True
    assert torch.equal(field > 0, expected)


def test_the_receptive_field_has_the_right_size():
    layer = nn.Conv2d(2, 3, 3, padding=1)
    field = receptive_field(Convolutions(layer), *inputs(channels=2, size=6))
    torch.testing.assert_close(field[2:5, 2:5], layer.weight.detach().abs().sum((0, 1)))  # the middle is [3, 3]


def test_the_receptive_field_where_gradients_are_off(net):
    frozen = net.requires_grad_(False)
    with torch.no_grad():
        field = receptive_field(frozen, *inputs())
    assert field.shape == (12, 12) and field.min() > 0 and not field.requires_grad  # attention: on every pixel
    near = field[4:9, 4:9].mean()
    assert near > 2 * (field.sum() - 25 * near) / (144 - 25)  # but faintly on distant ones


def test_the_network_is_unchanged(net):
    x = inputs()
    before, state, mode = net(*x).detach(), copy.deepcopy(net.state_dict()), net.training
    for look in (blocks, skips, flops, receptive_field):
        look(net, *x)
    count(net)

    def hooks():
        return [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks]

    assert hooks() == [] and net.training == mode
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert torch.equal(net(*x), before) and all(p.grad is None for p in net.parameters())
    with pytest.raises(ValueError, match="tokens"):
        blocks(net, *x[:2], None)
    assert hooks() == []  # also after an error
