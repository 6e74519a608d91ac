"""Pictures with captions. Nothing here knows what a model is."""

from minidiff.data.cifar import CIFAR_CLASSES, cifar10, cifar10_path, cifar_samples, read_thing
from minidiff.data.color_digits import (
    COLORS,
    HELD_OUT,
    WORDINGS,
    Captioned,
    Scene,
    caption,
    color_digit_batches,
    color_digits,
)
from minidiff.data.dataset import Pictures, batches
from minidiff.data.emoji import (
    EMOJI_SPLITS,
    EMOJI_WORDINGS,
    STYLES,
    CaptionedEmojis,
    Emoji,
    Emojis,
    all_emoji,
    emoji,
    emoji_batches,
    emoji_caption,
    emoji_images,
    emoji_split,
)
from minidiff.data.emoji_names import emoji_prompt, emoji_seen
from minidiff.data.mnist import CLASSES, mnist, read_digit
from minidiff.data.toy2d import CLOUDS, points

# What a prompt can name where no text encoder reads it: the classes, and how one is looked up.
LABELS = {"digits": (CLASSES, read_digit), "cifar10": (CIFAR_CLASSES, read_thing)}

__all__ = [
    "CIFAR_CLASSES",
    "CLASSES",
    "CLOUDS",
    "COLORS",
    "Captioned",
    "CaptionedEmojis",
    "EMOJI_SPLITS",
    "EMOJI_WORDINGS",
    "Emoji",
    "Emojis",
    "HELD_OUT",
    "LABELS",
    "Pictures",
    "STYLES",
    "Scene",
    "WORDINGS",
    "all_emoji",
    "batches",
    "caption",
    "cifar10",
    "cifar10_path",
    "cifar_samples",
    "color_digit_batches",
    "color_digits",
    "emoji",
    "emoji_batches",
    "emoji_caption",
    "emoji_images",
    "emoji_prompt",
    "emoji_seen",
    "emoji_split",
    "mnist",
    "points",
    "read_digit",
    "read_thing",
]
