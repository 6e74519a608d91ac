"""End to end: a folder in diffusers' layout draws the same pictures here as in diffusers' own pipelines."""

import json
import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from tiny_sd import NEGATIVE, PROMPT, tiny

from minidiff.diffusion import table
from minidiff.files import asset
from minidiff.formats.json_files import read_json
from minidiff.pipeline.image_to_image import from_pil
from minidiff.pipeline.text_to_image import TextToImage

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
THEIRS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
ONLY = {"ddim": {"clip_sample": False, "set_alpha_to_one": False}}  # what no other scheduler knows
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(scope="module", params=["1.x", "2.x"])
def theirs(request, tmp_path_factory):
    """A pipeline of diffusers, and the folder that it was saved in."""
    pipe = tiny(request.param)
    pipe.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp("sd") / request.param
    pipe.save_pretrained(folder)
    return pipe, folder


def both(theirs, sampler, **options):
    """Ours and theirs with the same scheduler."""
    pipe, folder = theirs
    scheduler = THEIRS[sampler](**BETAS | ONLY.get(sampler, {}) | options)
    scheduler.save_pretrained(folder / "scheduler")
    pipe.scheduler = scheduler
    return TextToImage.load(folder, "cpu"), pipe


def far(ours, theirs):
    """The largest difference of pictures in [0, 1]; they must show something."""
    theirs = torch.from_numpy(np.moveaxis(theirs.images, -1, 1))
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.02
    return float((ours - theirs).abs().max())


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
HOW = {"guidance_scale": 7.5, "output_type": "np"}
PROMPTS = [PROMPT, NEGATIVE]


@pytest.mark.parametrize("steps", [20, 25])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", THEIRS)
def test_text_to_image(theirs, sampler, prediction, steps):
    ours, pipe = both(theirs, sampler, prediction_type=prediction, timestep_spacing="leading")
    want = pipe(PROMPTS, negative_prompt=["", PROMPT], latents=LATENTS, num_inference_steps=steps, **HOW)
    x = ours.latents(PROMPTS, negative=["", PROMPT], latents=LATENTS, steps=steps, scale=7.5, sampler=sampler)
    assert far(ours.decode(x), want) <= 1e-3


# None: what the class has as its own. Not ddim with linspace, where diffusers steps beside its own grid
SPACED = [
    (s, spacing) for s in THEIRS for spacing in ("trailing", "linspace", None) if (s, spacing) != ("ddim", "linspace")
]


@pytest.mark.parametrize(("sampler", "spacing"), SPACED)
def test_every_spacing(theirs, sampler, spacing):
    spaced = {"timestep_spacing": spacing} if spacing else {}
    ours, pipe = both(theirs, sampler, **spaced)
    if spacing is None:  # as checkpoints of 2022: the file does not say
        path = theirs[1] / "scheduler" / "scheduler_config.json"
        fields = read_json(path, "a scheduler")
        del fields["timestep_spacing"]
        path.write_text(json.dumps(fields))
        ours = TextToImage.load(theirs[1], "cpu")
    want = pipe(PROMPTS, latents=LATENTS, num_inference_steps=20, **HOW)
    x = ours.latents(PROMPTS, latents=LATENTS, steps=20, scale=7.5, sampler=sampler)
    assert far(ours.decode(x), want) <= 1e-3


@pytest.mark.parametrize("sampler", THEIRS)
def test_zero_terminal_snr(theirs, sampler, monkeypatch):
    ours, pipe = both(theirs, sampler, prediction_type="v_prediction", **ZERO)
    if sampler != "ddim":  # diffusers keeps a trace of the picture there, so that its sigma / alpha is finite
        alphas = ours.schedule.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000)
        assert alphas[-1] < 1e-12
        alphas[-1] = 2**-12  # alpha-bar 2**-24
        ours.schedule = table(alphas)
    want = pipe(PROMPTS, latents=LATENTS, num_inference_steps=20, **HOW)
    x = ours.latents(PROMPTS, latents=LATENTS, steps=20, scale=7.5, sampler=sampler)
    assert far(ours.decode(x), want) <= 1e-3


# From a picture ------------------------------------------------------------------------------

PICTURE = Image.fromarray((np.random.default_rng(0).random((16, 24, 3)) * 255).astype(np.uint8))
WHITE = np.zeros((16, 24), np.uint8)
WHITE[4:11, 5:20] = 255
MASK = Image.fromarray(WHITE)


def as_pipeline(kind, pipe):
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    made = kind(**parts, requires_safety_checker=False)
    made.scheduler = pipe.scheduler  # the constructor changes its config
    made.set_progress_bar_config(disable=True)
    return made


def noises(seed, shape):
    """What diffusers draws: for the VAE's sample first, then for the picture."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) for _ in range(2))


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("sampler", THEIRS)
def test_image_to_image(theirs, sampler, strength):
    ours, pipe = both(theirs, sampler, timestep_spacing="leading")
    of_vae, noise = noises(5, (1, 4, 8, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image_to_image = as_pipeline(StableDiffusionImg2ImgPipeline, pipe)
    want = image_to_image(
        PROMPT,
        image=PICTURE,
        strength=strength,
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(5),
        **HOW,
    )
    init = ours.to_latents(from_pil(PICTURE), of_vae)
    x = ours.latents(PROMPT, init=init, latents=noise, strength=strength, steps=20, scale=7.5, sampler=sampler)
    assert far(ours.decode(x), want) <= 1e-3


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("sampler", THEIRS)
def test_inpainting(theirs, sampler, strength):
    ours, pipe = both(theirs, sampler, timestep_spacing="trailing")
    of_vae, noise = noises(5, (1, 4, 8, 12))
    inpaint = as_pipeline(StableDiffusionInpaintPipeline, pipe)
    want = inpaint(
        PROMPT, image=PICTURE, mask_image=MASK, height=16, width=24, strength=strength, num_inference_steps=20,
        generator=torch.Generator().manual_seed(5), **HOW,
    )  # fmt: skip
    how = {"init": ours.to_latents(from_pil(PICTURE), of_vae), "mask": MASK, "strength": strength}
    x = ours.latents(PROMPT, latents=noise, steps=20, scale=7.5, sampler=sampler, **how)
    assert far(ours.decode(x), want) <= 1e-3


# The other way -------------------------------------------------------------------------------


def test_diffusers_opens_our_emoji_model_and_draws_the_same(tmp_path):
    ours = TextToImage.load("emoji", "cpu")
    ours.save(tmp_path / "emoji")
    for name in ("unet", "vae"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "emoji" / file).read_bytes() == (asset("weights/emoji") / file).read_bytes()
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "emoji")
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a twemoji emoji of a red apple", "a noto emoji of a smiling cat with heart eyes"]
    z = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    want = pipe(prompts, latents=z, num_inference_steps=20, guidance_scale=ours.config.scale, output_type="np")
    # diffusers has sigma = 0.999 in float32, and so alpha, 1 - sigma, to four digits
    assert far(ours.decode(ours.latents(prompts, latents=z, steps=20)), want) <= 1 / 255
    ids = pipe.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(ids, ours.tokenizer(prompts))
