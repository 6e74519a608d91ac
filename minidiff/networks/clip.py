"""CLIP: a text encoder and an image encoder that embed texts and images in one space. Radford et al. 2021.

Both are the same transformer (Vaswani et al. 2017), over tokens of text and over patches of an image (Dosovitskiy et
al. 2021). Parameter names are those of transformers' CLIPTextModel, CLIPVisionModel and CLIPModel, and the defaults
those of ViT-L/14, whose text encoder is the one in Stable Diffusion 1.x.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minidiff.networks.attention import attend


def quick_gelu(x: Tensor) -> Tensor:
    """An approximation of gelu, x * sigmoid(1.702 x). Hendrycks and Gimpel 2016, section 2."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


def _check(config: "CLIPTextConfig | CLIPVisionConfig") -> None:
    if config.width % config.heads:
        raise ValueError(f"width {config.width} cannot be split into {config.heads} heads")
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {config.activation!r}; there is {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class CLIPTextConfig:
    """The defaults are ViT-L/14's, and Stable Diffusion 1.x's: 123,060,480 parameters."""

    vocab: int = 49408  # size of the vocabulary
    length: int = 77  # positions: tokens of the longest text
    width: int = 768  # of a token inside the transformer
    layers: int = 12
    heads: int = 12  # attention heads
    activation: str = "quick_gelu"  # a name in ACTIVATIONS; Stable Diffusion 2.x has "gelu"
    end: int | None = 49407  # the end-of-text token; None: the token with the highest id in the text

    def __post_init__(self):
        _check(self)


@dataclass(frozen=True)
class CLIPVisionConfig:
    """The defaults are ViT-L/14's: 303,179,776 parameters."""

    size: int = 224  # pixels of an image's side
    patch: int = 14  # pixels of a patch's side
    width: int = 1024  # of a patch inside the transformer
    layers: int = 24
    heads: int = 16
    activation: str = "quick_gelu"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # a channel, of pixels in [0, 1] in CLIP's training
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self):
        _check(self)
        if self.size % self.patch:
            raise ValueError(f"an image of {self.size} pixels cannot be cut into patches of {self.patch}")


@dataclass(frozen=True)
class CLIPConfig:
    """The defaults are ViT-L/14: 427,616,513 parameters."""

    text: CLIPTextConfig = CLIPTextConfig()
    vision: CLIPVisionConfig = CLIPVisionConfig()
    dim: int = 768  # of the space that texts and images share


