"""Images of every kind and none, by the command line, from tars and in Python: read alike, or refused in one line."""

import io
import os
import struct
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from hostile.harness import damaged
from hypothesis import given
from PIL import Image

from minidiff import TextToImage
from minidiff.data.webdataset import read_pair
from minidiff.image_files import FORMATS, read_image
from minidiff.pipeline.image_to_image import from_pil


def file(image, kind="PNG", **how):
    content = io.BytesIO()
    image.save(content, kind, **how)
    return content.getvalue()


def steps(mode="RGB", size=(12, 8)):
    """An image in which every pixel is another."""
    pixels = (
        np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3) * 255 // (size[0] * size[1] * 3)
    )
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def png(width, height, depth=8, color=2, data=b"", more=b""):
    """A PNG whose header may say anything."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp(width, height):
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )


def gif(width, height):
    return (
        b"GIF89a"
        + struct.pack("<HH", width, height)
        + b"\xf0\0\0"
        + b"\0" * 6
        + b","
        + struct.pack("<HHHH", 0, 0, width, height)
        + b"\0\x02\x02\x44\x01\0;"
    )


EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n(canary) (w) file closefile\nshowpage\n%%EOF\n"
)
WHOLE = {
    "png": file(steps()), "jpeg": file(steps(), "JPEG"), "webp": file(steps(), "WEBP"), "gif": file(steps("P"), "GIF"),
    "bmp": file(steps(), "BMP"), "tiff": file(steps(), "TIFF"), "deflated tiff": file(steps(), "TIFF", compression="tiff_deflate"),
    "palette": file(steps("P"), transparency=3), "gray 16": file(Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600)),
    "rgba": file(steps("RGBA")), "cmyk": file(steps("CMYK"), "JPEG"), "bits": file(steps("1"), "PNG"),
}  # fmt: skip
BAD = {
    "empty": b"", "zeros": b"\0" * 5000, "text": b"a picture of a cat", "html": b"<html>please log in</html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "eps": EPS, "pdf": b"%PDF-1.7\n1 0 obj",
    "a signature alone": b"\x89PNG\r\n\x1a\n", "wide": png(100_000, 100_000), "huge": png(2**31 - 1, 2**31 - 1), "no pixels": png(0, 0),
    "a bomb": png(20_000, 20_000, data=zlib.compress(b"\0" * (1 << 20))), "no data": png(9, 9), "depth 3": png(9, 9, depth=3),
    "little data": png(9, 9, data=zlib.compress(b"\0" * 20)), "colour 9": png(9, 9, color=9),
    "a text bomb": png(9, 9, more=struct.pack(">I", 4096) + b"zTXt" + b"a\0\0" + zlib.compress(b"a" * (1 << 28))[:4093] + b"\0" * 4),
    "a chunk of 2 GB": png(9, 9, more=b"\x7f\xff\xff\xfftEXt"), "bmp of 2**31": bmp(2**31 - 1, 2**31 - 1), "bmp, negative": bmp(-5, 5),
    "gif of 65535": gif(65_535, 65_535), "float tiff": file(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    "32-bit tiff": file(Image.fromarray(np.full((4, 4), 10**6, np.int32)), "TIFF"), "ppm": file(steps(), "PPM"), "ico": file(steps(), "ICO"),
    "tga": file(steps(), "TGA"), "pcx": file(steps(), "PCX"), "jpeg2000": b"\0\0\0\x0cjP  \r\n\x87\n", "psd": b"8BPS\0\1" + b"\0" * 60,
    "fli": struct.pack("<IHHHHHH", 2**31, 0xAF11, 9, 65_535, 65_535, 8, 3) + b"\0" * 112, "wmf": b"\xd7\xcd\xc6\x9a" + b"\0" * 60,
    **{f"{name}, cut": whole[: len(whole) * 2 // 3] for name, whole in WHOLE.items() if name != "gif"},
    **{f"{name}, its start": whole[:40] for name, whole in WHOLE.items()},
}  # fmt: skip


@pytest.fixture
def seven(trial):
    """A whole image in the folder, of the model's size."""
    Image.new("L", (28, 28)).save(trial.folder / "seven.png")
    return trial.folder / "seven.png"


