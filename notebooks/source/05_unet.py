# %% [markdown]
# # 05 · What is in the network, and what breaks when I take it out?
#
# **A noisy picture goes in, a picture of the same size comes out, and in between lie sixty million multiplications.** So far the
# network was a function that you called. In this lesson you walk through its rooms, measure what each of them costs and
# sees, and take them out one by one.
#
# | | |
# |---|---|
# | You will see | shapes flowing through the real modules; time as waves; how far a pixel sees; a table of what is missed when it is gone; Stable Diffusion's network without a byte of weights |
# | It costs | about 4 minutes on 2 CPU cores, 3 of them for one training of three networks; a GPU is not needed |
# | You need | the denoiser of lesson 02, a sampler of lesson 03; what a convolution is |

# %%
import json

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, show, style
from minidiff.diffusion import to_x0
from minidiff.evaluation.judges import judged
from minidiff.files import asset
from minidiff.formats.model_folder import load_classifier

style()
pipe = TextToImage.load("mnist", device="cpu")
net, schedule = pipe.net.unet, pipe.schedule
judge = load_classifier("judge")

# %% [markdown]
# This is the network that drew the digits of the last lessons. The picture is not painted: it is read from the modules
# while a noisy seven passes through them.

# %%
T = 0.6
digits = data.mnist("validation")
seven = digits.images[digits.labels == 7][:1]  # (1, 1, 28, 28)
x0 = pipe.fold.encode(seven)  # (1, 4, 14, 14): 2x2 pixels are one place with 4 channels
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
x = schedule.add_noise(x0, eps, T)
time = torch.tensor([1000 * T])  # the network's clock runs from 0 to 1000
context = pipe.encode(["7"])  # (1, 2, 64): a start token and the digit

show(figures.unet_diagram(net, x, time, context))

# %% [markdown]
# The way down is on the left, the way up on the right, and each level has half the height and width of the one above it. The lines
# between the two sides are the *skips*: what the way down has made of the picture is laid beside what comes up again.
#
# Three things are fed in: the picture at the top, the time into every block, the context (the prompt) into every attention.
#
# ## Rooms and shapes
#
# `blocks` lists what comes out of each part, in the order in which the picture passes.

# %%
from minidiff.networks import blocks

print(f"in               {tuple(x.shape[1:])!s:<13} {x.numel():>5} numbers")
for block in blocks(net, x, time, context):
    channels, height, width = block.shape
    print(f"{block.name:<15}  {block.shape!s:<13} {channels * height * width:>5} numbers")

# %% [markdown]
# (Every down block but the last ends with the step to half the size, so that is the size of what it hands on.)
#
# A level down there are a quarter of the places, and twice the channels: each place says more about a larger piece of the picture.
# At 7x7 a place stands for 4x4 pixels, and its neighbours are a stroke's width away. So whatever needs to see the digit as a whole is done
# there, and whatever needs to see edges is done above.
#
# ## The block that everything is made of
#
# Every level is a row of *ResBlocks*, some of them followed by attention. A ResBlock is two convolutions beside a shortcut:
#
# $$h = \text{conv}_1(\text{silu}(\text{norm}_1(x))) + W\,\text{silu}(e) \qquad
# \text{out} = \text{shortcut}(x) + \text{conv}_2(\text{silu}(\text{norm}_2(h)))$$
#
# silu$(x) = x / (1 + e^{-x})$ is a soft bend: it lets large numbers through and holds negative ones near 0.
# The vector $e$ says what time it is, and $W$ makes one number a channel of it, the same at every pixel. The shortcut is nothing at all where the width stays the same, and a 1x1
# convolution where it changes. Thanks to it a block only has to say what is to be *changed* in $x$, and the gradient has a way past
# all convolutions (He et al. 2015).
#
# The norm is *GroupNorm* (Wu and He 2018). By hand, on four channels of two pixels each, in two groups. The second group is ten times as
# loud as the first:

# %%
tiny = torch.tensor([[1.0, 3.0], [5.0, 7.0], [10.0, 30.0], [50.0, 70.0]])  # 4 channels of 2 pixels
for group in (tiny[:2], tiny[2:]):
    mean = group.mean()
    spread = (group - mean).square().mean().sqrt()
    print(f"mean {mean:5.1f}   spread {spread:5.2f}   becomes", ((group - mean) / spread).flatten().numpy().round(3))
