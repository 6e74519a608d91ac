"""Shards on disk: every row comes back, nothing half is taken for whole, and little is held in memory."""

import json
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file, save_file

from minidiff.data.shards import INDEX, Shards, shard_batches, write_shards
from minidiff.diffusion import FLOW, flow
from minidiff.networks import Conditional, UNet, UNetConfig
from minidiff.training import TrainConfig, train

N = 23


def rows():
    return {
        "latents": torch.randn(N, 4, 2, 2, generator=torch.Generator().manual_seed(0)).half(),
        "context": torch.randn(N, 3, 5, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16),
        "label": torch.arange(N),
    }


def pieces(*lengths):
    """The rows in batches of these lengths."""
    starts = [sum(lengths[:k]) for k in range(len(lengths))]
    return [{name: value[a : a + n] for name, value in rows().items()} for a, n in zip(starts, lengths, strict=True)]


@pytest.fixture
def folder(tmp_path):
    assert write_shards(tmp_path / "shards", pieces(2, 9, 12), rows=5) == N
    return tmp_path / "shards"


def test_every_row_comes_back_in_any_order(folder):
    shards = Shards(folder)
    assert len(shards) == N and len(list(folder.glob("*.safetensors"))) == 5
    for picked in (torch.arange(N), torch.randperm(N), torch.tensor([22, 0, 4, 5, 4, 10, 9]), torch.tensor([7])):
        for name, value in shards[picked].items():
            assert value.dtype == rows()[name].dtype
            assert torch.equal(value, rows()[name][picked]), name


def test_batches_hold_every_row_once_an_epoch(folder):
    drawn = list(islice(shard_batches(Shards(folder), ("latents", "label"), 4, seed=3), 15))  # 5 an epoch, 3 rows left
    for latents, label in drawn:
        assert latents.dtype == torch.float32 and torch.equal(latents, rows()["latents"][label].float())
    epochs = [torch.cat([label for _, label in drawn[k : k + 5]]).tolist() for k in (0, 5, 10)]
    assert all(len(set(epoch)) == 20 for epoch in epochs) and epochs[0] != epochs[1]
    again = islice(shard_batches(Shards(folder), ("label",), 4, seed=3), 15)
    assert sum(([*label.tolist()] for (label,) in again), []) == sum(epochs, [])
    with pytest.raises(ValueError, match="1 to 23 rows, got 24"):
        next(shard_batches(Shards(folder), ("label",), 24))


def test_of_two_processes_each_reads_its_own_half(folder):
    def labels(mine):
        return [label for (label,) in islice(shard_batches(Shards(folder), ("label",), 6, mine=mine), 7)]

    for whole, first, second in zip(*map(labels, (slice(None), slice(0, 3), slice(3, 6))), strict=True):
        assert torch.equal(first + second, whole) and not first[3:].any() and not second[:3].any()


def test_the_rest_of_a_shard_is_not_read(tmp_path):
    wide = {"a": torch.arange(4096.0)[:, None].expand(4096, 4096)}  # 64 MB
    write_shards(tmp_path, [wide])
    shards, before = Shards(tmp_path), resident()
    assert shards[torch.tensor([5, 4000])]["a"][:, 0].tolist() == [5.0, 4000.0]
    assert resident() - before < 8 << 20


def resident():
    from psutil import Process

    return Process().memory_info().rss


def test_training_on_latents_and_text_states(folder):
    torch.manual_seed(0)
    tiny = UNetConfig(4, 4, channels=(8, 16), attention=(False, True), layers=1, heads=1, context_dim=5, groups=4)
    net = Conditional(UNet(tiny), torch.nn.Identity())  # the states are what a text tower would say
    batches = shard_batches(Shards(folder), ("latents", "context"), 4)
    steps = list(train(net, flow(), FLOW, batches, TrainConfig(steps=3, drop=0.5), null=torch.zeros(3, 5)))
    assert len(steps) == 3 and all(step.loss.isfinite() for step in steps)


def test_a_folder_that_was_left_unfinished(tmp_path, folder):
    def broken():
        yield from pieces(9)
        raise RuntimeError("out of power")

    with pytest.raises(RuntimeError):
        write_shards(folder, broken(), rows=5)
    for where in (folder, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="holds no finished shards"):
            Shards(where)


def test_a_shard_that_is_not_what_the_index_says(folder):
    path = folder / "00002.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="00002.safetensors is missing or not a whole safetensors file") as caught:
            Shards(folder)
        assert len(str(caught.value).splitlines()) == 1
    path.unlink()
    with pytest.raises(ValueError, match="00002.safetensors is missing"):
        Shards(folder)
    for other in (
        tensors | {"latents": tensors["latents"].float()},
        tensors | {"latents": tensors["latents"][:, :3].contiguous()},
        {name: value[:4].contiguous() for name, value in tensors.items()},
        {name: value for name, value in tensors.items() if name != "label"},
    ):
        save_file(other, path)
        with pytest.raises(ValueError, match="00002.safetensors holds .* expected"):
            Shards(folder)
    path.write_bytes(whole)
    assert len(Shards(folder)) == N
    (folder / INDEX).write_text(json.dumps([]))
    with pytest.raises(ValueError, match="holds no finished shards"):
        Shards(folder)


def test_batches_that_do_not_fit_together(tmp_path):
    for batches in (
        [{"a": torch.zeros(2)}, {"a": torch.zeros(2, 2)}],
        [{"a": torch.zeros(2)}, {"b": torch.zeros(2)}],
        [{"a": torch.zeros(2)}, {"a": torch.zeros(2).half()}],
        [{"a": torch.zeros(2), "b": torch.zeros(3)}],
    ):
        with pytest.raises(ValueError, match="expected equally many rows of"):
            write_shards(tmp_path, batches)
    with pytest.raises(ValueError, match="no row to write"):
        write_shards(tmp_path, [])
