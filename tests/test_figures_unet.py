"""The figures of the network: what stands in them is what the network computed, read back."""

import pytest
import torch
from drawn import assert_drawn, count, noise

from minidiff import TextToImage, image_files
from minidiff.course import figures
from minidiff.diffusion import denoiser
from minidiff.formats.model_config import ModelConfig
from minidiff.networks import UNet, UNetConfig, block_names, blocks

DEEP = UNetConfig(
    channels=(8, 8, 16, 16), attention=(False, True, True, True), layers=3, heads=2, context_dim=8, groups=4
)


def inputs(net, size, tokens=2):
    config, device = net.config, net.conv_in.weight.device
    shapes = (1, config.in_channels, size, size), (1,), (1, tokens, config.context_dim)
    return [torch.zeros(shape, device=device) for shape in shapes]


@pytest.fixture
def on_canvas(monkeypatch):
    """What is written among boxes."""
    from minidiff.course.figures import network as figures_unet

    written, words = [], figures_unet._words
    monkeypatch.setattr(figures_unet, "_words", lambda *a, **look: written.append(a[3]) or words(*a, **look))
    return written


def test_the_diagram_of_the_digit_model(pipe, unclipped, on_canvas):
    net = pipe.net.unet
    image = figures.unet_diagram(net, *inputs(net, 14))
    assert image.width == 760 and unclipped == []
    assert [name for name in block_names(net) if name in on_canvas] == block_names(net)
    for block in blocks(net, *inputs(net, 14)):
        name = on_canvas.index(block.name)
        assert on_canvas[name + 1] == " × ".join(map(str, block.shape))  # beside its name
    assert {"1,001,828 parameters", "x: 4 × 14 × 14", "level 0: 14 × 14", "level 1: 7 × 7"} <= set(on_canvas)
    assert on_canvas.count("t") - 1 == len([m for m in net.modules() if hasattr(m, "time_emb_proj")])  # 1: the legend
    assert on_canvas.count("c") - 1 == len([m for m in net.modules() if hasattr(m, "transformer_blocks")])
    for colour in (figures.BLUE, figures.GREEN, figures.PURPLE, figures.ORANGE, figures.RED):
        assert count(image, colour) > 100


def test_the_diagram_of_stable_diffusion(unclipped, on_canvas):
    with torch.device("meta"):
        net = UNet()
    image = figures.unet_diagram(net, *inputs(net, 64, tokens=77))
    assert image.width == 760 and unclipped == []
    assert [name for name in block_names(net) if name in on_canvas] == block_names(net)
    assert {"859,520,964 parameters", "level 3: 8 × 8", "cross-attention to the context, 77 × 768"} <= set(on_canvas)
    assert on_canvas.count("ResBlock, attention") == 6 + 9 and on_canvas.count("Downsample") == 3
    assert on_canvas.count("640 × 16 × 16") == 1 + 1  # an output and a skip


@pytest.mark.parametrize("size", [16, 13])
def test_the_diagram_of_another_shape(unclipped, size):
    net = UNet(DEEP)
    first = figures.unet_diagram(net, *inputs(net, size))
    assert unclipped == []
    assert image_files.encode(first) == image_files.encode(figures.unet_diagram(net, *inputs(net, size)))


@pytest.mark.parametrize("t, prompt", [(0.0, None), (0.4, "7"), (1.0, "a handwritten seven")])
def test_unet_shows_what_is_noised_and_what_is_estimated(pipe, digit, t, prompt):
    image = figures.unet(pipe, digit, "mid_block", t, prompt, seed=6)
    eps = pipe.fold.decode(noise((1, 4, 14, 14), 6))[0]
    assert_drawn(image, 16, 34, 160, (((1 - t) * digit + t * eps)[0] + 1) / 2)
    if t == 0:
        assert_drawn(image, 584, 34, 160, (digit[0] + 1) / 2)
    if t == 1:
        first = next(pipe.stream([prompt], steps=1, scale=1.0, seed=6))
        assert_drawn(image, 584, 34, 160, pipe.decode(first.x0_hat)[0, 0])


def test_every_block_has_a_picture_of_its_own(pipe, digit, unclipped):
    drawn = {name: image_files.encode(figures.unet(pipe, digit, name, 0.5, "7")) for name in block_names(pipe.net.unet)}
    assert len(set(drawn.values())) == 7 and unclipped == []
    assert drawn["conv_in"] == image_files.encode(figures.unet(pipe, digit, "conv_in", 0.5, "7"))


