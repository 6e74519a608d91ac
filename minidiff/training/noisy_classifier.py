"""Training the noisy classifier: the judge's loop, but on pictures as a sampler meets them on its way."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from minidiff import data
from minidiff.diffusion import SCHEDULES
from minidiff.files import write_tensors
from minidiff.networks import Fold, NoisyClassifier


def train_noisy_classifier(
    folder: Path, device: torch.device, epochs: int = 5, batch: int = 128, seed: int = 0, schedule: str = "flow"
) -> Iterator[tuple[int, int, float]]:
    """Train on the 55,000 training digits at all times, write the weights (float16); yields steps done, in all, loss.

    schedule: a name in SCHEDULES, that of the model which is to be guided.
    """
    torch.manual_seed(seed)
    noisy, fold = SCHEDULES[schedule](), Fold()
    digits = data.mnist("train")
    steps = epochs * (len(digits) // batch)
    net = NoisyClassifier().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for step, (images, labels) in enumerate(islice(data.batches(digits, batch, seed), steps), start=1):
        x0 = fold.encode(images)
        t = torch.rand(batch, dtype=torch.float64)  # one time a picture
        x = noisy.add_noise(x0, torch.randn_like(x0), t).to(device)
        # no label smoothing: a classifier that is to say log p should be as sure as it can be, and no surer
        value = F.cross_entropy(net(x, noisy.net_time(t).to(x)), labels.to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        rate.step()
        yield step, steps, value.item()
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", {k: v.half() for k, v in net.state_dict().items()})
