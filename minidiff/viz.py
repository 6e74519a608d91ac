"""Pure functions that turn tensors into pictures. Pictures are floats in [0, 1], (B, C, H, W)."""

import io
from collections.abc import Sequence
from itertools import pairwise

import torch
from PIL import Image
from torch import Tensor

STILL, MOVING = (".png", ".jpg", ".webp"), (".gif", ".apng")


def sheet(pictures: Tensor, columns: int, zoom: int = 4, border: int = 2) -> Image.Image:
    """Pictures side by side, `columns` to a row, every pixel `zoom` times as large."""
    from torchvision.utils import make_grid  # costs a second

    large = pictures.float().cpu().repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    grid = make_grid(large, nrow=columns, padding=border * zoom // 2, pad_value=0.35)  # (3, H, W)
    return Image.fromarray((grid * 255).round().byte().permute(1, 2, 0).numpy())


def encode(frames: Image.Image | Sequence[Image.Image], suffix: str = ".png", seconds: float = 3.0) -> bytes:
    """One picture, or several as an animation that stays on the last for a second, as a file's bytes."""
    buffer = io.BytesIO()
    if isinstance(frames, Image.Image):
        frames.save(buffer, Image.registered_extensions()[suffix])
    else:
        each = round(1000 * seconds / len(frames))
        first, *rest = frames
        kind = "GIF" if suffix == ".gif" else "PNG"
        first.save(buffer, kind, save_all=True, append_images=rest, duration=[each] * len(rest) + [1000 + each], loop=0)
    return buffer.getvalue()


def between(frames: Sequence[Tensor], extra: int = 0) -> list[Tensor]:
    """Frames with `extra` blended ones between each two: a smoother animation of few steps."""
    smooth = [frames[0]]
    for before, after in pairwise(frames):
        smooth += [torch.lerp(before, after, (k + 1) / (extra + 1)) for k in range(extra + 1)]
    return smooth