@pytest.mark.parametrize("name", BAD)
def test_no_image(trial, seven, name):
    (path := trial.folder / "x.png").write_bytes(BAD[name])
    line = trial.refused("sample", "7", "--init", path, "--out", "new.png", says=f"{path} cannot be read: ")
    assert trial.refused("sample", "7", "--init", seven, "--mask", path, "--out", "new.png") == line
    trial.refuses(lambda: read_image(path), says="the image cannot be read: ")
    trial.refuses(lambda: read_pair({"png": BAD[name], "txt": b"a"}, 16), says="the picture cannot be read: ")


def test_no_file(trial, seven):
    os.mkfifo("pipe.png")
    os.symlink("/dev/zero", "zero.png")
    os.symlink("loop.png", "loop.png")
    os.mkdir("folder.png")
    with open("sparse.png", "wb") as hole:
        hole.truncate(1 << 40)
    for path in (
        "none.png",
        "pipe.png",
        "zero.png",
        "loop.png",
        "folder.png",
        "sparse.png",
        "",
        "x" * 300,
        "/dev/stdin",
        "/proc/self/mem",
    ):
        for options in (["--init", path], ["--init", seven, "--mask", path]):
            trial.refused("sample", "7", *options, "--out", "new.png", says="cannot be read: ")


def test_a_name_that_moves_the_cursor(trial):
    for name in ("\x1b[2J\x1b[31mred.png", "back\rward.png", "\u202egnp.x.png", "\udcff.png", "new\nline.png"):
        (trial.folder / name).write_bytes(b"no image")
        trial.refused("sample", "7", "--init", name, "--out", "new.png", says="cannot be read")


def test_images_that_are_too_long(trial):
    for size in ((100_000, 1), (1, 100_000), (65_000, 4)):
        Image.new("L", size).save("long.png")
        trial.refused("sample", "7", "--init", "long.png", "--out", "new.png", says="size must be at most 4096, got")
        trial.refuses(lambda: TextToImage.load("mnist", "cpu")(["7"], init="long.png"), says="size must be")


@pytest.mark.parametrize("name", WHOLE)
def test_mutated(trial, name):
    @given(damaged(WHOLE[name]))
    def tried(content):
        (trial.folder / "x.png").write_bytes(content)
        trial.held(lambda: read_image(trial.folder / "x.png"))

    tried()


# What is read ---------------------------------------------------------------------------------------------------


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: left is up
    return exif


