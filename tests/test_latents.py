"""Text-to-image in latents: what is computed once, and a model that is trained on it, kept, and draws."""

import shutil
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from minidiff import TextToImage, data
from minidiff.data.shards import Shards
from minidiff.evaluation.emoji import named
from minidiff.evaluation.judges import in_style
from minidiff.files import asset, read_tensors
from minidiff.formats.clip import load_clip, save_clip
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.model_folder import load_classifier
from minidiff.formats.vae import save_vae
from minidiff.networks import CLIP, VAE, CLIPConfig, CLIPTextConfig, CLIPVisionConfig, UNetConfig, VAEConfig
from minidiff.tokenizer import END, Tokenizer
from minidiff.training import TrainConfig
from minidiff.training.denoiser import DenoiserRecipe
from minidiff.training.recipes.clip_emoji import also_true_emoji, varied
from minidiff.training.recipes.emoji import captions_of, keep_emoji, latent_batches
from minidiff.training.recipes.vae import psnr

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tools():
    """A VAE, a CLIP and a tokenizer, tiny and random."""
    torch.manual_seed(0)
    captions = [data.emoji_caption("noto", item) for item in data.all_emoji()[:50]]
    tokenizer = Tokenizer.train(captions, 50, length=16)
    text = CLIPTextConfig(len(tokenizer.vocab), 16, 16, layers=1, heads=2, end=tokenizer.vocab[END])
    clip = CLIP(CLIPConfig(text, CLIPVisionConfig(size=64, patch=32, width=16, layers=1, heads=2), dim=8))
    vae = VAE(VAEConfig(channels=(4, 4, 8, 8), layers=1, latent_channels=3, groups=4, scaling=2.0))
    return vae.eval().requires_grad_(False), clip.eval().requires_grad_(False), tokenizer


@pytest.fixture(scope="module")
def kept(tools, tmp_path_factory):
    vae, clip, tokenizer = tools
    folder = tmp_path_factory.mktemp("kept") / "latents"
    keep_emoji(folder, vae, clip.text_model, tokenizer, "validation")
    return folder


def test_each_picture_is_kept_with_its_captions(tools, kept):
    vae, clip, tokenizer = tools
    pictures, shards = data.emoji("validation"), Shards(kept)
    assert len(shards) == len(pictures) == 144
    rows = torch.tensor([0, 70, 143])
    found = shards[rows]
    expected = vae.encode(pictures.floats(rows))
    torch.testing.assert_close(found["latents"].float(), expected, rtol=2e-3, atol=2e-3)
    for row, states in zip(rows, found["states"], strict=True):
        plain = [data.emoji_caption(pictures.styles[row], pictures.items[row], k) for k in (0, 1, 6)]  # without tags
        torch.testing.assert_close(states[[0, 1, 6]].float(), clip.text_model(tokenizer(plain)), rtol=2e-3, atol=2e-3)


def test_every_wording_has_a_caption_with_tags_of_its_own():
    item = next(item for item in data.all_emoji() if len(item.tags) > 5)
    captions = captions_of(item, "noto", np.random.default_rng(0))
    assert len(set(captions)) == len(captions) == len(data.EMOJI_WORDINGS)
    assert captions[0] == data.emoji_caption("noto", item)
    assert captions[5] != captions_of(item, "noto", np.random.default_rng(1))[5]  # "noto emoji: " and three tags


def test_batches_hold_each_latent_with_one_of_its_own_captions(kept):
    everything = Shards(kept)[torch.arange(144)]
    wordings = set()
    for latents, states in islice(latent_batches(kept, 48, seed=3), 3):
        assert latents.shape == (48, 3, 8, 8) and states.shape == (48, 16, 16) and states.dtype == torch.float32
        for latent, state in zip(latents, states, strict=True):
            [row] = (everything["latents"].float() == latent).flatten(1).all(1).nonzero().flatten().tolist()
            [k] = (everything["states"][row].float() == state).flatten(1).all(1).nonzero().flatten().tolist()[:1]
            wordings.add(k)
    assert len(wordings) >= 6
    again = [states for _, states in islice(latent_batches(kept, 48, seed=3), 3)]
    assert torch.equal(again[2], states)
    mine = [states for _, states in islice(latent_batches(kept, 48, seed=3, mine=slice(8, 16)), 3)][2]
    assert torch.equal(mine[8:16], states[8:16]) and not mine[:8].any()


