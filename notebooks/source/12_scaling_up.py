# %% [markdown]
# # 12 · What would it take on one GPU, on eight, on the internet?
#
# You have built everything that Stable Diffusion consists of. To train it you need nothing new, only more: more operations, memory, images, GPUs and money. In this lesson you count the first two
# and plan the rest. You check the plan against what three real training runs reported; and one of them will surprise you. You find out what changes when eight GPUs train together: very little, if it is
# done right. At the end there is a project of your own, to start on Monday, and a map of where the field has gone.
#
# | | |
# |---|---|
# | After this lesson you can | count the operations and the memory of a training run by hand; turn a network and a number of images into hours and dollars; split a batch among processes without changing the result; say which numbers may be rounded to bfloat16; plan and run a project of your own |
# | Study time | {{study time}} |
# | Compute time | about a minute on 2 CPU cores (a GPU is not needed: nothing large is trained, only counted) |
# | You need | lessons 02 and 05 (training, the UNet); lesson 09 for the project at the end |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
import io
import tarfile
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from PIL import ImageOps
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff import data
from minidiff.course import checks as check, figures, planner, widgets
from minidiff.course.figures.page import Page
from minidiff.course.lessons import budget, grid, show, style
from minidiff.networks import UNet, UNetConfig, flops
from minidiff.training.recipes import RECIPES

style()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# %% [markdown]
# Here is where we are going: a training run of Stable Diffusion's size, on eight GPUs.

# %%
show(
    figures.planner(),
    alt="A bar of coloured pieces, the memory in use on one GPU, ends before a red band at 80 GB; below it, lines of text give the network, batch, time and cost.",
    caption="Above, what each GPU has to hold in memory; below, what the run takes. By the end of part 2 you can compute every number in it.",
)

# %% [markdown]
# ## Part 1: counting
#
# The work of a network is counted in multiplications and additions. Take the smallest convolution there is, a 2×2 kernel on a 3×3 image:


# %%
# folded: a kernel at each of its positions
def kernel_positions(picture, kernel):
    figure, axes = plt.subplots(1, 4, figsize=(7.4, 2.1))
    for k, axis in enumerate(axes):
        top, left = divmod(k, 2)
        axis.imshow(picture, cmap="Blues", vmin=-2, vmax=14)
        for row in range(3):
            for column in range(3):
                axis.text(column, row, f"{picture[row, column]:.0f}", ha="center", va="center", fontsize=11)
        frame = {"fill": False, "ec": figures.ORANGE, "lw": 3, "clip_on": False, "zorder": 3}
        axis.add_patch(plt.Rectangle((left - 0.5, top - 0.5), 2, 2, **frame))
        under = picture[top : top + 2, left : left + 2].flatten().tolist()
        products = " + ".join(f"{w:.0f}·{value:.0f}" for w, value in zip(kernel.flatten().tolist(), under, strict=True))
        axis.set(xticks=[], yticks=[], title=f"output [{top}, {left}]")
        axis.set_xlabel(products.replace("+ -", "− "), fontsize=8)
    return figure


# %%
picture, kernel = torch.arange(9.0).reshape(3, 3), torch.tensor([[1.0, 2.0], [0.0, -1.0]])
show(
    kernel_positions(picture, kernel),
    alt="The numbers 0 to 8 in a 3 by 3 square, four times; an orange frame of 2 by 2 is in a different corner each time; below, the four products of each.",
    caption="Below each square: the kernel's four weights times the four numbers in the frame. How many operations is that in all?",
)

# %%
out, counted = torch.zeros(2, 2), 0
for row in range(2):
    for column in range(2):  # every value of the output
        for i in range(2):
            for j in range(2):  # is computed from 2 x 2 values of the input
                out[row, column] += kernel[i, j] * picture[row + i, column + j]
                counted += 2  # a multiplication and an addition
layer = nn.Conv2d(1, 1, 2, bias=False)
layer.weight.data[0, 0] = kernel
with FlopCounterMode(display=False) as counter, torch.no_grad():
    same = layer(picture[None, None])
print(f"by hand {counted}, PyTorch counts {counter.get_total_flops()}; same result: {torch.equal(out, same[0, 0])}")

# %% [markdown]
# These are 32 FLOPs, floating-point operations. A **multiply-accumulate operation (MAC)** is a multiplication together with the addition of its result, and counts as two FLOPs. Some papers
# count MACs and call them FLOPs, so before you compare two numbers, find out which was counted. It is a factor of two.
#
# ### Exercise 1 · The operations of a convolution
# *easy, 8 minutes.* A convolution takes `batch` images of `side`×`side` with `before` channels, and outputs `after` channels. Its kernel is `kernel`×`kernel` and moves by `stride`; first, `padding` rows and columns are
# added on every side of the image. It has no bias. How many FLOPs does it take? Return a number, without running a convolution.
#
# <details><summary>Hint</summary>
#
# How many values come out, and how many products go into each? A padded image has side + 2 padding values in a row. At how many positions can the kernel start?
#
# </details>


# %%
def operations(batch, before, after, side, kernel, stride, padding):
    """FLOP of a convolution, a number."""
    ### BEGIN SOLUTION
    out = (side + 2 * padding - kernel) // stride + 1
    return 2 * (batch * after * out**2) * (before * kernel**2)
    ### END SOLUTION


# %%
check.l12_operations(operations)

# %% [markdown]
# ### Attention, by hand
#
# The other large item is attention. Here are its weights, for 6 tokens and for 12:

# %%
figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), width_ratios=[1, 2])
for axis, N in zip(axes, (6, 12), strict=True):
    q, k = noise(N, 4), noise(N, 4, seed=1)
    image = axis.imshow((q @ k.T / 2).softmax(1), vmin=0, vmax=0.6)
    axis.set(
        title=f"{N} tokens, {N * N} weights", xlabel="attends to this token", ylabel="this token", xticks=[], yticks=[]
    )
figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
show(
    figure,
    alt="Two square tables of gray values: one of 6 by 6 cells, one of 12 by 12.",
    caption="Twice the tokens, four times the weights: this square will decide where Stable Diffusion can afford to work.",
)

# %% [markdown]
# To compute a weight, two vectors of $d$ values are multiplied: $2d$ FLOPs for each of $N^2$ pairs. To use it, it is multiplied into $d$ values again. Together that is $4 N^2 d$.

# %%
N, d = 6, 4
q, k, v = noise(1, 1, N, d), noise(1, 1, N, d, seed=1), noise(1, 1, N, d, seed=2)
with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
    F.scaled_dot_product_attention(q, k, v)
print(f"by hand {4 * N * N * d}, PyTorch counts {counter.get_total_flops()}")

# %% [markdown]
# ### Whole networks
#
# So PyTorch can count for us, and it need not even compute: on its *meta* device a tensor has a shape but no values, and Stable Diffusion's UNet takes up no memory.
#
# Before you run it: Stable Diffusion's UNet has about 860 times as many parameters as our digit model's. How many times as many FLOPs will one forward pass take: fewer than 860 times, about as many, or more?

# %%
SD = UNetConfig()  # the defaults are Stable Diffusion 1.x
with torch.device("meta"):
    rows = {"Stable Diffusion 1.x": (UNet(SD), torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768))}
    for name in ("cifar10", "scenes", "color_digits", "mnist"):
        config = RECIPES[name].config
        channels, side = config.unet.in_channels, 16 if name == "scenes" else config.picture[-1] // config.fold
        x = torch.zeros(1, channels, side, side)
        rows[name] = UNet(config.unet), x, torch.zeros(1, 2, config.unet.context_dim)

    print(f"{'':22} {'parameters':>12} {'sees':>12} {'FLOPs of a forward pass':>26}")
    count = {}
    for name, (net, x, context) in rows.items():
        size, work = sum(p.numel() for p in net.parameters()), sum(flops(net, x, torch.zeros(1), context).values())
        seen = "x".join(str(n) for n in x.shape[1:])
        print(f"{name:22} {size:>12,} {seen:>12} {work / 1e9:>18,.2f} billion")
        count[name] = size, work
