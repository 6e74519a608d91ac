"""Images with captions, streamed from tar files (shards) in webdataset's format: a data set of any size.

000123.jpg and 000123.txt in a shard are an image and its caption. Shards are read from front to back, so shuffling
means: their order, and the images within a buffer. Needs the library webdataset (pip install webdataset).
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

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from minidiff.registry import UserError

PICTURES = ("jpg", "jpeg", "png", "webp")
STREAMS = (8, 4, 2, 1)
LOUD = 20  # so many skipped files are logged one by one; after that, every doubling of their number
log = logging.getLogger(__name__)


def find_shards(where: str | Path) -> list[str]:
    """The tars of a folder, or what a pattern such as "https://.../{000..127}.tar" stands for. Raises UserError."""
    if not find_spec("webdataset"):
        raise UserError("reading tars needs the library webdataset: pip install webdataset")
    from braceexpand import braceexpand

    folder = Path(where)
    found = sorted(map(str, folder.glob("*.tar"))) if folder.is_dir() else list(braceexpand(str(where)))
    if not found or folder.suffix != ".tar" and not folder.is_dir():
        raise UserError(f'no shards: "{where}" is neither a folder with .tar files nor a pattern that ends in .tar')
    return found


def pair_batches(
    shards: list[str], size: int, batch: int, seed: int = 0, *, streams: int | None = None, mine: slice = slice(None),
    workers: bool | None = None, buffer: int = 1000, skipped: dict[tuple[str, str], str] | None = None,
) -> Iterator[tuple[Tensor, list[str]]]:  # fmt: skip
    """Endless (images, captions): (batch, 3, size, size) in [-1, 1], cropped to a square, transparency on white.

    A batch has `streams` equal parts, among which the shards of an epoch, shuffled by seed and epoch, are divided: it
    depends neither on the number of processes nor on workers. Every call starts from the first batch.

    streams: None for the largest of STREAMS that divides the batch and has a shard for each. mine: the rows that this
    process needs, those of whole streams; the others stay zero and "", unread. workers: a process for every stream;
    None: if there are cores to spare. buffer: images of a stream that wait, undecoded, to be shuffled. skipped: what
    could not be read, (shard, key) -> why, key "" for a broken shard; it is logged too. Raises UserError if no shard
    can be read, or for rows of half a stream.
    """
    streams = streams or next((n for n in STREAMS if batch % n == 0 and n <= len(shards)), 1)
    part, rows = batch // streams, range(batch)[mine]
    if batch % streams or streams > len(shards):
        raise UserError(f"a batch of {batch} from {len(shards)} shards cannot be divided among {streams} streams")
    if rows.start % part or rows.stop % part:
        raise UserError(f"a batch of {batch} has {streams} streams: the processes must share them equally")
    own = range(rows.start // part, rows.stop // part)
    reader = Reader(shards, own, streams, part, size, seed, buffer)
    skipped = {} if skipped is None else skipped
    count = len(own) if (cores() > len(own) if workers is None else workers) else 0
    generator = torch.Generator()  # otherwise the loader draws from the global one
    loader = iter(DataLoader(reader, batch_size=None, num_workers=count, generator=generator))
    while True:
        images, captions = torch.zeros(batch, 3, size, size), [""] * batch
        for stream in own:
            rows = slice(stream * part, (stream + 1) * part)
            if isinstance(found := next(loader), UserError):
                raise found
            pixels, captions[rows], problems = found
            images[rows] = pixels / 127.5 - 1
            for shard, key, why in problems:
                note(skipped, shard, key, why)
        yield images, captions


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def note(skipped: dict[tuple[str, str], str], shard: str, key: str, why: str) -> None:
    if (shard, key) not in skipped:
        skipped[shard, key] = why
        if (count := len(skipped)) <= LOUD or count.bit_count() == 1:
            log.warning("skipped (%d so far): %s%s: %s", count, shard, key and f", {key}", why)


@dataclass
class Reader(IterableDataset):
    """The parts of this process's streams in turn, without end; in a worker, those of its one stream."""

    shards: list[str]
    own: range
    streams: int
    part: int
    size: int
    seed: int
    buffer: int

    def __iter__(self) -> Iterator[tuple[Tensor, list[str], list] | UserError]:
        worker = get_worker_info()
        mine = [self.own[worker.id]] if worker else self.own
        try:
            for parts in zip(*map(self.parts, mine), strict=True):
                yield from parts
        except UserError as error:  # if raised, the loader would wrap it in a traceback
            yield error

    def parts(self, stream: int) -> Iterator[tuple[Tensor, list[str], list]]:
        """A stream's part of each batch, and what was skipped."""
        from webdataset import shuffle

        pairs, problems, unread = [], [], set()
        for epoch in itertools.count():
            order = list(self.shards)
            random.Random(f"{self.seed} {epoch}").shuffle(order)
            own, found = order[stream :: self.streams], False
            chance = random.Random(f"{self.seed} {epoch} {stream}")
            mixed = shuffle(self.buffer, initial=self.buffer, rng=chance)
            for sample in mixed(samples(own, problems)):
                try:
                    pairs.append(pair(sample, self.size))
                    found = True
                except UserError as error:
                    problems.append((sample["__url__"], sample["__key__"], str(error)))
                if len(pairs) == self.part:
                    images, captions = zip(*pairs, strict=True)
                    yield torch.stack(images), list(captions), problems.copy()
                    pairs.clear()
                    problems.clear()
            unread = set() if found else unread | set(own)
            if len(unread) == len(self.shards):
                _, key, why = problems[0] if problems else ("", "", "all are empty")
                first = f"{key and key + ': '}{why}"
                raise UserError(f"nothing can be read from {len(unread)} shards; the first problem: {first}")


def samples(shards: list[str], problems: list[tuple[str, str, str]]) -> Iterator[dict]:
    """The files of the tars, as bytes by extension. A broken shard is read up to the break, and put into `problems`."""
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
                # After the end of a tar come zeros. tarfile also ends, silently, at a header it cannot read.
                if any(any(rest) for rest in iter(lambda: stream.read(1 << 20), b"")):  # noqa: B023
                    problems.append((shard, "", "the shard is broken: it goes on after what can be read"))
        except OSError as error:
            broken(error)


def pair(sample: dict, size: int) -> tuple[Tensor, str]:
    """(3, size, size) bytes and the caption. Raises UserError with what is missing or unreadable."""
    pixels = next((sample[ending] for ending in PICTURES if ending in sample), None)
    if pixels is None:
        raise UserError(f"no picture ({', '.join(PICTURES)})")
    if "txt" not in sample:
        raise UserError("no caption (txt)")
    try:
        caption = " ".join(sample["txt"].decode().split())
    except UnicodeDecodeError:
        raise UserError("the caption is not UTF-8") from None
    if not caption:
        raise UserError("the caption is empty")
    try:
        with Image.open(io.BytesIO(pixels)) as image:
            image = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception as error:  # Pillow's plugins raise many kinds
        why = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"the picture is unreadable: {why}") from None
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    page = ImageOps.fit(page, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(page)).permute(2, 0, 1), caption
