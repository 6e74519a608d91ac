"""CIFAR-10: the archive read and distrusted, and `minidiff train cifar10` on a small one in the real format."""

import dataclasses
import json
import shutil

import pytest
import torch
from served import FILES, RECORDS, archive, batch, described, serve

from minidiff import TextToImage, data
from minidiff.cli.main import main
from minidiff.data import cifar
from minidiff.data.cifar import ARCHIVE, RECORD, cifar10_path
from minidiff.files import read_tensors
from minidiff.networks import UNetConfig
from minidiff.registry import UserError
from minidiff.training import denoiser
from minidiff.training.recipes import RECIPES


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with the small archive, which counts as the published one."""
    return put(archive(), tmp_path / "data", monkeypatch)


def put(content, folder, monkeypatch):
    monkeypatch.setattr(cifar, "ARCHIVE", described(content))
    folder.mkdir(exist_ok=True)
    cifar10_path(folder).write_bytes(content)
    return folder


# The archive --------------------------------------------------------------------------------


def test_the_published_archive():
    assert (ARCHIVE.size, ARCHIVE.records * len(FILES), RECORD) == (170_052_171, 60_000, 3073)
    sizes = {split: last - first for split, (_, first, last) in ARCHIVE.splits.items()}
    assert sizes == {"train": 45_000, "validation": 5_000, "test": 10_000}


def test_records_are_a_label_and_three_planes(small):
    test = data.cifar10("test", small)
    assert test.images.shape == (RECORDS, 3, 32, 32) and test.images.dtype == torch.float32
    assert test.labels.tolist() == [(k + 5) % 10 for k in range(RECORDS)] and test.labels.dtype == torch.int64
    assert test.captions[:2] == ["a photo of a dog", "a photo of a frog"]
    for plane in range(3):  # red, green and blue of picture k are k, k + 1 and k + 2
        values = torch.arange(plane, plane + RECORDS).float() / 127.5 - 1
        assert torch.equal(test.images[:, plane], values[:, None, None].expand(-1, 32, 32))


def test_a_plane_is_written_row_by_row(tmp_path, monkeypatch):
    row = bytearray(batch(0))
    row[1 + 32 * 2 + 5] = 255  # red, third row, sixth column of the first picture
    folder = put(archive({"data_batch_1.bin": bytes(row)}), tmp_path, monkeypatch)
    assert (data.cifar10("train", folder).images[0] == 1).nonzero().tolist() == [[0, 2, 5]]


def test_the_splits_do_not_overlap_and_keep_the_order_of_the_files(small):
    train, validation = data.cifar10(folder=small), data.cifar10("validation", small)
    labels = [(k + number) % 10 for number in range(5) for k in range(RECORDS)]
    assert train.labels.tolist() == labels[:-10] and validation.labels.tolist() == labels[-10:]
    assert torch.equal(data.cifar10("validation", small).images, validation.images)
    with pytest.raises(UserError, match="unknown split 'dev'; there is train, validation, test"):
        data.cifar10("dev", small)


def test_it_is_fetched_once_into_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = archive()
    with serve(content) as (url, asked):
        monkeypatch.setattr(cifar, "ARCHIVE", described(content, url))
        assert len(data.cifar10("test")) == len(data.cifar10("test")) == RECORDS
        assert len(asked) == 1
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [
        "cache/minidiff/cifar-10-binary.tar.gz"
    ]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cifar10_path() == tmp_path / ".cache" / "minidiff" / "cifar-10-binary.tar.gz"


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "ARCHIVE", described(b"anything"))
    with pytest.raises(OSError, match=f"cannot fetch http://127.0.0.1:9.*put cifar-10-binary.tar.gz into.*{tmp_path}"):
        data.cifar10("test", tmp_path)


def test_an_archive_that_is_not_the_published_one(small):
    path = cifar10_path(small)
    whole = path.read_bytes()
    for damaged, problem in ((whole[:-100], "expected"), (whole[:-1] + b"\1", "sha256"), (b"", "has 0 bytes")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"is not the published file: .*{problem}.*Delete it"):
            data.cifar10("test", small)


# What its checksum does not rule out, should the published one ever be made anew
@pytest.mark.parametrize(
    "content, problem",
    [
        (archive({"data_batch_3.bin": batch(2)[:-RECORD]}), "data_batch_3.bin .* 58,387 bytes, expected 20 records"),
        (archive({"data_batch_3.bin": batch(2, RECORDS + 1)}), "data_batch_3.bin .* holds 64,533 bytes"),
        (archive({"data_batch_3.bin": batch(2)[:-1]}), "holds 61,459 bytes, expected 20 records of 3,073"),
        (archive({"data_batch_5.bin": b"\x0a" + batch(4)[1:]}), r"data_batch_5.bin .* a label 10; labels are 0 to 9"),
        (archive({"data_batch_2.bin": None}), "holds no data_batch_2.bin"),
        (archive()[:-800], "cannot be read"),
        (archive()[:100], "cannot be read"),
        (b"<html>please log in</html>", "cannot be read"),
    ],
    ids=["a record less", "one more", "half a record", "a label", "a file less", "cut", "cut early", "no archive"],
)
def test_an_archive_that_lies(tmp_path, monkeypatch, content, problem):
    folder = put(content, tmp_path, monkeypatch)
    with pytest.raises(UserError, match=problem):
        data.cifar10("train", folder)


# Prompts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt, label",
    [("a photo of a cat", 3), ("Airplane", 0), ("an aeroplane!", 0), ("my car", 1), ("truck", 9), ("a ship at sea", 8)],
)
def test_prompts_that_name_a_thing(prompt, label):
    assert data.read_thing(prompt) == label


@pytest.mark.parametrize(
    "prompt, problem",
    [("a dog and a cat", "names 2 things"), ("a zebra", "names no thing"), ("7", "names no thing"), (" ", "is empty")],
)  # fmt: skip
def test_prompts_that_do_not(prompt, problem):
    with pytest.raises(UserError, match=f"{problem}.*: name one of airplane, automobile"):
        data.read_thing(prompt)


def test_every_caption_names_its_thing(small):
    for pictures in (data.cifar10("train", small), data.cifar_samples()):
        assert [data.read_thing(caption) for caption in pictures.captions] == pictures.labels.tolist()


# The preset ---------------------------------------------------------------------------------

TINY = UNetConfig(3, 3, channels=(8, 16), attention=(False, True), layers=1, heads=2, context_dim=8, groups=4)


@pytest.fixture
def tiny(small, monkeypatch):
    """The preset with a tiny network, and the folder with its archive."""
    preset = RECIPES["cifar10"]
    preset = dataclasses.replace(preset, config=dataclasses.replace(preset.config, unet=TINY))
    monkeypatch.setitem(RECIPES, "cifar10", preset)
    return preset, small


def train(tiny, out, *args):
    main(["train", "cifar10", "--data", str(tiny[1]), "--out", str(out), "--device", "cpu", *map(str, args)])


def test_the_preset_is_of_the_size_it_says():
    preset = RECIPES["cifar10"]
    with torch.device("meta"):
        net = preset.config.build()
    assert 32e6 < sum(parameter.numel() for parameter in net.parameters()) < 33e6
    assert preset.batch == 128 and preset.train.ema == 0.9999
    assert preset.fast and preset.flip and not RECIPES["mnist"].fast and not RECIPES["mnist"].flip


def test_it_trains_draws_and_is_resumed_as_if_it_had_never_stopped(tiny, tmp_path, capsys):
    for out, steps in (("whole", [5]), ("parts", [5, 5])):
        for number in steps:
            if len(steps) == 2 and not (tmp_path / out).exists():
                stopped = run(*prepared(tiny, tmp_path / out, number))
                assert [next(stopped)[0] for _ in range(2)] == [1, 2]
                stopped.close()  # Ctrl-C
                assert (tmp_path / out / "resume-00000002.safetensors").exists()
            else:
                train(tiny, tmp_path / out, "--steps", number, "--batch", 8)
    said = capsys.readouterr().out
    assert f'minidiff sample "a photo of a cat" --model {tmp_path / "whole"}' in said
    for name in ("model.safetensors", "resume-00000005.safetensors", "model.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()

    model = ["--model", str(tmp_path / "whole"), "--steps", "2", "--out", str(tmp_path / "x.png")]
    main(["sample", "a photo of a cat", "a ship", *model])
    assert "2 images" in capsys.readouterr().out
    assert TextToImage.load(tmp_path / "whole")("a frog", steps=2)[0].size == (32, 32)
    with pytest.raises(SystemExit):
        main(["sample", "7", *model])
    assert capsys.readouterr().err.startswith('minidiff: the prompt "7" names no thing: name one of airplane')


def prepared(tiny, out, steps, device="cpu", **changes):
    preset, folder = tiny
    config = dataclasses.replace(preset.train, steps=steps, **changes)
    return preset, out, torch.device(device), config, 8, folder


def run(preset, out, device, config, batch, folder):
    return preset.run(out, device, config, batch, data=folder)


def test_minutes_and_the_presets_own_numbers(tiny, tmp_path, monkeypatch, capsys):
    from minidiff.training.checkpoint import planned_steps

    monkeypatch.setattr(denoiser, "seconds_a_step", lambda trial: next(trial) and 0.05)
    train(tiny, tmp_path / "run", "--minutes", "0.0025", "--batch", 2)
    assert planned_steps(tmp_path / "run") == 3
    with pytest.raises(SystemExit):  # the small archive has 90 pictures for training
        train(tiny, tmp_path / "other", "--steps", 1)
    assert "a batch must hold 1 to 90 pictures, got 128" in capsys.readouterr().err


def test_without_its_data_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cifar, "ARCHIVE", described(b"anything"))
    with pytest.raises(SystemExit):
        main(["train", "cifar10", "--steps", "1", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert error.startswith("minidiff: cannot fetch") and str(tmp_path / "data") in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_half_of_the_pictures_are_mirrored_and_step_and_seed_decide_which():
    left = torch.zeros(4000, 1, 2, 2)
    left[..., 0] = 1
    turned = denoiser.mirrored(left, seed=0, step=3)[:, 0, 0, 1]
    assert 0.47 < float(turned.mean()) < 0.53
    assert torch.equal(denoiser.mirrored(left, 0, 3)[:, 0, 0, 1], turned)
    for seed, step in ((0, 4), (1, 3)):
        assert 0.4 < float((denoiser.mirrored(left, seed, step)[:, 0, 0, 1] == turned).float().mean()) < 0.6
    same = torch.rand(4000, generator=torch.Generator().manual_seed(3)) < 0.5  # the loop's own draw at this step
    assert 0.4 < float((turned.bool() == same).float().mean()) < 0.6
    gray = denoiser.mirrored(torch.arange(8.0).reshape(2, 1, 2, 2), 0, 0)
    assert torch.equal(gray.sort(dim=-1).values, torch.arange(8.0).reshape(2, 1, 2, 2))  # nothing but left and right


@pytest.mark.parametrize(
    "device, capability, triton, wanted",
    [
        ("cpu", None, True, (False, False, False)),
        ("cuda", (9, 0), True, (True, True, True)),
        ("cuda", (8, 0), False, (True, False, True)),
        ("cuda", (7, 5), True, (False, True, True)),  # bfloat16 would be emulated, and slow
        ("cuda", (6, 1), True, (False, False, True)),
    ],
)
def test_steps_are_bf16_and_compiled_where_that_pays(tiny, tmp_path, monkeypatch, device, capability, triton, wanted):
    told = []

    def spy(net, schedule, pred, batches, config, **_):
        told.append((config.bf16, config.compile, config.fused))
        raise InterruptedError

    monkeypatch.setattr(denoiser, "train", spy)
    monkeypatch.setattr(denoiser, "find_spec", lambda name: triton or None)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    with pytest.raises(InterruptedError):
        next(run(*prepared(tiny, tmp_path / "run", 1, device)))
    assert told == [wanted]


def test_bf16_computes_nearly_the_same(tiny, tmp_path):
    losses = [
        [loss for _, _, loss in run(*prepared(tiny, tmp_path / str(bf16), 3, bf16=bf16))] for bf16 in (False, True)
    ]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)
    saved = read_tensors(tmp_path / "True" / "resume-00000003.safetensors")
    assert all(value.dtype != torch.bfloat16 for value in saved.values())


def test_compiled_is_the_same_training(tiny, tmp_path, monkeypatch):
    """Traced by the real compiler's front, run by PyTorch: what a GPU makes of it cannot be seen here."""
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, mode: whole(net, backend="eager"))
    for name, compile in (("plain", False), ("compiled", True)):
        list(run(*prepared(tiny, tmp_path / name, 2, compile=compile)))
    plain, compiled = (read_tensors(tmp_path / name / "resume-00000002.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for key in plain:
        torch.testing.assert_close(compiled[key], plain[key], rtol=1e-4, atol=1e-5)


def test_a_model_from_before_there_were_labels_is_of_mnist(tmp_path):
    TextToImage.load("mnist", device="cpu").save(tmp_path / "m")
    description = tmp_path / "m" / "model.json"
    fields = json.loads(description.read_text())
    assert fields.pop("labels") == "mnist"
    description.write_text(json.dumps(fields))
    assert TextToImage.load(tmp_path / "m", device="cpu").config.labels == "mnist"
    description.write_text(json.dumps(fields | {"labels": "runes"}))
    with pytest.raises(UserError, match=f"unknown labels 'runes'; there is {', '.join(data.labelled())}"):
        TextToImage.load(tmp_path / "m", device="cpu")


def test_list_says_whether_it_is_here(small, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(small))
    main(["list"])
    assert "to be downloaded" in capsys.readouterr().out
    (small / "minidiff").mkdir()
    shutil.copy(cifar10_path(small), small / "minidiff")
    main(["list"])
    listed = capsys.readouterr().out
    assert f"(90 train, 10 validation, 20 test; here: {cifar10_path()})" in listed
