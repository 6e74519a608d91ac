"""Tensors too large for memory: rows in numbered, memory-mapped safetensors files.

For latents and text states, computed once, so that training needs neither the VAE nor the text encoder.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from minidiff.files import write, write_tensors
from minidiff.registry import UserError

SHARD = "{:05}.safetensors"
INDEX = "index.json"  # rows of each shard, dtype and shape of each tensor; written last
LARGEST = 2**24  # bytes of the index


def write_shards(folder: str | Path, batches: Iterable[dict[str, Tensor]], rows: int = 4096) -> int:
    """Write batches of tensors {name: (n, ...)} as shards of `rows` rows; returns the total number of rows.

    All batches have the same names, dtypes and shapes, except for n. Raises UserError for one that differs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)  # without it the folder is unfinished
    counts, what, waiting = [], None, {}
    for batch in batches:
        if what not in (None, kinds(batch)) or len({len(value) for value in batch.values()}) != 1:
            raise UserError(f"{folder}: a batch of {kinds(batch)}, expected equally many rows of {what or 'each'}")
        what = kinds(batch)
        waiting = {name: torch.cat([waiting[name], value]) if waiting else value for name, value in batch.items()}
        while length(waiting) >= rows:
            write_tensors(folder / SHARD.format(len(counts)), {name: value[:rows] for name, value in waiting.items()})
            counts.append(rows)
            waiting = {name: value[rows:] for name, value in waiting.items()}
    if length(waiting):
        write_tensors(folder / SHARD.format(len(counts)), waiting)
        counts.append(length(waiting))
    if not counts:
        raise UserError(f"{folder}: there is no row to write")
    write(folder / INDEX, json.dumps({"rows": counts, "tensors": what}) + "\n")
    return sum(counts)


class Shards:
    """What `write_shards` wrote: shards[rows] reads these rows alone, {name: (n, ...)}.

    Raises UserError for an unfinished folder, and for a shard that is missing, cut short or not as the index says.
    """

    def __init__(self, folder: str | Path):
        from safetensors import SafetensorError, safe_open

        folder = Path(folder)
        try:
            if not (folder / INDEX).is_file() or (folder / INDEX).stat().st_size > LARGEST:
                raise ValueError(f"it is no file of at most {LARGEST:,} bytes")
            index = json.loads((folder / INDEX).read_text())
            counts = [range(rows).stop for rows in index["rows"]]
            self.tensors = {name: (str(dtype), list(shape)) for name, (dtype, shape) in index["tensors"].items()}
            if min(counts) < 1:
                raise ValueError(f"{min(counts)} rows")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{folder} holds no finished shards: its {INDEX} cannot be read ({error})") from None
        self.files = []
        for number, rows in enumerate(counts):
            path = folder / SHARD.format(number)
            try:
                if not path.is_file():  # safe_open would wait at a pipe, for ever
                    raise OSError("no such file")
                file = safe_open(path, "pt")  # maps the file; its size has to fit its header
                pieces = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
                found = {name: [dtype_name(piece[:0]), piece.get_shape()] for name, piece in pieces.items()}
            except (OSError, SafetensorError, IndexError) as error:  # IndexError: a number alone
                raise UserError(f"{path} is missing or not a whole safetensors file ({error})") from None
            expected = {name: [dtype, [rows, *shape]] for name, (dtype, shape) in self.tensors.items()}
            if found != expected:
                raise UserError(f"{path} holds {found}, expected {expected}")
            self.files.append(file)
        self.ends = torch.tensor(counts).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, rows: Tensor) -> dict[str, Tensor]:
        """rows: (n,) int64, in any order."""
        numbers = torch.searchsorted(self.ends, rows, right=True)
        inside = rows - torch.cat([torch.tensor([0]), self.ends])[numbers]
        order = numbers.argsort(stable=True)  # each shard is read once
        back = order.argsort()
        parts = [(int(n), inside[order][numbers[order] == n].tolist()) for n in numbers.unique()]
        return {name: torch.cat([self.files[n].get_slice(name)[p] for n, p in parts])[back] for name in self.tensors}


def shard_batches(
    shards: Shards, names: tuple[str, ...], size: int, seed: int = 0, mine: slice = slice(None)
) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches: tensors of `size` rows in the order of `names`; each row once an epoch, shuffled by seed and epoch.

    Floats become float32. mine: the rows of a batch that this process needs; the others stay zero and are not read.
    """
    if not 1 <= size <= len(shards):
        raise UserError(f"a batch must hold 1 to {len(shards)} rows, got {size}")
    for epoch in count():
        order = torch.randperm(len(shards), generator=torch.Generator().manual_seed(seed + epoch))
        for rows in order[: len(order) // size * size].split(size):  # the last, incomplete batch of an epoch is dropped
            read = shards[rows[mine]]
            batch = []
            for name in names:
                value = read[name].float() if read[name].is_floating_point() else read[name]
                batch.append(value.new_zeros(size, *value.shape[1:]))
                batch[-1][mine] = value
            yield tuple(batch)


def kinds(batch: dict[str, Tensor]) -> dict[str, list]:
    return {name: [dtype_name(value), list(value.shape[1:])] for name, value in batch.items()}


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def length(batch: dict[str, Tensor]) -> int:
    return len(next(iter(batch.values()), ()))
