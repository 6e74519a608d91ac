"""Numbers and names that nobody can mean: refused before anything is allocated."""

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from minidiff import TextToImage, data, files
from minidiff.registry import UserError, enough_memory

SAMPLE = [
    (["-n", 10**9], "too large for a .png"), (["-n", 10**18], "too large"), (["-n", 2**62], "too large"), (["-n", 10**30], "too large"),
    (["-n", 0], "n must be at least 1"), (["-n", -(10**9)], "n must be at least 1"), (["-n", "1e9"], ""), (["-n", "nan"], ""),
    (["--size", 100_000], "size must be at most 4096"), (["--size", 10**30], "size must be at most 4096"), (["--size", 27], "multiple of 2"),
    (["--size", 0], "multiple of 2"), (["--size", -28], "multiple of 2"), (["--size", 4096, "-n", 100], "too large"),
    (["--steps", 10**9], "steps must be at most 10000"), (["--steps", 2**62], "at most"), (["--steps", 10**30], "at most"), (["--steps", -1], "at least 1"),
    (["--scale", "1e308"], "scale must lie between"), (["--scale", "-1e308"], "scale must lie between"), (["--scale", "1e400"], "finite"), (["--scale", "nan"], "finite"),
    (["--scale", "1e5"], "scale must lie"), (["--rescale", 2], "rescale must lie"), (["--rescale", "nan"], "rescale must lie"), (["--rescale", "-inf"], "rescale"),
    (["--interval", "nan", 1], "interval"), (["--interval", 0, "inf"], "interval"), (["--interval", 1, 0], "interval"), (["--interval", 1], ""),
    (["--seed", 2**62], "seed must lie"), (["--seed", 2**32], "seed must lie"), (["--seed", -1], "seed must lie"), (["--seed", "x"], ""),
    (["--strength", 0.5], "strength says how much"), (["--strength", "nan"], "strength"), (["--strength", "inf"], "strength"), (["--mask", "seven.png"], "a mask says"),
    (["--init", "seven.png", "--strength", 0], "strength 0.0 of"), (["--init", "seven.png", "--strength", "nan"], "strength must lie"), (["--init", "seven.png", "--strength", 2], "strength must lie"),
    (["--tile", 64], "--tile does nothing"), (["--tile", 0], "tile must be"), (["--tile", 10**18], "--tile does nothing"), (["--preview"], "--preview does nothing"),
    (["--dtype", "float16"], "--dtype does nothing"), (["--dtype", "float8"], ""), (["--sampler", "x" * 5000], "unknown sampler"), (["--sampler", "\x1b[2J"], "unknown sampler"),
    (["--grid", ""], "unknown grid"), (["--guidance", "\u202e"], "unknown guidance"), (["--weak", "mnist"], "takes no weak"), (["--guidance", "autoguidance"], "needs a worse model"),
    (["--device", "\x1b[2J"], "no device"), (["--device", "cuda:99999999999999"], "no device"), (["--device", ""], "no device"), (["--device", "cpu:7:7"], "no device"),
    (["--negative", ""], "is empty"), (["--negative", "x" * 10**6], "names no digit"), (["--out", "x.webp", "-n", 5000], "too large for a .webp"),
    (["--out", "x.jpg", "-n", 6000], "too large for a .jpg"), (["--out", "x.gif", "-n", 10**4], "too large for a .gif"), (["--out", "x.apng", "--steps", 10_000, "-n", 50], "too large"),
    (["--bogus"], "--bogus"), (["--n" * 400], ""),
]  # fmt: skip


@pytest.mark.parametrize("args, says", SAMPLE, ids=lambda value: str(value)[:40])
def test_sample(trial, args, says):
    Image.new("L", (28, 28)).save("seven.png")
    out = [] if "--out" in args else ["--out", "x.png"]
    trial.refused("sample", "7", *args, *out, says=says)


