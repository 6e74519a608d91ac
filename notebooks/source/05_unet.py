# %% [markdown]
# # 05 · What is in the network, and what breaks when I take it out?
#
# A noisy image goes in, a prediction of the same size comes out, and in between lie sixty million multiplications. In this lesson you
# open the network: you follow one noisy seven through its blocks, write each kind of block yourself, see what happens when a part is missing, and
# finish by training a UNet in which all of these parts are your own code.
#
# | | |
# |---|---|
# | After this lesson you can | name the parts of a diffusion UNet and say what each computes; implement a time embedding, GroupNorm, a ResBlock, attention and skip connections; read an ablation, and say what it does not show; train a UNet of your own |
# | Study time | {{study time}} |
# | Compute time | about 4 minutes on 2 CPU cores, 2 of them to train your network |
# | You need | the denoiser of lesson 02, a sampler of lesson 03; what a convolution is |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
import json

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw
from torch import nn

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, grid, show, style
from minidiff.diffusion import to_x0
from minidiff.evaluation.judges import judged
from minidiff.files import asset
from minidiff.formats.model_folder import load_classifier

style()
pipe = TextToImage.load("mnist", device="cpu")
net, schedule = pipe.net.unet, pipe.schedule
judge = load_classifier("judge")

# %% [markdown]
# ## One seven, seven blocks
#
# This is the network behind the digits of the previous lessons. The diagram is not drawn by hand: it is read from the modules while a noisy seven passes through them.

# %%
T = 0.6
digits = data.mnist("validation")
seven = digits.images[digits.labels == 7][:1]  # (1, 1, 28, 28)
x0 = pipe.fold.encode(seven)  # (1, 4, 14, 14): the 2x2 pixels of a square become 4 channels
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
x = schedule.add_noise(x0, eps, T)
time = torch.tensor([1000 * T])  # the network is given 1000 t
context = pipe.encode(["7"])  # (1, 2, 64): a start token and the digit

show(
    figures.unet_diagram(net, x, time, context),
    alt="Diagram of the digit UNet: encoder blocks on the left, decoder blocks on the right, the middle block below, arrows across for the skip connections.",
    caption="The U: encoder down the left side, decoder up the right, one band for each resolution, skip connections across.",
)

# %% [markdown]
# A **UNet** is a network in the shape of a U: an encoder reduces the resolution level by level, a decoder restores it, and the two are connected at every level
# ([Ronneberger et al. 2015](https://arxiv.org/abs/1505.04597)). A **skip connection** carries the output of an encoder layer across to the decoder layer that works
# at the same resolution, where it is concatenated as additional channels. (A block of the diagram shows its last output; its first skip leaves before the downsampling.)
#
# Three things go in: the noisy image at the top, the time into every ResBlock, and the context (the prompt) into every attention block. Now watch the seven pass through. Each small image below is a
# feature map. A **feature map** is one channel of a layer's output, with one value for each position of the image. An **activation** is such a value: something that the network computes from its input, as opposed to a
# weight, which training has fixed.
#
# Before you run it: in which of the seven blocks will you be able to recognise the digit?

# %%
show(
    [figures.activations(pipe, seven[0], T, done, prompt="7") for done in range(8)],
    alt="Animation: a noisy seven enters the UNet; block by block, eight feature maps appear down the left side, in the middle, and up the right side; at the end a clean seven comes out.",
    caption="One forward pass, block by block: orange is positive, blue negative. Green arrows are skip connections in use.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Best at the top, on both sides: `conv_in` shows the stroke with its noise, `up_blocks.1` the stroke almost without. At 7×7 a coarse diagonal is left in some of the feature maps. A position down there holds 64 values
# about a patch of 4×4 pixels, and no single channel has to look like the digit.
#
# </details>
#
# The shapes of these outputs, and how many values they hold:

# %%
from minidiff.networks import blocks

print(f"{'input':<15}  {tuple(x.shape[1:])!s:<13} {x.numel():>6} values")
for block in blocks(net, x, time, context):
    print(f"{block.name:<15}  {block.shape!s:<13} {block.output.numel():>6} values")

# %% [markdown]
# An encoder block ends by halving the resolution (the last one does not). A quarter of the positions remain. They have more channels, and each sees
# more of the image: at 7×7 the neighbour of a position is four pixels away, about the width of a stroke. What depends on the shape of the whole digit is worked out at the bottom, what depends on exact
# positions at the top.
#
# Here is one layer in detail, the last one before the output, at 14×14:

# %%
show(
    figures.unet(pipe, seven[0], "up_blocks.1", 0.5),
    alt="The noisy seven, a small map of the UNet, the denoised seven, and sixteen feature maps of up_blocks.1 at 14 by 14.",
    caption="Sixteen of the 32 feature maps of `up_blocks.1`: a few carry the digit, the others the noise.",
)

# %%
widgets.unet(pipe)

# %% [markdown]
# Why is there noise in a network that denoises? Because this one predicts $\varepsilon - x_0$: its output needs both, so the last layers carry both.
#
# *Try:* set $t$ to 0.2 and go through the blocks from top to bottom. Then choose `up_blocks.1` and move $t$ to 1. What becomes of the channels that show the digit?
#
# <details><summary>Answer</summary>
#
# At first they are as sharp as the digit itself. At $t = 1$ the input is nothing but noise, and what is left in them is a soft blob where digits usually are: the average digit of lesson 02.
#
# </details>
#
# ## Time: one number that changes everything
#
# The seven below is always the same one, noised at $t = 0.6$. Only the *number* that we give to the network changes; every output is converted to a denoised
# estimate with the true $t = 0.6$.
#
# Before you run it: what will the network do with the noise if we say that there is hardly any? And if we say that there is nothing else?

# %%
given = [0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0]
with torch.no_grad():
    outputs = [net(x, torch.tensor([1000 * t]), context) for t in given]
estimates = [to_x0(pipe.prediction, out, x, *schedule.at(T, x)) for out in outputs]
grid(
    [[pipe.decode(latent)[0] for latent in (x, *estimates)]],
    titles=["$x_t$, t = 0.6", *(f"given {t}" for t in given)],
    alt="A noisy seven and seven denoised estimates. Given too small a time, specks of noise stay; given the true 0.6 the seven is clean; given too large a time, gray grain stays.",
    caption="Denoised estimates of the same image: only the time that the network is given differs.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Given too small a time, the network takes specks for ink and keeps them. Given too large a time, it takes $x_t$ for nearly pure noise and answers
# $\varepsilon - x_0 \approx x_t - \text{(average seven)}$. We subtract 0.6 of that, and 0.4 of the noisy image remains, grain and all, over a blurred seven. Whether a speck is noise or
# stroke depends on how much noise there is, and so every ResBlock is told the time.
#
# </details>
#
# ### A number as waves
#
# A single number is hard to use: to react differently at nearby times, a layer would need enormous weights. A **sinusoidal embedding** writes a number as
# cosines and sines of many frequencies, fast to slow, like the hands of a clock ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)).
#
# $$s_i = \cos(\tau\, r_i), \quad s_{i + n} = \sin(\tau\, r_i), \qquad r_i = 10000^{-i/n}, \qquad \tau = 1000\, t$$
#
# By hand with $n = 4$ frequencies, at two times that lie close together:

# %%
from minidiff.networks.unet import sinusoidal

rates = torch.tensor([1.0, 0.1, 0.01, 0.001])
for tau in (600.0, 610.0):
    by_hand = [f"{value:6.3f}" for value in (*torch.cos(tau * rates), *torch.sin(tau * rates))]
    by_library = [f"{value:6.3f}" for value in sinusoidal(torch.tensor([tau]), 8)[0]]
    print(f"tau = {tau:.0f}  by hand  ", *by_hand)
    print("           library  ", *by_library)

# %% [markdown]
# The fast waves (left) have changed a lot, the slow ones hardly at all. The digit model uses 16 frequencies, so 32 values. A well-known bug is to pass $t$ instead of $1000\, t$; the middle panel shows
# what becomes of the waves then.

# %%
# folded: the waves at every time, and the distance between the embeddings of two times
from matplotlib.colors import LinearSegmentedColormap

signed = LinearSegmentedColormap.from_list("signed", [figures.BLUE, "white", figures.ORANGE])  # as in the maps above
taus = torch.linspace(0, 1000, 501)
waves = {"1000 t": sinusoidal(taus, 32), "t alone": sinusoidal(taus / 1000, 32)}
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), width_ratios=[1, 1, 1.1])
for axis, (name, values) in zip(axes, waves.items(), strict=False):
    shades = axis.imshow(
        values.T, aspect="auto", cmap=signed, vmin=-1, vmax=1, extent=(0, 1, 31.5, -0.5), interpolation="antialiased"
    )
    axis.set(xlabel="t", yticks=[0, 16, 31], title=f"embedding of {name}")
    axis.grid(False)