print("the library says", F.group_norm(tiny.reshape(1, 4, 1, 2), 2).flatten().numpy().round(3))

# %% [markdown]
# Afterwards both are equally loud, and within a group it is still known which channel was the louder one. Then every channel gets a scale and a shift of
# its own, which are learned. No other picture of the batch is looked at: a picture comes out the same in any company.
#
# ## Time
#
# The same noisy seven, at $t = 0.6$ all the time. What changes is what the network is *told* about the time. Below is what it then takes for the
# picture.

# %%
told = [0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0]
figure, axes = plt.subplots(1, 8, figsize=(8, 1.4))
with torch.no_grad():
    answers = [net(x, torch.tensor([1000 * t]), context) for t in told]
beliefs = [to_x0(pipe.prediction, answer, x, *schedule.at(T, x)) for answer in answers]
for axis, latent, title in zip(axes, [x, *beliefs], ["$x_t$", *(f"told {t}" for t in told)], strict=True):
    axis.imshow(pipe.decode(latent)[0, 0], vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)
plt.show()

# %% [markdown]
# Told that there is little noise, the network takes specks for ink. Told that there is much, it leaves grain behind. Whether a gray speck
# is noise or part of a stroke is a question of how much noise there is, so the network has to know. It hears it in every block.
#
# ### A number as waves
#
# One number between 0 and 1 is hard to hear for a network: a layer that is to react sharply at 0.60 and not at 0.61 would need enormous weights. So the time
# is written as a row of waves, from fast to slow, as a clock has hands:
#
# $$e_i = \cos(\tau\, r_i), \quad e_{i + n} = \sin(\tau\, r_i), \qquad r_i = 10000^{-i/n}, \qquad \tau = 1000\, t$$
#
# By hand with $n = 4$ hands, at two times that lie close together:

# %%
from minidiff.networks.unet import sinusoidal

rates = torch.tensor([1.0, 0.1, 0.01, 0.001])
for tau in (600.0, 610.0):
    by_hand = [f"{value:6.3f}" for value in (*torch.cos(tau * rates), *torch.sin(tau * rates))]
    by_library = [f"{value:6.3f}" for value in sinusoidal(torch.tensor([tau]), 8)[0]]
    print(f"tau = {tau:.0f}  by hand  ", *by_hand)
    print("           library  ", *by_library)

# %% [markdown]
# The fast hands have turned a lot, the slow ones hardly at all. Now all 32 of the digit model, for every time. And beside it what happens if one forgets the factor
# 1000 and hands in $t$ itself:

# %%
taus = torch.linspace(0, 1000, 501)
scaled, unscaled = sinusoidal(taus, 32), sinusoidal(taus / 1000, 32)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8, 2.7), width_ratios=[1, 1, 1.2])
for axis, waves, title in ((left, scaled, "of 1000 t"), (middle, unscaled, "of t alone")):
    axis.imshow(
        waves.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, extent=(0, 1, 31.5, -0.5), interpolation="antialiased"
    )
    axis.set(xlabel="t", ylabel="wave: 16 cosines, 16 sines", title=f"waves {title}")
    axis.grid(False)
for waves, label, marker in ((scaled, "1000 t", "-"), (unscaled, "t alone", "--")):
    right.plot(taus / 1000, (waves - waves[300]).norm(dim=1), marker, label=label)
right.set(xlabel="t", ylabel="distance", title="from the waves of t = 0.6")
right.legend(loc="lower left", bbox_to_anchor=(0, 0.2))
plt.show()
near = {name: (w[300] - w[305]).norm() for name, w in (("of 1000 t", scaled), ("of t alone", unscaled))}
for name, distance in near.items():
    print(f"distance between the waves {name:<10} at 0.60 and at 0.61: {distance:.3f}")

# %% [markdown]
# On the left nearly every time has a pattern of its own: two times that differ by 0.01 are easy to tell apart, and still closer to each other than to distant ones. In the middle
# only the first few waves do anything between 0 and 1; all the others stand still. Nothing warns you: it runs, it trains, and the network is half deaf for time.
# (Where waves are faster than the picture has columns, they run into gray. That is the picture, not the wave.)
#
# ## Attention
#
# A convolution looks at its neighbours. *Attention* lets every place ask all others (Vaswani et al. 2017). A place sends out a question $q$; every
# place has a key $k$ and a value $v$. The better a key fits the question, the larger its share of the answer:
#
# $$\text{out} = \text{softmax}\!\left(\frac{q\,k^\top}{\sqrt{d}}\right) v$$
#
# One question, three keys, two channels, by hand:

