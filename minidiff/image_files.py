"""Images as files: read whatever they are, and written: sheets of several, PNG and its kin, animations."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from minidiff.registry import UserError

STILL, MOVING = (".png", ".jpg", ".webp"), (".gif", ".apng")
LONGEST = {".jpg": 65_500, ".webp": 16_383, ".gif": 65_535}  # pixels of a side that a format can have
LARGEST = 2**28  # pixels of all frames of a file
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow's others are old code, or start other programs
PIXELS, BYTES = 2**26, 2**28  # at most so many are read
TAKEN = "taken are the path of an image, an image of PIL, and an array of uint8, (H, W), (H, W, 3) or (H, W, 4)"


def read_image(image: Image.Image | np.ndarray | str | Path | bytes, what: str = "the image") -> Image.Image:
    """An image as RGB: upright, where it is transparent on white, 16 bits scaled to 8.

    image: what TAKEN says, or a file's bytes. what: its name in errors. Raises UserError for what is none, broken, of a
    format that is not in FORMATS, or too large.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is wrong in a file, and does not matter
            if isinstance(image, Image.Image):
                return _plain(image)
            if isinstance(image, np.ndarray):
                if image.dtype not in (np.uint8, bool) or image.ndim != 2 and image.shape[2:] not in ((3,), (4,)):
                    raise TypeError(f"{TAKEN}, not {image.shape} of {image.dtype}")
                return _plain(Image.fromarray(image))
            if not isinstance(image, str | Path | bytes):
                raise TypeError(f"{TAKEN}, not {type(image).__name__}")
            if not isinstance(image, bytes):
                if not Path(image).is_file():  # a folder, a pipe, a device that never ends
                    raise OSError("there is no such file")
                with open(image, "rb") as file:
                    image = file.read(BYTES + 1)
            if len(image) > BYTES:
                raise OSError(f"it has more than {BYTES:,} bytes")
            with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
                return _plain(opened)
    except Exception as error:  # Pillow's plugins raise many kinds
        why = f"it is none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(f"{what} cannot be read: {why or type(error).__name__}") from None


def _plain(image: Image.Image) -> Image.Image:
    if not 0 < image.width * image.height <= PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, which must be 1 to {PIXELS:,}")
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # `convert` would cut them at 255
        pixels = np.asarray(image)
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65_535:
            raise ValueError("it has more than 16 bits a pixel")
        opaque = pixels != image.info.get("transparency")
        image = Image.fromarray(np.where(opaque, (pixels / 257).round(), 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def sheet(pictures: Tensor, columns: int, zoom: int = 4, border: int = 2) -> Image.Image:
    """Pictures side by side, `columns` to a row, every pixel `zoom` times as large; gray or RGB as they are."""
    from torchvision.utils import make_grid  # costs a second

    large = pictures.float().cpu().repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    grid = make_grid(large, nrow=columns, padding=border * zoom // 2, pad_value=0.35)  # (3, H, W)
    pixels = (grid * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pictures.shape[1] == 1 else pixels)


def check_sheet(count: int, columns: int, size: tuple[int, int], zoom: int, suffix: str, frames: int = 1) -> None:
    """Ask before the work: raises UserError if such a `sheet`, (height, width) each, is too large for its format."""
    height, width = (zoom * (n * (side + 1) + 1) for n, side in zip((-(-count // columns), columns), size, strict=True))
    if max(height, width) > LONGEST.get(suffix, LARGEST) or height * width * frames > LARGEST:
        sheets = f"{frames:,} frames" if frames > 1 else "a sheet"
        raise UserError(f"{sheets} of {width:,}x{height:,} pixels: too large for a {suffix}")


def encode(
    frames: Image.Image | Sequence[Image.Image], suffix: str = ".png", seconds: float = 3.0, still: int = -1
) -> bytes:
    """One picture, or several as an animation that stays on the last for a second, as a file's bytes."""
    buffer = io.BytesIO()
    if isinstance(frames, Image.Image):
        frames.save(buffer, Image.registered_extensions()[suffix])
        return buffer.getvalue()
    frames = [frame.convert("RGB") if frame.mode == "P" else frame for frame in frames]  # one palette would not do
    each = round(1000 * seconds / len(frames))
    timing = {"save_all": True, "duration": [each] * (len(frames) - 1) + [1000 + each], "loop": 0}
    if suffix == ".gif":
        frames[0].save(buffer, "GIF", append_images=frames[1:], **timing)
    else:  # an animated PNG: viewers that do not play it show `still`
        frames[still].save(buffer, "PNG", append_images=frames, default_image=True, **timing)
    return buffer.getvalue()