axes[0].set_ylabel("16 cosines, then 16 sines")
figure.colorbar(shades, ax=axes[1], label="value")
for (name, values), line in zip(waves.items(), ("-", "--"), strict=True):
    axes[2].plot(taus / 1000, (values - values[300]).norm(dim=1), line, label=name)
axes[2].set(xlabel="t", ylabel="distance", ylim=(0, 8.5), title="distance from t = 0.6")
axes[2].legend(loc="upper center", fontsize=9)
show(
    figure,
    alt="Two heat maps of 32 waves against t: of 1000 t a rich pattern, of t alone almost constant. A plot of the distance from the embedding of 0.6: a sharp dip for 1000 t, nearly flat for t alone.",
    caption="With 1000 t every time has a pattern of its own; with t alone nearly all waves stand still.",
)
for name, values in waves.items():
    print(f"embedding of {name:<7}: distance between t = 0.60 and t = 0.61: {(values[300] - values[305]).norm():.3f}")

# %% [markdown]
# The embedding of $1000\,t$ keeps even neighbouring times apart; beyond about 0.05 all times are about equally far. With $t$ alone nothing raises an error and the loss still falls, but times that close lie
# nearly 300 times closer together, so the network must learn to magnify tiny differences. (Where a wave is faster than the columns of the picture, its colours blur together.)
#
# From here on, two linear layers with a SiLU between them turn the 32 waves into 128 values, the time embedding $e$, which goes to every ResBlock.

# %% [markdown]
# ### Exercise 1 · Time as waves
#
# *easy, 6 minutes.*
#
# `t` holds $B$ times in $[0, 1]$; `dim` is even, and $n$ is half of it. Return the embedding of $\tau = 1000\,t$, of shape $(B, \text{dim})$: first the $n$ cosines, then the $n$ sines, the fastest first.
#
# <details><summary>Hint</summary>
#
# The rates are a row of $n$ numbers, falling from 1: `10_000 ** (-torch.arange(n) / n)`. Times as a column, multiplied by rates as a row, give all angles at once.
#
# </details>


# %%
def time_embedding(t, dim):
    """Waves of 1000 t: cosines, then sines."""
    ### BEGIN SOLUTION
    n = dim // 2
    rates = 10_000 ** (-torch.arange(n) / n)
    angles = 1000 * t[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)
    ### END SOLUTION


# %%
check.l05_time_embedding(time_embedding)

# %% [markdown]
# ## The ResBlock: what everything is made of

# %%
show(
    figures.res_block_diagram(),
    alt="Diagram of a ResBlock: norm, SiLU, convolution, plus the projected time embedding, norm, SiLU, convolution; a shortcut leads around everything and is added at the end.",
    caption="A ResBlock. Blue boxes have weights, gray ones do not; the time enters between the two convolutions.",
)

# %% [markdown]
# A **ResBlock** (residual block) computes a correction with two convolutions and adds it to its own input ([He et al. 2015](https://arxiv.org/abs/1512.03385)).
#
# $$h = \text{conv}_1(\text{silu}(\text{norm}_1(x))) + W\,\text{silu}(e) \qquad
# \text{out} = \text{shortcut}(x) + \text{conv}_2(\text{silu}(\text{norm}_2(h)))$$
#
# Because of the shortcut a block only has to learn what should *change*, and gradients have a path around all convolutions, however many blocks there are.
# SiLU, $\text{silu}(x) = x / (1 + e^{-x})$, is a smooth ReLU: it passes large positive values and damps negative ones. $W$ makes one value per channel out of the time embedding, the same at every position.
#
# The norm is GroupNorm ([Wu and He 2018](https://arxiv.org/abs/1803.08494)). **Group normalisation** shifts and scales each group of channels of each image to mean 0 and variance 1, whatever else is in the batch.
# By hand, with four channels of two pixels, in two groups; the values of the second group are ten times as large:

