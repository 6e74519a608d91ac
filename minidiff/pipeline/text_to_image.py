"""TextToImage: where the mathematics and the networks meet."""

import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor

from minidiff.data import DATASETS
from minidiff.device import check_memory, pick_device
from minidiff.diffusion import SAMPLERS, Step, guide
from minidiff.formats import model_folder
from minidiff.formats.model_config import ModelConfig, named_timing
from minidiff.formats.scheduler_config import Timing
from minidiff.networks import VAE, Conditional, SpaceToDepth
from minidiff.pipeline.image_to_image import check_size, keep, prepared
from minidiff.pipeline.latent_preview import latent_to_rgb
from minidiff.pipeline.options import Options, texts
from minidiff.registry import UserError, choose
from minidiff.tokenizer import Tokenizer, shorten

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TextToImage:
    """Prompts in, images out.

    pipe = TextToImage.load("mnist")
    images = pipe(["a handwritten seven"], steps=20, scale=2.0, seed=0)

    Image k of a call has a random generator of its own, seeded with seed + k: it is the same
    image when it is drawn alone.
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
        self.vae = vae and vae.eval().requires_grad_(False).to(self.device)  # None: the UNet sees images themselves
        self.fold = SpaceToDepth(config.fold)
        self.timing = timing or named_timing(config)
        self.schedule, self.prediction, self.times = self.timing.schedule, self.timing.prediction, self.timing.times

    # Drawing -------------------------------------------------------------------------------

    def __call__(self, prompts: str | list[str], **options) -> list[Image.Image]:
        """One image a prompt, as PIL images. options: the fields of `Options`."""
        return to_pil(finite(self.decode(self.latents(prompts, **options))))

    def latents(self, prompts: str | list[str], **options) -> Tensor:
        """The last x of `stream`, (B, C, h, w): what `decode` makes images of."""
        for step in self.stream(prompts, **options):
            pass
        return step.x

    def stream(self, prompts: str | list[str] | Tensor, **options) -> Iterator[Step]:
        """Every step of the sampler, undecoded; `decode(step.x0_hat)` is a preview.

        prompts: texts, or context tokens (B, L, D) as `encode` and `mix` make them. options: the fields of `Options`.
        Raises UserError at once for what cannot be drawn.
        """
        how = Options(**options)
        if not isinstance(prompts, Tensor):
            prompts = texts("prompts", prompts)
        elif prompts.ndim != 3 or prompts.shape[2] != self.config.unet.context_dim:
            width = self.config.unet.context_dim
            raise UserError(f"context tokens must have shape (B, L, {width}), got {tuple(prompts.shape)}")
        if not len(prompts):
            raise UserError("no prompt was given")
        context = prompts.to(self.device) if isinstance(prompts, Tensor) else self.encode(prompts)
        null = self.encode_negative(how.negative, len(prompts))
        times = how.times(self)
        denoise = how.guided(self, prompts, context, null)
        if how.log_p:
            denoise = guide(denoise, how.log_p, self.schedule, how.log_p_scale)
        generators = [Generator().manual_seed(int(how.seed) + k) for k in range(len(prompts))]
        start, kept = self._start(how, times, generators)
        more = {"noise": lambda x: self._noise(generators, x.shape[1:])} | ({"after": kept} if kept else {})
        return SAMPLERS[how.sampler](denoise, start, times, self.schedule, **more)

    def _start(
        self, how: Options, times: Tensor, generators: list[Generator]
    ) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor] | None]:
        """x at the first time, (B, C, h, w); and what keeps the rest of an image where a mask says what to draw anew."""
        init = mask = None
        if how.init is not None:
            shape = len(generators), self.config.unet.in_channels, self.config.picture[0]
            init, mask = prepared(how.init, how.mask, shape, self.factor, self.to_latents)
            init = init.to(self.device).float()
        shape = self.latent_shape(how.size) if init is None else init.shape[1:]
        numbers = len(generators) * self.config.unet.channels[0] * shape[1] * shape[2]
        check_memory(self.device, 4 * 2 * numbers)  # float32; a feature map, and the one it is computed from
        noise = self._noise(generators, shape)
        if how.latents is not None:
            if how.latents.shape != noise.shape:
                raise UserError(f"latents must have shape {tuple(noise.shape)}, got {tuple(how.latents.shape)}")
            noise = how.latents.to(noise)
        if init is None or (mask is not None and how.strength == 1):  # from noise alone
            start = noise * self.schedule.sigma(times[0]) if self.timing.scaled(how.sampler) else noise
        else:
            start = self.schedule.add_noise(init.expand_as(noise), noise, times[0])
        if init is None or mask is None:
            return start, None
        return start, keep(init.expand_as(noise), mask, noise, self.schedule, times[-1])

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """Context tokens, (B, L, D). A model of labels knows no language: it looks the prompt up."""
        if self.tokenizer:
            if isinstance(self.tokenizer, Tokenizer):  # a reader's own function does not say what it leaves out
                for rest in filter(None, map(self.tokenizer.left_out, dict.fromkeys(prompts))):
                    room = self.tokenizer.length - 2
                    warnings.warn(f"left out, for there is room for {room} tokens: {shorten(rest, 80)}", stacklevel=2)
            ids = self.tokenizer(list(prompts))  # (B, L)
        else:
            read = DATASETS[self.config.labels].read
            assert read  # a data set with classes, or the network could not have been built
            ids = torch.tensor([read(prompt) for prompt in prompts])  # (B,)
        return self.net.text_encoder(ids.to(self.device))

    @property
    def null(self) -> Tensor:
        """The null condition: the empty text's ids (L,), or a label of its own."""
        return self.tokenizer("")[0] if self.tokenizer else torch.tensor(self.net.text_encoder.null)

    @torch.no_grad()
    def encode_negative(self, negative: str | list[str] | None, n: int) -> Tensor:
        """Context tokens of what the images should not be, (1 or n, L, D); None is the null context."""
        if negative is None:
            return self.net.text_encoder(self.null[None].to(self.device))
        negative = texts("negative", negative)
        if len(negative) not in (1, n):
            raise UserError(f"{len(negative)} negative prompts for {n} prompts: give one, or one each")
        return self.encode(negative)

    def mix(self, one: str, other: str, amount: float) -> Tensor:
        """Context tokens (1, L, D) on the straight line between two prompts; amount 0 is one, 1 the other."""
        start, end = self.encode([one, other]).split(1)
        return torch.lerp(start, end, amount)

    def unread(self, prompt: str) -> str:
        """One line about what of the prompt the model cannot read, "" if there is nothing of the kind."""
        return self.tokenizer.unread(prompt) if self.tokenizer else ""

    @property
    def factor(self) -> int:
        """How many pixels of an image one latent pixel is wide."""
        return self.config.fold * (self.vae.factor if self.vae else 1)

    @torch.no_grad()
    def to_latents(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the UNet learns from: images (B, C, H, W) in [-1, 1], by way of the VAE if there is one, folded.

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
        """Latents -> small images (B, 3, h, w) in [0, 1], a pixel for each latent pixel, without the VAE."""
        return latent_to_rgb(self.vae) if self.vae else self.decode

    def latent_shape(self, size: int | tuple[int, int] | None = None) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image of so many pixels; None: of the model's own size."""
        _, *own = self.config.picture
        height, width = own if size is None else (size, size) if isinstance(size, int) else size
        check_size(height, width, self.factor)
        return self.config.unet.in_channels, height // self.factor, width // self.factor

    def _noise(self, generators: list[Generator], shape: tuple[int, ...]) -> Tensor:
        # drawn on the CPU, so that a seed is the same noise on every device
        return torch.stack([torch.randn(*shape, generator=g) for g in generators]).to(self.device)

    # On disk -------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, name: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> "TextToImage":
        """A shipped model by name ("mnist"), a folder, or an id on huggingface.co ("stable-diffusion-v1-5/stable-diffusion-v1-5").

        A folder holds model.json and model.safetensors, or is in diffusers' layout, as Stable Diffusion 1.x and 2.x are.
        dtype: of the latter's weights, a name in DTYPES; None: float16 on an NVIDIA GPU, float32 elsewhere. Raises ValueError for a
        model that is not there, not whole or of another kind, OSError where there is no network.
        """
        device = device if isinstance(device, torch.device) else pick_device(device)
        precision = None if dtype is None else choose(str(dtype).removeprefix("torch."), DTYPES, "dtype")
        if not isinstance(name, str | Path):
            raise UserError(f"a model is a name, a folder or an id, not {shorten(repr(name), 60)}")
        return cls(*model_folder.read(model_folder.find_model(name), device, precision))

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` opens, weights in float16.

        With a VAE it is in diffusers' layout, and its StableDiffusionPipeline opens it too. Otherwise it holds
        model.safetensors, model.json, and the tokenizer's files where there is one.
        """
        model_folder.save(Path(folder), self.config, self.net, self.tokenizer, self.vae, self.timing)


def finite(pictures: Tensor) -> Tensor:
    """These pictures, of any shape. Raises UserError if they could not be drawn: they would be black."""
    if not pictures.isfinite().all():
        raise UserError("the images have numbers that are not finite: take a smaller guidance scale, or float32")
    return pictures


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """(B, C, H, W) floats in [0, 1] as PIL images, gray or RGB."""
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p) for p in pixels]
