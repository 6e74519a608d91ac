"""TextToImage: where the mathematics and the networks meet."""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor

from minidiff.data import LABELS
from minidiff.device import pick_device
from minidiff.diffusion import SAMPLERS, Step, cfg, denoiser, guide
from minidiff.formats import model_folder as folders
from minidiff.formats.model_config import ModelConfig, named_timing
from minidiff.formats.scheduler_config import Timing
from minidiff.networks import VAE, Conditional, Fold
from minidiff.pipeline.image_to_image import keep, left, prepared
from minidiff.pipeline.latent_preview import latent_to_rgb
from minidiff.registry import choose
from minidiff.tokenizer import Tokenizer

LAST_GUIDED = 0.99  # `guide` divides by alpha: its walks start here instead of at t = 1, where alpha may be 0


class TextToImage:
    """Prompts in, pictures out.

    pipe = TextToImage.load("mnist")
    images = pipe(["a handwritten seven"], steps=20, scale=2.0, seed=0)

    Picture k of a call has a random generator of its own, seeded with seed + k: it is the same
    picture when it is drawn alone.
    """

    def __init__(
        self,
        config: ModelConfig,
        net: Conditional,
        device: str | torch.device | None = None,
        tokenizer: Tokenizer | None = None,
        vae: VAE | None = None,
        timing: Timing | None = None,  # None: what the config names
    ):
        self.config = config
        self.tokenizer = tokenizer  # of the text tower; None where prompts are looked up as labels
        self.device = device if isinstance(device, torch.device) else pick_device(device)
        self.net = net.eval().requires_grad_(False).to(self.device)
        self.vae = vae and vae.eval().requires_grad_(False).to(self.device)  # None: the UNet sees pictures themselves
        self.fold = Fold(config.fold)
        self.timing = timing or named_timing(config)
        self.schedule, self.prediction, self.times = self.timing.schedule, self.timing.prediction, self.timing.times

    # Drawing -------------------------------------------------------------------------------

    def __call__(self, prompts: str | list[str], **options) -> list[Image.Image]:
        """One picture a prompt, as PIL images. Options: see `stream`."""
        return to_pil(self.decode(self.latents(prompts, **options)))

    def latents(self, prompts: str | list[str], **options) -> Tensor:
        """The last x of `stream`, (B, C, h, w): what `decode` makes pictures of."""
        for step in self.stream(prompts, **options):
            pass
        return step.x

    def stream(
        self,
        prompts: str | list[str] | Tensor,
        *,
        negative: str | list[str] | None = None,
        steps: int = 20,
        scale: float | None = None,
        rescale: float = 0.0,
        interval: tuple[float, float] = (0.0, 1.0),
        log_p: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        log_p_scale: float = 1.0,
        sampler: str = "dpmpp_2m",
        seed: int = 0,
        latents: Tensor | None = None,
        size: int | tuple[int, int] | None = None,
        init: Image.Image | Tensor | None = None,
        strength: float = 0.8,
        mask: Image.Image | Tensor | None = None,
    ) -> Iterator[Step]:
        """Every step of the sampler, undecoded; `decode(step.x0_hat)` is a preview.

        prompts: texts, or context tokens (B, L, D) as `encode` and `mix` make them. negative: what it should
        not be; takes the place of "nothing" in guidance. scale: the guidance scale, None for the model's own.
        rescale, interval: see `cfg`. log_p, log_p_scale: see `guide`: a gradient to follow as well, of a classifier
        or of CLIP. latents: the start noise (B, C, h, w), else drawn from `seed`. size: pixels, one
        number or (height, width). init: a picture to begin from, or latents (1 or B, C, h, w) as `to_latents` makes them;
        strength, 0 to 1: how much of the walk is left to it. mask: where to draw anew, white in a picture of init's
        size, or 1 in (1, 1, h, w); the rest of init stays. Raises ValueError at once for what cannot be drawn.
        """
        if not isinstance(prompts, Tensor):
            prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        scale = self.config.scale if scale is None else float(scale)
        if not len(prompts):
            raise ValueError("no prompt was given")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not math.isfinite(scale):
            raise ValueError(f"scale must be a finite number, got {scale}")
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must lie between 0 and 1, got {rescale}")
        if not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError(f"interval must be two times, 0 <= low <= high <= 1, got {interval}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, got {seed}")
        walk = choose(sampler, SAMPLERS, "sampler")
        context = prompts.to(self.device) if isinstance(prompts, Tensor) else self.encode(prompts)
        null = self.encode_negative(negative, len(prompts))
        generators = [Generator().manual_seed(seed + k) for k in range(len(prompts))]
        times = self.times(steps, sampler)
        if log_p:
            times = times.clamp(max=LAST_GUIDED).unique().flip(0)  # each once: of many steps two may come to lie there
        if init is not None:
            if size is not None:
                raise ValueError("size is that of the picture to begin from: give one of them")
            init, mask = prepared(init, mask, self.config.picture[0], self.factor, self.to_latents)
            init = init.to(self.device).float()
            times = left(times, strength)
        elif mask is not None:
            raise ValueError("a mask says what to keep of a picture to begin from: give one, init")
        noise = self._noise(generators, self._latent_shape(size) if init is None else init.shape[1:])
        if latents is not None:
            if latents.shape != noise.shape:
                raise ValueError(f"latents must have shape {tuple(noise.shape)}, got {tuple(latents.shape)}")
            noise = latents.to(noise)
        if init is None or (mask is not None and strength == 1):  # from noise alone
            start = noise * self.schedule.sigma(times[0]) if self.timing.scaled(sampler) else noise
        else:
            start = self.schedule.add_noise(init.expand_as(noise), noise, times[0])
        parts = (self.net.unet, self.schedule, self.prediction)
        if scale == 1:  # one of the two questions is enough
            denoise = denoiser(*parts, context)
        elif scale == 0 and tuple(interval) == (0, 1):
            denoise = denoiser(*parts, null.expand_as(context))
        else:
            denoise = cfg(*parts, context, null, scale, rescale=rescale, interval=interval)
        if log_p:
            denoise = guide(denoise, log_p, self.schedule, log_p_scale)
        how = {"noise": lambda x: self._noise(generators, x.shape[1:])}
        if mask is not None:
            how["after"] = keep(init.expand_as(noise), mask, noise, self.schedule, times[-1])
        return walk(denoise, start, times, self.schedule, **how)

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """Context tokens, (B, L, D). A model of labels knows no language: it looks the prompt up."""
        if self.tokenizer:
            ids = self.tokenizer(list(prompts))  # (B, L)
        else:
            _, read = LABELS[self.config.labels]
            ids = torch.tensor([read(prompt) for prompt in prompts])  # (B,)
        return self.net.text_encoder(ids.to(self.device))

    @property
    def null(self) -> Tensor:
        """What the text encoder reads where nothing is asked for: the empty text's ids (L,), or a label of its own."""
        return self.tokenizer("")[0] if self.tokenizer else torch.tensor(self.net.text_encoder.null)

    @torch.no_grad()
    def encode_negative(self, negative: str | list[str] | None, n: int) -> Tensor:
        """Context tokens of what the pictures should not be, (1 or n, L, D); None is the null context."""
        if negative is None:
            return self.net.text_encoder(self.null[None].to(self.device))
        negative = [negative] if isinstance(negative, str) else list(negative)
        if len(negative) not in (1, n):
            raise ValueError(f"{len(negative)} negative prompts for {n} prompts: give one, or one each")
        return self.encode(negative)

    def mix(self, one: str, other: str, amount: float) -> Tensor:
        """Context tokens (1, L, D) on the straight line between two prompts; amount 0 is one, 1 the other."""
        return torch.lerp(*self.encode([one, other]).split(1), amount)

    def unread(self, prompt: str) -> str:
        """One line about what of the prompt the model cannot read, "" if there is nothing of the kind."""
        return self.tokenizer.unread(prompt) if self.tokenizer else ""

    @property
    def factor(self) -> int:
        """How many pixels of a picture one place of the latents is wide."""
        return self.config.fold * (self.vae.factor if self.vae else 1)

    @torch.no_grad()
    def to_latents(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the UNet learns from: pictures (B, C, H, W) in [-1, 1], by way of the VAE if there is one, folded.

        noise: standard normal, of the latents' shape, for a sample of the VAE's posterior; None for its mean.
        """
        pictures = pictures.to(self.device)
        return self.fold.encode(self.vae.encode(pictures, noise).float() if self.vae else pictures)

    @torch.no_grad()
    def decode(self, latents: Tensor, **how) -> Tensor:
        """Pictures, floats in [0, 1], (B, C, H, W). how: tile and sliced where memory is short, see `VAE.decode`."""
        pictures = self.fold.decode(latents.float())
        pictures = self.vae.decode(pictures, **how).float() if self.vae else pictures
        return ((pictures + 1) / 2).clamp(0, 1)

    @cached_property
    def preview(self) -> Callable[[Tensor], Tensor]:
        """Latents -> small pictures (B, 3, h, w) in [0, 1], a pixel a place, without the VAE; of `step.x0_hat` at any step."""
        return latent_to_rgb(self.vae) if self.vae else self.decode

    def _latent_shape(self, size: int | tuple[int, int] | None) -> tuple[int, int, int]:
        _, *own = self.config.picture
        height, width = own if size is None else (size, size) if isinstance(size, int) else size
        f = self.factor
        if height < 1 or width < 1 or height % f or width % f:
            raise ValueError(f"size must be a multiple of {f}, got {height}x{width}")
        return self.config.unet.in_channels, height // f, width // f

    def _noise(self, generators: list[Generator], shape: tuple[int, ...]) -> Tensor:
        # drawn on the CPU, so that a seed is the same noise on every device
        return torch.stack([torch.randn(*shape, generator=g) for g in generators]).to(self.device)

    # On disk -------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, name: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "TextToImage":
        """A shipped model by name ("mnist"), a folder, or an id on huggingface.co ("stable-diffusion-v1-5/stable-diffusion-v1-5").

        A folder holds model.json and model.safetensors, or is in diffusers' layout, as Stable Diffusion 1.x and 2.x are.
        dtype: of the weights of the latter; None for float16 on an NVIDIA GPU and float32 elsewhere. Raises ValueError for a
        model that is not there, not whole or of another kind, OSError where there is no network.
        """
        device = device if isinstance(device, torch.device) else pick_device(device)
        return cls(*folders.read(folders.find_model(name), device, dtype))

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` opens, weights in float16.

        With a VAE it is in diffusers' layout, and its StableDiffusionPipeline opens it too. Otherwise it holds
        model.safetensors, model.json, and the tokenizer's files where there is one.
        """
        folders.save(self, Path(folder))


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """(B, C, H, W) floats in [0, 1] as PIL images, gray or RGB."""
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p) for p in pixels]
