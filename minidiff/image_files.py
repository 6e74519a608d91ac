"""Images as files: sheets of several, PNG and its kin, animations."""

import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

STILL, MOVING = (".png", ".jpg", ".webp"), (".gif", ".apng")


def sheet(pictures: Tensor, columns: int, zoom: int = 4, border: int = 2) -> Image.Image:
    """Pictures side by side, `columns` to a row, every pixel `zoom` times as large; gray or RGB as they are."""
    from torchvision.utils import make_grid  # costs a second

    large = pictures.float().cpu().repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    grid = make_grid(large, nrow=columns, padding=border * zoom // 2, pad_value=0.35)  # (3, H, W)
    pixels = (grid * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pictures.shape[1] == 1 else pixels)


def encode(frames: Image.Image | Sequence[Image.Image], suffix: str = ".png", seconds: float = 3.0) -> bytes:
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
    else:  # an animated PNG: viewers that do not play it show the last frame
        frames[-1].save(buffer, "PNG", append_images=frames, default_image=True, **timing)
    return buffer.getvalue()