class CLIP(nn.Module):
    """clip(ids, x): texts ids (T, L) and images x (B, 3, H, W) in [-1, 1] -> logits (B, T): scaled cosines."""

    def __init__(self, config: CLIPConfig = CLIPConfig()):
        super().__init__()
        self.config = config
        self.text_model = CLIPText(config.text)
        self.vision_model = CLIPVision(config.vision)
        self.text_projection = nn.Linear(config.text.width, config.dim, bias=False)
        self.visual_projection = nn.Linear(config.vision.width, config.dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # its exponential is 1 / temperature

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        # Radford et al. 2021, figure 3
        cosines = self.embed_images(x) @ self.embed_text(ids).T  # (B, T)
        return self.logit_scale.exp() * cosines

    def embed_text(self, ids: Tensor) -> Tensor:
        """Texts in the shared space, (T, L) -> (T, E), unit vectors."""
        pooled = self.text_model.pooled(ids, self.text_model(ids))
        return F.normalize(self.text_projection(pooled), dim=-1)

    def embed_images(self, x: Tensor) -> Tensor:
        """Images in [-1, 1] in the shared space, (B, 3, H, W) -> (B, E), unit vectors."""
        mean, std = (torch.tensor(v).to(x)[:, None, None] for v in (self.config.vision.mean, self.config.vision.std))
        pooled = self.vision_model.pooled(self.vision_model(((x + 1) / 2 - mean) / std))
        return F.normalize(self.visual_projection(pooled), dim=-1)


class CLIPText(nn.Module):
    """net(ids): tokens (B, L) -> hidden states (B, L, D). A token attends to itself and to those before it."""

    def __init__(self, config: CLIPTextConfig = CLIPTextConfig()):
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = _encoder(config, causal=True)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=1e-5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.final_layer_norm(self.encoder(self.embeddings(ids)))  # (B, L, D)

    def pooled(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """The hidden state of the first end-of-text token, which attends to the whole text: (B, L, D) -> (B, D)."""
        # argmax finds the first of several, and texts are padded with more end-of-text tokens
        where = (ids if self.config.end is None else (ids == self.config.end).int()).argmax(dim=1)  # (B,)
        return hidden[torch.arange(len(ids), device=ids.device), where]


class TextEmbeddings(nn.Module):
    """Token embedding plus position embedding, (B, L) -> (B, L, D)."""

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.token_embedding = _embedding(config.vocab, config.width, std=0.02)
        self.position_embedding = _embedding(config.length, config.width, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        length, most = ids.shape[1], len(self.position_embedding.weight)
        if length > most:
            raise ValueError(f"a text of {length} tokens is too long: there are {most} positions")
        return self.token_embedding(ids) + self.position_embedding.weight[:length]


class CLIPVision(nn.Module):
    """net(x): images (B, 3, H, W), normalised -> hidden states (B, 1 + N, D), class token first."""

    def __init__(self, config: CLIPVisionConfig = CLIPVisionConfig()):
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=1e-5)  # misspelt in transformers, so here
        self.encoder = _encoder(config, causal=False)
        self.post_layernorm = nn.LayerNorm(config.width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.pre_layrnorm(self.embeddings(x)))  # (B, 1 + N, D)

    def pooled(self, hidden: Tensor) -> Tensor:
        """The hidden state of the class token, normalised: (B, 1 + N, D) -> (B, D)."""
        return self.post_layernorm(hidden[:, 0])


class VisionEmbeddings(nn.Module):
    """The class token, then the patches; each plus its position embedding: (B, 3, H, W) -> (B, 1 + N, D)."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.size = config.size
        self.class_embedding = nn.Parameter(config.width**-0.5 * torch.randn(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.position_embedding = _embedding(1 + (config.size // config.patch) ** 2, config.width, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"this CLIP takes images of {self.size}x{self.size}, got {x.shape[-2]}x{x.shape[-1]}")
        patches = self.patch_embedding(x.to(self.patch_embedding.weight.dtype))  # (B, D, H/P, W/P)
        patches = rearrange(patches, "b d h w -> b (h w) d")  # (B, N, D)
        whole = self.class_embedding.expand(len(x), 1, -1)  # (B, 1, D), collects the image as a whole
        return torch.cat([whole, patches], dim=1) + self.position_embedding.weight


def _encoder(config: CLIPTextConfig | CLIPVisionConfig, causal: bool) -> nn.Sequential:
    """The layers in turn, (B, N, D) -> (B, N, D). causal: a token does not attend to later ones."""
    layers = nn.Sequential(*(Layer(config, causal) for _ in range(config.layers)))
    return nn.Sequential(OrderedDict(layers=layers))


class Layer(nn.Module):
    """Self-attention, then an MLP on each token by itself."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, causal: bool):
        super().__init__()
        width = config.width
        self.layer_norm1 = nn.LayerNorm(width, eps=1e-5)
        self.self_attn = SelfAttention(width, config.heads, causal)
        self.layer_norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        hidden = self.activation(self.mlp["fc1"](self.layer_norm2(x)))  # (B, N, 4 D)
        return x + self.mlp["fc2"](hidden)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, self.causal))


def _embedding(count: int, width: int, std: float) -> nn.Embedding:
    embedding = nn.Embedding(count, width)
    nn.init.normal_(embedding.weight, std=std)
    return embedding
