# %% [markdown]
# # 12 · What would it take on one GPU, on eight, on the internet?
#
# Nothing new has to be invented to train Stable Diffusion. It takes more of everything: operations, memory, pictures,
# GPUs, money. In this lesson you count the first two, plan the others, check the plan against three runs that were
# published, and see what changes in the training when it is shared by many devices. (Very little, if it is done right.)
#
# | | |
# |---|---|
# | You will see | a planner that turns a network and a number of pictures into hours and dollars; real runs beside it; gradients shared by hand; weights that stand still in half precision |
# | It costs | about 1 minute on 2 CPU cores; a GPU is not needed: nothing large is trained, only counted |
# | You need | lessons 02 and 05: training, the UNet; lesson 06 for a budget from a measurement |

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff import data
from minidiff.course import checks as check, figures, planner, widgets
from minidiff.course.lessons import budget, show, style
from minidiff.networks import SpaceToDepth, UNet, UNetConfig, flops

style()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# %% [markdown]
# Here is where we are going: a training of Stable Diffusion's size on eight GPUs. Above, what lies in the memory of each
# of them; below, what it costs. At the end of part 2 you can say where every number comes from, and which are assumed.

# %%
show(figures.planner())

# %% [markdown]
# ## Part 1: counting
#
# The cost of a network is counted in multiplications and additions. Take the smallest convolution there is: a picture
# of 3x3, one channel, a kernel of 2x2. Written out, with every operation counted:

# %%
picture, kernel = torch.arange(9.0).reshape(3, 3), torch.tensor([[1.0, 2.0], [0.0, -1.0]])
out, counted = torch.zeros(2, 2), 0
for row in range(2):
    for column in range(2):  # every number of the output
        for i in range(2):
            for j in range(2):  # looks at 2 x 2 numbers of the input
                out[row, column] += kernel[i, j] * picture[row + i, column + j]
                counted += 2  # a multiplication and an addition
layer = nn.Conv2d(1, 1, 2, bias=False)
layer.weight.data[0, 0] = kernel
with FlopCounterMode(display=False) as counter, torch.no_grad():
    same = layer(picture[None, None])
print(f"by hand {counted}, PyTorch counts {counter.get_total_flops()}; same result: {torch.equal(out, same[0, 0])}")

# %% [markdown]
# **A FLOP is one multiplication or one addition.** Some papers count the pair as one, and call it a MAC or, to
# everybody's confusion, also a FLOP. Whoever compares numbers has to find out which it is: it is a factor of two.
#
# Attention by hand: each of $N$ tokens is compared with each other one, over $d$ numbers, and then takes a share of
# each one's $d$ numbers. That is $2 N^2 d$ operations, twice. What matters is the square.

# %%
N, d = 6, 4
q, k, v = noise(1, 1, N, d), noise(1, 1, N, d, seed=1), noise(1, 1, N, d, seed=2)
with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
    F.scaled_dot_product_attention(q, k, v)
print(f"by hand {2 * N * N * d + 2 * N * N * d}, PyTorch counts {counter.get_total_flops()}")

# %% [markdown]
# So the machine can count for us. It does not even have to compute: on PyTorch's *meta* device, tensors have a shape
# and no content, and Stable Diffusion's UNet takes no memory. Ours, and the real one:

# %%
from minidiff.training.recipes import RECIPES

SD = UNetConfig()  # the defaults are Stable Diffusion 1.x
nets = {name: RECIPES[name].config for name in ("mnist", "color_digits", "cifar10")}
rows = {}
with torch.device("meta"):
    for name, config in nets.items():
        channels, side = config.unet.in_channels, config.picture[-1] // config.fold
        x = torch.zeros(1, channels, side, side)
        rows[name] = UNet(config.unet), x, torch.zeros(1, 2, config.unet.context_dim)
    rows["Stable Diffusion 1.x"] = UNet(SD), torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768)
    lines = [f"{'':22} {'parameters':>12}   {'sees':>12}   FLOP to ask once"]
    for name, (net, x, context) in rows.items():
        work = sum(flops(net, x, torch.zeros(1), context).values())
        size = sum(p.numel() for p in net.parameters())
        lines.append(
            f"{name:22} {size:>12,}   {'x'.join(str(n) for n in x.shape[1:]):>12}   {work / 1e9:10,.2f} billion"
        )
print("\n".join(lines))

# %% [markdown]
# Training asks, and goes back. On the way back, each layer has two things to find: how the loss depends on its weights,
# and how it depends on its input. Each is as much work as the way there. So a training step costs **three times** what
# asking does. Is it true?

