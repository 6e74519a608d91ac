"""Tiny random Stable Diffusion pipelines of diffusers: 1.x and 2.x in shape."""

import warnings

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from minidiff.tokenizer import END, START, Tokenizer

PROMPT, NEGATIVE = "a photo of a red apple on a table!", "blurry apples"
LENGTH = 20
UNETS = {
    "1.x": {"attention_head_dim": 4},
    "2.x": {"attention_head_dim": [2, 4], "use_linear_projection": True},
}


@torch.no_grad()
def shaken(net, by=0.05):
    """Biases and norms start at 0 and 1: none of them alike any more."""
    for p in net.parameters():
        p += by * torch.randn_like(p)
    return net.eval()


def tiny(version: str) -> StableDiffusionPipeline:
    torch.manual_seed(0)
    learned = Tokenizer.train([PROMPT, NEGATIVE], 40)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END if version == "1.x" else "!"}
    tokenizer = CLIPTokenizer(vocab=learned.vocab, merges=learned.merges, model_max_length=LENGTH, **special)
    text = CLIPTextConfig(
        vocab_size=len(learned.vocab), max_position_embeddings=LENGTH, hidden_size=24, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=3, hidden_act="quick_gelu" if version == "1.x" else "gelu",
        bos_token_id=learned.vocab[START], eos_token_id=learned.vocab[END], pad_token_id=learned.vocab[special["pad_token"]],
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=24, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D") if version == "1.x" else ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D") if version == "1.x" else ("CrossAttnUpBlock2D",) * 2,
        **UNETS[version],
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.6,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = PNDMScheduler(  # as the checkpoints on the hub have it
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StableDiffusionPipeline(
            shaken(vae), shaken(CLIPTextModel(text)), tokenizer, shaken(unet), scheduler, None, None,
            requires_safety_checker=False,
        )  # fmt: skip
