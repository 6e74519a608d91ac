"""TextToImage with a text tower: prompts in any words, context tokens, gradients to follow, and its files."""

import pytest
import torch

from minidiff import TextToImage
from minidiff.data import color_digits
from minidiff.formats.model_config import ModelConfig
from minidiff.networks import CLIPTextConfig, UNetConfig
from minidiff.pipeline.options import LAST_GUIDED
from minidiff.tokenizer import END, Tokenizer


@pytest.fixture(scope="module")
def pipe():
    tokenizer = Tokenizer.train(color_digits(200).captions, 200, length=12)
    config = ModelConfig(
        name="tiny",
        unet=UNetConfig(12, 12, (8, 16), (True, True), layers=1, heads=2, context_dim=16, groups=4, pooled=True),
        picture=(3, 32, 32),
        text=CLIPTextConfig(len(tokenizer.vocab), 12, 16, layers=2, heads=2, end=tokenizer.vocab[END]),
    )
    torch.manual_seed(0)
    return TextToImage(config, config.build(), "cpu", tokenizer)


def test_a_prompt_draws_in_colour(pipe):
    image = pipe("a red seven on a blue background", steps=2)[0]
    assert (image.mode, image.size) == ("RGB", (32, 32))


@pytest.mark.parametrize(
    "prompt", ["", "elephants", "семь 七 🌱", "a red seven " * 1000, "\x00\ud800", "<|endoftext|>"]
)
@pytest.mark.filterwarnings("ignore:left out, for there is room")
def test_any_prompt_can_be_read(pipe, prompt):
    assert pipe.encode([prompt]).shape == (1, 12, 16)
    assert torch.isfinite(pipe.latents([prompt], steps=2, scale=3.0)).all()
    assert len(pipe.unread(prompt).splitlines()) <= 1 and len(pipe.unread(prompt)) < 300


def test_what_cannot_be_read_is_said(pipe):
    assert pipe.unread("a red seven") == ""
    assert "elephant" in pipe.unread("a red elephant")
    long = pipe.unread("a red seven on a blue background, top left, on white")
    assert "10 tokens" in long and long.endswith("on white")
    assert TextToImage.load("mnist", "cpu").unread("elephant 7") == ""


def test_nothing_is_the_empty_caption(pipe):
    assert torch.equal(pipe.encode_negative(None, 2), pipe.encode([""]))
    free, empty = pipe.latents(["a red seven"], steps=2, scale=0.0), pipe.latents([""], steps=2, scale=1.0)
    assert torch.equal(free, empty)


def test_a_negative_prompt_takes_the_place_of_nothing(pipe):
    mine = pipe.latents(["a red seven"], negative="a blue two", steps=2, scale=3.0)
    assert not torch.allclose(mine, pipe.latents(["a red seven"], steps=2, scale=3.0))
    with_itself = pipe.latents(["a red seven"], negative="a red seven", steps=2, scale=3.0)
    torch.testing.assert_close(with_itself, pipe.latents(["a red seven"], steps=2, scale=1.0), rtol=0, atol=1e-4)


def test_context_tokens_instead_of_words(pipe):
    one, other = pipe.encode(["a red seven", "a blue two"]).split(1)
    for amount, expected in ((0.0, one), (1.0, other), (0.25, 0.75 * one + 0.25 * other)):
        torch.testing.assert_close(pipe.mix("a red seven", "a blue two", amount), expected)
    assert torch.equal(pipe.latents(one, steps=2), pipe.latents("a red seven", steps=2))
    assert torch.equal(pipe.latents((p for p in ["a red seven"]), steps=2), pipe.latents("a red seven", steps=2))


def test_rescale_and_interval_reach_the_guidance(pipe):
    plain = pipe.latents(["a red seven"], steps=3, scale=4.0)
    assert not torch.allclose(plain, pipe.latents(["a red seven"], steps=3, scale=4.0, rescale=0.7))
    assert not torch.allclose(plain, pipe.latents(["a red seven"], steps=3, scale=4.0, interval=(0.0, 0.5)))
    untold_early = pipe.latents(["a red seven"], steps=3, scale=0.0, interval=(0.5, 1.0))
    assert not torch.allclose(untold_early, pipe.latents(["a red seven"], steps=3, scale=0.0))
    never = pipe.latents(["a red seven"], steps=3, scale=4.0, interval=(0.0, 0.0))
    torch.testing.assert_close(never, pipe.latents(["a red seven"], steps=3, scale=1.0), rtol=0, atol=1e-4)


def test_a_followed_walk_starts_just_below_t_1_with_as_much_noise_as_there_is_then(pipe):
    met, start = [], torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(0))

    def log_p(x, t, x0_hat):
        met.append((float(t), x.detach().clone()))
        return x0_hat.flatten(1).sum(1)

    pipe.latents(["a red seven"], steps=2, scale=1.0, latents=start, log_p=log_p)
    t, x = met[0]
    assert t == LAST_GUIDED
    torch.testing.assert_close(x, LAST_GUIDED * start)  # sigma is t on the way that this model takes

    met.clear()
    pipe.latents(["a red seven"], steps=200, scale=1.0, latents=start, log_p=log_p)
    assert met[0][0] == LAST_GUIDED and met[1][0] < LAST_GUIDED  # the grid has three times from there on


@pytest.mark.parametrize(
    "options", [{"rescale": 1.5}, {"rescale": -0.1}, {"interval": (0.6, 0.4)}, {"interval": (0, 2)}]
)
def test_settings_that_make_no_sense(pipe, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        pipe.stream(["a red seven"], scale=2.0, **options)


def test_a_gradient_is_followed(pipe):
    """log p of a bright picture: the walk ends brighter, and further so with a higher scale."""

    def bright(x, t, x0_hat):
        return x0_hat.mean((1, 2, 3))

    means = [
        float(pipe.latents(["a red seven"], steps=4, log_p=bright, log_p_scale=scale).mean())
        for scale in (0.0, 20.0, 40.0)
    ]
    assert means[0] < means[1] < means[2]


def test_the_folder_holds_all_that_is_needed(pipe, tmp_path):
    pipe.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors", "vocab.json", "merges.txt"}
    again = TextToImage.load(tmp_path, "cpu")
    assert again.config == pipe.config
    close = {"rtol": 0, "atol": 2e-2}  # the weights are in half precision
    torch.testing.assert_close(again.latents(["a red 7"], steps=2), pipe.latents(["a red 7"], steps=2), **close)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match="merges.txt is missing"):
        TextToImage.load(tmp_path, "cpu")