# %%
tiny = torch.tensor([[1.0, 3.0], [5.0, 7.0], [10.0, 30.0], [50.0, 70.0]])  # 4 channels of 2 pixels
for group in (tiny[:2], tiny[2:]):
    mean = group.mean()
    std = (group - mean).square().mean().sqrt()
    print(f"mean {mean:5.1f}   std {std:5.2f}   becomes", ((group - mean) / std).flatten().numpy().round(3))
print("the library says", F.group_norm(tiny.reshape(1, 4, 1, 2), 2).flatten().numpy().round(3))

# %% [markdown]
# Now both groups have the same scale, and within a group the larger channel is still the larger one. Each channel then gets a scale and a shift that are learned.

# %% [markdown]
# ### Exercise 2 · GroupNorm
#
# *easy, 8 minutes.*
#
# `x` has shape $(B, C, H, W)$, `groups` divides $C$, `weight` and `bias` have shape $(C,)$. In every image, bring each group of neighbouring channels to mean 0 and variance 1: subtract the mean, divide by
# $\sqrt{\text{variance} + \text{eps}}$. (The variance divides by the number of entries $n$, not by $n - 1$.) Then multiply each channel by its weight and add its bias. Return the shape of `x`.
#
# <details><summary>Hint</summary>
#
# Give each group a row: `x.reshape(B, groups, -1)`. Afterwards go back to the shape of `x`, and reshape `weight` and `bias` so that they line up with the channels.
#
# </details>


# %%
def group_norm(x, groups, weight, bias, eps):
    """GroupNorm, as in torch.nn.functional.group_norm."""
    ### BEGIN SOLUTION
    rows = x.reshape(len(x), groups, -1)
    rows = rows - rows.mean(dim=2, keepdim=True)
    rows = rows / (rows.square().mean(dim=2, keepdim=True) + eps).sqrt()
    return rows.reshape(x.shape) * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    ### END SOLUTION


# %%
check.l05_group_norm(group_norm)

# %% [markdown]
# ### Exercise 3 · A ResBlock
#
# *medium, 8 minutes.*
#
# `x` has shape $(B, C, H, W)$ and `emb` $(B, D)$. The other arguments are functions: `norm1`, `conv1`, `norm2`, `conv2` and `shortcut` take feature maps and return feature maps; `project` takes
# $(B, D)$ and returns $(B, C')$, one value for each channel that `conv1` returns. Put them together as in the diagram and return the output, $(B, C', H, W)$. Use `F.silu`.
#
# <details><summary>Hint</summary>
#
# Three lines: the first half, the time, the second half with the shortcut. What `project` returns has two axes, and feature maps have four.
#
# </details>


# %%
def res_block(x, emb, norm1, conv1, project, norm2, conv2, shortcut):
    """Two convolutions beside a shortcut, with the time added between them."""
    ### BEGIN SOLUTION
    silu = torch.nn.functional.silu
    h = conv1(silu(norm1(x)))
    h = h + project(silu(emb))[:, :, None, None]
    return shortcut(x) + conv2(silu(norm2(h)))
    ### END SOLUTION


# %%
check.l05_res_block(res_block)

# %% [markdown]
# ## Attention: positions that talk to each other

# %%
show(
    figures.attention_diagram(),
    alt="Diagram of attention as matrices: queries times transposed keys, softmax, a matrix of weights, times values, the output. One row is framed in every matrix.",
    caption="Attention: each row of the weights says how much one position takes from each value.",
)

# %% [markdown]
# A 3×3 convolution sees a position and its eight neighbours, and weighs them the same way everywhere. **Self-attention** lets every position collect information from all positions of the same feature map, with weights
# that depend on what is there (Vaswani et al. 2017). A **query** is the vector with which a position says what it is looking for. A **key** is the vector that queries are compared with. A **value** is the vector that is
# passed on, the more the better key and query match:
#
# $$\text{out} = \text{softmax}\!\left(\frac{q\,k^\top}{\sqrt{d}}\right) v$$
#
# Here $d$ is the number of channels of a query. Dividing by $\sqrt{d}$ keeps the scores near variance 1, so that the softmax does not saturate.
# One query, three keys, two channels, by hand:

# %%
q = torch.tensor([[2.0, 0.0]])
k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
v = torch.tensor([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])

scores = [float(q[0] @ key) / 2**0.5 for key in k]
exponentials = [2.718281828**score for score in scores]
weights = [each / sum(exponentials) for each in exponentials]
print("scores: ", [round(score, 3) for score in scores])
print("weights:", [round(weight, 3) for weight in weights])
print("by hand:", (weights[0] * v[0] + weights[1] * v[1] + weights[2] * v[2]).numpy().round(3))
print("library:", F.scaled_dot_product_attention(q, k, v)[0].numpy().round(3))

# %% [markdown]
# **Cross-attention** is attention with queries from the image, and with keys and values from the tokens of the prompt. It is the only path by which the prompt reaches the network.
#
# ### Heads
#
# One position may need several things at once. So the channels are split. **Heads** are groups of channels that each compute their own attention, side by side. Splitting is a change of shape that is easy to get wrong,
# so it is written with einops, where axes have names. One image, 3 positions, 4 channels (the first digit is the position, the second the channel), two heads:

# %%
tokens = torch.tensor([[[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]]])  # (b, n, c) = (1, 3, 4)
print("b n (h d) -> b h n d")
print(rearrange(tokens, "b n (h d) -> b h n d", h=2))
print("reshape alone: the right shape, but each head has got some of the positions instead of some of the channels")
print(tokens.reshape(1, 2, 3, 2))

# %% [markdown]
# Where do the heads look? In the middle block 49 positions attend to each other. Below are the weights with which the position in the centre collects from all 49. (If the values are an identity
# matrix, the output of attention *is* its weights.)

# %%
# folded: hooks catch the queries and keys of the middle block's self-attention, and the weights follow from them
attend = net.mid_block.attentions[0].transformer_blocks[0].attn1
caught = {}


def catch(module, given, out):
    caught[module] = rearrange(out, "b n (h d) -> b h n d", h=attend.heads)


hooks = [layer.register_forward_hook(catch) for layer in (attend.to_q, attend.to_k)]
with torch.no_grad():
    net(x, time, context)
for hook in hooks:
    hook.remove()