# %%
net = UNet(nets["mnist"].unet)
x, context = noise(2, 4, 14, 14), noise(2, 2, 64, seed=1)
with sdpa_kernel(SDPBackend.MATH):
    with FlopCounterMode(display=False) as there, torch.no_grad():
        net(x, torch.zeros(2), context)
    with FlopCounterMode(display=False) as both:
        net(x, torch.zeros(2), context).square().mean().backward()
ratio = both.get_total_flops() / there.get_total_flops()
print(f"there and back: {ratio:.3f} times the way there")

# %% [markdown]
# (Not quite three, since nobody asks how the loss depends on the noisy picture.)
#
# ### Latents or pixels
#
# Stable Diffusion draws 512x512 pixels, but its UNet sees latents of 64x64: 64 times fewer places. Is that 64 times
# less work? Let the same UNet look at larger and larger inputs, and sort the operations by their kind. *Cost: a few
# seconds.*

# %%
sides = budget(full=[32, 64, 128, 256, 512], smoke=[32, 64, 512])
kinds = {"convolutions": ["convolution"], "linear layers": ["addmm", "mm"], "attention": ["bmm"]}
shares = {kind: [] for kind in kinds}
with torch.device("meta"):
    net, _, context = rows["Stable Diffusion 1.x"]
    for side in sides:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.zeros(1, 4, side, side), torch.zeros(1), context)
        by_kind = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
        for kind, ops in kinds.items():
            shares[kind].append(sum(by_kind.get(f"aten.{op}", 0) for op in ops))
totals = [sum(parts) for parts in zip(*shares.values(), strict=True)]

figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), width_ratios=[1, 1.2])
axes[0].plot(sides, [t / 1e12 for t in totals], marker="o")
axes[0].plot(
    sides, [totals[1] / 1e12 * (s / 64) ** 2 for s in sides], "--", color=figures.GRAY, label="as many as pixels"
)
axes[0].set(xscale="log", yscale="log", xlabel="side of the input", ylabel="TFLOP to ask once")
axes[0].set_xticks(sides, labels=[str(s) for s in sides])
axes[0].minorticks_off()
axes[0].legend(fontsize=9)
below = [0.0] * len(sides)
for kind, parts in shares.items():
    part = [100 * p / t for p, t in zip(parts, totals, strict=True)]
    axes[1].bar([str(s) for s in sides], part, bottom=below, label=kind)
    below = [b + p for b, p in zip(below, part, strict=True)]
axes[1].set(xlabel="side of the input", ylabel="share, in %")
axes[1].legend(fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0), columnspacing=1, handlelength=1)
plt.show()
latents, pixels = totals[1], totals[-1]
print(f"latents of 64x64: {latents / 1e12:.2f} TFLOP")
print(f"pixels of 512x512: {pixels / 1e12:,.0f} TFLOP, {pixels / latents:.0f} times as much")

# %% [markdown]
# It is far more than 64 times. Convolutions and linear layers grow with the number of pixels; attention grows with its
# square, and at 512x512 it is nearly all there is. (A network that was made for pixels would leave attention out at
# the large sizes. It would still have 64 times the places to look at.) This is the whole reason for lesson 10.
#
# ## Part 2: a planner
#
# ### Memory
#
# A network that draws needs its weights. A network that learns needs more. A tiny one by hand, float32, so four bytes a
# number:

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
print(f"kept for the way back: {kept}, the input of {x.nbytes} bytes")

# %% [markdown]
# To these four copies of the weights comes a fifth, the moving average that one draws with (lesson 02). They do not
# depend on the batch. What does is the last line. On the way back a layer needs what it was given on the way there, so
# everything is kept until then, for each picture of the batch.
#
# How much that is, we count as well: autograd says what it puts aside, and the tensors have no content. Stable
# Diffusion's UNet, at latents of 64x64:

# %%
full, half = planner.work(SD, 64, bf16=False), planner.work(SD, 64)
print(f"weights {4 * full.parameters / 1e9:.2f} GB; four more copies of them: {16 * full.parameters / 1e9:.1f} GB")
print(f"kept for each picture: {full.kept / 1e9:.2f} GB in float32, {half.kept / 1e9:.2f} GB under bfloat16 autocast")
print(f"autocast's copies of the weights: {half.copies / 1e9:.2f} GB")
for name, piece in planner.memory(half, batch=4).items():
    print(f"   batch of 4: {name:24} {piece / 1e9:6.2f} GB")

