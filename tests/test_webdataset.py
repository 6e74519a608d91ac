"""Pictures with captions from tars, as webdataset has them: the broken ones are named, the rest is all there."""

import io
import logging
import os
import subprocess
import sys
import tarfile
from itertools import islice

import pytest
import torch
from PIL import Image

from minidiff.cli.main import main
from minidiff.data import webdataset as tars
from minidiff.data.webdataset import find_shards, pair_batches

EACH = 6  # pictures in a shard


def picture(value, kind="png", mode="RGB", size=(10, 8)):
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, kind)
    return file.getvalue()


def members(shard, kind="png"):
    """Picture k of a shard is gray, 10 * shard + k bright, and its caption says so."""
    for k in range(EACH):
        value = 10 * shard + k
        yield f"{value:06}.{kind}", picture((value,) * 3, kind)
        yield f"{value:06}.txt", f"gray {value}".encode()


def tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """So that no test starts workers here, where there may be threads."""
    monkeypatch.setattr(tars, "cores", lambda: 1)


@pytest.fixture
def folder(tmp_path):
    for shard in range(4):
        tar(tmp_path / f"{shard:05}.tar", members(shard))
    return tmp_path


def drawn(batches, count):
    """Captions of some batches, after a look whether each stands beside its picture."""
    told = []
    for images, captions in islice(batches, count):
        assert images.dtype == torch.float32 and images.shape[1:] == (3, 4, 4)
        for image, caption in zip(images, captions, strict=True):
            expected = int(caption.split()[1]) / 127.5 - 1 if caption else 0.0
            assert torch.allclose(image, torch.tensor(expected), atol=1e-6)
        told += captions
    return told


EVERY = sorted(f"gray {10 * shard + k}" for shard in range(4) for k in range(EACH))


def test_every_picture_once_an_epoch_in_another_order(folder):
    batches = pair_batches(find_shards(folder), 4, 4, seed=1)  # 4 streams, 6 batches an epoch
    first, second = drawn(batches, 6), drawn(batches, 6)
    assert sorted(first) == sorted(second) == EVERY
    assert first != second and first[::4] != sorted(first[::4])
    assert drawn(pair_batches(find_shards(folder), 4, 4, seed=1), 12) == first + second
    assert drawn(pair_batches(find_shards(folder), 4, 4, seed=2), 6) != first


def test_several_processes_read_the_batches_of_one_each_from_shards_of_its_own(folder, monkeypatch):
    opened, real = [], tars.read_tar
    monkeypatch.setattr(tars, "read_tar", lambda shard, problems: opened[-1].add(shard) or real(shard, problems))

    def read(mine):
        opened.append(set())
        return drawn(pair_batches(find_shards(folder), 4, 8, mine=mine), 3)

    whole, first, second = map(read, (slice(None), slice(0, 4), slice(4, 8)))
    assert [one or other for one, other in zip(first, second, strict=True)] == whole
    assert not any(one and other for one, other in zip(first, second, strict=True))
    assert opened[0] == opened[1] | opened[2] and not opened[1] & opened[2]
    with pytest.raises(ValueError, match="a batch of 12 has 4 streams: the processes must share them equally"):
        next(pair_batches(find_shards(folder), 4, 12, mine=slice(0, 4)))
    with pytest.raises(ValueError, match="a batch of 8 from 4 shards cannot be divided among 8 streams"):
        next(pair_batches(find_shards(folder), 4, 8, streams=8))


