"""Every key that diffusers and transformers read from a model's configs: followed, refused if it is another, or without effect.

A newer version of theirs that reads one more key makes this fail: then somebody has to look at what it does.
"""

import dataclasses
import inspect

import diffusers
import pytest
import transformers

from minidiff.diffusion.samplers import IN_DIFFUSERS
from minidiff.formats import clip, scheduler_config, unet, vae

SOLVER = "it shapes their sampler, and the sampler is chosen here"
NO_EFFECT = {
    "scheduler": {
        **dict.fromkeys(("algorithm_type", "disable_corrector", "euler_at_final", "lambda_min_clipped"), SOLVER),
        **dict.fromkeys(("lower_order_final", "predict_x0", "solver_order", "solver_p", "solver_type"), SOLVER),
        "skip_prk_steps": "nothing samples here with the first steps of PNDM",
        "variance_type": "of DDPM's steps: an argument of `ddpm` here",
        "clip_sample": "their pipelines turn it off",
        "clip_sample_range": "belongs to clip_sample",
        "dynamic_thresholding_ratio": "belongs to thresholding, which is refused",
        "sample_max_value": "belongs to thresholding, which is refused",
        "steps_offset": "their pipelines set it to 1, and so does timing_of",
        "time_shift_type": "belongs to use_dynamic_shifting, which is refused",
    },
    "unet": {
        "sample_size": "followed by diffusers_folder: the size that is drawn where none is asked for",
        "up_block_types": "must follow from down_block_types",
        "down_block_types": "followed by `unet._more`",
        "addition_embed_type_num_heads": "must follow from the heads, where there is a pooled embedding",
        "upcast_attention": "their attention by PyTorch's kernel ignores it, and ours is that kernel",
    },
    "vae": {
        "sample_size": "nothing reads it but tiling's default, and the tile is chosen here",
        "force_upcast": "followed by diffusers_folder: it decodes in float32",
        "out_channels": "must be in_channels",
        "down_block_types": "must be the ordinary ones",
        "up_block_types": "must be the ordinary ones",
    },
    "clip": {
        "intermediate_size": "must be four times the width",
        "projection_dim": "followed by `clip_config`; a text tower alone has no projection",
        "attention_dropout": "in training only",
        "initializer_range": "before the weights are loaded",
        "initializer_factor": "before the weights are loaded",
        "pad_token_id": "the tokenizer's files say it",
        "bos_token_id": "the tokenizer's files say it",
        # of every config of transformers: what a call returns, or what its kind of model is called
        **dict.fromkeys(
            (
                "transformers_version", "architectures", "output_hidden_states", "return_dict", "dtype",
                "chunk_size_feed_forward", "is_encoder_decoder", "id2label", "label2id", "problem_type",
            ),
            "names the model, or shapes what a call of theirs returns",
        ),
    },
}  # fmt: skip


def keys(kind) -> set[str]:
    return set(inspect.signature(kind.__init__).parameters) - {"self", "kwargs"}


SCHEDULERS = sorted(scheduler_config.OTHERS.union(like.scheduler for like in IN_DIFFUSERS.values()))
FOLLOWED = {field.name for field in dataclasses.fields(scheduler_config.SchedulerConfig)} | set(scheduler_config.FIXED)


@pytest.mark.parametrize(
    ("name", "theirs", "known"),
    [
        *(("scheduler", getattr(diffusers, name), FOLLOWED) for name in SCHEDULERS),
        ("unet", diffusers.UNet2DConditionModel, {*unet.WORDS, *unet.FIXED}),
        ("vae", diffusers.AutoencoderKL, {*vae.WORDS, *vae.PART.fixed}),
        ("clip", transformers.CLIPTextConfig, {*clip.TEXT.words, *clip.TEXT.fixed}),
        ("clip", transformers.CLIPVisionConfig, {*clip.VISION.words, *clip.VISION.fixed}),
    ],
)
def test_each_key_is_accounted_for(name, theirs, known):
    assert not known & set(NO_EFFECT[name]), "followed or refused, and without effect?"
    assert keys(theirs) - known - set(NO_EFFECT[name]) == set()