# A model in latents --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tools, kept, tmp_path_factory):
    vae, clip, tokenizer = tools
    folder = tmp_path_factory.mktemp("tools")
    save_vae(vae, folder / "vae")
    save_clip(clip, tokenizer, folder / "clip")
    unet = UNetConfig(3, 3, (8, 16), (False, True), layers=1, heads=2, context_dim=16, groups=4, pooled=True)
    return DenoiserRecipe(
        about="",
        config=ModelConfig(name="tiny", unet=unet, picture=(3, 64, 64), fold=1),
        batches=lambda batch, seed, folder: latent_batches(folder, batch, seed),
        reader=str(folder / "clip"),
        vae=str(folder / "vae"),
        encode=keep_emoji,
    )


def run(recipe, kept, folder, steps, stop=None):
    (folder / "latents").parent.mkdir(exist_ok=True)
    if not (folder / "latents").exists():
        (folder / "latents").symlink_to(kept)
    training = recipe.run(folder, CPU, TrainConfig(steps=steps, warmup=1), 8)
    done = list(islice(training, stop))
    training.close()
    return done


def test_a_model_in_latents_is_trained_kept_and_draws(recipe, tools, kept, tmp_path):
    vae, clip, _ = tools
    run(recipe, kept, tmp_path / "run", 3)
    pipe = TextToImage.load(tmp_path / "run", "cpu")
    assert pipe.latents("a noto emoji of a red apple", steps=2).shape == (1, 3, 8, 8)
    [image] = pipe("a noto emoji of a red apple", steps=2)
    assert (image.mode, image.size) == ("RGB", (64, 64))
    for ours, theirs in ((pipe.vae, vae), (pipe.net.text_encoder, clip.text_model)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor.half().float()), name
    assert set(read_tensors(tmp_path / "run" / UNET)) == set(pipe.net.unet.state_dict())


def test_latents_are_computed_once_and_appear_when_they_are_whole(recipe, kept, tmp_path):
    made = []

    def encode(folder, *_, stop=False):
        made.append(folder)
        shutil.copytree(kept, folder)
        if stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopping = replace(recipe, encode=partial(encode, stop=True))
        stopping.run(tmp_path, CPU, TrainConfig(steps=1, warmup=1), 8)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        list(replace(recipe, encode=encode).run(tmp_path, CPU, TrainConfig(steps=1, warmup=1), 8))
    assert len(made) == 2 and len(Shards(tmp_path / "latents")) == len(Shards(kept))


def test_a_stopped_run_goes_on_as_if_it_had_not_been(recipe, kept, tmp_path):
    whole = run(recipe, kept, tmp_path / "whole", 4)
    parts = run(recipe, kept, tmp_path / "parts", 4, stop=2) + run(recipe, kept, tmp_path / "parts", 4)
    assert whole == parts
    assert (tmp_path / "whole" / UNET).read_bytes() == (tmp_path / "parts" / UNET).read_bytes()


@pytest.fixture
def pipe(tools):
    vae, clip, tokenizer = tools
    unet = UNetConfig(3, 3, (8, 16), (False, True), layers=1, heads=2, context_dim=16, groups=4)
    config = ModelConfig(name="tiny", unet=unet, picture=(3, 64, 64), fold=1, text=clip.config.text)
    return TextToImage(config, config.build(), "cpu", tokenizer, vae)


def test_pictures_become_latents_and_latents_pictures(pipe, tools):
    pictures = data.emoji("validation").floats(range(2))
    latents = pipe.to_latents(pictures)
    assert latents.shape == (2, 3, 8, 8)
    assert torch.equal(latents, tools[0].encode(pictures))
    back = (tools[0].decode(tools[0].encode(pictures)) + 1) / 2
    assert torch.allclose(pipe.decode(latents), back.clamp(0, 1), atol=1e-5)


def test_a_side_is_a_multiple_of_the_vaes_factor(pipe):
    assert pipe.latents("", steps=1, size=(32, 80)).shape == (1, 3, 4, 10)
    with pytest.raises(ValueError, match="size must be a multiple of 8, got 41x41"):
        pipe.stream("", steps=1, size=41)


