"""Taking the UNet apart: each part is really gone, and a copy is taken apart like the original."""

import copy

import pytest
import torch

from minidiff.diffusion import FLOW, flow
from minidiff.networks import Conditional, LabelEncoder, UNet, UNetConfig
from minidiff.networks.inside.ablations import PARTS, without
from minidiff.training import EMA, TrainConfig, train
from minidiff.training.recipes.mnist import digit_model

TINY = UNetConfig(1, 1, channels=(8, 16), attention=(True, True), layers=1, heads=2, context_dim=8, groups=4)


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(TINY).eval()


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, context = torch.randn(2, 1, 8, 8, generator=generator), torch.randn(2, 2, 8, generator=generator)
    return x, torch.tensor([100.0, 900.0]), context


def gradients(net: UNet, of: str) -> list[torch.Tensor | None]:
    """Of the output with respect to every parameter whose name holds `of`."""
    net(*inputs()).square().sum().backward()
    return [p.grad for name, p in net.named_parameters() if of in name]


def gone(grads: list[torch.Tensor | None]) -> bool:
    assert grads
    return all(g is None or not g.any() for g in grads)


@torch.no_grad()
@pytest.mark.parametrize("part", PARTS)
def test_a_part_less_gives_another_answer_and_so_does_a_copy(part):
    net, whole = network(), network()
    assert without(net, part) is net
    assert not torch.allclose(net(*inputs()), whole(*inputs()), atol=1e-4)
    copied = copy.deepcopy(net)
    torch.testing.assert_close(copied(*inputs()), net(*inputs()), rtol=0, atol=0)
    for p in net.parameters():  # the copy does not look back at the original
        p.zero_()
    assert copied(*inputs()).any()
    assert not net(*inputs()).any()


@torch.no_grad()
def test_time_and_context_are_no_longer_seen():
    x, time, context = inputs()
    for part, other in (("time", (x, time.flip(0), context)), ("cross-attention", (x, time, -context))):
        assert not torch.allclose(network()(x, time, context), network()(*other), atol=1e-4)
        net = without(network(), part)
        torch.testing.assert_close(net(x, time, context), net(*other), rtol=0, atol=0)


@pytest.mark.parametrize(
    "part, names",
    [
        ("self-attention", ["attn1"]),
        ("cross-attention", ["attn2"]),
        ("attention", ["attentions"]),
        ("time", ["time_embedding", "time_emb_proj.weight"]),
        ("middle", ["mid_block"]),
        ("normalisation", ["norm"]),
    ],
)
def test_the_weights_of_a_part_are_unused(part, names):
    for name in names:
        assert not gone(gradients(network(), name))
        assert gone(gradients(without(network(), part), name))


def test_without_skips_the_way_up_sees_only_what_comes_from_below():
    def of_skips(net: UNet) -> torch.Tensor:
        net(*inputs()).square().sum().backward()
        convolution = net.up_blocks[-1].resnets[-1].conv1  # of 8 channels from below and 8 of the first skip
        return convolution.weight.grad[:, 8:]

    assert of_skips(network()).any()
    net = without(network(), "skips")
    seen = []
    net.up_blocks[-1].resnets[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0][:, 8:]))
    net(*inputs())
    assert not seen[0].any()


@torch.no_grad()
def test_without_self_attention_a_pixel_does_not_see_the_others():
    _, _, context = inputs()
    tokens = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 0] *= -1

    def others(net: UNet, tokens: torch.Tensor) -> torch.Tensor:
        return net.mid_block.attentions[0].transformer_blocks[0](tokens, context)[:, 1:]

    net, whole = without(network(), "self-attention"), network()
    torch.testing.assert_close(others(net, tokens), others(net, changed))
    assert not torch.allclose(others(whole, tokens), others(whole, changed), atol=1e-4)


def test_an_unknown_part_is_one_clear_line():
    with pytest.raises(ValueError, match="unknown part 'wheels'; there is skips, self-attention, "):
        without(network(), "wheels")


@pytest.mark.parametrize("part", PARTS)
def test_it_can_be_trained_and_averaged(part):
    torch.manual_seed(0)
    net = Conditional(without(UNet(TINY), part), LabelEncoder(10, 8))
    batch = (torch.randn(4, 1, 8, 8), torch.arange(4))
    *_, last = train(net, flow(), FLOW, [batch] * 3, TrainConfig(steps=3), null=10)
    assert last.loss.isfinite()
    copied = EMA(net, 0.9).net.unet.eval()
    torch.testing.assert_close(copied(*inputs()), net.eval().unet(*inputs()).detach())


def test_the_digit_model_without_a_part_draws_and_repeats():
    pipe, again = (digit_model("middle", steps=2, seed=1, batch=4) for _ in range(2))
    whole = digit_model(None, steps=2, seed=1, batch=4)
    drawn = [p.latents("7", steps=2) for p in (pipe, again, whole)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])
    assert whole.config.name == "mnist"