large, small = count["Stable Diffusion 1.x"], count["mnist"]
print(f"Stable Diffusion / mnist: {large[0] / small[0]:,.0f} x the parameters, {large[1] / small[1]:,.0f} x the FLOPs")

# %% [markdown]
# <details><summary>Answer</summary>
#
# More, because a convolution uses the same weights at every position, and Stable Diffusion's latents have 64·64 positions where our folded digits have 14·14. Parameters tell you how large the file is; they do not tell you the work.
#
# </details>
#
# Training needs a forward and a backward pass. On the way back, each layer computes two gradients, one for its weights and one for its input, and each is as much work as the forward pass. So a training step
# should cost *three times* a forward pass. Does it?

# %%
net = UNet(RECIPES["mnist"].config.unet)
x, context = noise(2, 4, 14, 14), noise(2, 2, 64, seed=1)
with sdpa_kernel(SDPBackend.MATH):
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        net(x, torch.zeros(2), context)
    with FlopCounterMode(display=False) as both:
        net(x, torch.zeros(2), context).square().mean().backward()
print(f"forward and backward: {both.get_total_flops() / forward.get_total_flops():.3f} times the forward pass")

# %% [markdown]
# Not quite three, since the first layer needs no gradient for its input, the noisy image.
#
# ### Latents or pixels?
#
# Stable Diffusion's images have 512×512 pixels, but its UNet sees latents of 64×64, which have 64 times fewer positions.
#
# Before you run it: if the same UNet worked on the pixels themselves, would that take 64 times the work?

# %%
# folded: FLOPs by kind of layer, and their figure
KINDS = {"convolutions": ["convolution"], "linear layers": ["addmm", "mm"], "attention": ["bmm"]}