# What the CLIP of emoji is trained on --------------------------------------------------------


def emojis(*about):
    """(style, name, wording) -> a batch without pictures."""
    known = {item.name: item for item in data.all_emoji()}
    items, styles = [known[name] for _, name, _ in about], [style for style, _, _ in about]
    captions = [data.emoji_caption(style, known[name], wording) for style, name, wording in about]
    return data.CaptionedEmojis(None, captions, items, styles)


def test_captions_that_are_true_of_other_emoji():
    batch = emojis(
        ("noto", "red apple", 0),
        ("noto", "red apple", 3),  # the same in other words
        ("openmoji", "red apple", 6),  # leaves the style open: true of the first two
        ("noto", "green apple", 0),
        ("noto", "red apple", 5),  # tags alone: true of what has them all
    )
    assert batch.captions[4] == "noto emoji: diet, food, fruit"  # a green apple is a fruit, says the list, and no diet
    assert also_true_emoji(batch).int().tolist() == [
        [0, 1, 1, 0, 1],
        [1, 0, 1, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0],
    ]


def test_pictures_are_moved_a_little_and_some_are_blurred():
    pictures = data.emoji("validation").floats(range(16))
    moved = varied(pictures, torch.Generator().manual_seed(0))
    assert moved.shape == pictures.shape and moved.min() >= -1 and moved.max() <= 1
    assert torch.equal(moved, varied(pictures, torch.Generator().manual_seed(0)))
    assert (moved != pictures).flatten(1).any(1).sum() >= 15

    def detail(x):
        return x.diff(dim=-1).abs().flatten(1).mean(1)

    blurred = (detail(moved) < 0.85 * detail(pictures)).sum()
    assert 3 <= blurred <= 13


# The weights that come with it -----------------------------------------------------------------


def size(*names):
    return sum(path.stat().st_size for name in names for path in asset(f"weights/{name}").rglob("*") if path.is_file())


def test_the_shipped_weights_are_small():
    assert size("emoji", "clip_emoji") <= 7e6  # UNet, text tower, VAE; CLIP
    assert size("scenes", "clip_scenes", "scene_judge") <= 4e6  # scenes has no UNet yet
    assert sum(path.stat().st_size for path in asset("weights").rglob("*") if path.is_file()) <= 18e6


def test_the_shipped_model_draws_what_it_is_told():
    pipe, (clip, tokenizer) = TextToImage.load("emoji", "cpu"), load_clip("clip_emoji")
    for name, tensor in clip.text_model.state_dict().items():
        assert torch.equal(pipe.net.text_encoder.state_dict()[name], tensor), name
    assert pipe.tokenizer.vocab == tokenizer.vocab and pipe.tokenizer.words == tokenizer.words
    pictures = data.emoji("train")
    rows = range(0, len(pictures), 180)  # 24 of them
    items, styles = [pictures.items[k] for k in rows], [pictures.styles[k] for k in rows]
    captions = [data.emoji_caption(style, item) for item, style in zip(items, styles, strict=True)]
    drawn = pipe.decode(pipe.latents(captions, steps=10)) * 2 - 1
    assert named(clip, tokenizer, drawn, items, styles, seed=0).double().mean() > 0.4  # by chance 0.01
    assert in_style(load_classifier("style_judge"), drawn, styles).double().mean() > 0.75  # by chance a third


def test_the_shipped_vae_brings_emoji_back_that_it_has_not_seen():
    vae = TextToImage.load("emoji", "cpu").vae
    pictures = data.emoji("validation").floats()
    assert psnr(vae, pictures).mean() > 28
    assert float(vae.encode(pictures).std()) == pytest.approx(1, abs=0.15)
    large = pictures[:16].reshape(4, 4, 3, 64, 64).permute(2, 0, 3, 1, 4).reshape(1, 3, 256, 256)
    latents = vae.encode(large)
    whole, tiled = vae.decode(latents).clamp(-1, 1), vae.decode(latents, tile=128).clamp(-1, 1)
    assert (tiled - whole).square().mean() < (whole - large).square().mean()  # tiles cost less than the VAE itself
