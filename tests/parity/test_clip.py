"""Our CLIP has the parameter names of transformers' CLIPTextModel, CLIPVisionModel and CLIPModel, and computes the same."""

import pytest
import torch
import transformers

from minidiff.networks import CLIP, CLIPConfig, CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
END = 89  # of a small vocabulary
LENGTH = 11

# what a config calls its own; the rest of theirs are their defaults
TEXT = {"vocab": "vocab_size", "length": "max_position_embeddings"}
VISION = {"size": "image_size", "patch": "patch_size"}
BOTH = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "activation": "hidden_act",
}


def theirs_of(config, **more):
    """transformers' config for one of ours."""
    kind, names = (
        (transformers.CLIPTextConfig, TEXT)
        if isinstance(config, CLIPTextConfig)
        else (transformers.CLIPVisionConfig, VISION)
    )
    fields = {theirs: getattr(config, ours) for ours, theirs in (BOTH | names).items()}
    if isinstance(config, CLIPTextConfig):
        fields |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2 if config.end is None else config.end}
    return kind(intermediate_size=4 * config.width, **fields, **more)


def joint_of(config):
    parts = {"text_config": theirs_of(config.text).to_dict(), "vision_config": theirs_of(config.vision).to_dict()}
    return transformers.CLIPConfig(**parts, projection_dim=config.dim)


@torch.no_grad()
def shaken(net):
    """Biases and norms start at 0 and 1: none of them alike any more, and weights large enough to matter."""
    torch.manual_seed(0)
    for p in net.parameters():
        p += 0.2 * torch.randn_like(p)
    return net.eval()


def text_config(activation="quick_gelu", end=END):
    return CLIPTextConfig(vocab=100, length=LENGTH, width=24, layers=3, heads=4, activation=activation, end=end)


def vision_config(activation="quick_gelu"):
    return CLIPVisionConfig(size=12, patch=4, width=40, layers=2, heads=5, activation=activation)


def texts():
    """Ended in the middle, padded with ends; ended at once; ended at the last position; ended, then a higher number."""
    ids = torch.randint(3, END, (4, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[0, 5:] = END
    ids[1, 1:] = END
    ids[2, -1] = END
    ids[3, 4], ids[3, 7] = END, END + 7
    return ids


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("end", [END, None])
@torch.no_grad()
def test_text(activation, end):
    config = text_config(activation, end)
    theirs = shaken(transformers.CLIPTextModel(theirs_of(config)))
    ours = CLIPText(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for ids in (texts(), texts()[:1, :7]):
        want, hidden = theirs(ids), ours(ids)
        assert want.last_hidden_state.std() > 0.1
        torch.testing.assert_close(hidden, want.last_hidden_state, **CLOSE)
        torch.testing.assert_close(ours.pooled(ids, hidden), want.pooler_output, **CLOSE)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_vision(activation):
    config = vision_config(activation)
    theirs = shaken(transformers.CLIPVisionModel(theirs_of(config)))
    ours = CLIPVision(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 12, 12)
    want, hidden = theirs(x), ours(x)
    assert want.pooler_output.std() > 0.1
    torch.testing.assert_close(hidden, want.last_hidden_state, **CLOSE)
    torch.testing.assert_close(ours.pooled(hidden), want.pooler_output, **CLOSE)


@torch.no_grad()
def test_joint():
    config = CLIPConfig(text_config(), vision_config(), dim=16)
    theirs = shaken(transformers.CLIPModel(joint_of(config)))
    ours = CLIP(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    pictures = torch.rand(3, 3, 12, 12)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (config.vision.mean, config.vision.std))
    want = theirs(texts(), (pictures - mean) / std)
    x = 2 * pictures - 1
    torch.testing.assert_close(ours.embed_text(texts()), want.text_embeds, **CLOSE)
    torch.testing.assert_close(ours.embed_images(x), want.image_embeds, **CLOSE)
    assert want.logits_per_image.std() > 1
    torch.testing.assert_close(ours(texts(), x), want.logits_per_image, **CLOSE)


def test_pictures_are_prepared_as_by_their_processor():
    processor, config = transformers.CLIPImageProcessorPil(), CLIPVisionConfig()
    assert tuple(processor.image_mean) == config.mean and tuple(processor.image_std) == config.std
    assert processor.size["shortest_edge"] == config.size


def test_they_load_ours():
    config = CLIPConfig(text_config(), vision_config(), dim=16)
    ours, theirs = CLIP(config), transformers.CLIPModel(joint_of(config))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    transformers.CLIPTextModel(theirs_of(config.text)).load_state_dict(ours.text_model.state_dict(), strict=True)
    transformers.CLIPVisionModel(theirs_of(config.vision)).load_state_dict(ours.vision_model.state_dict(), strict=True)


TRUE = {  # ours, theirs, our config, tensors, parameters
    "Stable Diffusion 1.x": (CLIPText, transformers.CLIPTextModel, CLIPTextConfig(), 196, 123_060_480),
    "Stable Diffusion 2.x": (
        CLIPText,
        transformers.CLIPTextModel,
        CLIPTextConfig(width=1024, layers=23, heads=16, activation="gelu"),
        372,
        340_387_840,
    ),
    "pictures": (CLIPVision, transformers.CLIPVisionModel, CLIPVisionConfig(), 391, 303_179_776),
    "ViT-L/14": (CLIP, transformers.CLIPModel, CLIPConfig(), 590, 427_616_513),
}


@pytest.mark.parametrize("name", TRUE)
def test_same_parameters_at_true_size(name):
    our_class, their_class, config, tensors, count = TRUE[name]
    with torch.device("meta"):  # shapes without numbers
        ours = our_class(config).state_dict()
        theirs = their_class(joint_of(config) if name == "ViT-L/14" else theirs_of(config)).state_dict()
    assert {name: p.shape for name, p in ours.items()} == {name: p.shape for name, p in theirs.items()}
    assert len(ours) == tensors
    assert sum(p.numel() for p in ours.values()) == count
