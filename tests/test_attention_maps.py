"""Cross-attention maps: the weights are those of the very forward pass."""

import pytest
import torch
from einops import rearrange
from torch import nn

from minidiff import TextToImage
from minidiff.networks import UNet, UNetConfig, attention_maps
from minidiff.networks.attention import Attention

TINY = UNetConfig(3, 3, channels=(8, 16), attention=(True, True), layers=1, heads=(2, 4), context_dim=6, groups=4)
TRANSFORMERS = [
    ("down_blocks.0.attentions.0", (12, 10), 2),
    ("down_blocks.1.attentions.0", (6, 5), 4),
    ("mid_block.attentions.0", (6, 5), 4),
    ("up_blocks.0.attentions.0", (6, 5), 4),
    ("up_blocks.0.attentions.1", (6, 5), 4),
    ("up_blocks.1.attentions.0", (12, 10), 2),
    ("up_blocks.1.attentions.1", (12, 10), 2),
]


def inputs(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, context = (torch.randn(*s, generator=generator) for s in ((batch, 3, 12, 10), (batch, 5, 6)))
    return x, torch.linspace(1, 900, batch), context


@pytest.fixture
def net():
    torch.manual_seed(0)
    return UNet(TINY)


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_every_cross_attention_in_the_order_of_use(net):
    with attention_maps(net) as passes:
        net(*inputs())
    (maps,) = passes
    assert [(each.name, each.size) for each in maps] == [(name, size) for name, size, _ in TRANSFORMERS]
    assert len(maps) == len([name for name, _ in net.named_modules() if name.endswith("attn2")])
    for each, (_, (height, width), heads) in zip(maps, TRANSFORMERS, strict=True):
        assert each.weights.shape == (2, heads, height * width, 5) and not each.weights.requires_grad
        assert each.weights.min() >= 0
        torch.testing.assert_close(each.weights.sum(-1), torch.ones(2, heads, height * width))


@torch.no_grad()
def test_the_weights_are_those_of_the_forward_pass(net):
    """weights @ v through to_out is what the attention returned in that very pass."""
    calls = []
    for module in net.modules():
        if isinstance(module, Attention) and module.to_k.in_features == TINY.context_dim:
            module.register_forward_hook(lambda module, arguments, output: calls.append((module, arguments, output)))
    with attention_maps(net) as passes:
        net(*inputs())
        net(*inputs(seed=1))
    assert len(calls) == 2 * len(TRANSFORMERS) and len(passes) == 2
    for each, (module, (_, context), output) in zip(passes[0] + passes[1], calls, strict=True):
        v = rearrange(module.to_v(context), "b n (h d) -> b h n d", h=module.heads)
        taken = rearrange(each.weights @ v, "b h n d -> b n (h d)")
        torch.testing.assert_close(module.to_out[0](taken), output)


def test_a_pass_is_the_same_with_and_without_hooks(net):
    before = net(*inputs())
    with attention_maps(net):
        during = net(*inputs())
    assert torch.equal(before, during)


def test_the_hooks_are_gone_afterwards(net):
    with attention_maps(net) as passes:
        assert hooks(net) > 0
    assert hooks(net) == 0
    net(*inputs())
    assert passes == []


def test_the_hooks_are_gone_after_an_error_and_the_pass_is_not_counted(net):
    x, time, context = inputs()
    with pytest.raises(RuntimeError), attention_maps(net) as passes:
        net(x, time, context[..., :-1])  # too narrow: the first attention fails
    assert hooks(net) == 0 and passes == []
    with attention_maps(net) as passes:
        with pytest.raises(RuntimeError):
            net(x, time, context[..., :-1])
        net(x, time, context)
    assert [len(maps) for maps in passes] == [len(TRANSFORMERS)]


def test_nested(net):
    with attention_maps(net) as outer:
        net(*inputs())
        with attention_maps(net) as inner:
            net(*inputs(seed=1))
    assert (len(outer), len(inner)) == (2, 1)
    assert torch.equal(outer[1][0].weights, inner[0][0].weights)


@torch.no_grad()
def test_of_the_two_copies_of_cfg_the_second_half_is_conditional():
    pipe = TextToImage.load("mnist", device="cpu")
    asked, images = ["7", "3"], pipe.latents(["7", "3"], steps=2)
    with attention_maps(pipe.net) as both:  # the UNet inside is found
        assert torch.equal(pipe.latents(asked, steps=2), images)
    alone = []
    for context in (pipe.encode_negative(None, 1).expand(2, -1, -1), pipe.encode(asked)):
        with attention_maps(pipe.net) as passes:
            x = torch.stack([torch.randn(4, 14, 14, generator=torch.Generator().manual_seed(k)) for k in (0, 1)])
            pipe.net.unet(x, pipe.schedule.net_time(torch.ones(2)), context)
        alone.append(passes[0])
    assert len(both) == 2  # one pass a step
    for each, null, text in zip(both[0], *alone, strict=True):
        assert len(each.weights) == 4
        torch.testing.assert_close(each.weights.chunk(2)[0], null.weights)
        torch.testing.assert_close(each.weights.chunk(2)[1], text.weights)
        torch.testing.assert_close(each.weights[-1], text.weights[1])


def test_half_precision():
    torch.manual_seed(0)
    net = UNet(TINY).bfloat16()
    with attention_maps(net) as passes:
        net(*inputs())
    weights = passes[0][0].weights
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_no_unet():
    with pytest.raises(ValueError, match="no UNet in it"), attention_maps(nn.Linear(2, 2)):
        pass
