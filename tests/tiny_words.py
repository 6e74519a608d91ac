"""A model that reads prompts, and a CLIP: tiny, with random weights."""

import torch

from minidiff import TextToImage, data
from minidiff.formats.model_config import ModelConfig
from minidiff.networks import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig, UNetConfig
from minidiff.tokenizer import END, Tokenizer


def tiny_tokenizer(length: int = 24) -> Tokenizer:
    """Every word of some hundred captions is one piece."""
    return Tokenizer.train(data.color_digits(300, "validation").captions, 400, length)


def tiny_text(tokenizer: Tokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(len(tokenizer.vocab), tokenizer.length, 16, layers=2, heads=2, end=tokenizer.vocab[END])


def tiny_pipe(tokenizer: Tokenizer) -> TextToImage:
    """It looks at words at both of its sizes, 16x16 and 8x8."""
    torch.manual_seed(0)
    unet = UNetConfig(12, 12, (8, 16), (True, True), layers=1, heads=2, context_dim=16, groups=4)
    config = ModelConfig(name="tiny", unet=unet, picture=(3, 32, 32), scale=3.0, text=tiny_text(tokenizer))
    return TextToImage(config, config.build(), "cpu", tokenizer)


def tiny_clip(tokenizer: Tokenizer) -> CLIP:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(size=32, patch=8, width=16, layers=1, heads=2)
    return CLIP(CLIPConfig(tiny_text(tokenizer), vision, dim=8)).eval().requires_grad_(False)