def test_workers_change_nothing(folder):
    """In a process of its own, which may start workers: this one may have threads."""
    here = drawn(pair_batches(find_shards(folder), 4, 4, seed=1, streams=2, workers=False), 7)
    code = f"""
from itertools import islice
from minidiff.data.webdataset import find_shards, pair_batches
batches = pair_batches(find_shards({str(folder)!r}), 4, 4, seed=1, streams=2, workers=True)
print(*(c for _, captions in islice(batches, 7) for c in captions), sep="\\n")
open({str(folder / "00000.tar")!r}, "w").close()
try:
    next(pair_batches([{str(folder / "00000.tar")!r}], 4, 1, workers=True))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    *there, complaint = done.stdout.splitlines()
    assert there == here, done.stderr
    assert complaint == "nothing can be read from 1 shards; the first problem: the shard is broken: empty file"


def test_what_is_broken_is_named_and_passed_over(folder, caplog):
    whole = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(whole[: 4 * 1024 + 520])  # in the third picture
    good = list(members(2))
    bad = [
        ("000020.png", good[0][1][:40]),  # an unreadable picture
        ("000020.txt", b"gray 20"),
        good[2],  # 21 has no caption
        good[4],  # 22 has an empty one
        ("000022.txt", b" \n"),
        good[6],  # 23 is not text
        ("000023.txt", b"\xff\xfe"),
        good[9],  # 24 has no picture
        *good[10:],
    ]
    tar(folder / "00002.tar", bad)
    (folder / "00003.tar").write_bytes(b"no tar at all" * 100)
    (folder / "00004.tar").write_bytes(b"")
    tar(folder / "00005.tar", members(5))
    shards = [*find_shards(folder), str(folder / "gone.tar")]
    skipped = {}
    told = drawn(pair_batches(shards, 4, 2, streams=1, skipped=skipped), 30)  # several epochs
    assert set(told) == {f"gray {value}" for value in (*range(6), 10, 11, 25, *range(50, 56))}
    named = {(shard.split("/")[-1], key): why for (shard, key), why in skipped.items()}
    assert set(named) == {(f"0000{k}.tar", "") for k in (1, 3)} | {("gone.tar", ""), ("00004.tar", "")} | {
        ("00002.tar", f"0000{k}") for k in range(20, 25)
    }
    assert "broken: unexpected end of data" in named["00001.tar", ""]
    assert "No such file" in named["gone.tar", ""] and "broken" in named["00003.tar", ""]
    assert named["00002.tar", "000020"] == "the picture cannot be read: it is none of PNG, JPEG, WEBP, GIF, BMP, TIFF"
    assert named["00002.tar", "000021"] == "no caption (txt)"
    assert named["00002.tar", "000022"] == "the caption is empty"
    assert named["00002.tar", "000023"] == "the caption is not UTF-8" and "no picture" in named["00002.tar", "000024"]
    assert len(caplog.records) == len(named)  # once each, however many epochs
    assert any("00002.tar, 000021: no caption (txt)" in record.getMessage() for record in caplog.records)


def test_a_tar_that_breaks_in_the_middle_is_not_taken_for_a_short_one(folder):
    """tarfile ends without a word at a header that it cannot read."""
    files = [
        (f"{k:06}.{kind}", content) for k in range(30) for kind, content in (("png", picture(k)), ("txt", b"gray 0"))
    ]
    tar(folder / "00003.tar", files)
    content = bytearray((folder / "00003.tar").read_bytes())
    content[8 * 512 : 9 * 512] = b"x" * 512
    (folder / "00003.tar").write_bytes(content)
    skipped = {}
    next(pair_batches([str(folder / "00003.tar")], 4, 1, skipped=skipped))
    drawn_on = pair_batches([str(folder / "00003.tar")], 4, 1, skipped=skipped)
    list(islice(drawn_on, 5))
    assert list(skipped.values()) == ["the shard is broken: it goes on after what can be read"]


def test_a_stream_whose_shard_is_broken_goes_on_with_the_next(folder):
    (folder / "00002.tar").write_bytes(b"no tar at all" * 100)
    skipped = {}
    told = drawn(pair_batches(find_shards(folder), 4, 4, skipped=skipped), 60)  # 4 streams, a shard each
    assert set(told) == {caption for caption in EVERY if not caption.startswith("gray 2")} | {"gray 2"}
    assert [shard.split("/")[-1] for shard, _ in skipped] == ["00002.tar"]


def test_where_nothing_can_be_read(tmp_path):
    for shard in range(3):
        tar(tmp_path / f"{shard}.tar", [("a.jpg", b"no picture"), ("a.txt", b"text")])
    with pytest.raises(ValueError, match="nothing can be read from 3 shards; the first problem: a: the picture cannot"):
        next(pair_batches(find_shards(tmp_path), 4, 2))


def test_many_problems_are_not_all_told(folder, caplog):
    skipped = {}
    with caplog.at_level(logging.WARNING):
        for k in range(1000):
            tars.note(skipped, "a.tar", str(k), "no caption (txt)")
    assert len(skipped) == 1000 and 20 < len(caplog.records) < 30


def test_pictures_of_all_kinds(tmp_path):
    turned = Image.new("RGB", (20, 10), "white")
    turned.paste("black", (0, 0, 10, 10))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # the camera was held upright: left is up
    turned.save(file, "jpeg", exif=exif, quality=95)
    files = [
        ("a.jpg", picture((200, 0, 0), "jpeg")),
        ("b.webp", picture((0, 200, 0), "webp")),
        ("c.png", picture((9, 9, 9, 0), mode="RGBA")),  # nothing but transparency is white
        ("d.PNG", picture(50, mode="L", size=(3, 3))),
        ("e.jpeg", picture((0, 0, 0, 255), "jpeg", mode="CMYK")),
        ("f.jpg", file.getvalue()),
    ]
    tar(
        tmp_path / "0.tar",
        [one for name, data in files for one in ((name, data), (f"{name[0]}.txt", name[:1].encode()))],
    )
    skipped = {}
    images, captions = next(pair_batches([str(tmp_path / "0.tar")], 4, 6, skipped=skipped))
    assert not skipped
    seen = {caption: ((image + 1) * 127.5).round() for image, caption in zip(images, captions, strict=True)}
    assert abs(seen["a"].mean((1, 2)) - torch.tensor([200.0, 0, 0])).max() < 5
    assert abs(seen["b"].mean((1, 2)) - torch.tensor([0, 200.0, 0])).max() < 9
    assert (seen["c"] == 255).all() and (seen["d"] == 50).all() and seen["e"].max() < 5
    assert seen["f"][:, 0].max() < 30 and seen["f"][:, -1].min() > 225


def test_training_on_a_folder_of_tars(folder, tmp_path, capsys):
    command = [
        "train",
        "color_digits",
        "--steps",
        "2",
        "--batch",
        "4",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    ]
    main([*command, "--data", str(folder)])
    assert "done" in capsys.readouterr().out and (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(SystemExit):
        main([*command, "--data", str(tmp_path / "run")])
    assert "no shards" in capsys.readouterr().err


def test_which_shards_are_meant(folder):
    assert len(find_shards(folder)) == 4
    assert find_shards(folder / "00001.tar") == [str(folder / "00001.tar")]
    (folder / "empty" / "a folder.tar").mkdir(parents=True)
    os.mkfifo(folder / "empty" / "pipe.tar")
    for where in (folder / "empty", folder / "empty" / "pipe.tar", "nowhere", "", "pipe:cat 00000.tar", "00000.{tar}"):
        with pytest.raises(ValueError, match="no shards"):
            find_shards(where)
