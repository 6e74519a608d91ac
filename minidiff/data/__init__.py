"""Data sets: images with captions. A new one is a file here that puts itself into DATASETS."""
# ruff: noqa: I001

from minidiff.data.cifar import CIFAR_CLASSES, cifar10, cifar10_path, cifar_samples, read_thing
from minidiff.data.color_digits import (
    COLORS, HELD_OUT, WORDINGS, Captioned, Scene, caption, color_digit_batches, color_digits,
)  # fmt: skip
from minidiff.data.dataset import DATASETS, Dataset, Pictures, batches, labelled
from minidiff.data.emoji import (
    EMOJI_SPLITS, EMOJI_WORDINGS, STYLES, CaptionedEmojis, Emoji, Emojis, all_emoji, emoji, emoji_batches,
    emoji_caption, emoji_images, emoji_prompt, emoji_seen, emoji_split,
)  # fmt: skip
from minidiff.data.mnist import CLASSES, mnist, read_digit
from minidiff.data.toy2d import CLOUDS, points
from minidiff.registry import discover

__all__ = [
    "CIFAR_CLASSES", "CLASSES", "CLOUDS", "COLORS", "DATASETS", "EMOJI_SPLITS", "EMOJI_WORDINGS", "HELD_OUT",
    "STYLES", "WORDINGS", "Captioned", "CaptionedEmojis", "Dataset", "Emoji", "Emojis", "Pictures", "Scene",
    "all_emoji", "batches", "caption", "cifar10", "cifar10_path", "cifar_samples", "color_digit_batches",
    "color_digits", "emoji", "emoji_batches", "emoji_caption", "emoji_images", "emoji_prompt", "emoji_seen",
    "emoji_split", "labelled", "mnist", "points", "read_digit", "read_thing",
]  # fmt: skip

discover(__name__)  # every module of this package: what it registers in DATASETS is known
