"""The UNet by itself. (Against diffusers: parity/.)"""

import pytest
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from minidiff.networks import Conditional, LabelEncoder, SpaceToDepth, UNet, UNetConfig
from minidiff.training.recipes.mnist import MNIST

TINY = UNetConfig(1, 1, channels=(8, 16), attention=(False, True), layers=1, heads=2, context_dim=8, groups=4)


def test_the_defaults_are_stable_diffusion():
    with torch.device("meta"):
        net = UNet()
    assert len(net.state_dict()) == 686
    assert sum(p.numel() for p in net.parameters()) == 859_520_964


def test_the_digit_model_is_small():
    assert 0.9e6 < sum(p.numel() for p in MNIST.build().parameters()) < 1.1e6


@pytest.mark.parametrize("height, width", [(8, 8), (7, 9), (13, 6)])
def test_any_size_comes_out_as_it_went_in(height, width):
    x = torch.randn(2, 1, height, width)
    assert UNet(TINY)(x, torch.tensor([1.0, 2.0]), torch.randn(2, 3, 8)).shape == x.shape


def test_every_parameter_has_a_gradient_and_every_input_matters():
    torch.manual_seed(0)
    net = UNet(TINY)
    x, time, context = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 900.0]), torch.randn(2, 3, 8)
    net(x, time, context).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    with torch.no_grad():
        out = net(x, time, context)
        for other in ((x + 1, time, context), (x, time + 5, context), (x, time, context + 1)):
            assert not torch.allclose(net(*other), out, atol=1e-4)


def test_half_precision_weights_take_float_inputs():
    net = UNet(TINY).bfloat16()
    assert net(torch.randn(1, 1, 8, 8), torch.ones(1), torch.randn(1, 3, 8)).dtype == torch.bfloat16


def test_configs_that_do_not_fit():
    for wrong in ({"attention": (True,)}, {"heads": (2, 2, 2)}, {"groups": 3}, {"heads": 5}):
        with pytest.raises(ValueError, match=r"one entry a level|cannot be split"):
            UNetConfig(channels=(8, 16), **({"attention": (True, True), "groups": 4} | wrong))


def test_a_missing_context_is_an_error():
    with pytest.raises(ValueError, match=r"tokens \(B, L, D\)"):
        UNet(TINY)(torch.randn(1, 1, 8, 8), torch.ones(1), None)


def test_space_to_depth_is_pixel_unshuffle_and_loses_nothing():
    x, fold = torch.randn(2, 3, 6, 4), SpaceToDepth(2)
    torch.testing.assert_close(fold.encode(x), pixel_unshuffle(x, 2))
    torch.testing.assert_close(fold.decode(fold.encode(x)), x)
    torch.testing.assert_close(fold.decode(pixel_unshuffle(x, 2)), pixel_shuffle(pixel_unshuffle(x, 2), 2))


def test_a_label_is_two_tokens_and_the_null_label_a_third_thing():
    encoder = LabelEncoder(classes=10, dim=8)
    tokens = encoder(torch.tensor([3, 7, encoder.null]))
    assert tokens.shape == (3, 2, 8)
    torch.testing.assert_close(tokens[0, 0], tokens[1, 0])  # the start token
    assert not torch.allclose(tokens[:, 1][None], tokens[:, 1][:, None].roll(1, 0))
    net = Conditional(UNet(TINY), encoder)
    assert net(torch.randn(2, 1, 8, 8), torch.ones(2), torch.tensor([1, 2])).shape == (2, 1, 8, 8)
