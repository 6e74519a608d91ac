"""The VAE: images are encoded to a few values near a standard normal distribution, and decoded again."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from minidiff.data.scenes import scene_batches
from minidiff.formats.vae import save_vae
from minidiff.networks import VAE, Posterior, VAEConfig
from minidiff.networks.vae import ResBlock
from minidiff.registry import UserError
from minidiff.training.optimise import OptimConfig, optimise
from minidiff.training.recipe import RECIPES, Recipe, Run, reported

EMOJI_VAE = VAEConfig(channels=(16, 32, 64), layers=1, groups=8)  # 3 x 64 x 64 becomes 4 x 16 x 16
SCENES_VAE = replace(EMOJI_VAE, latent_channels=8)
KL_WEIGHT = 2e-2
CROP = 32  # pixels of the squares that are cut out of scenes in training

Term = Callable[[Tensor, Tensor], Tensor]  # (decoded, images) -> a scalar to add to the loss


def kl(posterior: Posterior) -> Tensor:
    """KL(posterior || standard normal) of each value of the latent, (B, C, h, w), in nats. Kingma and Welling 2014, appendix B."""
    mean, log_variance = posterior
    return (mean**2 + log_variance.exp() - 1 - log_variance) / 2


def vae_loss(vae: VAE, x: Tensor, noise: Tensor, kl_weight: float = KL_WEIGHT, more: Term | None = None) -> Tensor:
    """The absolute error of the decoded images plus kl_weight times the KL term: a scalar.

    x: (B, C, H, W) in [-1, 1]. noise: standard normal, of the latents' shape. more: another term, such as the distance
    between the features of both in a frozen network.
    """
    posterior = vae.posterior(x)
    decoded = vae.decode(vae.config.scaling * posterior.sample(noise))
    value = F.l1_loss(decoded, x) + kl_weight * kl(posterior).mean()
    return value + more(decoded, x) if more else value


def train_vae(
    folder: Path, device: torch.device, batches: Iterable[Tensor], config: OptimConfig, model: VAEConfig = EMOJI_VAE,
    kl_weight: float = KL_WEIGHT, more: Term | None = None, zero: bool = False,
) -> Run:  # fmt: skip
    """Train a VAE on images (B, C, H, W) in [-1, 1] and write it to `folder`; a run that was stopped is resumed.

    batches: from the first step on, the same at every call. At the end the scaling factor is measured on the next 64
    and kept in the config. zero: each block begins as its shortcut.
    """
    torch.manual_seed(config.seed)
    vae = VAE(replace(model, scaling=1.0)).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not in torch's stubs
    for part in vae.modules():
        if zero and isinstance(part, ResBlock):
            nn.init.zeros_(part.conv2.weight)
    batches = iter(batches)

    def examples(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        shape = (len(x), model.latent_channels, *(side // model.factor for side in x.shape[2:]))
        return x, torch.randn(shape, generator=generator)

    def loss(_, x: Tensor, noise: Tensor) -> Tensor:
        x = x.to(device, memory_format=torch.channels_last)
        return vae_loss(vae, x, noise.to(device), kl_weight, more)

    def keep(net: VAE, folder: Path) -> None:
        net.config = replace(model, scaling=1 / latent_std(net, islice(batches, 64)))
        save_vae(net, folder)

    about = {"recipe": "vae", "model": asdict(model), "kl_weight": kl_weight}
    steps = optimise(vae, batches, examples, loss, config, folder=folder, about=about)
    return reported(steps, config, folder, vae, keep)


@dataclass(frozen=True, kw_only=True)
class VAERecipe(Recipe):
    """On scenes. PSNR of 192 validation scenes, one seed each, on a busy core; short runs, not a full training.

    After 38 seconds: 11.9 dB on whole images, 14.6 on squares. On squares, blocks that begin as shortcuts had 16.2 dB
    after 97 steps and 18.5 after 149, still at a high rate; ordinary ones 15.1 after 124, with the rate down to 0.
    """

    def run(self, folder: Path, device: torch.device, config: OptimConfig, batch: int) -> Run:
        return train_vae(folder, device, squares(batch, config.seed), config, SCENES_VAE, kl_weight=1e-3, zero=True)


def squares(batch: int, seed: int, side: int = CROP) -> Iterator[Tensor]:
    """A random square of each scene, (B, 3, side, side): four times as many pictures in the same time."""
    for step, scenes in enumerate(scene_batches(batch, seed=seed)):
        generator = Generator().manual_seed(1_000_003 * seed + step)
        corners = torch.randint(1 + scenes.images.shape[-1] - side, (batch, 2), generator=generator).tolist()
        yield torch.stack(
            [x[:, top:, left:][:, :side, :side] for x, (top, left) in zip(scenes.images, corners, strict=True)]
        )


RECIPES["vae"] = VAERecipe(
    about="the autoencoder in whose latents scenes are generated",
    after="what it keeps: python benchmarks/vae.py --vae {folder}",
    batch=16,
    train=OptimConfig(steps=9000, lr=3e-3, save_every=100),
)


@torch.no_grad()
def latent_std(vae: VAE, batches: Iterable[Tensor]) -> float:
    """The standard deviation of the unscaled latents, sampled from the posteriors of all these images.

    Rombach et al. 2022, appendix G. Raises UserError where there is no image.
    """
    device = next(vae.parameters()).device
    count, first, second = 0, 0.0, 0.0
    for x in batches:
        posterior = vae.posterior(x.to(device))
        mean, variance = posterior.mean.double(), posterior.std.double() ** 2
        count += mean.numel()
        first += mean.sum().item()
        second += (mean**2 + variance).sum().item()
    if not count:
        raise UserError("the standard deviation of the latents is measured on images: none was given")
    return (second / count - (first / count) ** 2) ** 0.5


@torch.no_grad()
def psnr(vae: VAE, pictures: Tensor, batch: int = 64) -> Tensor:
    """Peak signal-to-noise ratio of each image, encoded to the mean, decoded, clipped to [-1, 1]: in dB, (N,)."""
    device, errors = next(vae.parameters()).device, []
    for x in pictures.split(batch):
        back = vae.decode(vae.encode(x.to(device))).float().clamp(-1, 1).cpu()
        errors.append((back - x.cpu()).square().mean((1, 2, 3)))
    return 10 * torch.log10(2**2 / torch.cat(errors))