LEFT = Image.new("RGB", (20, 10), "white")
LEFT.paste("black", (0, 0, 10, 10))
CLEAR = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
GRAY16 = Image.fromarray(np.array([[0, 257 * 100, 65_535], [0, 257 * 100, 65_535]], np.uint16))
PALETTE = Image.new("P", (4, 4), 1)
PALETTE.putpalette([0, 0, 0, 200, 30, 10])
READ = {  # a file, and some of its pixels
    "upright": (file(LEFT, "JPEG", exif=turned(), quality=95), {(2, 2): (0,) * 3, (2, 17): (255,) * 3}),
    "upright png": (file(LEFT, "PNG", exif=turned()), {(2, 2): (0,) * 3, (2, 17): (255,) * 3}),
    "transparent": (file(CLEAR), {(0, 0): (255,) * 3}),
    "half": (file(Image.new("RGBA", (4, 4), (0, 0, 0, 51))), {(0, 0): (204,) * 3}),
    "gray and alpha": (file(Image.new("LA", (4, 4), (0, 0))), {(0, 0): (255,) * 3}),
    "a transparent colour": (file(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)), {(0, 0): (255,) * 3}),
    "a transparent entry": (file(PALETTE, transparency=1), {(0, 0): (255,) * 3}),
    "palette": (file(PALETTE), {(0, 0): (200, 30, 10)}),
    "gray 16": (file(GRAY16), {(0, 0): (0,) * 3, (1, 0): (100,) * 3, (2, 0): (255,) * 3}),
    "gray 16, tiff": (file(GRAY16, "TIFF"), {(0, 0): (0,) * 3, (1, 0): (100,) * 3, (2, 0): (255,) * 3}),
    "bits": (file(Image.new("1", (4, 4), 1)), {(0, 0): (255,) * 3}),
    "cmyk": (file(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), {(0, 0): (255, 0, 0)}),
    "clear webp": (file(CLEAR, "WEBP", lossless=True), {(0, 0): (255,) * 3}),
    "the first frame": (file(Image.new("L", (4, 4), 7), "GIF", save_all=True, append_images=[CLEAR]), {(0, 0): (7,) * 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_read_alike_from_bytes_a_path_pil_and_a_tar(name, tmp_path):
    content, expected = READ[name]
    (path := tmp_path / "x.img").write_bytes(content)
    plain = read_image(content)
    assert plain.mode == "RGB"
    for place, color in expected.items():
        assert max(abs(a - b) for a, b in zip(plain.getpixel(place), color, strict=True)) <= 3, place
    pixels = np.asarray(plain)
    with Image.open(path) as opened:
        for other in (path, str(path), opened, pixels):
            assert np.array_equal(np.asarray(read_image(other)), pixels)
    tensor, _ = read_pair({"png": content, "txt": b"a"}, 4)
    centre = read_pair({"png": file(plain), "txt": b"a"}, 4)[0]
    assert torch.equal(tensor, centre) and torch.equal(from_pil(path), from_pil(plain))


def test_all_formats_are_tried():
    assert {kind.upper() for kind in WHOLE} >= set(FORMATS)
    for name, whole in WHOLE.items():
        assert read_image(whole).size == (12, 8), name


# In Python ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe():
    return TextToImage.load("mnist", "cpu")


def test_images_in_python_are_taken_where_they_are_plain(pipe, tmp_path):
    pixels = np.zeros((28, 28), np.uint8)
    pixels[5:20, 10:14] = 200
    Image.fromarray(pixels).save(tmp_path / "x.png")
    white = np.zeros((28, 28), bool)
    white[:, 14:] = True
    draw = partial(pipe.latents, ["7"], steps=3, strength=0.7)
    expected = draw(init=Image.fromarray(pixels), mask=Image.fromarray(white))
    for init in (pixels, np.repeat(pixels[..., None], 3, 2), tmp_path / "x.png", str(tmp_path / "x.png")):
        assert torch.equal(draw(init=init, mask=white), expected)
    assert torch.equal(draw(init=pixels, mask=white.astype(np.uint8) * 255), expected)


LATENTS = torch.zeros(1, 4, 14, 14)
ODD = {
    "floats": np.zeros((28, 28, 3)), "whole numbers": np.zeros((28, 28), np.int64), "16 bits": np.zeros((28, 28), np.uint16),
    "channels first": np.zeros((3, 28, 28), np.uint8), "a batch": np.zeros((1, 28, 28, 3), np.uint8), "two channels": np.zeros((28, 28, 2), np.uint8),
    "one channel": np.zeros((28, 28, 1), np.uint8), "flat": np.zeros(784, np.uint8), "nothing": np.zeros((0, 28), np.uint8),
    "objects": np.array([["a"]], object), "a number": 3.5, "a list": [Image.new("L", (28, 28))] * 2, "bytes": b"\0\1", "a function": print,
    "no file": "nowhere.png", "two of three": LATENTS.expand(2, 4, 14, 14), "three channels": LATENTS[:, :3], "flat latents": LATENTS[0],
    "odd": Image.new("L", (27, 28)), "none at all": torch.zeros(0, 4, 14, 14), "NaN": LATENTS * float("nan"), "words": "",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_other_things_in_python(trial, pipe, name):
    says = (
        ""
        if name in ("odd", "no file", "words", "bytes", "nothing", "NaN")
        else "(1 or 3, 4, h, w)"
        if isinstance(ODD[name], torch.Tensor)
        else "taken are"
    )
    trial.refuses(lambda: pipe(["1", "2", "3"], init=ODD[name], steps=2), says=says, what=name)


MASKS = {
    "two of three": torch.ones(2, 1, 14, 14), "four channels": torch.ones(1, 4, 14, 14), "flat": torch.ones(14, 14), "2": 2 * torch.ones(1, 1, 14, 14),
    "NaN": torch.full((1, 1, 14, 14), float("nan")), "pixels": torch.ones(1, 1, 28, 28), "another size": Image.new("L", (14, 14)), "a word": "white",
    "floats": np.ones((28, 28)), "a number": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_other_masks_in_python(trial, pipe, name):
    trial.refuses(lambda: pipe(["1", "2", "3"], init=LATENTS, mask=MASKS[name], steps=2), says="mask", what=name)
