"""The noisy classifier: its size, what it has learned, and that training is repeatable."""

from itertools import islice

import pytest
import torch

from minidiff import data
from minidiff.diffusion import flow
from minidiff.files import asset, read_tensors
from minidiff.formats.model_folder import load_classifier
from minidiff.networks import NoisyClassifier, SpaceToDepth
from minidiff.training import OptimConfig
from minidiff.training.recipes import RECIPES

PATH = flow()


def logits_at(t: float, n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    """What it says about n validation digits at time t, and their labels."""
    digits = data.mnist("validation")
    x0 = SpaceToDepth().encode(digits.images[:n])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return load_classifier("noisy_classifier")(
            PATH.add_noise(x0, eps, t), torch.full((n,), 1000 * t)
        ), digits.labels[:n]


def test_it_is_small():
    assert sum(p.numel() for p in NoisyClassifier().parameters()) == 97_018
    path = asset("weights/noisy_classifier/model.safetensors")
    assert path.stat().st_size < 300_000
    assert {tensor.dtype for tensor in read_tensors(path).values()} == {torch.float16}


@pytest.mark.parametrize("t, at_least", [(0.0, 0.97), (0.3, 0.97), (0.5, 0.93), (0.7, 0.7)])
def test_it_reads_digits_through_noise(t, at_least):
    logits, labels = logits_at(t)
    assert (logits.argmax(1) == labels).float().mean() > at_least


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 0.7, 0.9])
def test_it_is_as_sure_as_it_is_right(t):
    logits, labels = logits_at(t)
    p = logits.softmax(1)
    assert abs(p.amax(1).mean() - (p.argmax(1) == labels).float().mean()) < 0.06


def test_where_nothing_is_left_to_see_it_is_not_sure():
    logits, _ = logits_at(1.0)
    assert logits.softmax(1).amax(1).mean() < 0.2


def test_pictures_do_not_touch_each_other_and_time_counts():
    torch.manual_seed(0)
    net = NoisyClassifier().eval()
    x, time = torch.randn(3, 4, 14, 14), torch.tensor([0.0, 300.0, 900.0])
    together = net(x, time)
    assert together.shape == (3, 10)
    torch.testing.assert_close(net(x[1:2], time[1:2]), together[1:2])
    assert not torch.allclose(net(x, time.flip(0)), together)


def test_training_is_repeatable_resumable_and_learns(tmp_path, monkeypatch):
    few = data.mnist("validation")
    few = data.Pictures(few.images[:256], few.labels[:256], few.captions[:256])
    monkeypatch.setattr(data, "mnist", lambda split: few)
    losses = []
    for name in ("a", "b"):
        config, cpu = OptimConfig(steps=24, lr=3e-3, warmup=4, seed=1), torch.device("cpu")
        run = RECIPES["noisy_classifier"].run(tmp_path / name, cpu, config, 64)
        losses.append([loss for _, _, loss in islice(run, 24 if name == "a" else 10)])
        run.close()
    torch.manual_seed(99)
    losses[1] += [loss for _, _, loss in RECIPES["noisy_classifier"].run(tmp_path / "b", cpu, config, 64)]
    assert losses[0] == losses[1] and len(losses[0]) == 24
    assert sum(losses[0][-4:]) < sum(losses[0][:4])
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    load_classifier("noisy_classifier", folder=tmp_path / "a")