# %%
q = torch.tensor([[2.0, 0.0]])
k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
v = torch.tensor([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])

fits = [float(q[0] @ key) / 2**0.5 for key in k]
weights = [2.718281828**fit for fit in fits]
shares = [weight / sum(weights) for weight in weights]
print("how well each key fits:", [round(fit, 3) for fit in fits])
print("shares:                ", [round(share, 3) for share in shares])
print("by hand:", (shares[0] * v[0] + shares[1] * v[1] + shares[2] * v[2]).numpy().round(3))
print("library:", F.scaled_dot_product_attention(q, k, v)[0].numpy().round(3))

# %% [markdown]
# ### Heads
#
# A place may want to ask several things at once. So its channels are cut into *heads*, each of which asks for itself. This is only a change of shape,
# but one that is easily done wrong, which is why it is written with einops, a library in which axes have names. One picture, 3 places, 4 channels (the first digit is the place,
# the second the channel), two heads:

# %%
tokens = torch.tensor([[[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]]])  # (b, n, c) = (1, 3, 4)
print("b n (h d) -> b h n d")
print(rearrange(tokens, "b n (h d) -> b h n d", h=2))
print("reshape alone: the same shape, but each head has got half of the places")
print(tokens.reshape(1, 2, 3, 2))

# %% [markdown]
# The pattern says what is meant: the last axis is made of heads and their channels, the head is to stand in front. In the second version the shape
# is right, and most numbers are in the wrong place.
#
# Where does the network look? In the middle room, 49 places ask each other, in four heads. Here are the shares that the place in the centre gives to all
# 49. (Hand in the identity matrix as $v$, and the answer is the shares themselves.)

# %%
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
shares = F.scaled_dot_product_attention(q, k, torch.eye(49).expand(1, 4, -1, -1))  # (1, 4, 49, 49)

figure, axes = plt.subplots(1, 5, figsize=(8, 1.9))
axes[0].imshow(pipe.decode(x)[0, 0], vmin=0, vmax=1)
axes[0].set_title("$x_t$")
for head, axis in enumerate(axes[1:]):
    axis.imshow(shares[0, head, 24].reshape(7, 7), vmin=0, cmap="viridis")
    axis.plot(3, 3, "o", ms=7, mfc="none", mec="white")
    axis.set_title(f"head {head + 1}, up to {shares[0, head, 24].max():.2f}", fontsize=9)
for axis in axes:
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
plt.show()

# %% [markdown]
# Each head looks in its own way: one stays near, others reach out along the stroke, one looks nearly everywhere alike. Nobody told them to.
#
# The attention to the *context* works the same way, only that the keys and values come from the prompt. It is the one place where the network hears what to draw.
#
# ## How far does a pixel see?
#
# Which pixels of the input have a say in one pixel of the output? Autograd knows: take the output in the middle, and ask for its gradient with respect to
# the input. Where it is 0 the pixel cannot see. Here are networks with random weights, on pictures of 64x64, taken apart first: no norms, no attention.
# *Cost: about 5 seconds.*

# %%
from minidiff.networks import UNet, UNetConfig, receptive_field
from minidiff.networks.inside.ablations import without


def small(depth, *parts):
    """A UNet of so many levels, without some parts, and with random weights."""
    torch.manual_seed(0)
    config = UNetConfig(4, 4, (16,) * depth, (False,) * depth, layers=1, heads=2, context_dim=64, groups=4)
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
    "1 level, norms": small(1, "attention"),
    "1 level, attention": small(1, "normalisation"),
}
figure, axes = plt.subplots(1, 5, figsize=(8, 2.1))
for axis, (name, unet) in zip(axes, networks.items(), strict=True):
    field = receptive_field(unet, wide, time, context)
    shade = axis.imshow((field / field.max()).clamp(min=1e-12).log10(), vmin=-6, vmax=0, cmap="magma")
    axis.set_title(name, fontsize=9)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    rows, columns = torch.nonzero(field, as_tuple=True)
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    print(f"{name:<19} sees {height}x{width} pixels")
figure.colorbar(shade, ax=axes, label="log10 of influence", shrink=0.8)
plt.show()

