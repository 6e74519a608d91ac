"""Training the VAE: pictures come out as they went in, by way of few numbers that lie near the middle."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.formats.vae import save_vae
from minidiff.networks import VAE, Posterior, VAEConfig
from minidiff.training.checkpoint import restore, save
from minidiff.training.loop import EMA, TrainConfig, warm_up_and_decay

CONFIG = VAEConfig(channels=(16, 32, 64), layers=1, groups=8)  # 3 x 64 x 64 becomes 4 x 16 x 16
TRAIN = TrainConfig(steps=9000, warmup=100)
BATCH = 16  # pictures a step
KL_WEIGHT = 2e-2  # how much a latent that is far from noise counts
MEASURED = 64  # batches over which the spread of the latents is measured

Term = Callable[[Tensor, Tensor], Tensor]  # (decoded, pictures) -> a scalar to be made small


def kl(posterior: Posterior) -> Tensor:
    """KL(posterior || standard normal) of each number of the latent, (B, C, h, w), in nats. Kingma and Welling 2014, appendix B."""
    mean, log_variance = posterior
    return (mean**2 + log_variance.exp() - 1 - log_variance) / 2


def vae_loss(vae: VAE, x: Tensor, noise: Tensor, kl_weight: float = KL_WEIGHT, more: Term | None = None) -> Tensor:
    """How far the decoded pictures are from x, plus a little of how far the latents are from noise: a scalar.

    x: (B, C, H, W) in [-1, 1]. noise: standard normal, of the latents' shape. more: another term, such as the distance
    between the features that a frozen network finds in both.
    """
    posterior = vae.posterior(x)
    decoded = vae.decode(vae.config.scaling * posterior.sample(noise))
    value = F.l1_loss(decoded, x) + kl_weight * kl(posterior).mean()
    return value + more(decoded, x) if more else value


def train_vae(
    folder: Path,
    device: torch.device,
    batches: Iterable[Tensor],
    config: TrainConfig = TRAIN,
    model: VAEConfig = CONFIG,
    kl_weight: float = KL_WEIGHT,
    more: Term | None = None,
) -> Iterator[tuple[int, int, float]]:
    """Train a VAE on pictures (B, C, H, W) in [-1, 1] and write it to `folder`; yields steps done, steps in all, loss.

    batches: from the first step on, the same at every call. A run that was stopped is gone on with. At the end the
    scaling factor is measured and kept in the config.
    """
    torch.manual_seed(config.seed)
    vae = VAE(replace(model, scaling=1.0)).to(device, memory_format=torch.channels_last)
    ema = EMA(vae, config.ema)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    done = restore(folder, vae, ema.net, optimizer)
    batches = islice(batches, done, None)
    try:
        for x in islice(batches, max(0, config.steps - done)):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * warm_up_and_decay(done, config)
            generator = torch.Generator().manual_seed(1_000_003 * config.seed + done)
            shape = (len(x), model.latent_channels, *(side // model.factor for side in x.shape[2:]))
            noise = torch.randn(shape, generator=generator)
            x = x.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                value = vae_loss(vae, x, noise.to(device), kl_weight, more)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(vae.parameters(), config.clip)
            optimizer.step()
            ema.update(vae, done)
            done += 1
            if done % config.save_every == 0:
                save(folder, vae, ema.net, optimizer, done, config.steps)
            yield done, config.steps, value.item()
    except GeneratorExit:  # the caller stopped early, between two steps: nothing is lost
        pass
    save(folder, vae, ema.net, optimizer, done, config.steps)
    ema.net.config = replace(model, scaling=1 / spread(ema.net, islice(batches, MEASURED)))
    save_vae(ema.net, folder)


@torch.no_grad()
def spread(vae: VAE, batches: Iterable[Tensor]) -> float:
    """The standard deviation of the unscaled latents over all these pictures: that of the means and of what is sampled.

    Rombach et al. 2022, appendix G. Raises ValueError where there is no picture.
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
        raise ValueError("the spread of the latents is measured on pictures: none was given")
    return (second / count - (first / count) ** 2) ** 0.5


@torch.no_grad()
def psnr(vae: VAE, pictures: Tensor, batch: int = 64) -> Tensor:
    """How well each picture comes back, in decibels, (N,): 10 log10(2**2 / mean squared error) in [-1, 1].

    Encoded to the posterior's mean, decoded and clipped to [-1, 1]. The same as in [0, 1] with a range of 1.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio  # costs a second

    device, values = next(vae.parameters()).device, []
    for x in pictures.split(batch):
        back = vae.decode(vae.encode(x.to(device))).float().clamp(-1, 1)
        values.append(peak_signal_noise_ratio(back, x.to(back), data_range=2.0, reduction="none", dim=(1, 2, 3)).cpu())
    return torch.cat(values)
