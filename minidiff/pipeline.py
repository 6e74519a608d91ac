"""TextToImage: where the mathematics and the networks meet."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor

from minidiff.data import LABELS
from minidiff.device import pick_device
from minidiff.diffusion import GRIDS, PREDICTIONS, SAMPLERS, SCHEDULES, Step, cfg, denoiser, guide
from minidiff.files import ROOTS, load_weights, write, write_tensors
from minidiff.networks import VAE, CLIPText, CLIPTextConfig, Conditional, Fold, LabelEncoder, UNet, UNetConfig
from minidiff.tokenizer import Tokenizer
from minidiff.weights_vae import load_vae, save_vae

LAST_GUIDED = 0.99  # `guide` divides by alpha: its walks start here instead of at t = 1, where alpha may be 0


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a model and draw with it; `model.json` beside its weights."""

    name: str  # what it draws
    unet: UNetConfig
    picture: tuple[int, int, int] = (1, 28, 28)  # channels, height, width of a picture
    fold: int = 2  # the UNet sees squares of fold x fold pixels, or of the VAE's latents, as one
    schedule: str = "flow"  # a name in SCHEDULES
    prediction: str = "flow"  # a name in PREDICTIONS
    grid: str = "uniform"  # a name in GRIDS
    scale: float = 1.5  # the guidance scale it draws best with
    labels: str = "digits"  # a name in LABELS: what a prompt can ask for, where no text tower reads it
    text: CLIPTextConfig | None = None  # the text tower that reads the prompt

    def build(self) -> Conditional:
        """The network, with random weights. A text tower is not trained with it: it can read already."""
        if self.text:
            return Conditional(UNet(self.unet), CLIPText(self.text).requires_grad_(False))
        classes, _ = choose(self.labels, LABELS, "labels")
        return Conditional(UNet(self.unet), LabelEncoder(len(classes), self.unet.context_dim))


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
    ):
        self.config = config
        self.tokenizer = tokenizer  # of the text tower; None where prompts are looked up as labels
        self.device = device if isinstance(device, torch.device) else pick_device(device)
        self.net = net.eval().requires_grad_(False).to(self.device)
        self.vae = vae and vae.eval().requires_grad_(False).to(self.device)  # None: the UNet sees pictures themselves
        self.fold = Fold(config.fold)
        self.schedule = choose(config.schedule, SCHEDULES, "schedule")()
        self.prediction = choose(config.prediction, PREDICTIONS, "prediction")
        self.grid = choose(config.grid, GRIDS, "grid")

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
    ) -> Iterator[Step]:
        """Every step of the sampler, undecoded; `decode(step.x0_hat)` is a preview.

        prompts: texts, or context tokens (B, L, D) as `encode` and `mix` make them. negative: what it should
        not be; takes the place of "nothing" in guidance. scale: the guidance scale, None for the model's own.
        rescale, interval: see `cfg`. log_p, log_p_scale: see `guide`: a gradient to follow as well, of a classifier
        or of CLIP. latents: the start noise (B, C, h, w), else drawn from `seed`. size: pixels, one
        number or (height, width). Raises ValueError at once for what cannot be drawn.
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
        times = self.grid(steps, self.schedule)
        if log_p:
            times = times.clamp(max=LAST_GUIDED).unique().flip(0)  # each once: of many steps two may come to lie there
        start = self._noise(generators, self._latent_shape(size))
        if latents is not None:
            if latents.shape != start.shape:
                raise ValueError(f"latents must have shape {tuple(start.shape)}, got {tuple(latents.shape)}")
            start = latents.to(start)
        _, sigma = self.schedule.at(times[0], start)
        parts = (self.net.unet, self.schedule, self.prediction)
        if scale == 1:  # one of the two questions is enough
            denoise = denoiser(*parts, context)
        elif scale == 0 and tuple(interval) == (0, 1):
            denoise = denoiser(*parts, null.expand_as(context))
        else:
            denoise = cfg(*parts, context, null, scale, rescale=rescale, interval=interval)
        if log_p:
            denoise = guide(denoise, log_p, self.schedule, log_p_scale)
        return walk(denoise, sigma * start, times, self.schedule, noise=lambda x: self._noise(generators, x.shape[1:]))

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

    @torch.no_grad()
    def to_latents(self, pictures: Tensor) -> Tensor:
        """What the UNet learns from: pictures (B, C, H, W) in [-1, 1], by way of the VAE if there is one, folded."""
        pictures = pictures.to(self.device)
        return self.fold.encode(self.vae.encode(pictures) if self.vae else pictures)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, floats in [0, 1], (B, C, H, W)."""
        pictures = self.fold.decode(latents.float())
        pictures = self.vae.decode(pictures) if self.vae else pictures
        return ((pictures + 1) / 2).clamp(0, 1)

    def _latent_shape(self, size: int | tuple[int, int] | None) -> tuple[int, int, int]:
        _, *own = self.config.picture
        height, width = own if size is None else (size, size) if isinstance(size, int) else size
        factor = self.config.fold * (self.vae.factor if self.vae else 1)
        if height < 1 or width < 1 or height % factor or width % factor:
            raise ValueError(f"size must be a multiple of {factor}, got {height}x{width}")
        return self.config.unet.in_channels, height // factor, width // factor

    def _noise(self, generators: list[Generator], shape: tuple[int, ...]) -> Tensor:
        # drawn on the CPU, so that a seed is the same noise on every device
        return torch.stack([torch.randn(*shape, generator=g) for g in generators]).to(self.device)

    # On disk -------------------------------------------------------------------------------

    @classmethod
    def load(cls, name: str | Path, device: str | torch.device | None = None) -> "TextToImage":
        """A shipped model by name ("mnist"), or a folder with model.json and model.safetensors.

        Raises ValueError for a model that is not there or not whole.
        """
        folder = find_model(name)
        try:
            fields = json.loads((folder / "model.json").read_text())
            unet = UNetConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.pop("unet").items()})
            text = fields.pop("text", None)
            text = text and CLIPTextConfig(**text)
            config = ModelConfig(unet=unet, text=text, picture=tuple(fields.pop("picture")), **fields)
        except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{folder / 'model.json'} does not describe a model ({error})") from None
        net = config.build()
        load_weights(net, folder / "model.safetensors")
        tokenizer = Tokenizer.load(folder, config.text.length) if text else None
        vae = load_vae(folder / "vae") if (folder / "vae").exists() else None
        return cls(config, net, device, tokenizer, vae)

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors (float16), model.json, and the tokenizer's files and the VAE's where there are some."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / "model.safetensors", {k: v.half() for k, v in self.net.state_dict().items()})
        write(folder / "model.json", json.dumps(dataclasses.asdict(self.config), indent=2) + "\n")
        if self.tokenizer:
            self.tokenizer.save(folder)
        if self.vae:
            save_vae(self.vae, folder / "vae")


def models() -> dict[str, Path]:
    """The shipped models of pictures, name -> folder."""
    folders = [folder for root in ROOTS for folder in sorted((root / "weights").glob("*/"))]
    return {folder.name: folder for folder in folders if (folder / "model.json").exists()}


def find_model(name: str | Path) -> Path:
    if Path(name).is_dir():
        return Path(name)
    return choose(str(name), models(), "model", " (or a folder with model.json and model.safetensors)")


def choose(name: str, known: dict, kind: str, hint: str = ""):
    """known[name]. Raises ValueError that lists what there is."""
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}; there is {', '.join(known) or 'none'}{hint}")
    return known[name]


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """(B, C, H, W) floats in [0, 1] as PIL images, gray or RGB."""
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p) for p in pixels]