# %% [markdown]
# A 3x3 convolution sees one pixel further to each side. With one level a pixel sees a square of 25x25. Each level below doubles the reach of its convolutions,
# at a quarter of the places: **this is what the levels are for.** But reach is not influence: the edge of the square has next to none.
#
# The other two see everything. Attention can on purpose: here, with random weights, it asks everybody nearly alike, so that each of the far ones has little
# say; training is what makes it choose. The norms do it by accident: a mean over the picture knows of every pixel, if faintly.
#
# The shipped network works at 14x14, so that everybody sees everybody. How much influence they have depends on the time:

# %%
several = pipe.fold.encode(digits.images[: budget(full=64, smoke=8)])
labels = digits.labels[: len(several)]
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, t in zip(axes, (0.1, 0.4, 0.7, 0.95), strict=True):
    noisy = schedule.add_noise(several, torch.randn(several.shape, generator=torch.Generator().manual_seed(2)), t)
    field = receptive_field(net, noisy, torch.full((len(several),), 1000 * t), pipe.net.text_encoder(labels))
    shade = axis.imshow((field / field.max()).log10(), vmin=-3, vmax=0, cmap="magma")
    outside = 1 - field[6:9, 6:9].sum() / field.sum()
    axis.set_title(f"t = {t}: {100 * outside:.0f} % from\nbeyond 3x3 places", fontsize=9)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
figure.colorbar(shade, ax=axes, label="log10 of influence", shrink=0.8)
plt.show()

# %% [markdown]
# With little noise a place and its neighbours say most of what there is to know. With more noise it has to be guessed from the whole shape, and the network looks
# further. Close to $t = 1$ it looks less far again: there is little left to see, and most of what a pixel shows is its own noise.
#
# ## Take it out, first try: saw it off
#
# What is each part good for? The quickest way to find out is to take it out of the trained network. `without` does so with hooks (functions that PyTorch calls after a layer, and that may
# change what it hands on): it puts zeros in the place
# of what the part says. *Cost: about 15 seconds.*

# %%
from minidiff.networks.inside.ablations import PARTS

names = [name for name in PARTS if name != "attention"]
prompts = [str(k % 10) for k in range(budget(full=30, smoke=10))]
figure, axes = plt.subplots(len(names) + 1, 1, figsize=(6, 0.62 * (len(names) + 1)))
for axis, name in zip(axes, [None, *names], strict=True):
    broken = TextToImage.load("mnist", device="cpu")
    if name:
        without(broken.net.unet, name)
    drawn = broken.decode(broken.latents(prompts, steps=budget(full=10, smoke=3), scale=2.0))
    _, answers = judged(judge, 2 * drawn - 1)
    right = (answers == torch.arange(len(prompts)) % 10).float().mean()
    axis.imshow(torch.cat(list(drawn[:10, 0]), dim=1), vmin=0, vmax=1)
    axis.set_ylabel(f"{name or 'nothing out'}\n{100 * right:.0f} % right", rotation=0, ha="right", va="center")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
plt.show()

# %% [markdown]
# Without the skips nothing fine comes through: the strokes are there, in grain that the network cannot see to remove. Without cross-attention clean digits
# come out, but not those that were asked for, for the prompt has no other way in. Without the time the walk ends in a maze. Without the middle a few digits are hurt, without
# self-attention none. And without norms the numbers leave all bounds: what is white there is not even a picture.
#
# Be careful with what this shows. Every layer was trained to work with all the others. Saw off one, and the rest is handed numbers that it has never seen. So this
# says what *this* network leans on. It does not say what a network needs.
#
# ## Take it out, second try: train without it
#
# The fair question is: how well does a network do that *never had* the part? That takes training, once for each part; and more than once, since
# chance has a say too: another seed is another start, and another order of the pictures. `benchmarks/ablations.py` did this for three seeds each. Below is what it
# wrote: a dot for each seed, then the numbers. (Distance is the Frechet distance of lesson 04, less is better. Parameters that nothing depends on any more are not counted; the 768 that the whole has more than the
# UNet in the diagram belong to the table of label tokens.)

# %%
table = json.loads(asset("ablations.json").read_text())
rows = table["rows"]  # the first is the whole network
base = torch.tensor(rows[0]["frechet"])

figure, axis = plt.subplots(figsize=(6, 2.6))
for k, row in enumerate(rows):
    axis.plot(row["frechet"], [k] * len(row["frechet"]), "o", ms=5, color=figures.ORANGE if k else figures.BLUE)
