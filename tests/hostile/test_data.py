"""Data of one's own: tars, idx files, shards, archives. What cannot be read is named, and nothing is executed."""

import gzip
import io
import json
import os
import struct
import tarfile
from functools import partial
from itertools import islice

import pytest
import torch
from hostile.harness import damaged, nasty_json, nasty_texts, safetensors
from hypothesis import given
from PIL import Image
from safetensors.torch import save

from minidiff import data
from minidiff.data import webdataset
from minidiff.data.download import fetch
from minidiff.data.mnist import idx_dataset
from minidiff.data.shards import INDEX, Shards, shard_batches, write_shards
from minidiff.data.webdataset import find_shards, pair_batches

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def png(value=0, size=(8, 8)):
    content = io.BytesIO()
    Image.new("L", size, value).save(content, "PNG")
    return content.getvalue()


def entry(name, content, **changes):
    """A header and the content, padded; changes: of the header's fields."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in changes.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512)


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """So that no worker is forked, which would look like a program that is started."""
    monkeypatch.setattr(webdataset, "cores", lambda: 1)


PAIR = entry("a.png", png(7)) + entry("a.txt", b"gray 7")
END = b"\0" * 10_240


# Tars -----------------------------------------------------------------------------------------------------------


def test_where_no_tars_are(trial):
    os.mkfifo("pipe.tar")
    os.symlink("/dev/zero", "zero.tar")
    os.mkdir("folder.tar")
    wheres = [
        "pipe:touch x", "pipe:cat whole.tar", "pipe.tar", "zero.tar", "folder.tar", "none.tar", "", "/dev/zero", "http://127.0.0.1:9/{0..9}.tar",
        "https://example.com/a.tar", "file:whole.tar", "ftp://a/b.tar", "hdfs:a.tar", "gs://a/b.tar", "ais://a/b.tar", "{000000000..999999999}.tar",
        "{a,b}.tar", "$(touch x).tar", "`touch x`.tar", "x;touch y;.tar", "x" * 300, "\x1b[2J.tar", "*.tar", "-", "a\nb.tar", "~/x.tar",
    ]  # fmt: skip
    for where in wheres:
        trial.refuses(partial(find_shards, where), says="" if len(where) > 99 else "no shards: ", what=where)
    for where in wheres[:6]:
        trial.refused("train", "color_digits", "--data", where, "--out", "run", says="no shards: ")


def test_no_command_in_a_name_is_run(trial):
    """In a process of its own: every program that is found in PATH would leave a mark."""
    for name in (
        "touch canary;.tar",
        "$(touch canary).tar",
        "`touch canary`.tar",
        "|touch canary.tar",
        "pipe:touch canary.tar",
        "-.tar",
    ):
        (trial.folder / name).write_bytes(entry("a.png", EPS) + entry("a.txt", b"an eps") + END)
    (trial.folder / "x.png").write_bytes(EPS)
    train = ["train", "color_digits", "--steps", "1", "--batch", "1", "--device", "cpu", "--out", "run", "--data"]
    outcomes = trial.apart(
        *([*train, where] for where in ("pipe:touch x", "touch canary;.tar", "http://127.0.0.1:9/x.tar")),
        ["sample", "7", "--init", "x.png", "--out", "new.png"], ["sample", "7", "--init", "none.eps", "--mask", "x.png", "--out", "new.png"],
    )  # fmt: skip
    assert [outcome.code for outcome in outcomes] == [2] * 5
    trial.refuses(lambda: next(pair_batches(find_shards("."), 8, 1)), says="nothing can be read from 6 shards")


LONG = b"x" * 600
TARS = {  # all of them broken from the start, so that nothing of them is taken
    "empty": b"", "text": b"no tar at all" * 100, "zeros": b"\0" * 1024, "gzip": gzip.compress(PAIR + END), "an html page": b"<html>" + b" " * 2000,
    "size 2**60": entry("a.png", b"", size=2**60), "size 2**33": entry("a.png", b"", size=2**33), "size -1": entry("a.png", b"x", size=-1),
    "size -512": entry("a.png", b"x", size=-512), "size -1024": entry("a.png", b"x", size=-1024), "a size of words": PAIR[:124] + b"many" + PAIR[128:],
    "a long name of 2**60": entry("././@LongLink", b"", type=b"L", size=2**60), "a long name of -1": entry("././@LongLink", b"", type=b"L", size=-512),
    "pax of 2**60": entry("a", b"", type=b"x", size=2**60), "pax of -1": entry("a", b"", type=b"x", size=-1), "pax without end": entry("a", b"9999 path=", type=b"x"),
    "pax, size": entry("a", b"30 size=-99999999999999999999\n", type=b"x") + PAIR, "pax, sparse": entry("a", b"22 GNU.sparse.major=1\n19 GNU.sparse.map=x\n", type=b"x") + PAIR,
    "pax, sparse map": entry("a", b"25 GNU.sparse.map=1,a,x,y\n", type=b"x") + PAIR, "long names without end": b"".join(entry("l", LONG, type=b"L") for _ in range(1200)),
    "sparse": entry("a.png", b"", type=b"S"), "a link": entry("a.png", b"", type=b"2", linkname="/etc/passwd") + END, "a device": entry("a.png", b"", type=b"3") + END,
    "a pipe": entry("a.png", b"", type=b"6") + END, "a folder": entry("a.png", b"", type=b"5") + END, "no pair": entry("a.png", png()) + entry("b.txt", b"b") + END,
    "no ending": entry("a", png()) + END, "no picture": entry("a.png", b"no picture") + entry("a.txt", b"a") + END, "an eps": entry("a.png", EPS) + entry("a.txt", b"a") + END,
    "a caption of 1 MB": entry("a.png", png()) + entry("a.txt", b"a" * 2**20) + END, "no caption": entry("a.png", png()) + entry("a.txt", b" \n") + END,
    "bytes": entry("a.png", png()) + entry("a.txt", b"\xff\xfe") + END, "a picture of 10**10 pixels": entry("a.png", png(size=(9000, 9000))) + entry("a.txt", b"a") + END,
    "cut": PAIR[:600], "an old checksum": b"X" + PAIR[1:] + END, "json alone": entry("a.json", b"{}") + END,
}  # fmt: skip


@pytest.mark.parametrize("name", TARS)
def test_a_broken_tar(trial, name):
    (trial.folder / "x.tar").write_bytes(TARS[name])
    skipped = {}
    trial.refuses(
        lambda: next(pair_batches(["x.tar"], 8, 1, skipped=skipped)), says="nothing can be read from 1 shards"
    )
    (trial.folder / "y.tar").write_bytes(PAIR + END)  # with a whole one beside it, that one is read
    for images, captions in islice(pair_batches(["x.tar", "y.tar"], 8, 1, streams=1, skipped=skipped), 3):
        assert captions == ["gray 7"] and torch.allclose(images, torch.tensor(7 / 127.5 - 1))
    assert set(shard for shard, _ in skipped) == ({"x.tar"} if name not in SILENT else set())
    assert skipped or name in SILENT


SILENT = {
    "zeros",
    "no ending",
    "json alone",
    "a link",
    "a device",
    "a pipe",
    "a folder",
    "sparse",
}  # there is nothing of ours


def test_a_tar_that_is_a_hole(trial):
    with open("x.tar", "wb") as hole:
        hole.write(PAIR + entry("b.png", b"", size=1 << 35))
        hole.truncate(1 << 36)
    with open("y.tar", "wb") as hole:
        hole.write(entry("x", b"", type=b"x", size=1 << 35))
        hole.truncate(1 << 36)
    skipped = {}
    assert next(pair_batches(["x.tar"], 8, 1, skipped=skipped))[1] == ["gray 7"]
    trial.refuses(lambda: next(pair_batches(["y.tar"], 8, 1)), says="bytes in one piece")
    trial.held(lambda: list(islice(pair_batches(["x.tar", "y.tar"], 8, 1, streams=1, skipped=skipped), 4)))
    assert skipped["x.tar", "b"] == "png has 34,359,738,368 bytes" and ("y.tar", "") in skipped


@given(damaged(PAIR + entry("b/c.jpg", png(9)) + entry("b/c.txt", b"gray 9") + END))
def test_mutated_tars(trial, content):
    (trial.folder / "x.tar").write_bytes(content)
    trial.held(lambda: list(islice(pair_batches(["x.tar"], 8, 2), 2)))


# idx files ------------------------------------------------------------------------------------------------------


def idx(*shape, content=None, start=b"\0\0\x08"):
    count = 1
    for side in shape:
        count *= side
    return (
        start
        + bytes([len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + (b"\0" * count if content is None else content)
    )


IMAGES, LABELS = idx(24, 28, 28), idx(24)
IDX = {
    "empty": b"", "text": b"<html>please log in</html>" * 9, "cut": IMAGES[:-1], "more": IMAGES + b"x", "its header": IMAGES[:16], "half a header": IMAGES[:9],
    "floats": idx(24, 28, 28, start=b"\0\0\x0d"), "small": idx(24, 8, 8), "flat": LABELS, "2**32 images": idx(2**32 - 1, 28, 28, content=b""),
    "10**6 images": idx(10**6, 28, 28, content=b"\0" * 99), "none": idx(0, 28, 28), "another number": idx(23, 28, 28), "another side": idx(2**31, 2**31, 1, content=b""),
}  # fmt: skip


@pytest.fixture
def clothes(trial):
    known = data.DATASETS.copy()
    for split in ("train", "t10k"):
        (trial.folder / f"{split}-images-idx3-ubyte").write_bytes(IMAGES)
        (trial.folder / f"{split}-labels-idx1-ubyte").write_bytes(LABELS)
    yield idx_dataset("clothes", trial.folder, ("shirt", "boot"))
    data.DATASETS.clear()
    data.DATASETS.update(known)


@pytest.mark.parametrize("name", IDX)
@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_idx_files(trial, clothes, name, zipped):
    content = gzip.compress(IDX[name]) if zipped else IDX[name]
    (path := trial.folder / "t10k-images-idx3-ubyte").unlink()
    path.with_name(path.name + zipped).write_bytes(content)
    trial.refuses(lambda: clothes.load("test"), what=name)


def test_gzip_that_unfolds(trial, clothes):
    (path := trial.folder / "t10k-images-idx3-ubyte").unlink()
    bomb = gzip.compress(b"\0" * (1 << 28), 1)
    for content in (
        gzip.compress(IMAGES) + bomb,
        gzip.compress(IMAGES)[:-9],
        bomb,
        bomb[:1000],
        b"\x1f\x8b" + b"\xff" * 99,
    ):
        path.with_name(path.name + ".gz").write_bytes(content)
        trial.refuses(lambda: clothes.load("test"))
    with open(path, "wb") as hole:  # a plain one that is 64 GB of nothing
        hole.write(IMAGES)
        hole.truncate(1 << 36)
    trial.refuses(lambda: clothes.load("test"), says="has more bytes after its header")


def test_labels(trial, clothes):
    for content in (idx(24, content=b"\2" * 24), idx(23), idx(25), b"", idx(2**32 - 1, content=b""), idx(24, 1)):
        (trial.folder / "t10k-labels-idx1-ubyte").write_bytes(content)
        trial.refuses(lambda: clothes.load("test"))


@given(damaged(gzip.compress(idx(2, 28, 28, content=bytes(range(196)) * 8))))
def test_mutated_idx(trial, content):
    for name in ("images-idx3", "labels-idx1"):
        (trial.folder / f"t10k-{name}-ubyte.gz").write_bytes(content if name[0] == "i" else gzip.compress(idx(2)))
    loaded = []
    if trial.held(lambda: loaded.append(data.mnist("test", trial.folder))) is None:  # gzip has a checksum
        assert (loaded[0].images.flatten()[:196] * 127.5 + 127.5).round().int().tolist() == list(range(196))


# Shards ---------------------------------------------------------------------------------------------------------

ROWS = {"latents": torch.arange(24.0).view(6, 4).half(), "label": torch.arange(6)}


@pytest.fixture
def shards(trial):
    write_shards("shards", [ROWS], rows=4)
    return trial.folder / "shards"


def use():
    return list(islice(shard_batches(Shards("shards"), ("latents", "label"), 3), 2))


def test_an_index_that_is_wrong(trial, shards):
    whole = (shards / INDEX).read_text()
    for what, text in nasty_json(json.loads(whole)):
        (shards / INDEX).write_text(text)
        trial.refuses(use, what=what)
    for what, content in nasty_texts(whole):
        (shards / INDEX).write_bytes(content)
        trial.refuses(use, what=what) if what != "one name twice" else trial.held(use)
    for rows in ([4, 2, 10**9], [10**18, 2], [-4, 2], [False, 2], ["4", 2], [4.0, 2], [[4], 2], [0]):
        (shards / INDEX).write_text(json.dumps(json.loads(whole) | {"rows": rows}))
        trial.refuses(use, what=rows)
    for link in ("/dev/zero", "index.json", "/etc"):
        (shards / INDEX).unlink()
        (shards / INDEX).symlink_to(link)
        trial.refuses(use, what=link)


def test_a_shard_that_is_wrong(trial, shards):
    path = shards / "00001.safetensors"
    about = {"dtype": "F16", "shape": [2, 4], "data_offsets": [0, 16]}
    contents = [
        b"", b"\0" * 8, safetensors(b"", length=2**60), safetensors(b"{}", length=2**63), safetensors({}), safetensors({"latents": about}, b"\0" * 16),
        safetensors({"latents": about | {"shape": [10**9, 10**9]}}, b"\0" * 16), safetensors({"latents": about | {"dtype": "F4"}}, b"\0" * 16),
        safetensors({"\x1b[2J": about}, b"\0" * 16), safetensors({"latents": about | {"shape": []}}, b"\0" * 16),
        save({"latents": torch.tensor(1.0).half(), "label": torch.tensor(1)}), save({"latents": ROWS["latents"][:2].float(), "label": ROWS["label"][:2]}),
    ]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        trial.refuses(use, what=content[:60])
    path.unlink()
    path.symlink_to("/dev/zero")
    trial.refuses(use)
    path.unlink()
    os.mkfifo(path)
    trial.refuses(use)


@given(damaged(save({name: value[4:] for name, value in ROWS.items()})))
def test_mutated_shards(trial, content):
    if not (trial.folder / "shards").exists():
        write_shards("shards", [ROWS], rows=4)
    (trial.folder / "shards" / "00001.safetensors").write_bytes(content)
    trial.held(use)


# Archives -------------------------------------------------------------------------------------------------------


def test_an_archive_that_is_something_else(trial):
    os.symlink("/dev/zero", "zero.gz")
    os.symlink("loop.gz", "loop.gz")
    os.mkdir("folder.gz")
    with open("hole.gz", "wb") as hole:
        hole.truncate(1 << 40)
    (trial.folder / "text.gz").write_bytes(b"text")
    for path in ("zero.gz", "folder.gz", "hole.gz", "text.gz", "x" * 300):
        trial.refuses(partial(fetch, "http://127.0.0.1:9/x", path, 1000, "0" * 64), what=path)
    for content in (b"", b"text", b"\0" * 1000):
        (trial.folder / "cifar-10-binary.tar.gz").write_bytes(content)
        trial.refused("train", "cifar10", "--data", ".", "--out", "run", says="is not the published file")