def test_the_channels_that_vary_most_in_one_scale_of_colours(pipe, digit, words):
    figures.unet(pipe, digit, "down_blocks.0", 0.5)
    x = pipe.schedule.add_noise(pipe.fold.encode(digit[None]), noise((1, 4, 14, 14)), 0.5)
    block = blocks(pipe.net.unet, x, pipe.schedule.net_time(torch.tensor([0.5])), pipe.encode_negative(None, 1))[1]
    vary = block.output[0].var((1, 2)).argsort(descending=True)[:16].tolist()
    assert {int(word) for word in words if word.isdigit()} == set(vary)
    assert "down_blocks.0, 32 × 7 × 7" in words and "channels: the 16 of 32 with the highest variance" in words
    assert "unconditional" in words


def test_colours_of_channels(pipe, digit):
    """Blue is below zero and orange above it, at the positions where the block's output is."""
    image = figures.unet(pipe, digit, "conv_out", 0.5).convert("RGB")  # all four channels, in order
    x = pipe.schedule.add_noise(pipe.fold.encode(digit[None]), noise((1, 4, 14, 14)), 0.5)
    out = blocks(pipe.net.unet, x, pipe.schedule.net_time(torch.tensor([0.5])), pipe.encode_negative(None, 1))[-1]
    for channel, values in enumerate(out.output[0]):
        for row, column in ((0, 0), (7, 7), (4, 9), (13, 2)):
            red, _, blue = image.getpixel((16 + 84 * channel + 5 * column + 2, 284 + 5 * row + 2))
            value = float(values[row, column])
            assert abs(value) < 0.2 or (red > blue) == (value > 0)


def test_a_deeper_network(digit, unclipped):
    config = ModelConfig(name="deep", unet=DEEP)
    torch.manual_seed(0)
    pipe = TextToImage(config, config.build(), "cpu")
    pipe.net.unet.conv_out.weight.mul_(1e-3)  # small numbers are long: -0.00012 beside the bar of colours
    for block in ("down_blocks.3", "up_blocks.2", "conv_out"):
        assert figures.unet(pipe, digit, block, 0.5).size == (760, 460)
    assert unclipped == []


def test_bad_input_is_named(pipe, digit):
    with pytest.raises(ValueError, match=r"unknown block 'attic'; there is conv_in, down_blocks.0, .*conv_out"):
        figures.unet(pipe, digit, "attic", 0.5)
    with pytest.raises(ValueError, match="t must lie between 0 and 1, got 1.5"):
        figures.unet(pipe, digit, "conv_in", 1.5)


def test_the_diagrams_of_parts_and_loops(pipe, digit, unclipped):
    drawn = [figures.res_block_diagram(), figures.attention_diagram(), figures.training_loop(pipe, digit, 0.35)]
    drawn += [figures.sampling_loop(pipe, "7", steps=4, shown=2)]
    assert {image.width for image in drawn} == {760} and unclipped == []


def test_the_loops_show_what_is_computed(pipe, digit):
    image = figures.training_loop(pipe, digit, 0.4, seed=6)
    assert_drawn(image, 16, 34, 84, (digit[0] + 1) / 2)
    eps = pipe.fold.decode(noise((1, 4, 14, 14), 6))[0]
    assert_drawn(image, 16, 160, 84, (eps[0] + 1) / 2)
    assert_drawn(image, 164, 34, 84, ((0.6 * digit + 0.4 * eps)[0] + 1) / 2)
    image = figures.sampling_loop(pipe, "7", steps=4, shown=2, seed=6)
    taken = list(pipe.stream(["7"], steps=4, scale=1.0, seed=6))
    for left, values in ((16, noise((1, 4, 14, 14), 6)), (136, taken[1].x), (406, taken[2].x0_hat), (660, taken[3].x)):
        assert_drawn(image, left, 34, 84, pipe.decode(values)[0, 0])


def test_activations_appear_block_by_block(pipe, digit, unclipped):
    frames = [figures.activations(pipe, digit, 0.4, done, seed=6) for done in range(8)]
    assert len({image_files.encode(frame) for frame in frames}) == 8 and unclipped == []
    assert [count(frame, figures.PURPLE) > 100 for frame in frames] == [False] * 4 + [True] * 4  # the middle
    eps = pipe.fold.decode(noise((1, 4, 14, 14), 6))[0]
    assert_drawn(frames[0], 10, 30, 112, ((0.6 * digit + 0.4 * eps)[0] + 1) / 2)
    x = pipe.schedule.add_noise(pipe.fold.encode(digit[None]), noise((1, 4, 14, 14), 6), 0.4)
    denoise = denoiser(pipe.net.unet, pipe.schedule, pipe.prediction, pipe.encode_negative(None, 1))
    assert_drawn(frames[7], 638, 30, 112, pipe.decode(denoise(x, 0.4))[0, 0])
