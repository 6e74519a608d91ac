"""What figures and widgets show unless they are given something else."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff import data
from minidiff.data.color_digits import draw

PROMPT = "a red seven on a blue background"  # of color_digits
THING, FACE = "red apple", "smiling face with tear"  # emoji; the face is not in the training set in Twemoji's style
CRYING = "a twemoji emoji of a crying face"


@cache
def digits() -> Tensor:
    """A hundred validation digits, (100, 1, 28, 28) in [-1, 1]."""
    return data.mnist("validation").images[:100]


@cache
def scenes() -> data.Captioned:
    """Seven images of color_digits that differ in one thing or in several, made of validation digits."""
    colours = (7, "red", "blue"), (7, "blue", "red"), (4, "red", "blue"), (3, "green", "white"), (8, "white", "purple")
    chosen = [data.Scene(*each) for each in colours]
    chosen[4:4] = [data.Scene(5, "orange", "black", place, "small") for place in ("top left", "bottom right")]
    known = data.mnist("validation")
    images = torch.stack([known.images[known.labels == scene.digit][0] for scene in chosen])
    return data.Captioned(draw(chosen, images), [data.caption(scene) for scene in chosen], chosen)


def some_emoji(side: int) -> dict[str, Tensor]:
    """Emoji in Twemoji's style, by name, (3, side, side) in [-1, 1]; the first is FACE."""
    names = [FACE, THING, "cat face", "snowman", "automobile"]
    named = {item.name: item for item in data.all_emoji()}
    pixels = data.emoji_images([(named[name], "twemoji") for name in names]).float() / 127.5 - 1
    return dict(zip(names, F.interpolate(pixels, size=side), strict=True))