q, k = caught[attend.to_q], caught[attend.to_k]  # (1, 4, 49, 16)
weights = F.scaled_dot_product_attention(q, k, torch.eye(49).expand(1, 4, -1, -1))  # (1, 4, 49, 49)

# %%
# folded: the weights of the position in the centre, one panel a head
figure, axes = plt.subplots(1, 5, figsize=(8.4, 2))
axes[0].imshow(pipe.decode(x)[0, 0], vmin=0, vmax=1)
axes[0].set_title("$x_t$, t = 0.6")
for head, axis in enumerate(axes[1:]):
    shades = axis.imshow(weights[0, head, 24].reshape(7, 7), vmin=0, vmax=weights[0, :, 24].max(), cmap="viridis")
    axis.plot(3, 3, "o", ms=7, mfc="none", mec="white")
    axis.set_title(f"head {head + 1}")
for axis in axes:
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
figure.colorbar(shades, ax=axes[1:], label="weight", shrink=0.8)
show(
    figure,
    alt="The noisy seven, and for each of four heads a 7 by 7 map of attention weights from the centre position; each head has another pattern.",
    caption="The centre (circle) collects from the bright positions; equal weights would be 1/49 = 0.02 everywhere.",
)

# %% [markdown]
# The heads differ, although nobody told them to: some pick a few positions along the stroke, one takes nearly the same from everywhere.

# %% [markdown]
# ### Exercise 4 · Attention
#
# *medium, 12 minutes.*
#
# `q` has shape $(B, N, C)$; `k` and `v` have $(B, L, C)$: $N$ queries, $L$ keys and values. `heads` divides $C$; neighbouring channels belong to the same head. Return $(B, N, C)$. Write the softmax formula yourself,
# without `scaled_dot_product_attention`.
#
# <details><summary>Hint</summary>
#
# Split all three into heads; then `@` works on the last two axes, and $(N, d)$ times $(d, L)$ are the scores. What is $d$ after the split? Over which of the axes $N$ and $L$ should the weights add up to 1? At the end, undo the
# split the way you made it.
#
# </details>