axis.set_yticks(range(len(rows)), [f"without {row['name']}" if k else row["name"] for k, row in enumerate(rows)])
axis.invert_yaxis()
axis.set(xlabel="Frechet distance, one dot a seed", xscale="log")
axis.set_xticks(ticks := [15, 20, 30, 100, 1000, 3000], [str(tick) for tick in ticks])
axis.minorticks_off()
plt.show()

for k, row in enumerate(rows):
    right, distance = 100 * torch.tensor(row["accuracy"]), torch.tensor(row["frechet"])
    more = distance - base  # seed by seed
    verdict = "undecided" if more.mean().abs() <= 2 * more.std() else "missed" if more.mean() > 0 else "not missed"
    print(
        f"{row['name']:<16}{row['parameters']:>10,} parameters   right {right.mean():3.0f} ± {right.std():2.0f} %   "
        f"distance {distance.mean():5.1f} ± {distance.std():4.1f}   {verdict if k else ''}"
    )
print(f"\n{table['command']}: n = {table['n']}, scale {table['scale']}, seeds {table['seeds']}")
print(f"{table['seconds'] / 60:.0f} minutes on {table['machine']}")

# %% [markdown]
# Read the verdict first. The rows are compared seed by seed, and **a mean difference of less than two standard deviations is called undecided**. That does not say that the part is useless: it says
# that three short trainings of a small network cannot tell. What does nothing for digits of 7x7 places may carry a network of 64x64.
#
# Two rows could be foretold: without cross-attention, alone or together with self-attention, one digit in ten is right, which is what guessing gives.
# The network has no other way to hear the prompt. (Ten percent are also what a picture without any digit gets, if the judge calls it by the same name each time:
# that is the row without skips.)
# Compare the others with the pictures above. A part that was sorely missed when it was sawed off, and is missed little by a network that never had it,
# was a habit and no need: the others can learn its work. The time seems to be such a part: a picture
# shows by itself how noisy it is.
#
# Three of the trainings again: the whole network, and two with a part missing. With twice the batch. *Cost: about 3 minutes.*

# %%
from minidiff.training.recipes.mnist import digit_model

tried = {"whole": None, "without skips": "skips", "without\ncross-attention": "cross-attention"}
figure, axes = plt.subplots(len(tried), 1, figsize=(7, 0.8 * len(tried)))
for axis, (name, part) in zip(axes, tried.items(), strict=True):
    trained = digit_model(part, steps=budget(full=300, smoke=4))
    drawn = trained.decode(trained.latents(prompts, steps=budget(full=20, smoke=3), scale=2.0))
    _, answers = judged(judge, 2 * drawn - 1)
    right = (answers == torch.arange(len(prompts)) % 10).float().mean()
    axis.imshow(torch.cat(list(drawn[:10, 0]), dim=1), vmin=0, vmax=1)
    axis.set_ylabel(f"{name}\n{100 * right:.0f} % right", rotation=0, ha="right", va="center")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
plt.show()

# %% [markdown]
# The first row is what 300 steps are enough for: no beauties, but most of them can be read. Without cross-attention the strokes are about as good, and the digits are any digits. Without skips
# the grain stays, as it did when they were sawed off: here the cut has found a real need. This network is asked for $\varepsilon - x_0$, so its answer holds the noise of every single
# pixel, and noise cannot be put in fewer words. Without skips all of it has to pass through 7x7 places, and be put back where it was.
#
# ## Look inside
#
# What does a room hand on? One picture for each of the sixteen channels that vary most; at the upper right is what the network believes in the end.

# %%
show(figures.unet(pipe, seven[0], "down_blocks.1", 0.5))

# %% [markdown]
# *Try:* go through the rooms from top to bottom at one time: where do you still recognise the digit? Then stay in the middle and move the time.

# %%
widgets.unet(pipe)

# %% [markdown]
# ## Where the parameters are, and where the work is
#
# A convolution has as many parameters as it has connections between channels, $9 \cdot C_{in} \cdot C_{out}$. But it is applied at every place, so its work is that
# number times height times width. Deep down the channels are many and the places few, so that the two need not be found in the same room.

# %%
from minidiff.networks import count, flops