def by_kind(net, side, context):
    """FLOPs of a forward pass on the meta device, for each of KINDS."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 4, side, side), torch.zeros(1), context)
    found = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    return [sum(found.get(f"aten.{op}", 0) for op in ops) for ops in KINDS.values()]


def by_size(sides, counts):
    """Left the totals, right the fractions. counts: a row of `by_kind` for each side."""
    totals = [sum(row) for row in counts]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9), width_ratios=[1, 1.2])
    left.plot(sides, [t / 1e12 for t in totals], marker="o", label="counted")
    positions = [totals[sides.index(64)] / 1e12 * (side / 64) ** 2 for side in sides]
    left.plot(sides, positions, "--", color=figures.GRAY, label="in proportion to positions")
    left.set(xscale="log", yscale="log", xlabel="side of the input", ylabel="TFLOPs of a forward pass")
    left.set_xticks(sides, labels=[str(side) for side in sides])
    left.minorticks_off()
    left.legend(fontsize=9)
    below = [0.0] * len(sides)
    for name, parts in zip(KINDS, zip(*counts, strict=True), strict=True):
        part = [100 * p / t for p, t in zip(parts, totals, strict=True)]
        right.bar([str(side) for side in sides], part, bottom=below, label=name)
        below = [b + p for b, p in zip(below, part, strict=True)]
    right.set(xlabel="side of the input", ylabel="fraction of the FLOPs, in %")
    right.legend(fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0), columnspacing=1, handlelength=1)
    return figure


# %%
sides = budget(full=[32, 64, 128, 256, 512], smoke=[32, 64, 512])
unet, _, context = rows["Stable Diffusion 1.x"]
with torch.device("meta"):
    counts = [by_kind(unet, side, context) for side in sides]
show(
    by_size(sides, counts),
    alt="Left: the FLOPs against the side of the input, a curve that bends upwards away from a dashed straight line. Right: stacked bars in which attention grows from a few to over ninety percent.",
    caption="Left: the dashed line is work in proportion to the number of positions. Right: which part leaves that line.",
)
at_32, latents, pixels = (sum(row) for row in (*counts[:2], counts[-1]))
print(
    f"latents of 64x64: {latents / 1e12:.2f} TFLOPs; pixels, 512x512: {pixels / 1e12:,.0f} TFLOPs, {pixels / latents:.0f} times as many"
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Over ten times more than that. Convolutions and linear layers do grow by a factor of 64, but attention grows by the square of 64, and at 512×512 almost nothing else counts. A network designed for pixels would leave attention out at the
# high resolutions, and would still have 64 times the positions to process. This is why lesson 10 goes to latents.
#
# </details>
#
# ## Part 2: a planner
#
# ### Memory
#
# How many images of 512×512 can Stable Diffusion's UNet train on at once?


# %%
# folded: what a GPU has to hold, a bar for each batch size
def memory_bars(bars):
    """bars: name -> {piece: bytes}."""
    figure, axis = plt.subplots(figsize=(8, 2.6))
    left = [0.0] * len(bars)
    for k, piece in enumerate(next(reversed(bars.values()))):
        width = [pieces.get(piece, 0) / 1e9 for pieces in bars.values()]
        colour = (figures.BLUE, figures.ORANGE, figures.GREEN, "#CC79A7", "#56B4E9", figures.GRAY)[k]
        axis.barh(list(bars), width, left=left, label=piece, color=colour)
        left = [a + b for a, b in zip(left, width, strict=True)]
    for name in ("T4", "RTX 4090", "A100 40 GB", "H100"):
        axis.axvline(planner.GPUS[name].memory, color=figures.RED, lw=1.2)
        axis.text(planner.GPUS[name].memory, -0.62, name, color=figures.RED, fontsize=8, ha="center")
    axis.invert_yaxis()
    axis.set(xlabel="GB", xlim=(0, 90))
    axis.legend(fontsize=8, ncols=6, loc="upper center", bbox_to_anchor=(0.42, -0.22), handlelength=1, columnspacing=1)
    return figure


# %%
need = planner.work(SD, 64)  # counted for latents of 64 x 64, under bfloat16 autocast
bars = {"sampling": {"weights": 4 * need.parameters}}
bars |= {f"training, batch {n}": planner.memory(need, n) for n in (1, 8, 32)}
show(
    memory_bars(bars),
    alt="Four stacked bars of gigabytes. Sampling needs the weights alone; training with batch 1, 8 and 32 needs five more pieces, of which the activations grow. Lines mark the memory of four GPUs.",
    caption="Only the gray piece grows with the batch. The rest is there before the first image arrives.",
)
print(f"weights {4 * need.parameters / 1e9:.2f} GB; activations of each image {need.kept / 1e9:.2f} GB")
fixed = sum(planner.memory(need, 0).values())
for name, gpu in planner.GPUS.items():
    room = (1 - planner.FREE) * gpu.memory * 1e9 - fixed  # a tenth stays free: see below
    print(f"{name:10} has room for {max(0, int(room // need.kept)):>2} images at once")

# %% [markdown]
# To sample you need the weights and little else. Why does training need several times more? Watch a tiny layer learn, in float32, with four bytes a number:

# %%
tiny = nn.Linear(10, 100, bias=False)
optimizer = torch.optim.AdamW(tiny.parameters())
x = noise(8, 10)
kept = planner.bytes_kept(tiny, x)
tiny(x).square().mean().backward()
optimizer.step()
state = optimizer.state[tiny.weight]
print(f"weights           {tiny.weight.nbytes:>6} bytes")
print(f"gradients         {tiny.weight.grad.nbytes:>6}")
print(f"AdamW's moments   {state['exp_avg'].nbytes:>6} + {state['exp_avg_sq'].nbytes}")
print(f"kept for the backward pass: {kept}, the input of {x.nbytes} bytes")

# %% [markdown]
# That makes four copies of the weights. A fifth is the moving average that you sample with (lesson 02), and autocast makes a sixth, of half the size, in bfloat16 (part 5). None of them depends on the batch. The last line does: to
# compute the gradient of its weights, a layer needs the input that it had in the forward pass. These inputs, the activations, are kept for every layer and every image until the backward pass has used them.
#
# For the large UNet we have counted the activations in the same way, by asking autograd what it keeps. The count assumes that attention never writes out its $N \times N$ weights, which [FlashAttention](https://arxiv.org/abs/2205.14135) made usual, and it leaves
# out what lives for only a moment. So the planner leaves a tenth of each GPU free: the red band in its figure.
#
# It can also take less. **Activation checkpointing** throws most activations away and computes them again during the backward pass, which saves memory at the cost of another forward pass ([Chen et al. 2016](https://arxiv.org/abs/1604.06174)). A training step then costs four forward passes instead of three.
#
# ### Exercise 2 · Does it fit?
# *easy, 5 minutes.* How many bytes does training with AdamW need? The network has `parameters` weights in float32. For each image, `kept` *bytes* of activations are kept, and `batch` images are computed at
# once. If `ema` is true, a moving average of the weights is kept as well. Leave out autocast's copy.
#
# <details><summary>Hint</summary>
#
# List everything that has as many values as the network has weights. How many bytes does a float32 take?
#
# </details>


# %%
def memory(parameters, kept, batch, ema):
    """Bytes that a training needs."""
    ### BEGIN SOLUTION
    copies = 1 + 1 + 2 + (1 if ema else 0)  # weights, gradients, two moments, average
    return 4 * copies * parameters + batch * kept
    ### END SOLUTION


# %%
check.l12_memory(memory)

# %% [markdown]
# ### Time and money
#
# Every GPU has a data sheet, and on it a peak: the operations that it can do in a second at best.

# %%
figure, axis = plt.subplots(figsize=(6.5, 2.3))
names = list(planner.GPUS)
axis.barh(names, [gpu.tflops for gpu in planner.GPUS.values()])
for k, gpu in enumerate(planner.GPUS.values()):
    axis.text(gpu.tflops + 10, k, f"{gpu.tflops}, {gpu.memory} GB", va="center", fontsize=9)
axis.invert_yaxis()
axis.set(xlabel="peak, TFLOPs a second", xlim=(0, 1150))
show(
    figure,
    alt="Seven bars, the peak of each GPU from 65 TFLOPs a second for a T4 to 989 for an H100 and an H200, with their memory.",
    caption="Matrix products in bfloat16 (T4 and V100: float16), dense, from the makers' data sheets. How much of this will a training run get?",
)

# %% [markdown]
# Newer data sheets print twice as much, *with sparsity*, which is of no use here. And a training run never reaches the peak. **Model FLOP utilisation (MFU)** is the number of operations that a network needs, divided by what its GPUs could have done at their peak in the same time ([Chowdhery et al. 2022](https://arxiv.org/abs/2204.02311)).
#
# $$\text{hours} = \frac{3 \cdot \text{FLOPs of a forward pass} \cdot \text{images}}{\text{GPUs} \cdot \text{peak} \cdot \text{MFU} \cdot 3600}$$
#
# For 250 million images on eight A100, at an MFU of 30 % and two dollars an hour for each GPU:

# %%
operations_250 = 3 * need.flops * 250e6
hours = operations_250 / (8 * 312e12 * 0.3) / 3600
print(f"{operations_250:.1e} FLOPs, {hours:.0f} hours, {8 * hours * 2:,.0f} dollars")
print(f"the planner: {planner.hours(operations_250, planner.GPUS['A100 80 GB'], mfu=0.3, gpus=8):.0f} hours")

# %% [markdown]
# The FLOPs are counted, the peak is printed on the data sheet, but MFU and price are assumed. Part 3 shows what MFU others got. Prices change from month to month and from seller to seller. Now the same run on a single GPU, such as you might have at home:

# %%
alt = "The planner for one RTX 4090: a bar of memory that ends before a red band at 24 GB, and below it months of time."
caption = "The copies of the weights fit, and then there is room for a few images at a time. Look at the days."
show(figures.planner(planner.Plan(gpu="RTX 4090", gpus=1, millions=250, batch=32, price=0.5)), alt, caption)

# %%
widgets.planner()

# %% [markdown]
# *Try:* halve the network's width, the channels of its first level, from 320 to 160. What happens to the parameters, to the FLOPs, and to the memory of each image? Then set the width back and go to 1024 pixels: how much longer does it take, and which GPUs still have room?
#
# <details><summary>Answer</summary>
#
# At half the width, the UNet has about a quarter of the parameters, since a layer's weights grow with the *product* of its channels before and after. Its FLOPs fall a little less (to 29 %), because attention's own products grow only with the width, not with its square. Activations are channels times
# positions, so they are halved. At 1024 pixels, there are four times the activations and almost six times the FLOPs: attention again. A T4 has no room for it, nor has an RTX 4090; all others do, with fewer images at a time.
#
# </details>
#
# ## Part 3: a real bill
#
# ### Stable Diffusion's, by hand
#
# A planner that was never compared with a bill is a daydream. The [model card](https://github.com/CompVis/stable-diffusion/blob/main/Stable_Diffusion_v1_Model_Card.md) of Stable Diffusion v1 lists every stage of its training, up to version 1.3: 237,000 steps at 256×256, then 194,000, 515,000 and 195,000 steps at 512×512,
# each with a batch of 2,048 images. We have counted what a forward pass costs at both sizes. The rest is multiplication.
#
# Before you run it: the card says that this took 150,000 hours on A100. What will our bill say, at an MFU of 30 %?

# %%
card = {"256x256": (at_32, 237_000), "512x512": (latents, 194_000 + 515_000 + 195_000)}
operations_sd = 0
for size, (forward, steps) in card.items():
    images = 2048 * steps
    print(
        f"{size}: {steps:>7,} steps of 2,048 = {images / 1e6:>5,.0f} million images, each 3 x {forward / 1e12:.2f} TFLOPs"
    )
    operations_sd += 3 * forward * images

seconds = operations_sd / (312e12 * 0.3)
print(f"together {operations_sd:.1e} FLOPs; at 30 % of 312 TFLOPs a second, {seconds:.1e} seconds")
print(
    f"= {seconds / 3600:,.0f} hours on one A100; the card reports 150,000, {150_000 * 3600 / seconds:.0f} times as many"
)
print(f"at 2 dollars an hour: {2 * seconds / 3600:,.0f} dollars planned, {2 * 150_000:,} for the hours reported")

# %% [markdown]
# <details><summary>Answer</summary>
#
# A tenth of what was reported. Before you throw the planner away, look at two other bills.
#
# </details>
#
# ### Two more
#
# [PixArt-α](https://arxiv.org/abs/2310.00426) (Chen et al. 2023) is a transformer of 611 million parameters. Table 4 of the paper lists five stages with their steps, batches and V100 days, 1,656 in all. [MicroDiT](https://arxiv.org/abs/2407.15811) (Sehwag et al. 2024) is a transformer of 1.16 billion parameters,
# trained in 2.6 days on eight H100. Its published code gives 280,000 steps at 256×256 and 55,000 at 512×512, with batches of 2,048; in most of them, three quarters of the image's patches skip the main part of the network.
# A transformer is easy to count, since almost every weight meets every token. (The next cell is folded; open it if you want to check.)


# %%
# folded: FLOPs of the two transformers, and the figure that compares the bills
def transformer(tokens, text, width, inner, hidden):
    """FLOPs of a forward pass. inner: attention's width, hidden: weights behind it that a token meets, by layer."""
    macs = 0
    for a, h in zip(inner, hidden, strict=True):
        macs += tokens * (4 * width * a + 2 * tokens * a)  # self-attention
        macs += tokens * (2 * width**2 + 2 * text * width) + text * 2 * width**2  # cross-attention
        macs += tokens * h
    return 2 * macs