# %% [markdown]
# (Under autocast it is more than half, since norms stay float32, and so does what they give to the next layer.)
#
# This is a count, and says what it counts: the tensors that autograd keeps when every layer keeps what it needs and
# attention never writes its table of $N \times N$ down. A program needs more, for what lives only for a moment and for
# what the library sets aside. It can need less: with *checkpointing* most of it is thrown away and computed again on
# the way back, for a fourth pass instead of three.
#
# ### Time and money
#
# A GPU's data sheet says how many operations a second it can do at best. The share of this that a training gets out of
# it is its **model FLOP utilisation**, MFU: operations that the network needs, over operations that the GPU could have
# done in the time.
#
# $$\text{hours} = \frac{3 \cdot \text{FLOP to ask once} \cdot \text{pictures}}{\text{GPUs} \cdot \text{peak} \cdot \text{MFU} \cdot 3600}$$
#
# By hand, for 250 million pictures on eight A100:

# %%
print(f"{'GPU':12} {'peak, TFLOP/s':>14} {'memory, GB':>12}")
for name, gpu in planner.GPUS.items():
    print(f"{name:12} {gpu.tflops:>14} {gpu.memory:>12}")

operations = 3 * half.flops * 250e6
hours = operations / (8 * 312e12 * 0.3) / 3600
print(f"\n{operations:.1e} operations, {hours:.0f} hours, at 2 dollars a GPU hour {8 * hours * 2:,.0f} dollars")
print(f"the planner: {planner.hours(operations, planner.GPUS['A100 80 GB'], mfu=0.3, gpus=8):.0f} hours")

# %% [markdown]
# The peaks are those of the data sheets: matrix products in bfloat16, added up in float32, without *sparsity*, which
# doubles the figure on the newer sheets and is of no use here. (V100 and T4 have no bfloat16: theirs are for float16.)
#
# **Two numbers are assumptions, and yours to turn: MFU and the price.** Part 3 shows what MFU others got. Prices change
# from month to month and from one seller to the next.

# %%
show(figures.planner(planner.Plan(gpu="RTX 4090", gpus=1, millions=250, batch=32, price=0.5)))

# %% [markdown]
# That is one GPU as one has at home. The weights and their copies fit, and then there is room for a few pictures at a
# time: the batch is computed in parts. And it takes months.

# %%
widgets.planner()

# %% [markdown]
# *Try:* make the network half as wide (160). What happens to the parameters, what to the operations, what to the memory
# for each picture? Then go to 1024 pixels. Which GPU has room for it, and how much longer does it take?
#
# ## Part 3: the planner and what was reported
#
# A planner that was never compared with a bill is a daydream. Three runs are published with enough detail to count.
#
# **Stable Diffusion 1.x.** The model card (CompVis, "Stable Diffusion v1") lists 237,000 steps at 256x256 and
# 194,000 + 515,000 + 195,000 at 512x512, all of 2,048 pictures, up to version 1.3, and reports 150,000 hours on A100
# of 40 GB.
#
# **PixArt-α** (Chen et al. 2023). A transformer of 611 million parameters. Table 4 of the paper lists five stages with
# steps, batches and V100 days, 1,656 in all; the encoders' work was done before and is not in them. The abstract has 675
# A100 days and 26,000 dollars. (Table 2 has 753 A100 days. Even within a paper, an A100 day is a matter of conversion.)
#
# **MicroDiT** (Sehwag et al. 2024). A transformer with 1.16 billion parameters, 37 million pictures, 2.6 days on eight
# H100, 1,890 dollars. The published code has the sizes, 280,000 steps at 256x256 and 55,000 at 512x512, all of 2,048
# pictures. In most steps, 75 % of the patches are left out of the large part of the network.
#
# Our UNet is counted by PyTorch. For a transformer a formula will do, since nearly every weight meets every token:


# %%
def transformer(tokens, text, width, inner, hidden):
    """FLOP to ask a transformer once. inner: attention's width, hidden: weights behind it that a token meets, by layer."""
    macs = 0
    for a, h in zip(inner, hidden, strict=True):
        macs += tokens * (4 * width * a + 2 * tokens * a)  # patches look at each other
        macs += tokens * (2 * width**2 + 2 * text * width) + text * 2 * width**2  # and at the words
        macs += tokens * h
    return 2 * macs


