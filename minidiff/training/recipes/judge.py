"""Training the judge; and the loop that it shares with the other classifiers: plain classifiers, so a plain loop."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff import data
from minidiff.files import write_tensors
from minidiff.networks import Judge


def train_judge(
    folder: Path, device: torch.device, epochs: int = 10, batch: int = 128, seed: int = 0
) -> Iterator[tuple[int, int, float]]:
    """Train on the 55,000 training digits and write the weights (float16); yields steps done, steps in all, loss."""
    from torchvision.transforms.v2 import RandomAffine  # costs a second

    # handwriting leans, grows and shifts: the judge should not mind
    vary = RandomAffine(degrees=10, translate=(0.07, 0.07), scale=(0.9, 1.1), fill=-1)
    digits = data.mnist("train")
    yield from train_classifier(
        Judge,
        lambda images: (vary(images.to(device)),),
        data.batches(digits, batch, seed),
        epochs * (len(digits) // batch),
        folder,
        device,
        seed,
        smoothing=0.05,
    )


def train_classifier(
    build: Callable[[], nn.Module],
    shown: Callable[[Tensor], tuple[Tensor, ...]],
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    folder: Path,
    device: torch.device,
    seed: int,
    smoothing: float,
) -> Iterator[tuple[int, int, float]]:
    """Train a classifier on so many batches (images, labels), as `train_judge` does.

    build: makes the network. shown: images (B, C, H, W) -> what the network is called with. smoothing: the share of
    each label that is spread over all classes.
    """
    torch.manual_seed(seed)
    net = build().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for step, (images, labels) in enumerate(islice(batches, steps), start=1):
        value = F.cross_entropy(net(*shown(images)), labels.to(device), label_smoothing=smoothing)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        rate.step()
        yield step, steps, value.item()
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    write_tensors(folder / "model.safetensors", weights)