def bars(axis, unet, *given):
    """Shares of parameters and of work, room by room."""
    parameters, work = count(unet), flops(unet, *given)
    names = [name for name in parameters if "block" in name]
    places = torch.arange(len(names))
    for k, (numbers, label) in enumerate(((parameters, "parameters"), (work, "operations"))):
        total = sum(numbers.values())
        axis.barh(places + 0.4 * k - 0.2, [100 * numbers[name] / total for name in names], height=0.38, label=label)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set_xlabel("share of the whole in %")
    return sum(parameters.values()), sum(work.values())


figure, axis = plt.subplots(figsize=(6, 2.6))
parameters, work = bars(axis, net, x, time, context)
axis.legend()
plt.show()
print(f"the digit network: {parameters:,} parameters, {work / 1e6:.0f} million operations for one look at one picture")

# %% [markdown]
# With two levels and small pictures the two are not far apart. The upper level has two to three times as large a share of the work as of the parameters,
# the rooms below it a smaller one.
# A multiplication and an addition count as two operations here.
#
# ## The same class at Stable Diffusion's size
#
# `UNetConfig()` without arguments is the network of Stable Diffusion 1.x: the class that you have just taken apart, with other numbers. In float32 it would fill 3.4 GB.
# But PyTorch has a device on which tensors have shapes and no contents, and that is enough to walk through it. *Cost: about 5 seconds, and no memory.*

# %%
with torch.device("meta"):
    large = UNet(UNetConfig())
    given = torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 77, 768)

print(
    f"{sum(p.numel() for p in large.parameters()):,} parameters, the first of which live on: {large.conv_in.weight.device}"
)
for block in blocks(large, *given):
    print(f"{block.name:<15} {block.shape}")

# %%
figure, axis = plt.subplots(figsize=(6, 3.6))
parameters, work = bars(axis, large, *given)
axis.legend()
plt.show()
print(
    f"Stable Diffusion's network: {parameters:,} parameters, {work / 1e9:.0f} billion operations for one look at one picture"
)

# %% [markdown]
# Now it is plain to see. **The parameters are at the bottom, the work is at the top.** The three rooms at 8x8 places, `down_blocks.3`, `mid_block` and `up_blocks.0`, hold 37 % of all weights and
# do 6 % of the work; the last room, `up_blocks.3`, does a quarter of the work with 2 % of the weights. If you want a smaller file, look at the
# bottom; if you want a faster picture, look at the top, or work on smaller pictures: which is what lesson 10 does.
#
# The diagram at the beginning was read from the modules, so the same function draws this one.

# %%
show(figures.unet_diagram(large, *given))

