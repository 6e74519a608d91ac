"""Pictures with captions, streamed from tar files in webdataset's format: a data set as large as the network.

In such a tar, a shard, the files 000123.jpg and 000123.txt are a picture and its caption. Shards are read from front to
back, so what is shuffled is their order, and their pictures within a buffer. Needs the library webdataset
(pip install webdataset).
"""

import io
import itertools
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.transforms.v2.functional import pil_to_tensor

PICTURES = ("jpg", "jpeg", "png", "webp")
STREAMS = (8, 4, 2, 1)
LOUD = 20  # things that could not be read are named up to here; from then on every doubling of their number
log = logging.getLogger(__name__)


def find_shards(where: str | Path) -> list[str]:
    """The tars of a folder, or what a pattern such as "https://.../{000..127}.tar" stands for. Raises ValueError."""
    if not find_spec("webdataset"):
        raise ValueError("tars are read by the library webdataset: pip install webdataset")
    if Path(where).is_dir():
        found = sorted(map(str, Path(where).glob("*.tar")))
    else:
        from braceexpand import braceexpand

        found = list(braceexpand(str(where)))
    if not found or Path(where).suffix != ".tar" and not Path(where).is_dir():
        raise ValueError(f'no shards: "{where}" is neither a folder with .tar files nor a pattern that ends in .tar')
    return found


