"""Training the judge: a plain classifier, so a plain loop."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from minidiff import data
from minidiff.files import write_tensors
from minidiff.networks import Judge


def train_judge(
    folder: Path, device: torch.device, epochs: int = 10, batch: int = 128, seed: int = 0
) -> Iterator[tuple[int, int, float]]:
    """Train on the 55,000 training digits and write the weights (float16); yields steps done, steps in all, loss."""
    from torchvision.transforms.v2 import RandomAffine  # costs a second

    torch.manual_seed(seed)
    # handwriting leans, grows and shifts: the judge should not mind
    vary = RandomAffine(degrees=10, translate=(0.07, 0.07), scale=(0.9, 1.1), fill=-1)
    digits = data.mnist("train")
    steps = epochs * (len(digits) // batch)
    judge = Judge().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for step, (images, labels) in enumerate(islice(data.batches(digits, batch, seed), steps), start=1):
        value = F.cross_entropy(judge(vary(images.to(device))), labels.to(device), label_smoothing=0.05)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        rate.step()
        yield step, steps, value.item()
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(
        folder / "model.safetensors",
        {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()},
    )
