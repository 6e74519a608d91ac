"""TextToImage with the shipped digits: one call, the same picture again, and what is refused."""

import json

import numpy as np
import pytest
import torch

from minidiff import TextToImage
from minidiff.diffusion import SAMPLERS
from minidiff.formats.model_folder import find_model, models


@pytest.fixture(scope="module")
def pipe():
    return TextToImage.load("mnist", device="cpu")


def test_prompts_in_pictures_out(pipe):
    images = pipe(["a handwritten seven", "3"], steps=4, scale=2.0, seed=0)
    assert [(image.mode, image.size) for image in images] == [("L", (28, 28))] * 2
    assert pipe("7", steps=2)[0].size == (28, 28)  # one prompt need not be a list


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_is_the_same_picture_bit_for_bit(pipe, sampler):
    a, b = (pipe.latents(["7", "3"], steps=3, seed=5, sampler=sampler) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.allclose(a, pipe.latents(["7", "3"], steps=3, seed=6, sampler=sampler), atol=1e-2)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_picture_k_alone_equals_picture_k_of_a_batch(pipe, sampler):
    batch = pipe.latents(["7", "3", "5", "0"], steps=6, seed=10, sampler=sampler)
    alone = pipe.latents(["5"], steps=6, seed=12, sampler=sampler)
    torch.testing.assert_close(batch[2:3], alone, rtol=0, atol=1e-4)


def test_the_stream_yields_every_step_and_latents_and_decode_are_its_halves(pipe):
    steps = list(pipe.stream(["7"], steps=4, seed=1))
    assert len(steps) == 4 and float(steps[-1].t) == 0
    latents = pipe.latents(["7"], steps=4, seed=1)
    assert torch.equal(steps[-1].x, latents) and latents.shape == (1, 4, 14, 14)
    pictures = pipe.decode(latents)
    assert pictures.shape == (1, 1, 28, 28) and pictures.min() >= 0 and pictures.max() <= 1
    pixels = torch.from_numpy(np.array(pipe(["7"], steps=4, seed=1)[0])) / 255
    torch.testing.assert_close(pixels, pictures[0, 0], rtol=0, atol=0.5 / 255 + 1e-6)


def test_the_scale_runs_from_no_prompt_to_more_prompt(pipe):
    pair = ["7", "3"]
    start = torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)

    def apart(scale):
        seven, three = pipe.latents(pair, steps=6, scale=scale, latents=start)
        return float((seven - three).square().mean())

    assert apart(0.0) < 1e-8 < apart(1.0)
    # scale 1 skips the second question, and is the limit of the scales beside it
    one, beside = (pipe.latents(pair, steps=6, scale=s, latents=start) for s in (1.0, 1.0 + 1e-6))
    torch.testing.assert_close(one, beside, rtol=0, atol=1e-3)


def test_start_noise_negative_prompts_and_size(pipe):
    noise = torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pipe.latents(["7"], steps=3, latents=noise), pipe.latents(["7"], steps=3, seed=3))
    assert not torch.allclose(pipe.latents(["7"], steps=3, negative="1"), pipe.latents(["7"], steps=3), atol=1e-2)
    # not what it is asked for: nothing is left to amplify, whatever the scale
    torch.testing.assert_close(
        pipe.latents(["7"], steps=3, negative=["7"], scale=5.0), pipe.latents(["7"], steps=3, scale=1.0), rtol=0, atol=1e-4
    )  # fmt: skip
    assert pipe(["7"], steps=2, size=(32, 20))[0].size == (20, 32)


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["a cat"]}, "names no digit"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": -3}, "steps must be at least 1, got -3"),
        ({"scale": float("nan")}, "finite"),
        ({"scale": float("inf")}, "finite"),
        ({"sampler": "magic"}, "unknown sampler 'magic'; there is ddpm, ddim, euler, heun, dpmpp_2m"),
        ({"negative": ["1", "2", "3"]}, "3 negative prompts for 1"),
        ({"negative": "a cat"}, "names no digit"),
        ({"seed": -1}, "seed must lie"),
        ({"seed": 2**80}, "seed must lie"),
        ({"size": 27}, "multiple of 2, got 27x27"),
        ({"size": (0, 28)}, "multiple of 2"),
        ({"latents": torch.zeros(1, 4, 3, 3)}, r"must have shape \(1, 4, 14, 14\), got \(1, 4, 3, 3\)"),
    ],
)
def test_what_cannot_be_drawn(pipe, options, problem):
    with pytest.raises(ValueError, match=problem):
        pipe(**({"prompts": ["7"]} | options))


# On disk ------------------------------------------------------------------------------------


@pytest.fixture
def folder(pipe, tmp_path):
    pipe.save(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_saved_is_what_is_loaded(pipe, folder):
    again = TextToImage.load(folder, device="cpu")
    assert again.config == pipe.config
    assert torch.equal(again.latents(["7"], steps=3), pipe.latents(["7"], steps=3))
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000


def test_models_that_are_not_there():
    assert "mnist" in models()
    with pytest.raises(ValueError, match="unknown model 'mnst'; there is color_digits, emoji, mnist"):
        find_model("mnst")


def test_weights_that_are_not_whole(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:4], b"", bytes(range(256)) * 100, b"\x80\x04\x95pickled"):
        weights.write_bytes(broken)
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            TextToImage.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model.safetensors is missing"):
        TextToImage.load(folder)


def test_descriptions_that_do_not_fit(folder):
    description = folder / "model.json"
    fields = json.loads(description.read_text())

    def refuse(text, problem):
        description.write_text(text)
        with pytest.raises(ValueError, match=problem):
            TextToImage.load(folder)

    refuse("{", "does not describe a model")
    refuse("[]", "does not describe a model")
    refuse(json.dumps(fields | {"colour": 1}), "model.json: colour is 1: Unexpected")
    refuse(json.dumps(fields | {"schedule": "bumpy"}), "unknown schedule 'bumpy'")
    refuse(json.dumps(fields | {"prediction": "noise"}), "unknown prediction 'noise'; there is eps, x0, v, flow")
    refuse(json.dumps(fields | {"unet": fields["unet"] | {"channels": [32, 96]}}), "does not fit its model")
    description.unlink()
    refuse_missing = pytest.raises(ValueError, match="model.json is missing")
    with refuse_missing:
        TextToImage.load(folder)


def test_eps_prediction_on_a_schedule_without_any_picture_at_the_end(folder):
    description = folder / "model.json"
    fields = json.loads(description.read_text()) | {"schedule": "cosine", "prediction": "eps"}
    description.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="zero terminal SNR.*v-prediction"):
        TextToImage.load(folder)(["7"], steps=2)
