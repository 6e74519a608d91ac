"""From prompts to images: where the mathematics and the networks meet."""

from minidiff.pipeline.options import Options
from minidiff.pipeline.text_to_image import TextToImage, to_pil

__all__ = ["Options", "TextToImage", "to_pil"]