# %% [markdown]
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | the rates of the waves | $r_i = 10000^{-i/n}$ | {{unet.sinusoidal: rates = torch.exp(-math.log(10_000) / half}} |
# | time as waves, cosines first | $\cos(\tau r_i), \; \sin(\tau r_i)$ | {{unet.sinusoidal: return torch.cat([angles.cos(), angles.sin()], dim=-1)}} |
# | the time goes into a block | $h + W\,\text{silu}(e)$ | {{unet.ResBlock.forward: h = h + self.time_emb_proj(F.silu(emb))[:, :, None, None]}} |
# | beside a shortcut | $\text{shortcut}(x) + \text{conv}_2(\dots)$ | {{unet.ResBlock.forward: return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))}} |
# | a skip is taken | $[x, \text{skip}]$ | {{unet.UpBlock.forward: x = resnet(torch.cat([x, skips.pop()], dim=1), emb)}} |
# | channels into heads | $(h\,d) \to h, d$ | {{attention.attend: rearrange(z, "b n (h d) -> b h n d", h=heads) for z in}} |
# | attention | $\text{softmax}(q k^\top / \sqrt{d})\, v$ | {{attention.attend: out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)}} |
# | pixels look at pixels | $q, k, v$ from $x$ | {{attention.TransformerBlock.forward: x = x + self.attn1(h, h)}} |
# | pixels look at the prompt | $q$ from $x$; $k, v$ from $c$ | {{attention.TransformerBlock.forward: x = x + self.attn2(self.norm2(x), context)}} |
# | how far the middle sees | $\partial\, \text{out}_{\text{middle}} / \partial x$ | {{blocks.receptive_field: fields = [torch.autograd.grad(channel, x, retain_graph=True)}} |
#
# ## Exercises
#
# Together they are most of a UNet. Every check tries your function on small exact cases. If something is off, it says which mistake it looks like.

# %% [markdown]
# ### Exercise 1 · Time as waves
#
# *easy, 6 minutes.*
#
# `t` holds $B$ times in $[0, 1]$, `dim` is an even number. Return the waves of $\tau = 1000\,t$, shape $(B, \text{dim})$: with $n$ being half of `dim`,
# first the $n$ cosines, then the $n$ sines, the fastest first.
#
# <details><summary>Hint</summary>
#
# The rates are a row of $n$ numbers, from 1 down: `10_000 ** (-torch.arange(n) / n)`. Times as a column against rates as a row gives all angles at once.
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
# ### Exercise 2 · GroupNorm
#
# *easy, 8 minutes.*
#
# `x` has shape $(B, C, H, W)$, `groups` divides $C$, `weight` and `bias` have shape $(C,)$. Bring every group of neighbouring channels of every picture to mean 0 and
# variance 1: subtract the mean, divide by $\sqrt{\text{variance} + \text{eps}}$. Then scale and shift every channel. The variance divides by the number of entries $n$, not by $n - 1$. Return the shape of `x`.
#
# <details><summary>Hint</summary>
#
# Give the groups an axis of their own: `x.reshape(B, groups, -1)` has one row for each group of each picture. Afterwards go back to the shape of `x`, and reshape
# `weight` so that it meets the channels.
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
# `x` has shape $(B, C, H, W)$, `emb` $(B, D)$. The other six are functions: `norm1`, `conv1`, `norm2`, `conv2` and `shortcut` take a picture and return one, `project` takes
# `emb` and returns $(B, C')$, one number a channel of what `conv1` returns. Put them together as in the equation of this lesson, and return what comes out, $(B, C', H, W)$. `F.silu` is there.
#
# <details><summary>Hint</summary>
#
# Three lines: the first half, the time, the second half and the shortcut. What `project` returns has two axes, and the picture has four.
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
# ### Exercise 4 · Attention
#
# *medium, 12 minutes.*
#
# `q` has shape $(B, N, C)$, `k` and `v` have $(B, L, C)$: $N$ places ask, $L$ answer. `heads` divides $C$; neighbouring channels belong to the same head. Return $(B, N, C)$. Write the softmax formula yourself,
# without `scaled_dot_product_attention`.
#
# <details><summary>Hint</summary>
#
# Split each of the three into heads, then `@` works on the last two axes: $(N, d)$ times $(d, L)$ are the scores. What is $d$? Which of the two axes $N$ and $L$ should
# add up to 1? At the end the heads have to be put side by side again, in the way they were taken apart.
#
# </details>


# %%
def attention(q, k, v, heads):
    """Every place of q gets a mean of v, weighted by how well the keys k fit."""
    ### BEGIN SOLUTION
    q, k, v = (z.reshape(*z.shape[:2], heads, -1).transpose(1, 2) for z in (q, k, v))
    shares = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return (shares @ v).transpose(1, 2).flatten(2)
    ### END SOLUTION


# %%
check.l05_attention(attention)

# %% [markdown]
# ### Exercise 6 · Catch the bug
#
# *medium, 8 minutes.*
#
# Now you write the test, and the check hands it functions: two that do exercise 4 right, and some that are each wrong in one way. `attention` is one of
# them. Return True if it is right, and False, or let an `assert` fail, if it is not. Here `scaled_dot_product_attention` is welcome.
#
# <details><summary>Hint</summary>
#
# PyTorch's function wants (B, heads, N, d). Choose sizes that differ, more than one head, and numbers so large that the softmax is far from even.
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
# ### Exercise 5 · The UNet
#
# *hard, 12 minutes.*
#
# Now the plan of the whole house, in a plainer form than the real one, which leaves two more skips and does not shrink after its last level. `levels` is a number; level 0 is the largest. On the way
# down each level runs `down(x, level)`, leaves the result as its skip, and passes it on through `shrink(x)`, the last level too. Then comes `middle(x)`. On the way up each level first makes its input larger with `grow(x)`, joins its skip behind it along the channels, and runs `up(x, level)`. Return what the last one returns.
#
# (In the check, `shrink` and `grow` do something to the picture but keep its size. So a skip in the wrong place is not stopped by an error, but shows in the numbers.)
#
# <details><summary>Hint</summary>
#
# A list is all that is needed between the two loops: `append` on the way down, `pop` on the way up. Which level does the way up begin with?
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
# ## Where to go next
#
# You know the network from inside, and what each of its parts is for. So far it has drawn in gray, 28 pixels wide. Lesson 06 gives the same class three colours and harder pictures, and asks
# how long that really takes.