def pixart(pixels):
    return transformer((pixels // 16) ** 2, 120, 1152, [1152] * 28, [8 * 1152**2] * 28)


def in_steps(value, step):
    return -(-int(value) // step) * step


def microdit(pixels, kept):
    """A small mixer that sees all patches, then 28 layers that see a share of them; every other one has experts."""
    patches, scale = (pixels // 16) ** 2, [k / 27 for k in range(28)]
    inner = [in_steps(1024 * (0.5 + 0.5 * s), 128) for s in scale]
    ratio = [int(1024 * (0.5 + 3.5 * s)) for s in scale]
    gated = [3 * 1024 * in_steps(int(2 * r / 3), 256) for r in ratio]
    experts = [2 * 2 * 1024 * in_steps(r, 256) for r in ratio]  # a token meets two of the eight, on average
    hidden = [experts[k] if k % 2 and k < 27 else gated[k] for k in range(28)]
    mixer = [3 * 768 * 2048, 2 * 2 * 768 * 3072] * 3
    return transformer(patches, 77, 768, [768] * 6, mixer) + transformer(int(patches * kept), 77, 1024, inner, hidden)


sd = {256: totals[0], 512: totals[1]}  # latents of 32 and 64, counted in part 1
# (FLOP to ask once, steps, batch) of every stage; GPU; GPU hours
RUNS = {
    "Stable Diffusion 1.x": (
        [(sd[256], 237e3, 2048), (sd[512], (194 + 515 + 195) * 1e3, 2048)],
        "A100 40 GB",
        150_000,
    ),
    "PixArt-α": (
        [(pixart(256), 300e3, 128 * 8), (pixart(256), 150e3, 178 * 64), (pixart(256), 90e3, 178 * 64)]
        + [(pixart(512), 100e3, 40 * 64), (pixart(1024), 16e3, 12 * 32)],
        "V100",
        1656 * 24,
    ),
    "MicroDiT": (
        [(microdit(256, 0.25), 250e3, 2048), (microdit(256, 1), 30e3, 2048)]
        + [(microdit(512, 0.25), 50e3, 2048), (microdit(512, 1), 5e3, 2048)],
        "H100",
        2.6 * 24 * 8,
    ),
}
names, reported, planned = [], [], []
print(f"{'':21} {'pictures':>9} {'FLOP':>8}   {'GPU':11} {'hours reported':>14} {'at 30 % MFU':>12}   implied MFU")
for name, (stages, gpu, gpu_hours) in RUNS.items():
    pictures = sum(steps * batch for _, steps, batch in stages)
    operations = 3 * sum(once * steps * batch for once, steps, batch in stages)
    at_30, at_100 = (planner.hours(operations, planner.GPUS[gpu], mfu) for mfu in (0.3, 1.0))
    names, reported, planned = [*names, name], [*reported, gpu_hours], [*planned, at_30]
    print(
        f"{name:21} {pictures / 1e6:7,.0f} M {operations:8.1e}   {gpu:11} {gpu_hours:>14,.0f} {at_30:>12,.0f}"
        f"   {at_100 / gpu_hours:>9.1%}"
    )

figure, axis = plt.subplots(figsize=(6.4, 2.4))
axis.barh([k - 0.19 for k in range(3)], reported, height=0.36, label="reported")
axis.barh([k + 0.19 for k in range(3)], planned, height=0.36, label="planner, MFU 30 %")
axis.set(xscale="log", xlabel="GPU hours, each on its own GPU", yticks=range(3), yticklabels=names)
axis.invert_yaxis()
axis.legend(fontsize=9)
plt.show()

# %% [markdown]
# For two of the three the planner is right within a factor of two: they got 18 and 21 % out of their GPUs, so put 20 %
# into the planner rather than 30. And it tells the story behind the prices. PixArt-α took nearly as many operations as
# Stable Diffusion. MicroDiT took a fifteenth: fewer pictures, small ones for most of the time, and most patches left out.
#
# **For Stable Diffusion the planner is off by a factor of ten.** What can be said about it honestly?
#
# - The count leaves work out. In that training, pictures went through the VAE's encoder at every step, about 1.1 TFLOP a
#   picture by the formula of exercise 1, and the configuration that was published with the weights has checkpointing
#   switched on, a fourth pass over the UNet. Together this is four fifths on top of what we counted. PixArt-α and
#   MicroDiT had encoded their pictures before.
# - The peak may be the wrong one: the card does not say in which precision it was trained. In float32 (on tensor cores,
#   "TF32") an A100 has half of it.
# - Each of the 256 GPUs computed four pictures at a time, twice a step. That is little work for such a GPU between
#   two waits, and the 32 machines had to wait for each other.
# - The card does not say what the hours are the sum of. If runs that are not in the list are among them, no count of the
#   list can find them.
#
# The first two are a factor of about three and a half together, if both hold. The rest is not in the card. **So a planner
# gives what it takes if all goes well.** Whoever asks for money should ask for more.
#
# (Money: PixArt-α's figure belongs to the A100 days of the abstract, not to V100 hours: 26,000 / (675 · 24) = 1.60 dollars
# an hour. MicroDiT's 3.79 are for an H100 hour. Neither has failures in it.)
#
# ## Part 4: one, two, eight devices
#
# Here is how to train on one GPU, and on eight:
#
# ```
# minidiff train emoji
# torchrun --nproc_per_node 8 -m minidiff train emoji
# ```
#
# `torchrun` starts the same program eight times, and tells each which of the eight it is, its **rank**. Each has a GPU
# of its own and a whole copy of the network. Then each takes an eighth of every batch, finds the gradient on it,
# and, before the optimizer makes its step, all of them average their gradients. All make the same step, so the
# copies stay the same. That is *distributed data parallel*, DDP.
#
# Why may one do that? Because the loss is a mean over pictures, and so is its gradient. In one process, by hand:

# %%
torch.manual_seed(0)
layer = nn.Linear(3, 2)
x, wanted = noise(8, 3), noise(8, 2, seed=1)


def gradient(rows):
    """Of the mean loss over some rows of the batch."""
    loss = F.mse_loss(layer(x[rows]), wanted[rows])
    return torch.autograd.grad(loss, layer.weight)[0]


whole = gradient(slice(0, 8))
halves = gradient(slice(0, 4)), gradient(slice(4, 8))
print("gradient of the whole batch ", [f"{g:.4f}" for g in whole[0].tolist()])
print("mean of two halves          ", [f"{g:.4f}" for g in (sum(halves) / 2)[0].tolist()])
print("their sum                   ", [f"{g:.4f}" for g in sum(halves)[0].tolist()])
parts = gradient(slice(0, 6)), gradient(slice(6, 8))
print("mean of parts of 6 and 2    ", [f"{g:.4f}" for g in (sum(parts) / 2)[0].tolist()])

# %% [markdown]
# The sum is too large by a factor of two: whoever forgets to divide has a learning rate that grows with the number of
# GPUs. And with unequal parts the plain mean is wrong, since pictures in the small part count more. (How to set it
# right is exercise 3.) So minidiff refuses a batch that the processes cannot share equally.
#
# The same holds for parts that are computed one after the other on one GPU, because there is no memory for all at once:
# **gradient accumulation**. Parts may be unequal there, so each comes with its fraction of the batch. `batch_parts` hands them out, to one
# process and to many:

# %%
from minidiff.training.distributed import batch_parts, my_rows

print("one process, a batch of 8 in up to 3 parts:")
for rows, fraction in batch_parts(layer, 8, parts=3):
    print(f"   rows {rows.start} to {rows.stop - 1}, which count {fraction:.3f}")
total = sum(fraction * gradient(rows) for rows, fraction in batch_parts(layer, 8, parts=3))
print("together they are the whole gradient:", torch.allclose(total, whole, atol=1e-6))
print("what this process has of a batch of 8:", my_rows(8), "(it is alone)")

# %% [markdown]
# And in a real training: three steps with the digits' network, in one part and in four. *Cost: a few seconds.*

# %%
from minidiff.diffusion import FLOW, flow
from minidiff.training import TrainConfig, train

digits, fold = data.mnist("validation"), SpaceToDepth(2)


def three_steps(parts):
    torch.manual_seed(0)
    net = nets["mnist"].build()
    batches = ((fold.encode(images), labels) for images, labels in data.batches(digits, budget(full=32, smoke=8)))
    config = TrainConfig(steps=3, lr=1e-3, warmup=1, accumulate=parts)
    losses = [float(step.loss) for step in train(net, flow(), FLOW, batches, config, null=net.text_encoder.null)]
    return losses, torch.cat([p.detach().flatten() for p in net.parameters()])


(losses, weights), (losses_4, weights_4) = three_steps(1), three_steps(4)
print("losses in one part  ", [f"{value:.6f}" for value in losses])
print("losses in four parts", [f"{value:.6f}" for value in losses_4])
apart = (weights - weights_4).abs().max()
print(f"largest difference between two weights {apart:.1e}, of weights up to {weights.max():.1f}")

# %% [markdown]
# They differ by rounding only: the same numbers were added in another order.
#
# ### The same random numbers, however many you are
#
# Each picture gets a time and noise. If every process drew them for itself, two processes with the same seed would draw
# the same noise for different pictures, and with different seeds a run on two GPUs would be another run than on one.
# So every process draws for the *whole* batch, from a seed that depends on the run's seed and on the step, and takes its
# rows. Drawing costs next to nothing.

# %%
SEED, STEP, BATCH = 0, 41, 8


def rows_of(rank, world):
    """The noise of a process's pictures, one number each."""
    everyone = noise(BATCH, seed=1_000_003 * SEED + STEP)
    mine = BATCH // world
    return everyone[rank * mine : (rank + 1) * mine]


for world in (1, 2, 4):
    print(
        f"{world} process(es):", [[f"{value:.1f}" for value in rows_of(rank, world).tolist()] for rank in range(world)]
    )

# %% [markdown]
# A run can be stopped on eight GPUs and go on with two: the checkpoint knows nothing of GPUs, and the next step has the
# same pictures, times and noise.
#
# ### The batch and the learning rate
#
# The batch in minidiff is that of all processes together, so more GPUs change the time and nothing else. Often one wants
# the other thing, a larger batch, because more GPUs are only busy if each has enough to do. What does a larger
# batch buy? A gradient with less noise:

# %%
truth = noise(1, 20, seed=5)
single = truth + 3 * noise(4096, 20)  # the gradient of each of 4096 pictures: the truth and what is particular to it
for batch in (1, 4, 16, 64, 256):
    means = single.reshape(-1, batch, 20).mean(1)
    print(f"batch {batch:>3}: distance from the truth {(means - truth).square().mean().sqrt():.3f}")

# %% [markdown]
# Four times the batch, half the noise. With less noise one may take larger steps, up to a point. The rules of thumb: for
# plain gradient descent, a learning rate in proportion to the batch, after a warm-up (Goyal et al. 2017); for Adam, in
# proportion to its square root (Malladi et al. 2022). They are places to begin a search. The loss of a short
# run decides.
#
# ### What the GPUs tell each other
#
# Averaging a gradient over $N$ GPUs in a ring, each sends (and receives) $2 (N - 1) / N$ times the size of the gradient,
# at every step. The gradient has as many numbers as the network has weights. Is that much? Compare the time it takes
# with the time that the GPUs compute.

# %%
gradient_bytes = 4 * half.parameters
to_send = 2 * 7 / 8 * gradient_bytes
computing = 3 * half.flops * 256 / (8 * 312e12 * 0.3)
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
axis.text(computing * 1.1, -0.45, "computing", color=figures.GRAY, fontsize=9, va="top")
axis.set(xscale="log", xlabel="seconds a step to average the gradients", ylim=(4.6, -1.1))
plt.show()
print(f"{to_send / 1e9:.1f} GB to send a step; computing takes {computing:.2f} s (256 pictures, eight A100, MFU 30 %)")
for name, s in zip(LINKS, seconds, strict=True):
    print(f"   {name:22} {s:10.3f} s")

# %% [markdown]
# In one machine it is nothing, and DDP sends the first gradients while the last ones are still being computed. Between
# machines the network has to be good. **On the internet, between people's homes, it is hopeless**: a quarter of an hour
# of sending for a second of work.
#
# Unless one sends less often. Each trains alone for hundreds of steps, and only then do they average what has
# *become* of the weights: Douillard et al. 2023 (DiLoCo) did this with language models, and 500 steps between two
# exchanges. Even so:

# %%
alone = 500 * 3 * half.flops * 32 / (165e12 * 0.3)
print(f"500 steps of 32 pictures on one RTX 4090: {alone / 60:.0f} minutes")
print(f"an exchange of weights at 50 Mbit/s: {seconds[-1] / 60:.0f} minutes")

# %% [markdown]
# It is possible, then; but it is no longer the same training, and whether it learns as well has to be tried.
#
# ### More pictures than memory
#
# Each process has to read its pictures. 60,000 digits fit into memory; 100 million pictures do not. First, keep only what
# the training looks at: latents and what the text encoder made of the captions, computed once (PixArt-α and MicroDiT do
# this). In float16:

# %%
latent, states = 4 * 64 * 64 * 2, 77 * 768 * 2
print(f"a picture: {512 * 512 * 3:,} bytes of pixels, {latent:,} as a latent; its caption: {states:,} bytes")
print(f"100 million of both: {100e6 * (latent + states) / 1e12:.0f} TB")

# %% [markdown]
# The text states are larger than the latents. (Storing the caption and reading it at every step is the other way; the
# text encoder is small.)
#
# Then cut them into files of a few thousand rows each, **shards**, that are mapped and not read: a row is fetched when
# it is asked for. In an epoch every row comes once, in an order that all processes know, and each reads only its own:

# %%
from minidiff.data.shards import Shards, shard_batches, write_shards

with tempfile.TemporaryDirectory() as folder:
    written = write_shards(folder, [{"latents": noise(10, 4, 2, 2).half(), "number": torch.arange(10)}], rows=4)
    print(f"{written} rows in", sorted(path.name for path in Path(folder).iterdir()))
    shards = Shards(folder)
    for rank in (0, 1):
        batches = shard_batches(shards, ("number",), size=4, mine=slice(2 * rank, 2 * rank + 2))
        print(f"process {rank}:", [next(batches)[0][2 * rank : 2 * rank + 2].tolist() for _ in range(4)])

# %% [markdown]
# Two batches of four make an epoch here, and two rows are left over; in the next epoch it is other ones.
#
# ## Part 5: half precision
#
# The peaks of part 2 are for bfloat16, numbers of two bytes. They reach as far as float32 (up to $10^{38}$), but
# there are fewer of them: 7 bits after the first, two to three digits.

# %%
one = torch.tensor(1.0)
for step in (0.001, 0.003, 0.005, 0.01):
    print(f"1 + {step}: float32 {float(one + step):.4f}   bfloat16 {float((one + step).bfloat16()):.4f}")
print("neighbours of 1:", float((one - 0.004).bfloat16()), float((one + 0.008).bfloat16()))

# %% [markdown]
# That is good enough to compute with: a product of rounded numbers is off by less than a percent, and the errors of many
# products cancel. It is not good enough to *add up small steps*. A weight of 0.9 that is to grow by 0.001 at each step:

# %%
steps = 200
wide, narrow = torch.zeros(steps), torch.zeros(steps)
a, b = torch.tensor(0.9), torch.tensor(0.9).bfloat16()
for k in range(steps):
    a, b = a + 0.001, b + torch.tensor(0.001).bfloat16()
    wide[k], narrow[k] = a, b.float()
plt.figure(figsize=(5.2, 2.5))
plt.plot(wide, label="float32")
plt.plot(narrow, label="bfloat16")
plt.xlabel("step")
plt.ylabel("the weight")
plt.legend(fontsize=9)
plt.show()

# %% [markdown]
# In bfloat16 the weight does not move: every sum is rounded back to where it was. No error is raised, and the gradients are
# fine. So **weights, moments and the average stay float32**, and `torch.autocast` makes rounded copies of the weights to
# compute with. It goes by lists: what is large and harmless in bfloat16, what is delicate in float32.

# %%
layer = nn.Linear(4, 4)
x, wanted = noise(6, 4), noise(6, 4, seed=1)
with torch.autocast("cpu", torch.bfloat16):
    out = layer(x)
    loss = F.mse_loss(out, wanted)
    by_hand = (out - wanted.bfloat16()).square().mean()
loss.backward()
kinds = {"weights": layer.weight, "output": out, "mse_loss": loss, "a loss of bfloat16 numbers": by_hand}
for name, tensor in (kinds | {"gradient": layer.weight.grad}).items():
    print(f"{name:27} {str(tensor.dtype).removeprefix('torch.')}")

# %% [markdown]
# The loss is delicate. It is the small difference of two numbers that are near each other, and more so the better the
# network is. Rounding takes the difference away, and with it the gradient:

# %%
out, wanted = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.003, 0.999, 1.002, 0.998])
print("differences in float32 ", [f"{value:.4f}" for value in (out - wanted).tolist()])
print("differences in bfloat16", [f"{value:.4f}" for value in (out.bfloat16() - wanted.bfloat16()).tolist()])

# %% [markdown]
# So what is compared is compared in float32: the target is never rounded. In minidiff's loop, `mse_loss` stands inside
# autocast, which runs it in float32 as you saw; a loss that you write yourself belongs outside, behind `.float()`. The
# way back and the optimizer stand outside in any case.
#
# (float16, which older GPUs have instead, has three more bits and reaches only to 65,504. There the loss is multiplied by
# a large number before the way back, so that small gradients do not vanish. bfloat16 does not need that.)
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | there and back | $3 \cdot \text{FLOP} \cdot \text{pictures}$ | {{planner.operations: return 3 * self.work.flops * self.millions * 1e6}} |
# | hours | operations / (GPUs · peak · MFU) | {{planner.hours: return operations / (gpu.tflops * 1e12 * mfu * gpus) / 3600}} |
# | two moments for every weight | $m, v$ of the shape of $\theta$ | {{planner.memory: "AdamW's two moments": 2 * weights,}} |
# | a process's rows | from $r B / N$ to $(r + 1) B / N$ | {{distributed.my_rows: return slice(first, first + mine)}} |
# | averaged gradients | $\frac{1}{N} \sum_r g_r$ | {{distributed.together: return DistributedDataParallel(net) if size() > 1 else net}} |
# | parts and their shares | $\sum_p \frac{B_p}{B}\, g_p$ | {{optimise.optimise: (fraction * part).backward()}} |
# | a new order every epoch | a permutation of (seed + epoch) | {{shards.shard_batches: order = torch.randperm(len(shards), generator=torch.Generator().manual_seed(seed + epoch))}} |
# | rounded copies to compute with | $\theta \to \text{bf16}(\theta)$ | {{optimise.optimise: with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):}} |
#
# ## Exercises
#
# ### Exercise 1 · The operations of a convolution
# *easy, 8 minutes.* A convolution takes `batch` pictures of `side` by `side` with `before` channels, and gives `after`
# channels. Its kernel is `kernel` by `kernel`, it moves by `stride`, and `padding` rows and columns are added on every
# side of the picture first. How many operations is that? A multiplication and an addition are two. There is no bias. Do
# not run a convolution; return a number.
#
# <details><summary>Hint</summary>
# How many numbers come out, and how many products go into each of them? A picture of n, padded, has n + 2 padding
# numbers in a row. At how many places can the kernel begin?
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
# ### Exercise 2 · Does it fit?
# *easy, 5 minutes.* How many bytes does a training with AdamW need? The network has `parameters` weights in float32.
# For each picture, `kept` **bytes** are kept for the way back; `batch` pictures are computed at once. If `ema` is
# true, a moving average of the weights is kept as well. Leave autocast's copies aside.
#
# <details><summary>Hint</summary>
# Write a list of everything that has as many numbers as the network has weights. How many bytes has a float32?
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
# ### Exercise 3 · Unequal parts
# *medium, 8 minutes.* Each of N processes has the gradient of the **mean** loss over its own pictures: `gradients`,
# (N, D), a row each. They had different numbers of pictures: `pictures`, (N,), whole numbers. What is the gradient of the
# mean loss over all pictures, (D,)?
#
# <details><summary>Hint</summary>
# From a mean and a number you get the sum. Sums can be added.
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
# ### Exercise 4 · Who visits which picture
# *medium, 12 minutes.* `shuffled(s)` is a function that gives all pictures' numbers in an order that depends on the seed
# `s` only, (n,). Write down which pictures process `rank` of `world` sees in an epoch, step by step: (steps, batch /
# world), whole numbers.
#
# The rules: every epoch has an order of its own, from the seed `seed + epoch`, and all processes have the same one. It is
# cut into batches of `batch`; what is left over at the end is not seen in this epoch. Of each batch, process 0 has the
# first `batch / world` pictures, process 1 the next, and so on. `batch` is a multiple of `world`.
#
# <details><summary>Hint</summary>
# `reshape(-1, batch)` makes a row of every batch, if the tail is off. Then the slice is a range of columns.
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
# ### Exercise 5 · A step in half precision
# *hard, 12 minutes.* A linear layer has the weights `weight`, (out, in), and no bias. Make one step of plain gradient
# descent, with learning rate `lr`, on the mean squared error between its outputs for `x`, (B, in), and `target`,
# (B, out). All four are float32 (the last is a number). The layer is to compute in bfloat16, under `torch.autocast("cpu",
# torch.bfloat16)`; everything else is float32. Return the new weights, (out, in), float32. `weight` itself must stay as
# it is.
#
# <details><summary>Hint</summary>
# `weight.clone().requires_grad_()` is a leaf that you may learn with. `torch.nn.functional.linear(x, weight)` is the
# layer, and `.float()` ends half precision.
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
# ## Where to go next
#
# You can say what a training would take before it begins, and share it without changing it. That is the last lesson of
# the course. What is left is to do it: choose a data set that you care about, learn twenty of its pictures by heart
# (lesson 06), plan with this page, and train.