# %%
def attention(q, k, v, heads):
    """Every query gets a mean of the values, weighted by how well the keys match."""
    ### BEGIN SOLUTION
    q, k, v = (z.reshape(*z.shape[:2], heads, -1).transpose(1, 2) for z in (q, k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)
    ### END SOLUTION


# %%
check.l05_attention(attention)

# %% [markdown]
# ### Exercise 5 · Catch the bug
#
# *medium, 8 minutes.*
#
# *May be skipped at first reading.* This time you write the test. The check hands it several versions of `attention`: some are right, the others are each wrong in one way. Return True for a right one; for a wrong
# one return False or let an `assert` fail. Here `scaled_dot_product_attention` is welcome.
#
# <details><summary>Hint</summary>
#
# PyTorch's function wants (B, heads, N, d). Choose sizes that are all different, more than one head, and values so large that the softmax is far from even.
#
# </details>


# %%
def catch_attention(attention):
    """True if a function that should be attention is."""
    ### BEGIN SOLUTION
    q, k, v = 2 * torch.randn(2, 3, 8), 2 * torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    heads = (z.unflatten(2, (2, 4)).transpose(1, 2) for z in (q, k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    return torch.allclose(attention(q, k, v, 2), expected, atol=1e-3)
    ### END SOLUTION


# %%
check.l05_catch(catch_attention)

# %% [markdown]
# ## Levels and skips: how far can a pixel see?
#
# The **receptive field** of an output pixel is the part of the input that can influence it. Autograd finds it: take one output pixel, and compute its gradient with respect to the
# input. Where the gradient is 0, the pixel is blind. Below are five UNets with random weights on images of 64×64. The first three have convolutions only.
#
# Before you run it: the network with one level is a chain of twelve 3×3 convolutions. How large a square can its output pixel see?

# %%
from minidiff.networks import UNet, UNetConfig, receptive_field
from minidiff.networks.inside.ablations import without


def small(levels, *parts):
    """A UNet of so many levels, without some parts, and with random weights."""
    torch.manual_seed(0)
    config = UNetConfig(4, 4, (16,) * levels, (False,) * levels, layers=1, heads=2, context_dim=64, groups=4)
    unet = UNet(config)
    for part in parts:
        without(unet, part)
    return unet


wide = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
bare = ("attention", "normalisation")
networks = {
    "1 level": small(1, *bare),
    "2 levels": small(2, *bare),
    "3 levels": small(3, *bare),
    "1 level + norms": small(1, "attention"),
    "1 level + attention": small(1, "normalisation"),
}
fields = {name: receptive_field(unet, wide, time, context) for name, unet in networks.items()}


# %%
# folded: a row of maps of influence on one colour scale
def influence(fields, low, width, alt, caption):
    """Each field relative to its largest value, as powers of ten from `low` to 0."""
    figure, axes = plt.subplots(1, len(fields), figsize=(width, 2.2))
    for axis, (name, field) in zip(axes, fields.items(), strict=True):
        shades = axis.imshow((field / field.max()).clamp(min=1e-12).log10(), vmin=low, vmax=0, cmap="magma")
        axis.set(xticks=[], yticks=[])
        axis.set_title(name, fontsize=9)
        axis.grid(False)
    bar = figure.colorbar(shades, ax=axes, label="influence", shrink=0.8)
    bar.set_ticks(ticks := list(range(low, 1)), labels=[f"$10^{{{tick}}}$" for tick in ticks])
    show(figure, alt=alt, caption=caption)


# %%
influence(
    fields,
    low=-6,
    width=8.4,
    alt="Five maps of influence: with one level a small square, with two and three levels larger ones, with norms or attention the whole image at low intensity.",
    caption="Influence of each input pixel on the output pixel in the middle, relative to the strongest. Black: a millionth of the strongest, or less.",
)
for name, field in fields.items():
    rows, columns = torch.nonzero(field, as_tuple=True)
    print(f"{name:<20} sees {rows.max() - rows.min() + 1}x{columns.max() - columns.min() + 1} pixels")

# %% [markdown]
# <details><summary>Answer</summary>
#
# 25×25. Every 3×3 convolution adds one pixel on each side, and $1 + 2 \cdot 12 = 25$. (With three levels the image cuts the field off.)
#
# </details>
#
# On each further level a convolution reaches twice as far, and has a quarter of the positions to work on. This is what levels are for: a wide view at a low cost. But look at the
# colours: being able to see is not the same as being influenced. The rim of each square is black: it counts for almost nothing.
#
# The other two see everything. With attention that is intended, though with random weights everything far away gets the same tiny weight; only training makes it selective. With norms it is a side effect: a mean over the image
# depends on all of its pixels.
#
# ### What the trained network looks at
#
# *May be skipped at first reading.* The shipped network works at 14×14, where every position can see every other one. How much they count for the denoised estimate
# $\hat{x}_0 = x_t - t\,u$ ($u$ is the output) depends on the time:

# %%
several = pipe.fold.encode(digits.images[: budget(full=64, smoke=8)])
labels = digits.labels[: len(several)]
fields = {}
for t in (0.1, 0.4, 0.7, 0.95):
    noisy = schedule.add_noise(several, torch.randn(several.shape, generator=torch.Generator().manual_seed(2)), t)
    field = receptive_field(
        lambda x, time, context: x - time[:, None, None, None] / 1000 * net(x, time, context),  # x0_hat
        noisy,
        torch.full((len(several),), 1000 * t),
        pipe.net.text_encoder(labels),
    )
    outside = 1 - field[6:9, 6:9].sum() / field.sum()
    fields[f"t = {t}: {100 * outside:.0f} % from\noutside 3×3"] = field
influence(
    fields,
    low=-3,
    width=8,
    alt="Four maps of influence at 14 by 14 for the times 0.1, 0.4, 0.7 and 0.95; the bright area grows with the time.",
    caption="The same for the trained digit network, averaged over 64 digits: more noise, a wider view.",
)

# %% [markdown]
# With little noise a position and its neighbours say most of what there is to know. With more noise the network has to infer a position from the whole shape, and looks further.
#
# ### Exercise 6 · The UNet
#
# *hard, 12 minutes.*
#
# Now the plan of the whole network, slightly simpler than the real one (which has two more skips, and does not shrink after its last level). `levels` is a number; level 0 has the highest resolution. On the way
# down, each level runs `down(x, level)`, keeps the result as its skip, and passes it through `shrink(x)`, the last level too. Then comes `middle(x)`. On the way up, each level first enlarges its input with `grow(x)`, concatenates its skip behind it along the channels, and runs `up(x, level)`. Return what the last one returns.
#
# (In the check `shrink` and `grow` keep the size, so a skip in the wrong place does not raise an error: it shows in the numbers.)
#
# <details><summary>Hint</summary>
#
# All you need between the two loops is a list: `append` on the way down, `pop` on the way up. With which level does the way up begin?
#
# </details>


# %%
def unet(x, levels, down, middle, up, shrink, grow):
    """Down, through the middle, and up again with the skips."""
    ### BEGIN SOLUTION
    skips = []
    for level in range(levels):
        x = down(x, level)
        skips.append(x)
        x = shrink(x)
    x = middle(x)
    for level in reversed(range(levels)):
        x = torch.cat([grow(x), skips.pop()], dim=1)
        x = up(x, level)
    return x
    ### END SOLUTION


# %%
check.l05_unet(unet)

# %% [markdown]
# ## What breaks when I take it out?
#
# What is each part good for? An **ablation** removes one part of a system and measures what is lost. The quick way is to remove it from the *trained* network: `without` uses hooks (functions that PyTorch calls
# after a layer, and that may replace its output) to put zeros in place of what the part computes, or, for a part that the image passes through, to bypass it.
#
# Before you run it: six parts, removed one at a time. Which removal will be fatal, and which will you hardly notice?

# %%
from minidiff.networks.inside.ablations import PARTS

names = [name for name in PARTS if name != "attention"]
prompts = [str(k % 10) for k in range(budget(full=30, smoke=10))]
rows, labels = [], []
for name in [None, *names]:
    broken = TextToImage.load("mnist", device="cpu")
    if name:
        without(broken.net.unet, name)
    drawn = broken.fold.decode(broken.latents(prompts, steps=budget(full=10, smoke=3), scale=2.0))
    if drawn.isnan().any():
        print(f"no {name}: {drawn.isnan().float().mean():.0%} of the values are not a number, so there is no image")
        continue
    _, answers = judged(judge, drawn.clamp(-1, 1))
    right = (answers == torch.arange(len(prompts)) % 10).float().mean()
    labels.append(f"{'no ' + name if name else 'complete'}\n{right:.0%} right")
    rows.append((drawn[2:10] + 1) / 2)

# %%
grid(
    rows,
    labels,
    titles=prompts[2:10],
    alt="Rows of digits 2 to 9, complete and with one part removed: grain without skips, a maze without time, wrong digits without cross-attention.",
    caption="A part removed from the trained network. Percentages: how many of 30 digits the judge reads as the one in the prompt.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Fatal: normalisation (within a few steps the values overflow and are not numbers any more: there is nothing to show), skips (the strokes are there, under grain that the network can no longer see), and time. Hardly noticed: self-attention. Without the
# middle some digits are damaged. Without cross-attention you get clean strokes and some good digits, but not those you asked for: the prompt has no other way in.
#
# </details>
#
# (Of 30 digits, 97 % and 100 % differ by one.) Careful with the conclusion. All layers were trained together; remove one, and the others receive inputs that they have never seen. So this shows what *this* network relies on. It does not show what a network *needs*.
#
# ### Train without it
#
# The fair question is how well a network does that *never had* the part. That takes a training for each part, and for several seeds, since two runs differ by chance as well. `benchmarks/ablations.py` did that: 300 steps,
# three seeds each. So short a training makes rough digits. (Distance is the Fréchet distance of lesson 04; lower is better.)
#
# Before you run it: skips, time and normalisation were fatal to remove. Which of the three will a network hardly miss if it never had it?

# %%
table = json.loads(asset("ablations.json").read_text())
rows = table["rows"]  # the first is the complete network


def compared(row, measure):
    """The mean difference to the complete network, and whether it exceeds two standard deviations."""
    more = torch.tensor(row[measure]) - torch.tensor(rows[0][measure])  # seed by seed
    if more.mean().abs() <= 2 * more.std():
        return more.mean(), "not significant"
    return more.mean(), "worse" if (more.mean() > 0) == (measure == "frechet") else "better"


# %%
# folded: both measures of every row, a dot a seed, in the colour of the verdict
titles = ["complete", *(f"no {row['name']}" for row in rows[1:])]
figure, axes = plt.subplots(1, 2, figsize=(8.2, 2.9), sharey=True)
for axis, (measure, factor, right) in zip(axes, (("accuracy", 100, 62), ("frechet", 1, 32)), strict=True):
    for k, row in enumerate(rows):
        colour = figures.BLUE if k == 0 else figures.GRAY if "not" in compared(row, measure)[1] else figures.ORANGE
        values = factor * torch.tensor(row[measure])
        axis.plot(values, [k] * len(values), "o", ms=5, color=colour, alpha=0.8)
        if values.min() > right:
            words = f"{values.min():,.0f} to {values.max():,.0f} →"
            axis.text(right - 0.5, k, words, ha="right", va="center", color=colour, fontsize=9)
    axis.set_xlim(0 if measure == "accuracy" else 13, right)
axes[0].set(xlabel="digits read as asked, %", title="accuracy")
axes[1].set(xlabel="Fréchet distance", title="distance to real digits")
axes[0].set_yticks(range(len(titles)), titles)
axes[0].invert_yaxis()
show(
    figure,
    alt="Two dot plots for eight networks: accuracy and Fréchet distance. Without skips the distance is above 2,000, off the scale. Rows that differ significantly are orange.",
    caption="Blue: the complete network. Orange: significantly worse. Gray: the difference is not significant.",
)

# %%
print(f"{'':<19}accuracy                     distance")
for title, row in zip(titles[1:], rows[1:], strict=True):
    (right, sure), (distance, sure_too) = compared(row, "accuracy"), compared(row, "frechet")
    print(f"{title:<19}{100 * right:+5.1f} % {sure:<20} {distance:+8.1f} {sure_too}")
print(f"\n{table['command']}: n = {table['n']}, scale {table['scale']}, seeds {table['seeds']}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The time. Removed from the trained network it left a maze. Trained without it, accuracy and distance differ by too little for three seeds to decide, though the training loss
# is slightly higher every time. How noisy an image is can largely be read off the image.
#
# </details>
#
# The rule behind the colours: networks with the same seed are compared, and a mean difference of more than two standard deviations of these differences counts as significant. With three seeds, chance alone produces
# that about 7 times in 100: among 14 verdicts, expect about one false one.
#
# - *Skips, cross-attention and normalisation* matter here. Without cross-attention one digit in ten is right, as it would be by guessing; without skips the judge sees grain.
# - *Self-attention and time* are not significant, and that is not evidence that they are useless. Three short runs of a small network cannot tell.
# - *Normalisation and the middle* are warnings about the rule itself. Without normalisation every seed is clearly worse in distance, but one so much worse that the standard deviation hides it. The middle is the opposite case: it is significantly worse in accuracy because, by coincidence, it reads exactly 9 of 300 digits fewer with every seed. But the standard error of a difference
#   between two rates of about 50 % on 900 digits is 2.4 %, and this difference is 3 %. Treat such a verdict as a hint, and run more seeds.
#
# Why are skips so important? Not because the bottom is too small: 64 channels at 7×7 are 3,136 values, more than enough to carry the 784 of the input. But this network predicts $\varepsilon - x_0$, so its output contains the
# noise of every pixel. With skips that noise is simply carried across. Without them the network has to learn to pack it into the bottom and to unpack it in the right places, and in 300 steps it has not learned that.
#
# ## Where the parameters are, and where the work is
#
# *May be skipped at first reading.* `UNetConfig()` without arguments is the network of Stable Diffusion 1.x: the class that you have taken apart, with larger numbers. Its weights would fill 3.4 GB. But on PyTorch's device
# *meta* tensors have shapes and no content, which is enough to look around.

# %%
from minidiff.networks import count, flops

with torch.device("meta"):
    large = UNet(UNetConfig())
    inputs = torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 77, 768)
show(
    figures.unet_diagram(large, *inputs),
    alt="Diagram of Stable Diffusion's UNet: four levels from 64 by 64 to 8 by 8, 320 to 1280 channels, two ResBlocks a level in the encoder and three in the decoder.",
    caption="Stable Diffusion's UNet, drawn by the same function: more levels, more blocks, cross-attention at every resolution, at 8×8 only in the middle block.",
)

# %% [markdown]
# A 3×3 convolution has $9 \cdot C_{in} \cdot C_{out}$ weights, and applies them at every position, so its work is that number times height times width. **FLOPs** are floating-point operations, the unit of a network's
# work; a multiplication and an addition count as two.
#
# Before you run it: where in Stable Diffusion's UNet are most of the weights, and where is most of the work?

# %%
# folded: bars of parameters and FLOPs, block by block
figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.6))
for axis, title, unet_, given in (
    (axes[0], "digits", net, (x, time, context)),
    (axes[1], "Stable Diffusion", large, inputs),
):
    parameters, work = count(unet_), flops(unet_, *given)
    names = [name for name in parameters if "block" in name]
    for k, (amounts, label) in enumerate(((parameters, "parameters"), (work, "FLOPs"))):
        percent = [100 * amounts[name] / sum(amounts.values()) for name in names]
        axis.barh(torch.arange(len(names)) + 0.4 * k - 0.2, percent, height=0.38, label=label)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="% of the whole network", title=title, xlim=(0, 50))
    total = f"{sum(parameters.values()):,} parameters, {sum(work.values()) / 1e9:.3g} billion FLOPs"
    print(f"{title}: {total} for one forward pass of one image")
axes[1].legend(loc="lower right")
show(
    figure,
    alt="Bar charts of the fractions of parameters and FLOPs in each block, for the digit network and for Stable Diffusion's.",
    caption="Right, from top to bottom: down the U and up again. Parameters lie towards the bottom of the U, work towards the top.",
)
low = ("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1")
for amounts, what in ((parameters, "parameters"), (work, "FLOPs")):
    part = 100 * sum(amounts[name] for name in low) / sum(amounts.values())
    print(
        f"{what:<11} lower half of Stable Diffusion's U (16x16 and 8x8): {part:2.0f} %   all the rest: {100 - part:2.0f} %"
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# The parameters are in the lower half, where channels are many; the work is in the upper half, where positions are many. (The digit network, with only two levels, hardly shows the pattern.) If you want a smaller
# file, cut at the bottom; if you want faster images, cut at the top, or work on smaller images, which is what lesson 10 does.
#
# </details>
#
# ## A UNet made of your own functions
#
# You have written a time embedding, GroupNorm, a ResBlock, attention, and the plan of a UNet. What is left is to give these functions their weights. (Solve exercises 1, 2, 3, 4 and 6 first: everything below runs on
# *your* code.)


# %%
class Norm(nn.Module):
    """Your group_norm, with a scale and a shift to learn."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return group_norm(x, 8, self.weight, self.bias, 1e-5)


class Attend(nn.Module):
    """Your attention, from every position of x to the tokens (to its own positions if there are none), added to x."""

    def __init__(self, width, token_width):
        super().__init__()
        self.norm, self.to_q, self.to_out = Norm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.to_k, self.to_v = nn.Linear(token_width, width), nn.Linear(token_width, width)

    def forward(self, x, tokens=None):
        h = self.norm(x).flatten(2).mT  # (B, C, H, W) -> (B, H W, C)
        tokens = h if tokens is None else tokens
        h = self.to_out(attention(self.to_q(h), self.to_k(tokens), self.to_v(tokens), heads=4))
        return x + h.mT.reshape(x.shape)


# %%
class Block(nn.Module):
    """Your res_block; then, if wanted, self-attention and cross-attention."""

    def __init__(self, before, width, attend=True):
        super().__init__()
        self.norm1, self.conv1 = Norm(before), nn.Conv2d(before, width, 3, padding=1)
        self.project = nn.Linear(128, width)
        self.norm2, self.conv2 = Norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Identity() if before == width else nn.Conv2d(before, width, 1)
        self.self_attention = Attend(width, width) if attend else None
        self.cross_attention = Attend(width, 64) if attend else None

    def forward(self, x, emb, context):
        x = res_block(x, emb, self.norm1, self.conv1, self.project, self.norm2, self.conv2, self.shortcut)
        if self.self_attention:
            x = self.self_attention(x)
            x = self.cross_attention(x, context)
        return x


# %% [markdown]
# And the plan. It has two levels, 16×16 and 8×8, and a middle at 4×4. To make that come out even, the digits get a black margin (28 + 4 = 32 pixels), and are folded 2×2 into channels like those of the shipped model.


# %%
class MyUNet(nn.Module):
    """(B, 4, 16, 16), time (B,), context (B, L, 64) -> (B, 4, 16, 16)"""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, 128))
        self.first, self.last = nn.Conv2d(4, 24, 3, padding=1), nn.Conv2d(24, 4, 3, padding=1)
        self.down = nn.ModuleList([Block(24, 24, attend=False), Block(24, 48)])
        self.middle = Block(48, 48)
        self.up = nn.ModuleList([Block(48 + 24, 24, attend=False), Block(48 + 48, 48)])
        self.norm = Norm(24)

    def forward(self, x, time, context):
        emb = self.time(time_embedding(time / 1000, 32))
        x = unet(
            self.first(x),
            2,
            lambda x, level: self.down[level](x, emb, context),
            lambda x: self.middle(x, emb, context),
            lambda x, level: self.up[level](x, emb, context),
            shrink=lambda x: F.avg_pool2d(x, 2),
            grow=lambda x: F.interpolate(x, scale_factor=2),
        )
        return self.last(F.silu(self.norm(x)))


# %% [markdown]
# It is trained exactly like the digit model of lesson 02: the loop does not care whose network it is.

# %%
show(
    figures.training_loop(pipe, seven[0], T, prompt="7"),
    alt="Diagram of a training step with real images: a clean seven and noise give the noisy seven; the UNet predicts; the prediction is compared with the target, and the loss changes the weights.",
    caption="One training step. Prediction and target: orange is positive, blue negative.",
)

# %% [markdown]
# *Cost: about 2 minutes.*

# %%
from minidiff.data import batches
from minidiff.diffusion import FLOW, SAMPLERS, cfg
from minidiff.networks import Conditional, LabelEncoder
from minidiff.training import TrainConfig, train

NULL = 10  # the label that means "no label"
noise = torch.randn(100, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def padded():
    for images, labels in batches(data.mnist("train"), 32, seed=0):
        yield pipe.fold.encode(F.pad(images, (2, 2, 2, 2), value=-1)), labels


@torch.no_grad()
def generate(net, labels, steps=15, scale=2.0):
    """Digits of these labels, from the first rows of `noise`: (B, 1, 28, 28) in [-1, 1]."""
    null = net.text_encoder(torch.tensor([NULL]))
    denoise = cfg(net.unet, schedule, FLOW, net.text_encoder(labels), null, scale)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for step in SAMPLERS["dpmpp_2m"](denoise, noise[: len(labels)], times, schedule):
        pass
    return pipe.fold.decode(step.x)[:, :, 2:-2, 2:-2].clamp(-1, 1)


# %%
STEPS = budget(full=1000, smoke=6)
torch.manual_seed(0)
mine = Conditional(MyUNet(), LabelEncoder(10, 64))  # your UNet, and a table of label tokens as context
sizes = [sum(p.numel() for p in each.parameters()) for each in (mine.unet, net)]
print(f"your UNet: {sizes[0]:,} parameters; the digit model's: {sizes[1]:,}")

stops = {round(STEPS * fraction**2) for fraction in torch.linspace(0.2, 1, 10).tolist()}
losses, grown = [], []
for progress in train(
    mine, schedule, FLOW, padded(), TrainConfig(steps=STEPS, lr=4e-3, warmup=1 + STEPS // 10), null=NULL
):
    losses.append(progress.loss.item())
    if progress.step in stops:
        grown.append((progress.step, generate(progress.net, torch.arange(10), steps=8)))
mine = progress.net  # the averaged weights
print(f"loss of the first 20 steps {sum(losses[:20]) / 20:.2f}, of the last 20 {sum(losses[-20:]) / 20:.2f}")

# %% [markdown]
# Before you run it: ten digits, always from the same ten noise images, after more and more training. What will appear first, the digit or clean strokes?

# %%
# folded: the digits after each stop as one frame of an animation
from minidiff.image_files import sheet as tiled

frames = []
for step, drawn in grown:
    row = tiled((drawn + 1) / 2, columns=10, zoom=3, border=2)
    frame = Image.new("L", (row.width, row.height + 26), 255)
    frame.paste(row, (0, 26))
    ImageDraw.Draw(frame).text((4, 3), f"after {step} steps of training", fill=0, font_size=16)
    frames.append(frame)
show(
    frames,
    alt="Animation: a row of ten noisy squares turns, step by step of training, into handwritten strokes, most of them readable as the digits 0 to 9.",
    caption="Your network learns: digits 0 to 9 from the same noise, after more and more steps of training.",
)
stills = [*grown[:-2:2], grown[-1]]
grid(
    [(drawn + 1) / 2 for _, drawn in stills],
    names=[f"{step} steps" for step, _ in stills],
    titles=list("0123456789"),
    alt="The same as rows: from noise, over grain and blobs, to strokes, most of them readable as the digits 0 to 9.",
    caption="Five moments of the animation. Follow a column: the grain goes first, the digit comes last.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Clean strokes. First the grain goes, for which a pixel's neighbourhood is enough. Then strokes form, and only later do most of them join into the digit that was asked for: that takes a view of the whole image, and attention to
# the label.
#
# </details>
#
# Each of these digits was sampled as in lesson 03. The loop, drawn with the shipped model:

# %%
show(
    figures.sampling_loop(pipe, "7"),
    alt="Diagram of the sampling loop with real images: noise, the noisy image at time t, the UNet, the denoised estimate, a sampler step to a smaller t, and back to the network until t is 0.",
    caption="The sampling loop. Without guidance every time around costs one forward pass; with it (lesson 09), as for your digits, two.",
)

# %% [markdown]
# And here are more digits of your own. Before you look at the judge's verdict: how many of the forty would you accept?

# %%
labels = torch.arange(100) % 10
drawn = generate(mine, labels)
_, answers = judged(judge, drawn)
grid(
    [(drawn[10 * row : 10 * row + 10] + 1) / 2 for row in range(4)],
    titles=list("0123456789"),
    alt="Forty handwritten digits, four of each label from 0 to 9, generated by the network that was trained above.",
    caption="Drawn by your own UNet after 1,000 steps of training: four digits of each label, not selected.",
)
print(f"the judge reads {int((answers == labels).sum())} of 100 as the digit asked for")

# %% [markdown]
# <details><summary>Answer</summary>
#
# We would accept about three in four. The judge must name one of ten digits, whatever it sees, so its percentage says that the label got through, not that the digits are good.
#
# </details>
#
# The time embedding, every norm, every ResBlock, every attention and the U itself ran through your functions. The digit model of the course is more than three times as large, was trained for far longer, and draws better digits.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | the frequencies | $r_i = 10000^{-i/n}$ | {{unet.sinusoidal: rates = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=torch.float32, device=time.device))}} |
# | time as waves, cosines first | $\cos(\tau r_i), \; \sin(\tau r_i)$ | {{unet.sinusoidal: return torch.cat([angles.cos(), angles.sin()], dim=-1)}} |
# | the time enters a ResBlock | $h + W\,\text{silu}(e)$ | {{unet.ResBlock.forward: h = h + self.time_emb_proj(F.silu(emb))[:, :, None, None]}} |
# | the shortcut | $\text{shortcut}(x) + \text{conv}_2(\dots)$ | {{unet.ResBlock.forward: return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))}} |
# | a skip is concatenated | $[x, \text{skip}]$ | {{unet.UpBlock.forward: x = resnet(torch.cat([x, skips.pop()], dim=1), emb)}} |
# | channels into heads | $(h\,d) \to h, d$ | {{attention.attend: q, k, v = (rearrange(z, "b n (h d) -> b h n d", h=heads) for z in (q, k, v))}} |
# | attention | $\text{softmax}(q k^\top / \sqrt{d})\, v$ | {{attention.attend: out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)}} |
# | self-attention | $q, k, v$ from $x$ | {{attention.TransformerBlock.forward: x = x + self.attn1(h, h)}} |
# | cross-attention | $q$ from $x$; $k, v$ from $c$ | {{attention.TransformerBlock.forward: x = x + self.attn2(self.norm2(x), context)}} |
# | the receptive field of the middle | $\partial\, \text{out}_{\text{middle}} / \partial x$ | {{blocks.receptive_field: fields = [torch.autograd.grad(channel, x, retain_graph=True)[0].abs().sum(1) for channel in middle]}} |
#
# ## What you can do now
#
# You can read the UNet of a diffusion paper, and you have built one. What is missing: so far all of this was gray and 28 pixels
# wide. [Lesson 06](06_colour.ipynb) gives the same class three colours and harder images, and asks how long that really takes.
#
# Where the field went: in many large models since 2023 a transformer on patches has taken the place of the UNet ([Peebles and Xie 2022](https://arxiv.org/abs/2212.09748)). It has neither levels nor long skips, but you know its parts: attention, residual connections,
# normalisation, and a time embedding that reaches every block. There the time is not added: it gives the scale and the
# shift after each norm (*adaLN*; in UNets *AdaGN*, [Dhariwal and Nichol 2021](https://arxiv.org/abs/2105.05233)). And the last layer of each block starts at zero, so that at first it passes its input on unchanged.
#
# ## Further reading
#
# - [Ronneberger et al. 2015](https://arxiv.org/abs/1505.04597), U-Net: the shape, for segmenting cells under a microscope; figure 1 is the U.
# - [He et al. 2015](https://arxiv.org/abs/1512.03385), Deep Residual Learning: why a block should learn a correction.
# - [Wu and He 2018](https://arxiv.org/abs/1803.08494), Group Normalization: normalising without looking at the rest of the batch.
# - [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), Attention Is All You Need: attention, heads, and sinusoidal embeddings, there for positions.
# - [Ho et al. 2020](https://arxiv.org/abs/2006.11239), Denoising Diffusion Probabilistic Models: appendix B describes the UNet that later models build on, with the time in every block and self-attention.
# - [Dhariwal and Nichol 2021](https://arxiv.org/abs/2105.05233), Diffusion Models Beat GANs on Image Synthesis: section 3 is a table of ablations of this network.
# - [Rombach et al. 2022](https://arxiv.org/abs/2112.10752), High-Resolution Image Synthesis with Latent Diffusion Models: cross-attention to a prompt, and Stable Diffusion's UNet.
# - [Peebles and Xie 2022](https://arxiv.org/abs/2212.09748), Scalable Diffusion Models with Transformers: what came after the UNet.