def pair_batches(
    shards: list[str],
    size: int,
    batch: int,
    seed: int = 0,
    *,
    streams: int | None = None,
    mine: slice = slice(None),
    workers: bool | None = None,
    buffer: int = 1000,
    skipped: dict[tuple[str, str], str] | None = None,
) -> Iterator[tuple[Tensor, list[str]]]:
    """Endless (images, captions): (batch, 3, size, size) in [-1, 1], cut to a square, transparency on white.

    A batch is dealt out to `streams` equal parts, and the shards of an epoch, shuffled by seed and epoch, to the same
    streams; each goes through its shards and on to its next epoch. So the batches are the same whoever reads them, and
    the same from the first on at every call: a run that goes on reads again what it has had.

    streams: None for as many of 8, 4, 2 or 1 as divide the batch and have a shard each. mine: the rows that are wanted
    here, those of whole streams; the others are left at zero and "", unread, so that of several processes each reads
    its own shards. workers: a process for every stream; None: where there are cores to spare. buffer: pictures of a
    stream that wait, undecoded, to be shuffled.

    What cannot be read is passed over, named in the log, and put down in `skipped`: (shard, key) -> why, key "" for
    a shard that breaks off. Raises ValueError where no shard at all can be read, and for rows of half a stream.
    """
    fit = (n for n in STREAMS if batch % n == 0 and n <= len(shards))
    streams = streams or next(fit, 1)
    part = batch // streams
    rows = range(batch)[mine]
    if batch % streams or streams > len(shards):
        raise ValueError(f"a batch of {batch} from {len(shards)} shards cannot be dealt out to {streams} streams")
    if rows.start % part or rows.stop % part:
        raise ValueError(f"a batch of {batch} has {streams} streams: the processes must share them equally")
    own = range(rows.start // part, rows.stop // part)
    reader = Reader(shards, own, streams, part, size, seed, buffer)
    skipped = {} if skipped is None else skipped
    workers = cores() > len(own) if workers is None else workers
    generator = torch.Generator()  # or the loader would draw a number of everybody's
    loader = iter(DataLoader(reader, batch_size=None, num_workers=len(own) if workers else 0, generator=generator))
    while True:
        images, captions = torch.zeros(batch, 3, size, size), [""] * batch
        for stream in own:
            told = next(loader)
            if isinstance(told, ValueError):
                raise told
            pixels, captions[stream * part : (stream + 1) * part], problems = told
            images[stream * part : (stream + 1) * part] = pixels / 127.5 - 1
            for shard, key, why in problems:
                note(skipped, shard, key, why)
        yield images, captions


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def note(skipped: dict[tuple[str, str], str], shard: str, key: str, why: str) -> None:
    if (shard, key) not in skipped:
        skipped[shard, key] = why
        if (count := len(skipped)) <= LOUD or count.bit_count() == 1:
            log.warning("skipped (%d so far): %s%s: %s", count, shard, key and f", {key}", why)


@dataclass
class Reader(IterableDataset):
    """The own streams in turn, without end; in a worker, its one stream."""

    shards: list[str]
    own: range
    streams: int
    part: int
    size: int
    seed: int
    buffer: int

    def __iter__(self) -> Iterator[tuple[Tensor, list[str], list] | ValueError]:
        worker = get_worker_info()
        mine = [self.own[worker.id]] if worker else self.own
        try:
            for parts in zip(*map(self.parts, mine), strict=True):
                yield from parts
        except ValueError as error:  # a loader would wrap it in a report of its own
            yield error

    def parts(self, stream: int) -> Iterator[tuple[Tensor, list[str], list]]:
        """A stream's part of batch after batch, and what was skipped on the way."""
        from webdataset import shuffle

        pairs, problems, vain = [], [], set()
        for epoch in itertools.count():
            order = list(self.shards)
            random.Random(f"{self.seed} {epoch}").shuffle(order)
            own, found = order[stream :: self.streams], False
            chance = random.Random(f"{self.seed} {epoch} {stream}")
            mixed = shuffle(self.buffer, initial=self.buffer, rng=chance)
            for sample in mixed(samples(own, problems)):
                try:
                    pairs.append(pair(sample, self.size))
                except ValueError as error:
                    problems.append((sample["__url__"], sample["__key__"], str(error)))
                    continue
                found = True
                if len(pairs) == self.part:
                    images, captions = zip(*pairs, strict=True)
                    yield torch.stack(images), list(captions), problems.copy()
                    pairs.clear()
                    problems.clear()
            vain = set() if found else vain | set(own)
            if len(vain) == len(self.shards):
                _, key, why = problems[0] if problems else ("", "", "all are empty")
                raise ValueError(
                    f"nothing can be read from {len(vain)} shards; the first problem: {key and key + ': '}{why}"
                )


def samples(shards: list[str], problems: list[tuple[str, str, str]]) -> Iterator[dict]:
    """What the tars hold, as bytes by ending. A shard that breaks is used up to there, and named in `problems`."""
    from webdataset import gopen
    from webdataset.tariterators import group_by_keys, tar_file_expander

    for shard in shards:

        def broken(error: Exception, shard: str = shard) -> bool:
            why = getattr(error, "strerror", None) or str(error.args[0] if error.args else error)
            problems.append((shard, "", f"the shard is broken: {why.split(' @ ')[0]}"))
            return True  # to the library: go on

        try:
            with gopen(shard) as stream:
                files = tar_file_expander([{"url": shard, "stream": stream}], handler=broken)
                yield from group_by_keys(files, handler=broken)
                # Behind the end of a tar are zeros. A header it cannot read ends it too, without a word.
                if any(any(rest) for rest in iter(lambda: stream.read(1 << 20), b"")):  # noqa: B023
                    problems.append((shard, "", "the shard is broken: it goes on behind what can be read"))
        except OSError as error:
            broken(error)


def pair(sample: dict, size: int) -> tuple[Tensor, str]:
    """(3, size, size) bytes and the caption. Raises ValueError that says what is missing or unreadable."""
    pixels = next((sample[ending] for ending in PICTURES if ending in sample), None)
    if pixels is None:
        raise ValueError(f"no picture ({', '.join(PICTURES)})")
    if "txt" not in sample:
        raise ValueError("no caption (txt)")
    try:
        caption = " ".join(sample["txt"].decode().split())
    except UnicodeDecodeError:
        raise ValueError("the caption is not UTF-8") from None
    if not caption:
        raise ValueError("the caption is empty")
    try:
        with Image.open(io.BytesIO(pixels)) as image:
            image = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception as error:  # Pillow's plugins raise a dozen kinds
        why = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"the picture is unreadable: {why}") from None
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return pil_to_tensor(ImageOps.fit(page, (size, size), Image.Resampling.LANCZOS)), caption
