"""CIFAR-10: 60,000 colour photographs, 32x32, in ten classes. Krizhevsky 2009."""

import os
import tarfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minidiff.data.dataset import DATASETS, Dataset, Pictures, photo_caption, read_class
from minidiff.data.download import fetch
from minidiff.files import asset
from minidiff.image_files import read_image
from minidiff.registry import UserError, choose

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OTHER_NAMES = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile"}
read_thing = partial(read_class, classes=CIFAR_CLASSES, other_names=OTHER_NAMES)
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane


@dataclass(frozen=True)
class Archive:
    """The published file and what is in it."""

    url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    size: int = 170_052_171
    sha256: str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    records: int = 10_000  # images in each of the six files
    validation: int = 5_000  # images at the end of the five training files, kept out of training

    @property
    def splits(self) -> dict[str, tuple[tuple[str, ...], int, int]]:
        """Files, first and last picture of each split."""
        whole = len(TRAIN_FILES) * self.records
        cut, test = whole - self.validation, (("test_batch.bin",), 0, self.records)
        return {"train": (TRAIN_FILES, 0, cut), "validation": (TRAIN_FILES, cut, whole), "test": test}


ARCHIVE = Archive()


def cifar10(split: str = "train", folder: str | Path | None = None) -> Pictures:
    """The photographs of one split: "train" (45,000), "validation" (5,000) or "test" (10,000).

    images are (N, 3, 32, 32) in [-1, 1], 0.55 GB for "train". folder: of the archive, which is downloaded once (170 MB)
    and checked at every call; None: see `cifar10_path`. Raises UserError, and OSError like `fetch`.
    """
    files, first, last = choose(split, ARCHIVE.splits, "split")
    path = fetch(ARCHIVE.url, cifar10_path(folder), ARCHIVE.size, ARCHIVE.sha256)
    records = _read(path, files)[first:last]
    return _pictures(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long())


def cifar10_path(folder: str | Path | None = None) -> Path:
    """Where the archive is, or will be: in `folder`, else in minidiff's folder in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minidiff"
    return (cache if folder is None else Path(folder)) / "cifar-10-binary.tar.gz"


def cifar_samples() -> Pictures:
    """The first twenty images of CIFAR-10's test set, (20, 3, 32, 32) in [-1, 1], which come with minidiff."""
    files = sorted(asset("cifar10").glob("cifar10_*.png"))
    pixels = np.stack([np.asarray(read_image(file, str(file))) for file in files])  # (20, 32, 32, 3)
    labels = torch.tensor([int(file.stem.split("_")[-1]) for file in files])
    return _pictures(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels)


def _read(path: Path, files: tuple[str, ...]) -> Tensor:
    """The records of these files, one after the other: (N, 3073) bytes, read without unpacking the archive."""
    found, expected = {}, f"{ARCHIVE.records:,} records of {RECORD:,}"
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:  # in the archive's order: seeking back would decompress it again
                name = member.name.removeprefix("cifar-10-batches-bin/")
                if name in files and member.isfile():
                    if member.size != ARCHIVE.records * RECORD:
                        raise UserError(f"{name} in {path} holds {member.size:,} bytes, expected {expected}")
                    found[name] = np.frombuffer(tar.extractfile(member).read(), np.uint8)
                    if (highest := found[name][::RECORD].max()) >= len(CIFAR_CLASSES):
                        raise UserError(
                            f"{name} in {path} has a label {highest}; labels are 0 to {len(CIFAR_CLASSES) - 1}"
                        )
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, and it is downloaded again") from None
    if missing := [name for name in files if name not in found]:
        raise UserError(f"{path} holds no {', '.join(missing)}")
    return torch.from_numpy(np.concatenate([found[name] for name in files])).view(-1, RECORD)


def _pictures(pixels: Tensor, labels: Tensor) -> Pictures:
    captions = [photo_caption(CIFAR_CLASSES[label]) for label in labels.tolist()]
    return Pictures(pixels.float().div_(127.5).sub_(1), labels, captions)


def _about() -> str:
    sizes = ", ".join(f"{last - first:,} {split}" for split, (_, first, last) in ARCHIVE.splits.items())
    there = f"here: {cifar10_path()}" if cifar10_path().exists() else f"{ARCHIVE.size / 1e6:.0f} MB to be downloaded"
    return f"photographs, 32x32, {len(CIFAR_CLASSES)} classes ({sizes}; {there})"


DATASETS["cifar10"] = Dataset(cifar10, _about, (3, 32, 32), CIFAR_CLASSES, read_thing)