def pixart(pixels):
    return transformer((pixels // 16) ** 2, 120, 1152, [1152] * 28, [8 * 1152**2] * 28)


def in_steps(value, step):
    return -(-int(value) // step) * step


def microdit(pixels, kept):
    """A small mixer for all patches, then 28 layers for the fraction `kept` of them; every other layer has experts."""
    patches, scale = (pixels // 16) ** 2, [k / 27 for k in range(28)]
    inner = [in_steps(1024 * (0.5 + 0.5 * s), 128) for s in scale]
    ratio = [int(1024 * (0.5 + 3.5 * s)) for s in scale]
    gated = [3 * 1024 * in_steps(int(2 * r / 3), 256) for r in ratio]
    experts = [2 * 2 * 1024 * in_steps(r, 256) for r in ratio]  # a token meets two of the eight, on average
    hidden = [experts[k] if k % 2 and k < 27 else gated[k] for k in range(28)]
    mixer = [3 * 768 * 2048, 2 * 2 * 768 * 3072] * 3
    return transformer(patches, 77, 768, [768] * 6, mixer) + transformer(int(patches * kept), 77, 1024, inner, hidden)


def compared(names, reported, planned):
    figure, axis = plt.subplots(figsize=(6.4, 2.4))
    axis.barh([k - 0.19 for k in range(3)], reported, height=0.36, label="reported")
    axis.barh([k + 0.19 for k in range(3)], planned, height=0.36, label="planner, MFU 30 %")
    axis.set(xscale="log", xlim=(100, 3e5), xlabel="GPU hours, each on its own kind of GPU")
    axis.set(yticks=range(3), yticklabels=names)
    axis.invert_yaxis()
    axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# %%
pixart_stages = [(pixart(256), 300e3, 128 * 8), (pixart(256), 150e3, 178 * 64), (pixart(256), 90e3, 178 * 64)]
pixart_stages += [(pixart(512), 100e3, 40 * 64), (pixart(1024), 16e3, 12 * 32)]
microdit_stages = [(microdit(256, 0.25), 250e3, 2048), (microdit(256, 1), 30e3, 2048)]
microdit_stages += [(microdit(512, 0.25), 50e3, 2048), (microdit(512, 1), 5e3, 2048)]
BILLS = {  # (FLOPs of a forward pass, steps, batch) of each stage; the GPU; GPU hours reported
    "Stable Diffusion v1": ([(at_32, 237e3, 2048), (latents, 904e3, 2048)], "A100 40 GB", 150_000),
    "PixArt-α": (pixart_stages, "V100", 1656 * 24),
    "MicroDiT": (microdit_stages, "H100", 2.6 * 24 * 8),
}
flop = [sum(3 * once * steps * batch for once, steps, batch in stages) for stages, _, _ in BILLS.values()]
planned = [planner.hours(n, planner.GPUS[gpu], mfu=0.3) for n, (_, gpu, _) in zip(flop, BILLS.values(), strict=True)]
show(
    compared(list(BILLS), [bill[2] for bill in BILLS.values()], planned),
    alt="Pairs of bars on a log scale, hours reported and hours planned, for three models. The pairs differ little for PixArt and MicroDiT, and by a factor of ten for Stable Diffusion.",
    caption="Compare the two bars of each pair. The axis is logarithmic: one line is a factor of ten.",
)
for (name, (_, gpu, reported)), n, hours in zip(BILLS.items(), flop, planned, strict=True):
    said = f"{name:20} {n:.1e} FLOPs, {gpu:10} {reported:>8,.0f} hours reported, {hours:>7,.0f} planned"
    print(f"{said}: MFU {0.3 * hours / reported:.1%}")

# %% [markdown]
# For PixArt-α and MicroDiT the planner is right within a factor of two: they got about a fifth out of their GPUs, so plan with 20 % rather than 30. It also tells you why MicroDiT was so cheap: fewer images, small ones
# most of the time, and most of their patches left out.
#
# For Stable Diffusion, at 30 %, it is off by a factor of 11. What can honestly be said about that?
#
# - *Work that we did not count.* That run encoded its images with the VAE at every step (about 1.1 TFLOPs each at 512×512), and the configuration published with the weights has checkpointing switched on. We counted 3 · 0.80 = 2.4 TFLOPs for each image of 512×512. The VAE adds 1.1 to that (46 %), and checkpointing another forward pass (33 %): together four fifths. PixArt-α and MicroDiT encoded their images beforehand.
# - *Perhaps a lower peak.* The card does not say in which precision it was trained. In TF32, an A100's format for float32 matrices, the peak is half of what we assumed.
# - *Waiting.* Each of the 256 GPUs processed four images at a time, twice a step. That is little work for such a GPU, and 32 machines had to wait for each other.
# - *Perhaps other runs.* The card does not say which hours were added up. If failed runs are among them, no bill can find them.
#
# The first two multiply our bill by 1.8 · 2 = 3.6, if both hold. Of the factor of 11 that leaves 3, or 2 if you plan with the 20 % of the other two runs. The card does not explain the rest. So a planner tells you what a run takes *if all goes well*; if you ever ask for money, ask for more.
#
# ## Part 4: two devices, eight devices
#
# On one GPU, and on eight:
#
# ```
# minidiff train scenes
# torchrun --nproc_per_node 8 -m minidiff train scenes
# ```
#
# `torchrun` starts the same program eight times. The **rank** of a process is its number among all that train together, from 0 on. In **data parallelism**, every process has a full copy of the network and computes the gradient of its own part of each batch; then all average their gradients and take the same step, so the
# copies stay equal ([Li et al. 2020](https://arxiv.org/abs/2006.15704)). Why is that allowed? Here is a layer with two weights, so that its gradient is an arrow in the plane, and a batch of eight:


# %%
# folded: gradients as arrows in the plane
def arrows(single, means):
    """single: a gradient for each example, (8, 2); means: name -> (gradient, colour)."""
    figure, axis = plt.subplots(figsize=(5.2, 3))
    for k, dot in enumerate(single):
        axis.plot(*dot, "o", ms=6, color=(figures.BLUE, figures.ORANGE)[k // 4], alpha=0.5)
    for name, (arrow, colour) in means.items():
        axis.annotate(
            "",
            arrow.tolist(),
            (0, 0),
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.5, "shrinkA": 0, "shrinkB": 0},
        )
        axis.plot([], [], color=colour, lw=2.5, label=name)
    axis.set(xlabel="gradient of weight 1", ylabel="gradient of weight 2")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# %%
torch.manual_seed(0)
layer = nn.Linear(2, 1, bias=False)
x, wanted = noise(8, 2), noise(8, 1, seed=1)


def gradient(rows):
    """Of the mean loss over these rows of the batch, (2,)."""
    loss = F.mse_loss(layer(x[rows]), wanted[rows])
    return torch.autograd.grad(loss, layer.weight)[0][0]


whole, first, second = gradient(slice(0, 8)), gradient(slice(0, 4)), gradient(slice(4, 8))
means = {"process 0: mean of its 4": (first, figures.BLUE), "process 1: mean of its 4": (second, figures.ORANGE)}
means["the whole batch"] = whole, "black"
show(
    arrows([gradient(slice(k, k + 1)) for k in range(8)], means),
    alt="Eight dots in two colours, the gradients of single examples; a blue and an orange arrow to the means of four; a black arrow to the point halfway between the tips.",
    caption="Each dot is the gradient of one example. The black arrow ends exactly halfway between the other two.",
)

# %% [markdown]
# The loss is a mean over examples, and so is its gradient; the mean of two means over equally many is the mean over all. In numbers, with two mistakes that are easy to make:

# %%
uneven = gradient(slice(0, 6)), gradient(slice(6, 8))
for name, value in {
    "the whole batch": whole,
    "mean of two halves": (first + second) / 2,
    "sum of two halves": first + second,
    "mean of parts of 6 and 2": (uneven[0] + uneven[1]) / 2,
}.items():
    print(f"{name:26}", "  ".join(f"{g:8.4f}" for g in value.tolist()))

# %% [markdown]
# With the sum, plain gradient descent takes steps that grow with the number of GPUs. (AdamW divides the factor out again and hides the mistake, unless gradients are clipped.) With unequal parts, the plain mean gives examples in the small part too much weight.
#
# ### Exercise 3 · Unequal parts
# *medium, 8 minutes.* Each of N processes has the gradient of the *mean* loss over its own images: `gradients`, (N, D), a row for each. They had different numbers of images: `pictures`, (N,), whole numbers. What is the gradient of the
# mean loss over all images, (D,)?
#
# <details><summary>Hint</summary>
#
# A mean and a count give you the sum, and sums can be added.
#
# </details>


# %%
def gradient_of_all(gradients, pictures):
    """The gradient over the pictures of all processes: (N, D), (N,) -> (D,)."""
    ### BEGIN SOLUTION
    share = pictures / pictures.sum()
    return (share[:, None] * gradients).sum(0)
    ### END SOLUTION


# %%
check.l12_gradient(gradient_of_all)

# %% [markdown]
# ### One after the other
#
# The parts need not be computed at the same time. **Gradient accumulation** computes a batch in parts, one after the other on the same GPU, and adds up their gradients before the step is taken. It is how the RTX 4090 above trains with a batch of 32, and what `minidiff train --accumulate 4` does. Each part comes with the fraction of the
# batch that it holds, so parts may be unequal:

# %%
from minidiff.training.distributed import batch_parts, my_rows

total = torch.zeros(2)
for rows, fraction in batch_parts(layer, 8, parts=3):
    print(f"rows {rows.start} to {rows.stop - 1}, {fraction:.3f} of the batch")
    total += fraction * gradient(rows)
print("together they are the whole gradient:", torch.allclose(total, whole, atol=1e-6))
print("rows of a batch of 8 for this process:", my_rows(8), "(it is alone)")

# %% [markdown]
# ### The same random numbers, however many processes
#
# If every process drew its own noise and times, a run on two GPUs would not be the run on one. So in minidiff every process draws for the *whole* batch, from a seed made of the run's seed and the step, and takes its own rows. Drawing costs next to nothing.

# %%
everyone = noise(8, seed=1_000_003 * 0 + 41)  # the run's seed 0, step 41
for world in (1, 2, 4):
    parts = [[f"{value:.1f}" for value in part.tolist()] for part in everyone.split(8 // world)]
    print(f"{world} process{'es' * (world > 1):2}", *parts)

# %% [markdown]
# So a run can be stopped on eight GPUs and resumed on two: the next step has the same images, times and noise.
#
# ### A larger batch
#
# More GPUs can finish the same batch sooner, or take a larger one. What does a larger batch buy?

# %%
truth = torch.tensor([1.0, 0.5])
single = truth + 3 * noise(4096, 2)  # gradients of single images: the truth, and what is particular to each
figure, axes = plt.subplots(1, 4, figsize=(8, 2.3), sharex=True, sharey=True)
for axis, batch in zip(axes, (1, 4, 16, 64), strict=True):
    means = single.reshape(-1, batch, 2).mean(1)
    axis.scatter(*means[:64].T, s=8)
    axis.plot(*truth, "*", color=figures.RED, ms=12)
    axis.set(title=f"batch {batch}", xlim=(-9, 11), ylim=(-9, 11))
    print(f"batch {batch:>2}: distance from the truth {(means - truth).square().mean().sqrt():.3f} per weight")
show(
    figure,
    alt="Four clouds of 64 dots around a red star; with batches of 1, 4, 16 and 64 the cloud shrinks.",
    caption="64 batches each: how far is a batch's gradient (a dot) from the true one (the star)?",
)

# %% [markdown]
# Four times the batch, half the noise. With less noise you can take larger steps, up to a point. Two rules of thumb: for plain gradient descent, a learning rate in proportion to the batch, after a warm-up ([Goyal et al. 2017](https://arxiv.org/abs/1706.02677)); for Adam,
# in proportion to its square root ([Malladi et al. 2022](https://arxiv.org/abs/2205.10287)). They are places to start a search. The loss of a short run decides.
#
# ### What the GPUs tell each other
#
# At every step a gradient as large as the network has to travel. An **all-reduce** gives every process the sum, or the mean, of what all of them hold. In a ring of $N$ processes, each sends $2 (N - 1) / N$ times the size of the gradient, which here is in float32.
#
# Before you run it: eight GPUs compute for about a second at each step. For which of these connections is sending the gradient slower than that: the one inside a machine, a good network, a poor network, or the internet at home?

# %%
to_send = 2 * 7 / 8 * 4 * need.parameters
computing = 3 * need.flops * 256 / (8 * 312e12 * 0.3)  # 256 images, eight A100, MFU 30 %
LINKS = {  # bytes a second in one direction, at best
    "NVLink of an A100": 300e9,
    "PCIe 4.0, 16 lanes": 32e9,
    "network, 100 Gbit/s": 12.5e9,
    "network, 10 Gbit/s": 1.25e9,
    "at home, 50 Mbit/s up": 50e6 / 8,
}
seconds = [to_send / speed for speed in LINKS.values()]
figure, axis = plt.subplots(figsize=(6.8, 2.5))
axis.barh(list(LINKS), seconds, color=[figures.BLUE if s < computing else figures.RED for s in seconds])
axis.axvline(computing, color=figures.GRAY, linestyle="--")
axis.text(computing * 1.1, -0.5, "computing", color=figures.GRAY, fontsize=9, va="top")
axis.set(xscale="log", xlabel="seconds a step to average the gradients", ylim=(4.6, -1.1))
show(
    figure,
    alt="Five bars of seconds on a log scale, from NVLink, far below the dashed line of computing, to an internet connection at home, far above it.",
    caption="Red bars are longer than the computing between them (dashed). The axis is logarithmic.",
)
print(
    f"{to_send / 1e9:.1f} GB to send; computing takes {computing:.2f} s; sending from home {seconds[-1] / 60:.0f} minutes"
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# For the last two. In one machine sending costs next to nothing, all the more since the first gradients travel while the last ones are still being computed. Between machines the network has to be good. Between people's homes it is hopeless: a quarter of an hour of sending for a second of work.
#
# </details>
#
# Unless they talk less often. In [DiLoCo](https://arxiv.org/abs/2311.08105) (Douillard et al. 2023), language models were trained by workers who each take some hundreds of steps alone and then average the changes in their *weights*. For our run, with one exchange every 500 steps:

# %%
alone = 500 * 3 * need.flops * 32 / (165e12 * 0.3)
print(
    f"500 steps of 32 images on one RTX 4090: {alone / 60:.0f} minutes; one exchange from home: {seconds[-1] / 60:.0f} minutes"
)

# %% [markdown]
# Sending takes about as long as computing now, instead of a thousand times as long; exchange half as often, and it is half. But it is no longer the same training, and you have to test whether it learns as well.
#
# ### More images than memory
#
# First, keep only what training needs. Latents and text states can be computed once, in float16:

# %%
latent, states = 4 * 64 * 64 * 2, 77 * 768 * 2
print(f"an image: {512 * 512 * 3:,} bytes of pixels, {latent:,} as a latent; its caption's states: {states:,}")
print(f"latents and states of 100 million images: {100e6 * (latent + states) / 1e12:.0f} TB")

# %% [markdown]
# Curiously, the caption is now the larger part. Then divide the data. A **shard** is a file with a few thousand examples that is read from front to back as training goes. A tar file will do, where an image and a text file of the same name make a pair. In every epoch the shards come in a new order, and each process
# reads its own part of every batch.


# %%
def pack(pairs, path):
    """Write (PIL image, caption) pairs into a shard: 00000.png, 00000.txt, 00001.png, ..."""
    with tarfile.open(path, "w") as tar:
        for k, (image, caption) in enumerate(pairs):
            png = io.BytesIO()
            image.save(png, "png")
            for name, content in {f"{k:05}.png": png.getvalue(), f"{k:05}.txt": caption.encode()}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


# %%
from minidiff.data.webdataset import pair_batches
from minidiff.pipeline.text_to_image import to_pil

temporary = tempfile.TemporaryDirectory()
(gray,) = to_pil(torch.full((1, 3, 8, 8), 0.5))
for number in range(4):  # four shards of three pairs each
    pack([(gray, f"caption {3 * number + k}") for k in range(3)], f"{temporary.name}/{number}.tar")
shards = sorted(map(str, Path(temporary.name).glob("*.tar")))
for rank in (0, 1):
    mine = slice(2 * rank, 2 * rank + 2)
    batches = pair_batches(shards, size=8, batch=4, mine=mine, workers=False)
    print(f"process {rank}:", [next(batches)[1][mine] for _ in range(3)])

# %% [markdown]
# Three batches of four are an epoch here. Together the two processes read every caption once.
#
# ### Exercise 4 · Who visits which image
# *medium, 12 minutes.* `shuffled(s)` is a function that gives all images' numbers in an order that depends only on the seed `s`, (n,). Return which images process `rank` of `world` sees in an epoch, step by step: (steps, batch / world), whole numbers.
#
# The rules: every epoch has its own order, from the seed `seed + epoch`, which is the same in all processes. It is cut into batches of `batch`; what is left over at the end is not used in this epoch. Of each batch, process 0 takes the
# first `batch / world` images, process 1 the next, and so on. `batch` is a multiple of `world`.
#
# <details><summary>Hint</summary>
#
# Once the tail is cut off, `reshape(-1, batch)` makes a row of every batch. Then a process's part is a range of columns.
#
# </details>


# %%
def visits(shuffled, seed, epoch, batch, rank, world):
    """The pictures that a process sees in an epoch: (steps, batch / world)."""
    ### BEGIN SOLUTION
    order = shuffled(seed + epoch)
    whole = order[: len(order) // batch * batch].reshape(-1, batch)
    mine = batch // world
    return whole[:, rank * mine : (rank + 1) * mine]
    ### END SOLUTION


# %%
check.l12_visits(visits)

# %% [markdown]
# ## Part 5: half precision
#
# All peaks in part 2 are for numbers of two bytes. **bfloat16** is a floating-point format of two bytes that reaches as far as float32, up to $10^{38}$, but has only 8 significant bits, two to three decimal digits. Is that enough to learn with? Two weights of 0.9, one in float32 and one in bfloat16, get the same update, $+0.001$, at every step:


# %%
# folded: frames of two weights on the number line, before and after rounding
def number_lines(wide, narrow, tried, words):
    with Page(700, 190) as page:
        axes = page.axes(90, 36, 590, 110, xlim=(0.8973, 0.9135), ylim=(-0.7, 1.7), title=words)
        axes.set(yticks=[0, 1], yticklabels=["bfloat16", "float32"], xlabel="the weight")
        axes.grid(False)
        spacing = 2**-8  # of bfloat16 between 0.5 and 1
        axes.vlines([0.8984375 + k * spacing for k in range(4)], -0.45, 0.45, color=figures.GRAY)
        axes.axhline(1, color="0.85", lw=1, zorder=0)
        axes.axhline(0, color="0.85", lw=1, zorder=0)
        axes.scatter([wide], [1], color=figures.BLUE, s=90)
        if tried is None:
            axes.scatter([narrow], [0], color=figures.ORANGE, s=90, zorder=3)
        else:
            axes.scatter([tried], [0], facecolors="white", edgecolors=figures.ORANGE, s=90, zorder=3)
        return page.image()


# %%
update, wide, narrow = 0.001, torch.tensor(0.9), torch.tensor(0.9).bfloat16()
frames = [number_lines(wide, narrow.float(), None, "before the first step")]
for k in range(1, 13):
    exact = narrow.float() + update
    wide, narrow = wide + update, narrow + torch.tensor(update).bfloat16()
    frames.append(number_lines(wide, narrow.float(), exact, f"step {k}: add 0.001"))
    frames.append(number_lines(wide, narrow.float(), None, f"step {k}: round to the nearest number there is"))
show(
    frames,
    alt="Animation: on the upper line a blue dot moves to the right step by step. On the lower line an orange dot is pushed off a gray mark and falls back on it every time.",
    caption="Gray marks are the only numbers that bfloat16 has here. Watch the lower dot try, and fall back.",
)
print(f"after 12 steps: float32 {wide:.4f}, bfloat16 {narrow:.4f}")

# %% [markdown]
# The bfloat16 weight never moves, however many steps you take. No error is raised, the gradients are fine, and nothing is learned. Rounding is harmless in a large matrix product, where the sums themselves are kept in float32 and the rounding errors of many factors average out, but not where small steps are added up. In **mixed-precision training**, weights, moments and the moving average stay in float32, and only
# the large products are computed with copies rounded to two bytes ([Micikevicius et al. 2017](https://arxiv.org/abs/1710.03740)). `torch.autocast` makes these copies. It has lists of what to compute in which format:

# %%
layer = nn.Linear(4, 4)
x, wanted = noise(6, 4), noise(6, 4, seed=1)
with torch.autocast("cpu", torch.bfloat16):
    out = layer(x)
    loss = F.mse_loss(out, wanted)
    by_hand = (out - wanted.bfloat16()).square().mean()
loss.backward()
tensors = {"weights": layer.weight, "output": out, "mse_loss": loss, "a loss of rounded numbers": by_hand}
for name, tensor in (tensors | {"gradient": layer.weight.grad}).items():
    print(f"{name:27} {str(tensor.dtype).removeprefix('torch.')}")

# %% [markdown]
# The loss is on the float32 list, for a good reason: the better the network, the smaller the difference between its output and the target. Round both first, and a small difference vanishes or comes out wrong, and the gradient with it:

# %%
out, wanted = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.003, 0.999, 1.002, 0.998])
print("differences in float32 ", [f"{value:.4f}" for value in (out - wanted).tolist()])
print("differences in bfloat16", [f"{value:.4f}" for value in (out.bfloat16() - wanted.bfloat16()).tolist()])

# %% [markdown]
# Three of the four differences are lost, and the last has doubled. So never round the target, and if you write a loss yourself, put it outside autocast, behind `.float()`. (Older GPUs have float16 instead, with three more bits but a largest number of 65,504 and no numbers below about $10^{-7}$. There the loss is multiplied by a large number before the backward pass, so that small gradients do not vanish.)
#
# ### Exercise 5 · A step in half precision
# *hard, 12 minutes.* A linear layer has the weights `weight`, (out, in), and no bias. Take one step of plain gradient descent, with learning rate `lr`, on the mean squared error between its outputs for `x`, (B, in), and `target`,
# (B, out). All three tensors are float32. The layer itself is to compute in bfloat16, under `torch.autocast("cpu", torch.bfloat16)`; everything else is float32. Return the new weights, (out, in), float32, and leave `weight` itself as it is.
#
# <details><summary>Hint</summary>
#
# `weight.clone().requires_grad_()` is a leaf that you can compute gradients for. `torch.nn.functional.linear(x, weight)` is the layer, and `.float()` ends half precision.
#
# </details>


# %%
def step(weight, x, target, lr):
    """The weights after one step: (out, in), (B, in), (B, out), number -> (out, in)."""
    ### BEGIN SOLUTION
    learned = weight.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = torch.nn.functional.linear(x, learned)
    loss = (out.float() - target).square().mean()
    loss.backward()
    return weight - lr * learned.grad
    ### END SOLUTION


# %%
check.l12_step(step)

# %% [markdown]
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | forward and backward | $3 \cdot \text{FLOPs} \cdot \text{images}$ | {{planner.operations: return 3 * self.work.flops * self.millions * 1e6}} |
# | hours | operations / (GPUs · peak · MFU) | {{planner.hours: return operations / (gpu.tflops * 1e12 * mfu * gpus) / 3600}} |
# | two moments for every weight | $m, v$ of the shape of $\theta$ | {{planner.memory: "AdamW's two moments": 2 * weights,}} |
# | the rows of a process | from $r B / N$ to $(r + 1) B / N$ | {{distributed.my_rows: return slice(first, first + mine)}} |
# | averaged gradients | $\frac{1}{N} \sum_r g_r$ | {{distributed.together: return DistributedDataParallel(net) if size() > 1 else net}} |
# | parts and their fractions | $\sum_p \frac{B_p}{B}\, g_p$ | {{optimise.optimise: (fraction * part).backward()}} |
# | a new order every epoch | the shards, shuffled by seed and epoch | {{webdataset.Reader.parts: random.Random(f"{self.seed} {epoch}").shuffle(order)}} |
# | rounded copies to compute with | $\theta \to \text{bf16}(\theta)$ | {{optimise.optimise: with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):}} |
#
# ## Your own project
#
# ### Can a network learn to write like you?
#
# Write the ten digits, once each. Then train the model of lesson 09 from scratch on your handwriting alone, in all the colours except the ten pairs that are held out, and ask it for those. (The text encoder comes ready trained; only the UNet starts from scratch.) Will the digits be yours? Will it draw a green seven, when it never saw one? Will it copy your
# ten digits, or vary them? It has not been run on your handwriting, so the answers are not in this notebook.
#
# | day | what to do |
# |---|---|
# | Monday | Write 0 to 9 with a thick dark pen on white paper, once or several times each. Photograph them in even light, crop each to a square with paper on all sides, and save them as JPEG (set an iPhone to *Most Compatible*) under names in small letters: `0.jpg` ... `9.jpg`, or `7a.jpg`, `7b.jpg`. Set `DRAWINGS` below, restart, and run the whole notebook (a minute). Write down what you expect, in numbers. |
# | Tuesday | Train. A run can be stopped with Ctrl-C, and the same command resumes it. Note the seconds a step. |
# | Wednesday | Sample the held-out pairs, look at them, and measure. Measure the model that comes with minidiff in the same way. |
# | Thursday | Change one thing (five of each digit instead of one, half the colours, a third of the time), predict what it will do, and train into another folder. |
# | Friday | Report on two pages: question, prediction, data, compute, results, one failure, and what you would do next. |

# %%
from minidiff.data.color_digits import ALLOWED, OTHERS, WORDINGS, Scene, caption, draw
from minidiff.evaluation.color_digits import look_at
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier
from minidiff.image_files import read_image
from minidiff.pipeline.image_to_image import from_pil

DRAWINGS = None  # a folder with your photographs, 0.jpg to 9.jpg

# %%
if DRAWINGS:
    files = sorted(Path(DRAWINGS).glob("[0-9]*.jpg"))
    labels = torch.tensor([int(file.name[0]) for file in files])
    photos = torch.cat([from_pil(ImageOps.fit(read_image(file), (64, 64))) for file in files])
else:  # stand-ins until you have some: digits of MNIST, in blue on white
    digits, labels = data.mnist("validation"), torch.arange(10)
    first_of_each = [int((digits.labels == k).nonzero()[0]) for k in labels]
    photos = draw([Scene(k, "blue", "white") for k in labels.tolist()], digits.images[first_of_each])

mine = look_at(photos).digits  # cut out, in gray, scaled and centred as MNIST's are: (N, 1, 28, 28)
grid(
    [photos[:10] / 2 + 0.5, mine[:10] / 2 + 0.5],
    ["photographs", "as MNIST"],
    alt="Ten handwritten digits in blue on white, and below them the same ten in white on black.",
    caption="Check every digit in the lower row: specks and shadows must be gone, and no stroke may be missing.",
)
_, answers = judged(load_classifier("judge"), mine)
print(
    f"the evaluation classifier reads {int((answers == labels).sum())} of {len(labels)} rightly: no model of them can be expected to do better"
)

# %% [markdown]
# Next, all colours that are not held out, with captions in eight wordings, packed into a shard by the function from part 4:

# %%
from textwrap import fill

pairs = [(k, Scene(n, c, b)) for k, n in enumerate(labels.tolist()) for c in ALLOWED[n] for b in OTHERS[c]]
scenes = [scene for _, scene in pairs]
captions = [caption(scene, k % len(WORDINGS)) for k, scene in enumerate(scenes)]
images = to_pil(draw(scenes, mine[[k for k, _ in pairs]]) / 2 + 0.5)
shard = Path(DRAWINGS or temporary.name) / "mine.tar"
pack(zip(images, captions, strict=True), shard)

read, said = next(pair_batches([str(shard)], size=32, batch=7, workers=False))
grid(
    [read / 2 + 0.5],
    titles=[fill(text, 15) for text in said],
    alt="Seven coloured digits on coloured backgrounds, each with its caption.",
    caption="The first seven examples, as training will read them. Does each caption say what its image shows?",
)
print(f"{shard.name}: {len(pairs)} images, {shard.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# The rest is done in a terminal, in the folder with `mine.tar`, which is the one that you gave as `DRAWINGS`. These commands have been tried from end to end, though only for a few steps:
#
# ```
# minidiff train color_digits --data mine.tar --out runs/mine --minutes 60
# minidiff sample "a green seven on a white background" --model runs/mine -n 16 --out green.png
# minidiff evaluate runs/mine -n 200 --scale 2
# minidiff evaluate color_digits -n 200 --scale 2
# ```
#
# `evaluate` reports the fraction of images with the right digit, the right colours and both, and the diversity, for seen and for held-out (*never-seen*) pairs, next to real images. The model that comes with minidiff took 20,000 steps of 32 images, 85 minutes on one core. For a fair comparison train as many steps, or say in your report that you did not. *Real images* are MNIST's and not yours: a model that draws your ten digits perfectly still has a low diversity. For the plan, you have counted its FLOPs in part 1.
#
# For the teacher, twenty points:
#
# | | points | full marks for |
# |---|---|---|
# | Question and prediction | 3 | numbers written down before training, which could turn out wrong |
# | Data | 4 | legible digits and correct captions; how they were made, by whom and with whose consent, and what was held out |
# | Compute | 3 | FLOPs of the whole run by hand (steps, batch, forward pass, times 3); FLOPs a second that the machine reached; what else could have been bought with the time |
# | Measurement | 4 | `minidiff evaluate` for both models with the same n, scale and seed; seen and never-seen rows compared, with standard errors (lesson 04) |
# | Memorisation | 3 | samples beside their nearest training image (lesson 04), and a verdict |
# | Report | 3 | one failure shown and explained; every command, so that someone else can repeat it |
#
# ### Or ten images of your own
#
# Drawings, leaves, badges, whatever you may use: pack them with captions of at most 20 letters, and train with the same command.
#
# ```python
# from PIL import Image
#
# pack([(Image.open("leaf.jpg"), "oak leaf"), (Image.open("badge.jpg"), "blue badge")], "mine.tar")
# ```
#
# (The vocabulary knows digits and colours; other words are read letter by letter, and there is room for 22 tokens.) `minidiff evaluate` is no use here, since it reads digits. Grade as in
# lesson 06: does each caption bring back its own image, how far are samples from the nearest of the ten, and what comes out for a caption in between? With ten images, expect memorisation; the question is how you can tell.
#
# Large models are taught a few images in another way. **Fine-tuning** continues the training of a finished model on new data. [DreamBooth](https://arxiv.org/abs/2208.12242) (Ruiz et al. 2022) does it with three
# to five photographs of one subject.
#
# ## A map of the field
#
# Here is the pipeline that you have built. Change 1, latents, is already in it; almost everything since changes one of its parts.


# %%
# folded: the pipeline, and where five changes were made to it
def field_map(picture):
    """picture: (3, 32, 32) in [0, 1], what the pipeline draws."""
    with Page(760, 330) as page:
        canvas = page.canvas()

        def box(x, y, words, face="white", edge=figures.GRAY, size=9.5):
            look = {"boxstyle": "round,pad=0.45", "fc": face, "ec": edge, "lw": 1.4}
            canvas.text(x, y, words, ha="center", va="center", fontsize=size, bbox=look, zorder=3)

        def arrow(start, end, colour=figures.GRAY, bend=0.0):
            look = {"arrowstyle": "-|>", "color": colour, "lw": 1.5, "connectionstyle": f"arc3,rad={bend}"}
            canvas.annotate("", end, start, arrowprops=look)

        for start, end in (((96, 170), (262, 170)), ((338, 170), (482, 170)), ((556, 170), (648, 170))):
            arrow(start, end)
        arrow((75, 62), (118, 62))
        arrow((215, 72), (272, 145))
        arrow((335, 196), (265, 196), bend=-1.1)  # the sampling loop
        page.picture(0.5 + 0.25 * noise(3, 32, 32), 24, 134, 68, below="noise")
        box(300, 170, "network:\ndenoise", "#e8f1f8", figures.BLUE)
        box(520, 170, "VAE\ndecoder", "#e8f1f8", figures.BLUE)
        page.picture(picture, 656, 134, 68, below="image")
        box(42, 62, "prompt")
        box(170, 62, "text encoder", "#e8f1f8", figures.BLUE)
        arrow((165, 272), (262, 200), figures.RED)
        canvas.plot([540, 524], [90, 144], color=figures.RED, lw=1, ls=":")
        canvas.plot([345, 312], [90, 144], color=figures.RED, lw=1, ls=":")
        canvas.plot([690, 690], [246, 222], color=figures.RED, lw=1, ls=":")
        canvas.plot([360, 312], [262, 232], color=figures.RED, lw=1, ls=":")
        changes = {
            (560, 66): "1  latents (2021)\na small space to work in",
            (382, 66): "2  transformers\n(2022, 2024)",
            (425, 285): "3  few steps (2023)\ngo round 1 to 4 times",
            (105, 285): "4  control (2023)\na sketch or pose goes in too",
            (672, 270): "5  video (2022)\nmany frames come out",
        }
        for (x, y), words in changes.items():
            box(x, y, words, "#fdf1ea", figures.RED, 9)
        return page.image()


# %%
show(
    field_map(read[2] / 2 + 0.5),
    alt="A diagram: noise goes into a network with a loop, then a VAE decoder, then an image; a prompt comes in through a text encoder. Five red labels point at the decoder, the network, the loop, a second input, and the image.",
    caption="Gray and blue: what you built. Red: the part that each step of the field changed.",
)

# %% [markdown]
# | | paper | what it did |
# |---|---|---|
# | 1 | [Rombach et al. 2021](https://arxiv.org/abs/2112.10752) | moved diffusion into the latents of an autoencoder, with text through cross-attention: Stable Diffusion |
# | 2 | [Peebles and Xie 2022](https://arxiv.org/abs/2212.09748) | put a transformer in the place of the UNet, and found that more FLOPs give better images |
# | | [Esser et al. 2024](https://arxiv.org/abs/2403.03206) | let text and image tokens attend to each other in one transformer, MMDiT, trained by flow matching: Stable Diffusion 3 |
# | 3 | [Song et al. 2023](https://arxiv.org/abs/2303.01469) | trained networks to jump from any point of a sampling trajectory straight to its end: consistency models |
# | 4 | [Zhang et al. 2023](https://arxiv.org/abs/2302.05543) | froze a trained UNet and added a trainable copy of its encoder, which reads a sketch, a pose or a depth map: ControlNet |
# | 5 | [Ho et al. 2022](https://arxiv.org/abs/2204.03458) | gave the network a time axis, with attention between frames, and left the rest of the method as it was |
#
# A **diffusion transformer (DiT)** is a transformer that takes the UNet's place: it cuts the noisy latent into patches, and these are its tokens. PixArt-α and MicroDiT in part 3 are of this kind. Many methods with few steps are forms of distillation. **Distillation** trains one model to reproduce the outputs of another, for example in one step what the other computes in many.
#
# *Try:* take the bill of part 3 and decide which of the five changes would reduce the cost of training, and which the cost of sampling.
#
# <details><summary>Answer</summary>
#
# Latents reduce both, at least by the 64 times fewer positions of part 1. Few steps reduce sampling alone, and distillation is additional training. A transformer is not cheaper by itself, but it can leave out patches in training, as MicroDiT does. Control is cheap to train, since the large network is frozen, and makes sampling dearer. Video makes both dearer: every frame has its tokens.
#
# </details>
#
# ## What you can do now
#
# You can say what a training run takes before it starts, check it against a bill, divide it among devices without changing its result, and run a project of your own. That was the last lesson: from one noisy digit to Stable Diffusion, every part was in your hands.
#
# Still missing is the large run itself, and what no planner counts: choosing the data, and deciding what should be trained at all. Read one of the six papers above. You will recognise most of its method section, and that was the aim of this course.
#
# ## Further reading
#
# - [Dao et al. 2022](https://arxiv.org/abs/2205.14135): FlashAttention, exact attention that never stores the $N \times N$ weights.
# - [Chen et al. 2016](https://arxiv.org/abs/1604.06174): activation checkpointing.
# - [Chowdhery et al. 2022](https://arxiv.org/abs/2204.02311): PaLM, where MFU is defined.
# - [CompVis, *Stable Diffusion v1 Model Card*](https://github.com/CompVis/stable-diffusion/blob/main/Stable_Diffusion_v1_Model_Card.md): the bill of part 3.
# - [Chen et al. 2023](https://arxiv.org/abs/2310.00426), [Sehwag et al. 2024](https://arxiv.org/abs/2407.15811): PixArt-α and MicroDiT, training on a budget.
# - [Li et al. 2020](https://arxiv.org/abs/2006.15704): how PyTorch overlaps sending gradients with computing them.
# - [Goyal et al. 2017](https://arxiv.org/abs/1706.02677), [Malladi et al. 2022](https://arxiv.org/abs/2205.10287): batch size and learning rate, for gradient descent and for Adam.
# - [Douillard et al. 2023](https://arxiv.org/abs/2311.08105): DiLoCo, training with little communication.
# - [Micikevicius et al. 2017](https://arxiv.org/abs/1710.03740): mixed-precision training.
# - [Ruiz et al. 2022](https://arxiv.org/abs/2208.12242): DreamBooth, a subject from a few photographs.
# - [Rombach et al. 2021](https://arxiv.org/abs/2112.10752), [Peebles and Xie 2022](https://arxiv.org/abs/2212.09748), [Esser et al. 2024](https://arxiv.org/abs/2403.03206), [Song et al. 2023](https://arxiv.org/abs/2303.01469), [Zhang et al. 2023](https://arxiv.org/abs/2302.05543), [Ho et al. 2022](https://arxiv.org/abs/2204.03458): the map.
