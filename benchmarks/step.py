"""One step of our UNet against diffusers', same weights, taking turns: python benchmarks/step.py --repeats 30

Prints median milliseconds of a forward pass without gradients, and of forward + backward.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import diffusers
import torch
import tyro
from diffusers import UNet2DConditionModel

import minidiff
from minidiff.device import pick_device
from minidiff.networks import UNet, UNetConfig
from minidiff.training.recipes.mnist import MNIST


@dataclass
class Size:
    name: str
    config: UNetConfig
    x: tuple[int, int, int, int]  # (B, C, H, W)
    tokens: int


SIZES = [
    Size("digit", MNIST.unet, (64, 4, 14, 14), tokens=2),
    Size(
        "medium",
        UNetConfig(channels=(128, 256, 512), attention=(True, True, False), layers=1),
        (2, 4, 32, 32),
        tokens=77,
    ),
]


def same_in_diffusers(config: UNetConfig) -> UNet2DConditionModel:
    """diffusers' UNet of the same shape."""
    return UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)],
        layers_per_block=config.layers,
        attention_head_dim=config.heads,
        cross_attention_dim=config.context_dim,
        norm_num_groups=config.groups,
        use_linear_projection=config.linear_projection,
    )


def milliseconds(step: Callable, net: Callable, device: torch.device) -> float:
    start = time.perf_counter()
    step(net)
    if device.type != "cpu":
        torch.accelerator.synchronize()  # a GPU answers before it is done
    return 1000 * (time.perf_counter() - start)


def medians(step: Callable, nets: list[Callable], repeats: int, device: torch.device) -> list[float]:
    """Median milliseconds of step(net) for the two nets. They take turns, and take turns in being first."""
    times = [[], []]
    for i in range(-3, repeats):  # the first three are for warming up
        for k in (0, 1) if i % 2 == 0 else (1, 0):
            took = milliseconds(step, nets[k], device)
            if i >= 0:
                times[k].append(took)
    return [statistics.median(t) for t in times]


def measure(size: Size, repeats: int, device: torch.device) -> None:
    """Print one line for a forward step and one for a training step."""
    torch.manual_seed(0)
    theirs = same_in_diffusers(size.config).to(device)
    ours = UNet(size.config).to(device)
    ours.load_state_dict(theirs.state_dict())
    nets = [ours, lambda *inputs: theirs(*inputs, return_dict=False)[0]]

    x, eps = torch.randn(2, *size.x, device=device)
    t = torch.randint(1000, size.x[:1], device=device).float()
    context = torch.randn(len(x), size.tokens, size.config.context_dim, device=device)

    def forward(net):
        with torch.no_grad():
            return net(x, t, context)

    def training(net):
        for p in (ours if net is ours else theirs).parameters():
            p.grad = None
        (net(x, t, context) - eps).square().mean().backward()

    torch.testing.assert_close(forward(nets[0]), forward(nets[1]), rtol=1e-4, atol=1e-4)
    parameters = sum(p.numel() for p in ours.parameters())
    shape = "x".join(map(str, size.x))
    for step in (forward, training):
        a, b = medians(step, nets, repeats, device)
        print(
            f"{size.name:8}{parameters:12,}  {shape:14}{step.__name__:10}{a:8.1f}{b:8.1f}{a / b:13.3f}",
            flush=True,
        )


def main(repeats: int = 30, device: str | None = None) -> None:
    """Time our UNet against diffusers'.

    Args:
        repeats: Steps of each network.
        device: cpu, cuda or mps. None: the best there is.
    """
    if repeats < 1:
        raise SystemExit("--repeats must be at least 1")
    place = pick_device(device)
    print(f"minidiff {minidiff.__version__}, diffusers {diffusers.__version__}, torch {torch.__version__}")
    print(f"{place}, {torch.get_num_threads()} threads, float32, median of {repeats} in milliseconds")
    print(f"{'size':8}{'parameters':>12}  {'x':14}{'step':10}{'ours':>8}{'theirs':>8}{'ours/theirs':>13}")
    for size in SIZES:
        measure(size, repeats, place)


if __name__ == "__main__":
    tyro.cli(main)