@pytest.mark.parametrize(
    "prompt", ["", " ", "\0", "\x1b[", "x" * 10**6, "7 " * 10**5, "\udcff", "\u202ex", "a cat", "--\x1b[2J"]
)
def test_prompts(trial, prompt):
    trial.refused("sample", prompt, "--out", "x.png")


def test_preview_is_for_animations(trial):
    for options in (["--preview"], ["--model", "mnist", "--preview", "--out", "x.gif"]):
        trial.refused("sample", "7", "--model", "emoji", "--out", "x.png", *options, says="--preview does nothing")


@pytest.fixture(scope="module")
def pipe():
    return TextToImage.load("mnist", "cpu")


PYTHON = {
    "size 10**9": {"size": 10**9}, "size of two": {"size": (28, 10**9)}, "size 0": {"size": 0}, "steps": {"steps": 10**12}, "scale": {"scale": 1e308}, "nan": {"scale": np.nan},
    "seed": {"seed": -1}, "latents": {"latents": torch.zeros(1, 4, 2, 2)}, "strength": {"strength": 0.3}, "sampler": {"sampler": "\x1b[2J"}, "negatives": {"negative": ["1", "2"]},
}  # fmt: skip


@pytest.mark.parametrize("name", PYTHON)
def test_in_python(trial, pipe, name):
    trial.refuses(lambda: pipe(["7", "8", "9"], **PYTHON[name]), what=name)


def test_more_images_than_memory_holds(trial, pipe, monkeypatch):
    from minidiff import device

    monkeypatch.setattr(device.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    trial.refuses(lambda: pipe(["7"]), says="this needs at least 0.0 GiB of memory, 0.0 are free")


def test_numbers_that_are_not_finite_are_no_image(trial, pipe):
    trial.refuses(lambda: pipe(["7"], latents=torch.full((1, 4, 14, 14), float("nan")), steps=1), says="not finite")


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), RuntimeError("MPS backend out of memory (MPS allocated: 9 GB"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), MemoryError("Unable to allocate 9 TiB"),
])  # fmt: skip
def test_no_memory_on_any_device(error):
    with pytest.raises(UserError, match="^out of memory: ask for fewer"), enough_memory():
        raise error


def test_another_error_stays_a_bug():
    with pytest.raises(RuntimeError, match="shapes"), enough_memory():
        raise RuntimeError("shapes do not match")


# Shipped files that are damaged ---------------------------------------------------------------------------------

SHIPPED = {
    "mnist/t10k-images-idx3-ubyte.gz": lambda: data.mnist("test"),
    "cifar10/cifar10_00_3.png": lambda: data.cifar_samples(),
    "emoji/noto.zip": lambda: data.emoji("validation"),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_that_is_damaged_is_named_with_its_checksum(trial, monkeypatch, name):
    mnist = sys.modules["minidiff.data.mnist"]
    root = next(root for root in files.ROOTS if (root / "SHA256SUMS").is_file())
    lines = [
        line
        for line in (root / "SHA256SUMS").read_text().splitlines()
        if line.split()[1].startswith(name.split("/")[0])
    ]
    copy = trial.folder.parent / f"{trial.folder.name} assets"
    shutil.copytree(root / name.split("/")[0], copy / name.split("/")[0])
    (copy / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(files, "ROOTS", (copy,))
    monkeypatch.setattr(mnist, "ROOTS", (copy,))
    whole = (copy / name).read_bytes()
    digest = next(line.split()[0] for line in lines if line.endswith(name))
    read = SHIPPED[name] if "t10k" not in name else lambda: mnist.mnist("test", copy / "mnist")
    for content in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b"", whole + b"x"):
        (copy / name).write_bytes(content)
        says = f"assets/{name} is damaged: its SHA-256 is "
        assert digest in trial.refuses(read, says=says) and "git checkout assets" in trial.refuses(read)
    (copy / name).unlink()
    trial.refuses(read, says="is missing")
    (copy / name).write_bytes(whole)
    read()
