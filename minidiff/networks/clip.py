"""CLIP: a network that reads and a network that looks, and one space in which both put what they found.

Both are the same transformer (Vaswani et al. 2017), one over words, one over patches of a picture (Dosovitskiy et
al. 2021). Parameter names are those of transformers' CLIPTextModel, CLIPVisionModel and CLIPModel, and the defaults
those of ViT-L/14 (Radford et al. 2021), whose text network is the one in Stable Diffusion 1.x.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def quick_gelu(x: Tensor) -> Tensor:
    """Nearly gelu, and cheaper when CLIP was trained. Hendrycks and Gimpel 2016, section 2."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


def _check(config) -> None:
    if config.width % config.heads:
        raise ValueError(f"width {config.width} cannot be split into {config.heads} heads")
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {config.activation!r}; there is {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class CLIPTextConfig:
    """The defaults are ViT-L/14's, and Stable Diffusion 1.x's: 123,060,480 parameters."""

    vocab: int = 49408  # tokens there are
    length: int = 77  # tokens of the longest text
    width: int = 768  # of a token inside the network
    layers: int = 12
    heads: int = 12  # attention heads
    activation: str = "quick_gelu"  # a name in ACTIVATIONS; Stable Diffusion 2.x has "gelu"
    end: int | None = 49407  # the token that ends a text; None: the one with the highest number in the row

    def __post_init__(self):
        _check(self)


@dataclass(frozen=True)
class CLIPVisionConfig:
    """The defaults are ViT-L/14's: 303,179,776 parameters."""

    size: int = 224  # pixels of a picture's side
    patch: int = 14  # pixels of a patch's side
    width: int = 1024  # of a patch inside the network
    layers: int = 24
    heads: int = 16
    activation: str = "quick_gelu"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # per colour, of pixels in [0, 1] in CLIP's training
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self):
        _check(self)
        if self.size % self.patch:
            raise ValueError(f"a picture of {self.size} pixels cannot be cut into patches of {self.patch}")


@dataclass(frozen=True)
class CLIPConfig:
    """The defaults are ViT-L/14: 427,616,513 parameters."""

    text: CLIPTextConfig = CLIPTextConfig()
    vision: CLIPVisionConfig = CLIPVisionConfig()
    dim: int = 768  # of the space that words and pictures share


class CLIP(nn.Module):
    """clip(ids, x): how well each of the pictures x (B, 3, H, W) in [-1, 1] fits each of the texts ids (T, L)."""

    def __init__(self, config: CLIPConfig = CLIPConfig()):
        super().__init__()
        self.config = config
        self.text_model = CLIPText(config.text)
        self.vision_model = CLIPVision(config.vision)
        self.text_projection = nn.Linear(config.text.width, config.dim, bias=False)
        self.visual_projection = nn.Linear(config.vision.width, config.dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # its exponential is 1 / temperature

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        cosines = self.embed_pictures(x) @ self.embed_text(ids).T  # (B, T)
        return self.logit_scale.exp() * cosines

    def embed_text(self, ids: Tensor) -> Tensor:
        """Texts as points of the shared space, (T, L) -> (T, E), each of length 1."""
        pooled = self.text_model.pooled(ids, self.text_model(ids))
        return F.normalize(self.text_projection(pooled), dim=-1)

    def embed_pictures(self, x: Tensor) -> Tensor:
        """Pictures in [-1, 1] as points of the shared space, (B, 3, H, W) -> (B, E), each of length 1."""
        mean, std = (torch.tensor(v).to(x)[:, None, None] for v in (self.config.vision.mean, self.config.vision.std))
        pooled = self.vision_model.pooled(self.vision_model(((x + 1) / 2 - mean) / std))
        return F.normalize(self.visual_projection(pooled), dim=-1)


# Words -------------------------------------------------------------------------------------


class CLIPText(nn.Module):
    """net(ids): tokens (B, L) -> one state a token (B, L, D). A token sees those before it, and itself."""

    def __init__(self, config: CLIPTextConfig = CLIPTextConfig()):
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config, causal=True)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=1e-5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embeddings(ids)  # (B, L, D)
        return self.final_layer_norm(self.encoder(x))

    def pooled(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """The state of the first end-of-text token, which alone has seen the whole text: (B, L, D) -> (B, D)."""
        # argmax finds the first of several, and texts are padded with more end-of-text tokens
        where = (ids if self.config.end is None else (ids == self.config.end).int()).argmax(dim=1)  # (B,)
        return hidden[torch.arange(len(ids), device=ids.device), where]


class TextEmbeddings(nn.Module):
    """What a token is, plus where it stands."""

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.token_embedding = _embedding(config.vocab, config.width, std=0.02)
        self.position_embedding = _embedding(config.length, config.width, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        length, most = ids.shape[1], len(self.position_embedding.weight)
        if length > most:
            raise ValueError(f"a text of {length} tokens is too long: there are {most} positions")
        return self.token_embedding(ids) + self.position_embedding.weight[:length]


# Pictures ----------------------------------------------------------------------------------


class CLIPVision(nn.Module):
    """net(x): pictures (B, 3, H, W), mean 0 and spread 1 -> one state a patch, and one for the whole (B, 1 + N, D)."""

    def __init__(self, config: CLIPVisionConfig = CLIPVisionConfig()):
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=1e-5)  # misspelt in transformers, so here
        self.encoder = Encoder(config, causal=False)
        self.post_layernorm = nn.LayerNorm(config.width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embeddings(x)  # (B, 1 + N, D)
        return self.encoder(self.pre_layrnorm(x))

    def pooled(self, hidden: Tensor) -> Tensor:
        """The state of the class token, which stands for the whole picture: (B, 1 + N, D) -> (B, D)."""
        return self.post_layernorm(hidden[:, 0])


class VisionEmbeddings(nn.Module):
    """What is in a patch, plus where it lies; before the patches, the class token: a place to collect the whole."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.size = config.size
        self.class_embedding = nn.Parameter(config.width**-0.5 * torch.randn(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.position_embedding = _embedding(1 + (config.size // config.patch) ** 2, config.width, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"this CLIP sees pictures of {self.size}x{self.size}, got {x.shape[-2]}x{x.shape[-1]}")
        patches = self.patch_embedding(x.to(self.patch_embedding.weight.dtype))  # (B, D, H/P, W/P)
        patches = rearrange(patches, "b d h w -> b (h w) d")  # (B, N, D)
        whole = self.class_embedding.expand(len(x), 1, -1)  # (B, 1, D)
        return torch.cat([whole, patches], dim=1) + self.position_embedding.weight


# The transformer ---------------------------------------------------------------------------


class Encoder(nn.Module):
    """Layers, one after the other; causal: a token does not see what comes after it."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, causal: bool):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, causal) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    """Tokens look at each other, then each is worked on alone."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, causal: bool):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=1e-5)
        self.self_attn = SelfAttention(config.width, config.heads, causal)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=1e-5)
        self.mlp = MLP(config.width, ACTIVATIONS[config.activation])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SelfAttention(nn.Module):
    """Each token asks (q), answers (k) and brings something (v)."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D)
        q, k, v = (
            rearrange(z, "b n (h d) -> b h n d", h=self.heads) for z in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # softmax(q k / sqrt(d)) v
        return self.out_proj(rearrange(out, "b h n d -> b n (h d)"))  # (B, N, D)


class MLP(nn.Module):
    def __init__(self, width: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


def _embedding(count: int, width: int, std: float) -> nn.Embedding:
    embedding = nn.Embedding(count, width)
    nn.init.normal_(embedding.weight, std=std)
    return embedding
