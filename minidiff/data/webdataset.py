"""Images with captions, streamed from tar files (shards) in webdataset's layout: a data set of any size.

000123.jpg and 000123.txt, one after the other in a shard, are an image and its caption. Shards are read from front to
back, so shuffling means: their order, and the images within a buffer.
"""

import io
import itertools
import logging
import os
import random
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from minidiff.image_files import read_image
from minidiff.registry import UserError, one_line

PICTURES = ("jpg", "jpeg", "png", "webp")
LARGEST = dict.fromkeys(PICTURES, 2**26) | {"txt": 2**16}  # bytes of a file in a tar that is read
STREAMS = (8, 4, 2, 1)
LOUD = 20  # so many skipped files are logged one by one; after that, every doubling of their number
Pair = tuple[Tensor, str]  # (3, size, size) bytes, and the caption
log = logging.getLogger(__name__)


def find_shards(where: str | Path) -> list[str]:
    """The tars of a folder, or one tar: files here, never an address or a command. Raises UserError."""
    path = Path(where)
    found = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" else []
    if not (shards := [str(one) for one in found if one.is_file()]):
        raise UserError(f'no shards: "{where}" is neither a folder with .tar files nor one of them')
    return shards


def pair_batches(
    shards: list[str], size: int, batch: int, seed: int = 0, *, streams: int | None = None, mine: slice = slice(None),
    workers: bool | None = None, buffer: int = 1000, skipped: dict[tuple[str, str], str] | None = None,
) -> Iterator[tuple[Tensor, list[str]]]:  # fmt: skip
    """Endless (images, captions): (batch, 3, size, size) in [-1, 1], cropped to a square, transparency on white.

    A batch has `streams` equal parts, among which the shards of an epoch, shuffled by seed and epoch, are divided: it
    depends neither on the number of processes nor on workers. Every call starts from the first batch.

    streams: None for the largest of STREAMS that divides the batch and has a shard for each. mine: the rows that this
    process needs, those of whole streams; the others stay zero and "", unread. workers: a process for every stream;
    None: if there are cores to spare. buffer: images of a stream that wait to be shuffled. skipped: what could not be
    read, (shard, key) -> why, key "" for a broken shard; it is logged too. Raises UserError if no shard can be read, or
    for rows of half a stream.
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
            log.warning("skipped (%d so far): %s", count, one_line(f"{shard}{key and f', {key}'}: {why}"))


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
        pairs, problems, unread = [], [], set()
        for epoch in itertools.count():
            order = list(self.shards)
            random.Random(f"{self.seed} {epoch}").shuffle(order)
            own, found = order[stream :: self.streams], False
            chance = random.Random(f"{self.seed} {epoch} {stream}")
            for pair in mixed(read_pairs(own, self.size, problems), self.buffer, chance):
                pairs.append(pair)
                found = True
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


def mixed(pairs: Iterable[Pair], buffer: int, chance: random.Random) -> Iterator[Pair]:
    """All of them in another order: each comes at random out of a buffer."""
    waiting = []
    for pair in pairs:
        waiting.append(pair)
        if len(waiting) > buffer:
            yield waiting.pop(chance.randrange(len(waiting)))
    chance.shuffle(waiting)
    yield from waiting


def read_pairs(shards: list[str], size: int, problems: list[tuple[str, str, str]]) -> Iterator[Pair]:
    """The pairs of these shards in order; what cannot be read is put into `problems`, (shard, key, why)."""
    for shard in shards:
        for key, files in read_tar(shard, problems):
            try:
                yield read_pair(files, size)
            except UserError as error:
                problems.append((shard, key, str(error)))


class TarBytes(io.FileIO):
    """A tar's bytes, of which a header that lies about lengths cannot ask for more than memory holds."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2 * max(LARGEST.values()):
            raise tarfile.ReadError(f"{size:,} bytes in one piece")
        return super().read(size)


def read_tar(shard: str, problems: list[tuple[str, str, str]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each key with its files by their endings. A broken shard is read up to the break, and put into `problems`."""
    key, files = "", {}
    try:
        with TarBytes(shard) as content, tarfile.open(fileobj=content, mode="r:") as tar:
            for member in iter(tar.next, None):
                tar.members.clear()  # or it keeps all that it has read
                if tar.offset <= member.offset:
                    raise tarfile.ReadError("it points back to what was read")
                folder, name = os.path.split(member.name)
                stem, _, ending = name.partition(".")
                if (ending := ending.lower()) not in LARGEST or not member.isreg() or member.issparse():
                    continue
                if (member_key := os.path.join(folder, stem)) != key or ending in files:
                    if files:
                        yield key, files
                    key, files = member_key, {}
                if member.size > LARGEST[ending]:
                    problems.append((shard, key, f"{ending} has {member.size:,} bytes"))
                    continue
                content.seek(member.offset_data)
                files[ending] = content.read(member.size)
                if len(files[ending]) < member.size:
                    del files[ending]
                    raise tarfile.ReadError("unexpected end of data")
            content.seek(tar.offset)  # tarfile ends, silently, at a header it cannot read; after the last come zeros
            if any(content.read(1 << 20)):
                problems.append((shard, "", "the shard is broken: it goes on after what can be read"))
    except Exception as error:  # tarfile raises many kinds for numbers that are wrong
        why = getattr(error, "strerror", None) or error
        problems.append((shard, "", f"the shard is broken: {why}"))
    if files:
        yield key, files


def read_pair(files: dict[str, bytes], size: int) -> Pair:
    """An image, (3, size, size) bytes, and its caption. Raises UserError with what is missing or unreadable."""
    pixels = next((files[ending] for ending in PICTURES if ending in files), None)
    if pixels is None:
        raise UserError(f"no picture ({', '.join(PICTURES)})")
    if "txt" not in files:
        raise UserError("no caption (txt)")
    try:
        caption = " ".join(files["txt"].decode().split())
    except UnicodeDecodeError:
        raise UserError("the caption is not UTF-8") from None
    if not caption:
        raise UserError("the caption is empty")
    image = ImageOps.fit(read_image(pixels, "the picture"), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), caption
