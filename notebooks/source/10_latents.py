# %% [markdown]
# # 10 · Why diffuse in a compressed space?
#
# **Because most of the numbers of a picture are not worth a denoiser's time.** Another network, trained before, turns a
# picture into a twelfth of its numbers and back. The diffusion of all lessons so far happens among these few numbers,
# the *latents*. In this lesson you count what that saves, see what it loses, and draw emoji from their names.
#
# | | |
# |---|---|
# | You will see | a picture as its denoiser sees it; the same amount of work spent on pixels and on latents; a VAE trained in front of you, and what a good one throws away; emoji drawn from words, also such as nobody has drawn |
# | It costs | about 3 minutes on 2 CPU cores, most of them for two short trainings; a GPU is not needed |
# | You need | training and sampling (lessons 02 and 03), the UNet (lesson 05), prompts and guidance (lesson 09) |

# %%
import math
from itertools import islice
from time import perf_counter

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, lessons, widgets
from minidiff.course.lessons import budget, show, style
from minidiff.diffusion import FLOW, denoiser, dpmpp_2m, flow, uniform
from minidiff.networks import (
    VAE,
    Conditional,
    LabelEncoder,
    Posterior,
    SpaceToDepth,
    UNet,
    UNetConfig,
    VAEConfig,
    flops,
)
from minidiff.training import TrainConfig, train
from minidiff.training.recipes.vae import kl, latent_std, psnr, vae_loss

style()
pipe = TextToImage.load("emoji", device="cpu")
vae, schedule = pipe.vae, pipe.schedule
STEPS = budget(full=20, smoke=2)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grid(rows, names=None, titles=None):
    """Rows of pictures in [-1, 1], half an inch wide each; a name before each row, a title above each column."""
    lessons.grid([[picture / 2 + 0.5 for picture in row] for row in rows], names, titles, side=0.48)


def channels_of(z):
    """The four channels of a latent (4, h, w) side by side in a square of gray, as a picture (3, 2h, 2w) in [-1, 1]."""
    square = z.reshape(2, 2, *z.shape[1:]).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    return (square / 2.5).clamp(-1, 1).expand(3, -1, -1)


# %% [markdown]
# Emoji that no network of this lesson was trained on. In the middle is all that the denoiser is going to see of them: four
# small gray pictures each. The last row was made from the middle row alone.

# %%
held = data.emoji("validation")
pictures = held.floats()[:: len(held) // 6][:5]  # (5, 3, 64, 64) in [-1, 1]
z = vae.encode(pictures)  # (5, 4, 16, 16)
back = vae.decode(z)
grid([pictures, [channels_of(each) for each in z], back], names=["pictures", "latents", "decoded"])
print(f"a picture: {pictures[0].numel():,} numbers; its latent: {z[0].numel():,}")

# %% [markdown]
# ## Part 1: what it saves
#
# A UNet does the same to every place of its input. The cost is set by the number of places, hardly by how many numbers
# there are at each. So take the UNet that draws emoji, and let it look at pixels, at *folded* pixels (the squares of
# lesson 02: every 2x2 of them, or more, become one place with many channels), and at latents. Only the first and the last
# layer have to change.

# %%
seen = pipe.to_latents(pictures)  # as the UNet sees them
places = seen.shape[-1]
SMALLEST = 64 // places  # pixels of a side that become one place
SIGHTS = {
    "pixels": (3, 64),
    "pixels, folded 2x2": (12, 32),
    f"pixels, folded {SMALLEST}x{SMALLEST}": (3 * SMALLEST**2, places),
    "latents": (seen.shape[1], places),
}


def that_sees(channels, config=pipe.config.unet):
    """The UNet of this config, with so many channels in its input and output."""
    return UNet(UNetConfig(**vars(config) | {"in_channels": channels, "out_channels": channels}))


work = {}
print(f"{'the UNet sees':20} {'':>13} {'numbers':>8} {'parameters':>12}   million FLOP to ask once")
for name, (channels, side) in SIGHTS.items():
    with torch.device("meta"):  # shapes without numbers: nothing is computed
        net = that_sees(channels)
        asked = torch.zeros(1, channels, side, side), torch.zeros(1), torch.zeros(1, 32, pipe.config.unet.context_dim)
        work[name] = sum(flops(net, *asked).values())
    size = sum(p.numel() for p in net.parameters())
    shape = f"{channels}x{side}x{side}"
    print(f"{name:20} {shape:>13} {channels * side**2:>8,} {size:>12,}   {work[name] / 1e6:>10,.0f}")
print(f"pixels cost {work['pixels'] / work['latents']:.0f} times as much as latents")

# %% [markdown]
# That was counted. Does a clock say the same? There and back, as in a step of training. *Cost: five seconds.*


# %%
def pictures_a_second(channels, side, batch, times):
    net, x = that_sees(channels), noise(batch, channels, side, side)
    context = noise(batch, 32, pipe.config.unet.context_dim)
    for k in range(times + 1):
        if k == 1:  # the first finds memory
            start = perf_counter()
        net(x, torch.zeros(batch), context).square().mean().backward()
    return batch * times / (perf_counter() - start)


in_pixels = pictures_a_second(*SIGHTS["pixels"], batch=1, times=1)
in_latents = pictures_a_second(*SIGHTS["latents"], batch=16, times=budget(full=4, smoke=1))
print(f"latents: {in_latents / in_pixels:.0f} times as many pictures a second")


# %% [markdown]
# (Clock and count need not agree: small tensors keep a machine less busy than large ones.)
#
# ### The same work, spent three ways
#
# In the table above, strongly folded pixels are about as cheap as latents. Why then train a second network? Try it. A small UNet
# learns smileys, in three ways: from pixels; from pixels folded 8x8; and from latents, folded 2x2, which makes it 8x8 places as well. Each way may spend **the same number of
# operations**, so pixels get few steps and latents get many. *Cost: about a minute and a half.*

# %%
train_set = data.emoji("train")
faces = [k for k, item in enumerate(train_set.items) if item.group == "smileys-emotion"]
x0 = train_set.floats(faces)
styles = torch.tensor([data.STYLES.index(train_set.styles[k]) for k in faces])
print(f"{len(x0)} smileys in three styles")

two, eight = SpaceToDepth(2), SpaceToDepth(8)
latents = torch.cat([two.encode(vae.encode(part)) for part in x0.split(64)])  # 16 x 8 x 8
WAYS = {  # what is learned from, and the way back to pictures
    "latents": (latents, lambda x: vae.decode(two.decode(x))),
    "folded pixels": (eight.encode(x0), eight.decode),
    "pixels": (x0, lambda x: x),
}
SMALL = UNetConfig(channels=(32, 64), attention=(False, True), layers=1, heads=4, context_dim=64, groups=8)
STEPS_IN_LATENTS, BATCH = budget(full=(500, 16), smoke=(3, 1))


def learned(x0, steps):
    """Three pictures (or latents) from noise, after so many steps of training on x0. A style is the condition."""

    def batches():
        generator = torch.Generator().manual_seed(0)
        while True:
            rows = torch.randint(len(x0), (BATCH,), generator=generator)
            yield x0[rows], styles[rows]

    torch.manual_seed(0)
    net = Conditional(that_sees(x0.shape[1], SMALL), LabelEncoder(3, 64))
    config = TrainConfig(steps=steps, warmup=min(100, steps))
    *_, last = train(net, flow(), FLOW, batches(), config, null=net.text_encoder.null)
    context = last.net.text_encoder(torch.arange(3))
    *_, step = dpmpp_2m(
        denoiser(last.net.unet, flow(), FLOW, context), noise(3, *x0.shape[1:]), uniform(STEPS, flow()), flow()
    )
    return step.x


rows, once = {}, {}
for name, (data_x0, decode) in WAYS.items():
    channels, side = data_x0.shape[1:3]
    with torch.device("meta"):
        asked = torch.zeros(1, channels, side, side), torch.zeros(1), torch.zeros(1, 2, 64)
        once[name] = sum(flops(that_sees(channels, SMALL), *asked).values())
    steps = max(1, round(STEPS_IN_LATENTS * once["latents"] / once[name]))
    rows[name] = decode(learned(data_x0, steps))
    print(f"{name:14} {steps:>4} steps of {BATCH * 3 * once[name] / 1e9:6.1f} billion operations")
grid(list(rows.values()), names=["latents", "folded\npixels", "pixels"])

# %% [markdown]
# None of them can draw a smiley yet. But in latents there are yellow discs with an outline, and in pixels there is nothing: the few steps
# that the work was enough for have not taught it anything.
#
# The middle row is the interesting one. It had three quarters of the steps of the first, and is far behind. Folding makes a picture
# smaller in places only; all of its numbers are still there, 192 of them at each of 8x8 places, and the network has to get every one of them right,
# also those that say no more than "as white as its neighbour". Of a latent there are 16. What is missing, how an edge looks up close and that
# flat areas are flat, need not be said: **the decoder knows it of every picture**.
#
# So there are two trainings. One learns to compress, once, without captions; all later models can use it. The other learns what pictures show, from the
# compressed ones (Rombach et al. 2022, section 1, call it perceptual and semantic compression).
#
# ## Part 2: the autoencoder
#
# ### A latent is drawn, not computed
#
# The encoder does not say which number the latent has. It says a normal distribution, by a mean and **the logarithm of its variance** (which, unlike a
# variance, may be any number), and the latent is drawn from it. In training the decoder must do with that. For four numbers, by hand:

# %%
mean, log_variance = torch.tensor([1.5, -0.5, 0.0, 0.0]), torch.tensor([-6.0, -2.0, 0.0, 2.0])
eps = torch.tensor([1.0, -1.0, 0.5, 0.5])
variance = log_variance.exp()
std = variance.sqrt()
drawn = mean + std * eps
print("variance", variance.numpy().round(4))
print("std     ", std.numpy().round(4))
print("drawn   ", drawn.numpy().round(3))
print("library ", Posterior(mean, log_variance).sample(eps).numpy().round(3))

# %% [markdown]
# The last line of arithmetic looks harmless, and is the trick that makes it trainable. Drawing has no slope: nobody can say how a random number changes
# with the mean it was drawn around. Written as mean + std * eps, all chance is in eps, which depends on nothing, and the slopes are plain
# (Kingma and Welling 2014, section 2.4: the *reparametrisation trick*):

# %%
mean.requires_grad_()
log_variance.requires_grad_()
Posterior(mean, log_variance).sample(eps).sum().backward()
print("slope by the mean        ", mean.grad.numpy())
print("slope by the log-variance", log_variance.grad.numpy().round(3), "= eps * std / 2")
mean.grad = None
torch.normal(mean, 1.0).sum().backward()
print("torch.normal says        ", mean.grad.numpy(), "for the slope by its mean: it cannot know")

# %% [markdown]
# ### The price of a latent
#
# An encoder that may do as it likes makes its variances 0 and its means as far apart as possible: then nothing is ever confused. It would be a table of pictures, with
# nothing sensible between its entries, and a denoiser would have to hit the entries exactly. So each number of a latent has a price: how far its distribution is from a standard normal one, as
# the **KL divergence**, in nats:
#
# $$\text{KL} = \tfrac{1}{2}\left(\mu^2 + \sigma^2 - 1 - \log \sigma^2\right)$$
#
# It is 0 for $\mu = 0$ and $\sigma = 1$, where the number says nothing about the picture, and grows in all directions.

# %%
mean, log_variance = mean.detach(), log_variance.detach()
by_hand = [(float(m) ** 2 + math.exp(v) - 1 - float(v)) / 2 for m, v in zip(mean, log_variance, strict=True)]
print("by hand", [round(value, 3) for value in by_hand])
print("library", [round(value, 3) for value in kl(Posterior(mean, log_variance)).tolist()])

m, s = torch.linspace(-3, 3, 121), torch.linspace(0.02, 3, 121)
figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.0), sharey=True)
axes[0].plot(m, kl(Posterior(m, torch.zeros_like(m))))
axes[0].set(xlabel="mean (std 1)", ylabel="price, in nats", ylim=(0, 4.6))
axes[1].plot(s, kl(Posterior(torch.zeros_like(s), 2 * s.log())))
axes[1].set(xlabel="std (mean 0)")
plt.show()

# %% [markdown]
# The loss of a VAE is both together: how far the decoded picture is from the picture, and a little of the price:
#
# $$L = \overline{|\text{decode}(\mu + \sigma\varepsilon) - x|} + \lambda\,\overline{\text{KL}}$$
#
# Bars are means over all numbers. The weight $\lambda$ is yours to choose, and a matter of taste: the next cells show what it does. (Large VAEs
# add a term that compares features in place of pixels, and one that tells real from decoded, for texture: Rombach et al. 2022, section 3.1.)
#
# ### Train one
#
# Three tiny autoencoders, the same but for $\lambda$. To be quick they see squares of 4x4 pixels as one, by a `SpaceToDepth`, and have a single level. *Cost: about a minute.*

# %%
squares = SpaceToDepth(4)  # 3 x 64 x 64 to 48 x 16 x 16
TINY = VAEConfig(in_channels=48, channels=(32,), layers=1, groups=8, scaling=1.0)
SOME = budget(full=200, smoke=3)
shown = [0, SOME]
batches = [squares.encode(batch.images) for batch in islice(data.emoji_batches(16), SOME)]


def trained(weight):
    """A tiny VAE, its losses, and what it makes of the pictures after each number of steps in `shown`."""
    torch.manual_seed(0)
    tiny, losses, decoded = VAE(TINY), [], []
    optimizer = torch.optim.AdamW(tiny.parameters(), lr=2e-3)
    for step in range(SOME + 1):
        if step in shown:
            with torch.no_grad():
                decoded.append(squares.decode(tiny.decode(tiny.encode(squares.encode(pictures)))))
        if step < SOME:
            loss = vae_loss(tiny, batches[step], noise(16, 4, 16, 16, seed=step), weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return tiny, losses, decoded


WEIGHTS = (0.02, 0.5, 0.0)
runs = {weight: trained(weight) for weight in WEIGHTS}
plt.figure(figsize=(4.6, 2.0))
for weight, (_, losses, _) in runs.items():
    plt.plot(losses, label=f"weight {weight:g}")
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()

# %%
at_end = [runs[weight][2][-1] for weight in (0.5, 0.0)]
rows = [pictures, *runs[0.02][2], *at_end]
names = ["pictures", *[f"{n} steps" for n in shown], "weight 0.5", "weight 0"]
grid([row[:3] for row in rows], names=names)
for weight, (net, _, _) in sorted(runs.items()):
    with torch.no_grad():
        posterior = net.posterior(squares.encode(pictures))
    print(
        f"weight {weight:<5g} PSNR {psnr(net, squares.encode(pictures)).mean():4.1f}   KL {kl(posterior).mean():5.2f} nats a number   "
        f"spread of the means {posterior.mean.std():4.2f}   the posteriors' std {posterior.std.mean():.2f}"
    )

# %% [markdown]
# Nobody told it what an emoji is. To bring a picture through so few numbers, it has to find out what pictures have in common: areas of one colour, and edges.
#
# Now compare the weights. (PSNR says how well a picture comes back, higher is better; what it is comes below.) The KL divergence is also how much a latent *tells* of its picture. Without a price it tells many times as much as with
# the weight 0.02, and the pictures come back hardly better. What else does it tell? Fine differences that nobody sees, and that a denoiser would have to get right all the same. If the price is too high, the
# latents are kept so near to noise that the picture is lost.
#
# The latents of our model were learned with 0.0001 first and with 0.02 in the end: with the small weight a small UNet could not learn all that its latents told. Stable Diffusion's price was far
# lower, about a millionth (Rombach et al. 2022, appendix G): its UNet is large, and sharpness was worth more.
#
# ### Looked at channel by channel
#
# Back to the VAE of the model, which was trained for longer. What do its four channels mean? Nobody has decided that; one can only look. Take one channel away (put its mean in its place), and decode:

# %%
k = 1
row = [pictures[k], back[k]]
for channel in range(4):
    without = z[k : k + 1].clone()
    without[:, channel] = z[:, channel].mean()
    row.append(vae.decode(without)[0])
grid([row], titles=["picture", "decoded", *[f"no {channel + 1}" for channel in range(4)]])
for channel in range(4):
    print(f"channel {channel + 1}: mean {z[:, channel].mean():6.2f}, spread {z[:, channel].std():.2f}")

# %% [markdown]
# No channel is "red" or "edges", and each place needs all four. But colour can be read off them roughly by a plain linear map, fitted in one line. Such a map makes
# **previews without the decoder**, 16 pixels wide, for nothing:

# %%
some = train_set.floats(slice(0, None, 40))  # every fortieth picture
codes = vae.encode(some).permute(0, 2, 3, 1).reshape(-1, 4)
colours = F.avg_pool2d(some, 4).permute(0, 2, 3, 1).reshape(-1, 3)  # the mean colour of the square of each place
with_one = torch.cat([codes, torch.ones(len(codes), 1)], 1)
table = torch.linalg.lstsq(with_one, colours).solution  # (5, 3)
left = (with_one @ table - colours).square().mean() / colours.var()
print(f"explained by a linear map: {1 - left:.0%} of the variance of the colours")


def preview(z):
    """A small picture (B, 3, h, w) of scaled latents (B, 4, h, w), by the linear map."""
    return torch.einsum("bchw,cd->bdhw", z, table[:4]) + table[4].reshape(1, 3, 1, 1)


grid([pictures, preview(z)], names=["pictures", "previews"])

# %% [markdown]
# ### What it throws away
#
# The difference between picture and decoded picture, five times as strong, gray where there is none. Below it is the
# measure: **PSNR**, ten times the logarithm of (range of values squared / mean squared error), in decibels. Higher is better; ten more is a tenth of the squared error.

# %%
difference = 5 * (back.clamp(-1, 1) - pictures)
decibels = psnr(vae, pictures)
by_hand = 10 * torch.log10(4 / (back.clamp(-1, 1) - pictures).square().mean((1, 2, 3)))
titles = [f"{value:.1f} dB" for value in decibels.tolist()]
grid([pictures, difference], names=["pictures", "difference x5"], titles=titles)
print("by hand equals the library's:", torch.allclose(by_hand, decibels, atol=1e-3))
everything = psnr(vae, held.floats())
print(
    f"{len(held)} emoji it was not trained on: {everything.mean():.1f} dB on average, {everything.min():.1f} at worst"
)

# %% [markdown]
# The areas are gray in the last row, the edges are not. What is it that survives? Ask with drawings that are no emoji at all (stripes of 8, 2 and 1 pixels among them):

# %%
line = torch.arange(64)
down, along = torch.meshgrid(line, line, indexing="ij")


def two_colours(mask):
    """Orange where the mask is true, else white: (3, 64, 64)."""
    return torch.where(mask, torch.tensor([0.9, 0.1, -0.8])[:, None, None], torch.ones(3, 1, 1))


DRAWN = {
    "flat": two_colours(down >= 0),
    "disc": two_colours((down - 32) ** 2 + (along - 32) ** 2 < 500),
    "8 px": two_colours(down // 8 % 2 == 0),
    "2 px": two_colours(down // 2 % 2 == 0),
    "1 px": two_colours(down % 2 == 0),
    "noise": 0.5 * noise(3, 64, 64, seed=2),
}
drawings = torch.stack(list(DRAWN.values())).clamp(-1, 1)
returned = vae.decode(vae.encode(drawings))
titles = [f"{name}\n{value:.1f} dB" for name, value in zip(DRAWN, psnr(vae, drawings).tolist(), strict=True)]
grid([drawings, returned], names=["drawn", "decoded"], titles=titles)

# %% [markdown]
# Colour and large forms come through. Fine detail comes through if it looks like what emoji are made of; noise comes back as a guess at something that is no noise.
# **A VAE knows its kind of pictures, and what it cannot say it replaces.** This sets a ceiling: no picture that is drawn in latents can be finer than what the decoder can return. (In
# Stable Diffusion 1.x the victims are small faces and small letters.)
#
# ### The scaling factor
#
# Schedules are made for data of about the size of the noise: spread 1. Pixels in [-1, 1] are near that. Latents have whatever spread the training gave them, and it has to be measured. Over
# some pictures, as the root of the variance of the means and the variance that the posteriors add to it. (Exercise 3 is about this.)

# %%
raw_spread = latent_std(vae, some.split(64))
print(f"spread of the latents as they come: {raw_spread:.3f}")
print(f"one over it:                        {1 / raw_spread:.3f}")
print(f"the factor in the model's config:   {vae.config.scaling:.3f}, measured on other pictures")
for weight, (net, _, _) in sorted(runs.items()):
    print(f"the tiny one with weight {weight:<4g}:      spread {latent_std(net, squares.encode(some).split(64)):.3f}")
sd_factor = VAEConfig().scaling
print(f"Stable Diffusion 1.x:               factor {sd_factor}, so the spread was {1 / sd_factor:.2f}")

# %% [markdown]
# Latents are multiplied by the factor behind the encoder and divided by it in front of the decoder; what lies between, the diffusion, sees a spread of 1. A price on the latents takes care of much of
# this by itself, since it pulls toward 1. Where it is as low as in Stable Diffusion, the factor is needed. What if one forgets it? Let a picture of spread $s$ be corrupted. Picture and noise are equally strong where
# $\alpha s = \sigma$. In numbers, and as pictures (decoded, so that one can see what is left):

# %%
TIMES = (0.2, 0.4, 0.6, 0.8)
SPREADS = {"spread 1": 1.0, "spread 5.5,\nunscaled": 5.5}
one, rows = z[1:2] / z.std(), []  # a latent, brought to these spreads one after the other
for size in SPREADS.values():
    noisy = torch.cat([schedule.add_noise(size * one, noise(1, 4, 16, 16), t) for t in TIMES])
    rows.append(vae.decode(noisy / size * z.std()))
grid(rows, names=list(SPREADS), titles=[f"t = {t}" for t in TIMES])
for size in (*SPREADS.values(), 0.18):
    print(f"spread {size:.2f}: as much noise as picture at t = {schedule.time_of(size):.2f}")

# %% [markdown]
# (The noisy latents were divided by what they had been multiplied with, so that both rows are decoded alike.)
#
# In the second row nearly nothing happens until late. Training draws its times mostly from the middle, where there is now nothing to learn; all that is
# difficult has moved toward $t = 1$, and of twenty even steps of a walk, only the first three are there. Nothing fails; the same network only learns less with the same
# work.
# A spread of 0.18 is the opposite, for instance if one has multiplied twice: the picture is gone before anything can be learned about it.
#
# ### The mean or a sample?
#
# To train a denoiser one can encode a picture to a sample of its posterior or to the mean. How much of a difference is it?

# %%
posterior = vae.posterior(pictures)
sample = vae.encode(pictures, noise(*z.shape, seed=3))
between = 10 * torch.log10(4 / (vae.decode(sample) - back).square().mean())
psnr_of_sample = 10 * torch.log10(4 / (vae.decode(sample).clamp(-1, 1) - pictures).square().mean())
print(f"spread of the means {posterior.mean.std():.2f}, the posteriors' std on average {posterior.std.mean():.2f}")
print(f"decoded from the mean and from a sample: {between:.1f} dB apart")
print(f"decoded from the mean, and the picture:  {decibels.mean():.1f} dB")
print(f"decoded from a sample, and the picture:  {psnr_of_sample:.1f} dB")

# %% [markdown]
# What the noise of the posterior changes in the decoded picture is less than what the VAE loses anyway: the decoder was trained to overlook it. The mean is the better picture, and one number in place of two to keep. So here
# the latents of all training pictures were encoded once, to their means (`pipe.to_latents`). Stable Diffusion was trained on samples.
#
# ## Part 3: between two pictures
#
# Half-way between two pictures, in pixels, both are seen at half strength. Is it better half-way between their latents? One hears that latent spaces are smooth, so that a cat turns into a dog. See for yourself. Two ways to go there:
# straight, and along an arc:
#
# $$\text{slerp}(a, b, s) = \frac{\sin((1 - s)\,\theta)}{\sin \theta}\,a + \frac{\sin(s\,\theta)}{\sin \theta}\,b, \qquad \theta \text{ the angle between } a \text{ and } b$$
#
# (Shoemake 1985.) With two arrows of length 1 on a page, 120 degrees apart:

# %%
theta = math.radians(120)
a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(theta), math.sin(theta)])
AMOUNTS = torch.linspace(0, 1, 5)
straight = torch.stack([(1 - s) * a + s * b for s in AMOUNTS])
arc = torch.stack([(math.sin((1 - s) * theta) * a + math.sin(s * theta) * b) / math.sin(theta) for s in AMOUNTS])
for name, way in (("straight", straight), ("arc", arc)):
    print(f"{name:9} lengths", way.norm(dim=1).numpy().round(2))
plt.figure(figsize=(3.4, 2.2))
plt.plot(*straight.T, "o-", label="straight")
plt.plot(*arc.T, "o-", label="arc")
plt.plot(0, 0, "k+")
plt.axis("equal")
plt.xlabel("x")
plt.ylabel("y")
plt.legend(fontsize=9)
plt.show()

# %% [markdown]
# The straight way cuts the corner: in its middle the arrow has half the length. Now pictures, with all their numbers as one long arrow:


# %%
def along_arc(a, b):
    """Five points between two tensors of one shape, which are taken for arrows: (5, ...)."""
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    return torch.stack([(((1 - s) * angle).sin() * a + (s * angle).sin() * b) / angle.sin() for s in AMOUNTS])


def along_line(a, b):
    return torch.stack([torch.lerp(a, b, s) for s in AMOUNTS])


first, last = 0, 3
in_pixels = along_line(pictures[first], pictures[last])
in_latents = vae.decode(along_line(z[first], z[last]))
on_arc = vae.decode(along_arc(z[first], z[last]))
titles = [f"{s:.2f}" for s in AMOUNTS]
grid([in_pixels, in_latents, on_arc], names=["pixels", "latents,\nstraight", "latents,\narc"], titles=titles)

# %% [markdown]
# Both pictures shine through in every row. The latents' middle may have harder edges and odd colours, but it is a double exposure: this space was made to **keep** pictures, and is hardly
# more than a small picture itself. What turns one thing into another is not the VAE. It is the denoiser, which knows what there is.
#
# So go between what the denoiser *starts* from. All rows of noise have nearly the same length, the root of the number of their numbers, and two of them stand at nearly a
# right angle. On the straight line between them the noise gets weaker, as nobody has shown it to the network at $t = 1$:

# %%
shape = seen.shape[1:]
a, b = noise(*shape, seed=10), noise(*shape, seed=4)
ways = {"straight": along_line(a, b), "arc": along_arc(a, b)}
print("the root of the number of numbers:", round(math.sqrt(a.numel()), 1))
for name, way in ways.items():
    print(f"{name:9} lengths", way.flatten(1).norm(dim=1).numpy().round(1))


def draw(prompts, **options):
    """A picture for each prompt (or context), (N, 3, 64, 64) in [-1, 1]."""
    return pipe.decode(pipe.latents(prompts, **({"steps": STEPS} | options))) * 2 - 1


PROMPT = "an emoji of a cat face"  # the style is left open
grid([draw([PROMPT] * 5, latents=way) for way in ways.values()], names=list(ways), titles=titles)

# %% [markdown]
# Noise half-way on the straight line has only 71 % of its length. To the network that looks like a walk which has got farther already: something pale and smooth is there, and it works with that. On the arc
# every picture is as good as the ends. And between two prompts, from the same noise (`pipe.mix`, lesson 09):

# %%
ENDS = ("a noto emoji of a red apple", "a noto emoji of a grinning face")
between = torch.cat([pipe.mix(*ENDS, float(s)) for s in AMOUNTS])
grid([draw(between, latents=a.expand(5, *shape))], names=["prompts"], titles=titles)

# %% [markdown]
# Here it is the text that changes, and the network draws what it makes of a text that nobody would write.
#
# ## Part 4: from words
#
# Everything is in place. CLIP's text tower, trained on emoji and their names, reads the prompt; the UNet walks from noise to a latent; the VAE decodes it. It is the
# model of lesson 09 with `vae.encode` where there was a fold.
#
# First the way into noise. The noisy latents are decoded each time:

# %%
TIMES = (0.0, 0.3, 0.6, 0.8, 1.0)
noisy = [vae.decode(schedule.add_noise(z[2:3], noise(1, 4, 16, 16), t))[0] for t in TIMES]
grid([noisy], names=["decoded"], titles=[f"t = {t}" for t in TIMES])

# %% [markdown]
# Noise in latents is no grain. Decoded, it is a wild picture of blots and edges: a number of a latent stands for a whole square, and the decoder draws *something* for whatever it is given. Every emoji below has
# begun as something like the picture at $t = 1$.
#
# Now the way back. Above the walk itself, below what the network believes at that step, both decoded; and that belief through the linear map, which costs nothing:

# %%
prompt = "a twemoji emoji of a red apple"
walk = list(pipe.stream([prompt], steps=STEPS, seed=0))
which = sorted({round(k * (STEPS - 1) / 3) for k in range(4)})
rows = [[(pipe.decode(step.x) * 2 - 1)[0] for step in walk], [(pipe.decode(step.x0_hat) * 2 - 1)[0] for step in walk]]
rows.append([preview(pipe.fold.decode(step.x0_hat))[0] for step in walk])
grid(
    [[row[k] for k in which] for row in rows],
    names=["$x_t$", r"$\hat{x}_0$", r"$\hat{x}_0$, linear"],
    titles=[f"step {k + 1}" for k in which],
)

# %% [markdown]
# As in lesson 03: colour and the large form come first, then what is in it.
#
# ### What is remembered, and what is new
#
# There are about 1,500 emoji in three styles, a small world, and each picture was seen many times. So ask in three ways, and keep them apart. *First* for captions of training pictures. The network has seen just these pictures with just these words:
# what it draws right, it may **remember**. The emoji are the first of the list by a hash of their code; nothing was picked.

# %%
FIVE = 5


def asked(items, styles, seed=100):
    captions = [data.emoji_caption(style, item) for item, style in zip(items, styles, strict=True)]
    return captions, draw(captions, seed=seed)


def floats(items, styles):
    return data.emoji_images(list(zip(items, styles, strict=True))) / 127.5 - 1


pairs = [
    (item, style) for item in data.all_emoji() for style in data.STYLES if data.emoji_split(item, style) == "train"
]
known, known_styles = zip(*pairs[: 3 * FIVE : 3], strict=True)
captions, drawn_known = asked(known, known_styles)
print(*captions, sep="\n")
grid([drawn_known, floats(known, known_styles)], names=["drawn", "training\npicture"])

# %% [markdown]
# *Second*, for **combinations** that were held out. The emoji was in training in two styles, and many others were in the third; this one in this style never was. It has to
# carry a thing over into a style. Drawn, the truth that nobody has shown it, and the same emoji in a style that it has seen:

# %%
combos = data.emoji("new_combinations")
items, wanted = combos.items[:FIVE], combos.styles[:FIVE]
seen_style = [next(style for style in data.STYLES if style != own) for own in wanted]
captions, drawn_new = asked(items, wanted)
print(*captions, sep="\n")
truth, elsewhere = combos.floats(range(FIVE)), floats(items, seen_style)
grid([drawn_new, truth, elsewhere], names=["drawn", "truth,\nnever seen", "seen, in\nanother style"])


def apart(a, b):
    return (a - b).square().mean((1, 2, 3)).sqrt()


nearer = apart(drawn_new, truth) < apart(drawn_new, elsewhere)
print(f"nearer to the truth than to the picture in the other style: {int(nearer.sum())} of {FIVE}")

# %% [markdown]
# Do not take five for a measure: `minidiff evaluate emoji` counts over all of them. *Third*, **new things**: emoji that were in training in no style, neither picture nor name.

# %%
things = data.emoji("new_things")
items, wanted = things.items[: 3 * FIVE : 3], things.styles[: 3 * FIVE : 3]
captions, drawn_things = asked(items, wanted)
print(*captions, sep="\n")
grid([drawn_things, things.floats(range(0, 3 * FIVE, 3))], names=["drawn", "truth,\nnever seen"])

# %% [markdown]
# Nobody can draw what he has never seen and knows by a word at best. Where a name is made of known words, the network puts together what belonged to these words; where it is not, it draws an emoji of its own in the
# style that was asked for. A model is not clever because it draws a word that was in its training; look at what it does with others, and ask what was held out before you are impressed.
#
# ### The prompt box
#
# A prompt, a style, a seed: the picture, and how it came about.

# %%
show(figures.prompt_box(pipe, "a twemoji emoji of a red apple", seed=0, steps=STEPS))

# %% [markdown]
# *Try:* the same words in all three styles. A thing that is no emoji: "a green cat", "an apple with sunglasses". Words that you make up. Then the same prompt with
# ten seeds: how different are ten drawings of a model that has seen three of them?

# %%
widgets.prompt_box(pipe, steps=STEPS)

# %% [markdown]
# ## Part 5: the real thing
#
# `VAE` has the parameter names of diffusers' `AutoencoderKL`, and its defaults are Stable Diffusion 1.x. On the meta device it takes no memory. What does it make of a picture of 512x512, and what does that cost next to the UNet?

# %%
with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
    large, unet = VAE(), UNet()
    photo = torch.zeros(1, 3, 512, 512)
    with FlopCounterMode(display=False) as encoding:
        code = large.encode(photo)
    with FlopCounterMode(display=False) as decoding:
        large.decode(code)
    once = sum(flops(unet, code, torch.zeros(1), torch.zeros(1, 77, 768)).values())
print(f"{sum(p.numel() for p in large.parameters()):,} parameters")
print(
    f"{tuple(photo.shape[1:])} -> {tuple(code.shape[1:])}: {photo.numel():,} numbers become {code.numel():,}, a {photo.numel() // code.numel()}th"
)
for name, value in (
    ("encoding", encoding.get_total_flops()),
    ("decoding", decoding.get_total_flops()),
    ("asking the UNet", once),
):
    print(f"{name:16} {value / 1e12:5.2f} TFLOP")
print(
    f"20 steps with guidance: {40 * once / 1e12:.0f} TFLOP, and once {decoding.get_total_flops() / 1e12:.1f} for decoding"
)

# %% [markdown]
# The same UNet on 512x512 pixels: lesson 12 counts it, and it is hundreds of times more. Decoding is worth several looks of the UNet, but it is done once. That is why previews are rarely decoded.
#
# Such pictures, and larger ones, need memory in the decoder's last layers. `vae.decode(z, sliced=True)` decodes one picture after the other, and `tile=256` works in squares that overlap.
#
# ### One pixel off
#
# One line of Stable Diffusion's encoder is easily got wrong. Its pictures are made smaller by convolutions of 3x3 with stride 2. Nearly everywhere else such a convolution is
# padded by one pixel on all sides. Here zeros are added **on the right and below alone**. A kernel that picks the middle of its window shows which pixels the windows lie on:

# %%
from minidiff.networks.vae import Downsample

x = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)
middle = torch.zeros(1, 1, 3, 3)
middle[0, 0, 1, 1] = 1
down = Downsample(1)
down.conv.weight.data, down.conv.bias.data = middle, torch.zeros(1)
print("the picture\n", x[0, 0].int().numpy())
print("on the right and below\n", down(x)[0, 0].detach().int().numpy())
print("on all sides\n", F.conv2d(x, middle, stride=2, padding=1)[0, 0].int().numpy())

# %% [markdown]
# Both results have the same shape, and every window of the second lies one pixel further up and to the left. So nothing warns you: the weights load, pictures come out. With three such layers one behind the other, the
# pixels add up, since one pixel of a layer is two of the one before:

# %%
place = torch.arange(3)
for name, shift in (("on the right and below", 1), ("on all sides", 0)):
    at = place
    for _ in range(3):
        at = 2 * at + shift
    print(f"{name:23} the first places of the latent look at pixels {at.tolist()}")

# %% [markdown]
# Seven pixels. A VAE that was trained with the one is fed with pictures that are moved by the other.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | a latent is drawn | $z = \mu + \sigma \varepsilon$ | {{vae.sample: return self.mean + self.std * noise}} |
# | a log-variance becomes a standard deviation | $\sigma = e^{\log \sigma^2 / 2}$ | {{vae.std: return (self.log_variance / 2).exp()}} |
# | the price of a latent | $\frac{1}{2}(\mu^2 + \sigma^2 - 1 - \log \sigma^2)$ | {{vae.kl: return (mean**2 + log_variance.exp() - 1 - log_variance) / 2}} |
# | the loss of a VAE | $\overline{\lvert \hat{x} - x \rvert} + \lambda\,\overline{\text{KL}}$ | {{vae.vae_loss: value = F.l1_loss(decoded, x) + kl_weight * kl(posterior).mean()}} |
# | the spread of latents | $\sqrt{\overline{\mu^2 + \sigma^2} - \overline{\mu}^2}$ | {{vae.latent_std: return (second / count - (first / count) ** 2) ** 0.5}} |
# | scaled on the way out of the decoder's world | $z \leftarrow z / s$ | {{vae.decode: z = z / self.config.scaling}} |
# | zeros on the right and below | | {{vae.Downsample.forward: return self.conv(F.pad(x, (0, 1, 0, 1)))}} |
# | pixels for the screen | $(\hat{x} + 1) / 2$, within 0 and 1 | {{text_to_image.decode: return ((pictures + 1) / 2).clamp(0, 1)}} |
#
# ## Exercises
#
# ### Exercise 1 · Back to pixels
#
# *easy, 4 minutes.*
#
# `z`, $(B, c, h, w)$, is a latent as the diffusion has it, of spread 1. `decode` is the decoder of a VAE: it takes latents as the encoder made them, before they were scaled by `scaling`, and returns pictures of which black is -1 and white 1. Return pictures for the
# screen, $(B, C, H, W)$, with 0 for black, 1 for white, and nothing beyond.
#
# <details><summary>Hint</summary>
#
# Three things, in this order: undo the scaling, decode, move the range. A decoder is a network: does it keep within [-1, 1]?
#
# </details>


# %%
def picture(z, decode, scaling):
    """Pictures in [0, 1] of scaled latents."""
    ### BEGIN SOLUTION
    x = decode(z / scaling)
    return (0.5 * x + 0.5).clamp(0, 1)
    ### END SOLUTION


# %%
check.l10_picture(picture)

# %% [markdown]
# ### Exercise 2 · The loss of a VAE
#
# *medium, 8 minutes.*
#
# For pictures `x`, $(B, C, H, W)$, an encoder has said `mean` and `log_variance`, $(B, c, h, w)$ both. `noise` is standard normal, of the same shape. `decode` turns a latent into pictures. Return the loss, one number: the mean absolute difference of the decoded pictures from `x`, plus
# `weight` times the mean KL divergence. There is no scaling here. Do not use `Posterior` or `kl`.
#
# <details><summary>Hint</summary>
#
# What is decoded is drawn with the noise. For both parts: is the exponential of a log-variance a variance or a standard deviation?
#
# </details>


# %%
def loss(x, mean, log_variance, noise, decode, weight):
    """Reconstruction plus weight times KL, a scalar."""
    ### BEGIN SOLUTION
    variance = log_variance.exp()
    decoded = decode(mean + variance.sqrt() * noise)
    price = (mean**2 + variance - 1 - log_variance) / 2
    return (decoded - x).abs().mean() + weight * price.mean()
    ### END SOLUTION


# %%
check.l10_loss(loss)

# %% [markdown]
# ### Exercise 3 · The scaling factor
#
# *medium, 8 minutes.*
#
# `mean` and `log_variance`, $(N, c, h, w)$, are what the encoder says of $N$ pictures. If a latent were drawn for each, all their numbers together would have some standard deviation. Return the one number by which they have to be multiplied, so that it becomes 1. Draw nothing:
# you are asked for what comes out on average.
#
# <details><summary>Hint</summary>
#
# Each number is a mean plus independent noise, so variances add up: how much do the means vary, over all pictures, channels and places, and how large is the noise's variance on average?
#
# </details>


# %%
def scaling(mean, log_variance):
    """The factor that gives latents a spread of 1."""
    ### BEGIN SOLUTION
    of_means = (mean - mean.mean()).square().mean()
    of_noise = log_variance.exp().mean()
    return 1 / torch.sqrt(of_means + of_noise)
    ### END SOLUTION


# %%
check.l10_scaling(scaling)

# %% [markdown]
# ### Exercise 4 · Half the size, as Stable Diffusion does it
#
# *medium, 6 minutes.*
#
# `x`, $(B, C, H, W)$, has even sides; `weight`, $(C', C, 3, 3)$, is a kernel. Return the convolution with stride 2, $(B, C', H/2, W/2)$, padded with zeros as Stable Diffusion's encoder does it. There is no bias.
#
# <details><summary>Hint</summary>
#
# `torch.nn.functional.conv2d` has an argument `padding`, which is for both sides alike. So add the zeros yourself: `torch.nn.functional.pad`, or a larger tensor of zeros that the picture is written into. And look at the table above: which corner of it does the picture go into?
#
# </details>


# %%
def smaller(x, weight):
    """A convolution of stride 2: (B, C, H, W), (C', C, 3, 3) -> (B, C', H/2, W/2)."""
    ### BEGIN SOLUTION
    b, c, height, width = x.shape
    padded = x.new_zeros(b, c, height + 1, width + 1)
    padded[:, :, :height, :width] = x
    return torch.nn.functional.conv2d(padded, weight, stride=2)
    ### END SOLUTION


# %%
check.l10_smaller(smaller)

# %% [markdown]
# ### Exercise 5 · Along the arc, picture by picture
#
# *hard, 10 minutes.*
#
# `a` and `b`, $(B, C, H, W)$, are two batches of noise, `amount` is a number between 0 and 1. Return slerp(a, b, amount), $(B, C, H, W)$. **Each picture of the batch is an arrow of its own**, with its own angle. Lengths are left as they are: a and b go into the formula as they come.
#
# <details><summary>Hint</summary>
#
# Sum over the last three axes with `keepdim=True`: then an angle has the shape $(B, 1, 1, 1)$ and meets each picture as a whole. A cosine is a product of arrows *divided by both lengths*. (In the check $B$, $C$, $H$ and $W$ are equal, so that nothing warns you.)
#
# </details>


# %%
def slerp(a, b, amount):
    """Between two batches of noise along arcs."""
    ### BEGIN SOLUTION
    axes = (1, 2, 3)
    lengths = a.square().sum(axes, keepdim=True).sqrt() * b.square().sum(axes, keepdim=True).sqrt()
    angle = torch.acos((a * b).sum(axes, keepdim=True) / lengths)
    one, other = torch.sin((1 - amount) * angle), torch.sin(amount * angle)
    return (one * a + other * b) / torch.sin(angle)
    ### END SOLUTION


# %%
check.l10_slerp(slerp)

# %% [markdown]
# ### Exercise 6 · Catch the bug
#
# *medium, 8 minutes.*
#
# Now you write the test, and the check hands it functions: two that do exercise 5 right, and some that are each wrong in one way. `slerp` is one of
# them. Return True if it is right, and False, or let an `assert` fail, if it is not.
#
# <details><summary>Hint</summary>
#
# Between two vectors of one length you know where on the arc the result must be. Take a batch in which every image has an angle of its own, and look at the ends.
#
# </details>


# %%
def catch_slerp(slerp):
    """True if a function that should interpolate along the arc does."""
    ### BEGIN SOLUTION
    angles = torch.tensor([0.5, 1.5, 2.5])
    a, b, expected = torch.zeros(3, 3, 2, 2, 2)
    a[:, 0, 0, 0] = 5
    b[:, 0, 0, 0], b[:, 1, 1, 1] = 5 * angles.cos(), 5 * angles.sin()
    for amount in (0.0, 0.3, 1.0):
        expected[:, 0, 0, 0], expected[:, 1, 1, 1] = 5 * (amount * angles).cos(), 5 * (amount * angles).sin()
        if not torch.allclose(slerp(a, b, amount), expected, atol=1e-2):
            return False
    return True
    ### END SOLUTION


# %%
check.l10_catch(catch_slerp)

# %% [markdown]
# ## Where to go next
#
# You have all parts of Stable Diffusion now: a text tower, a UNet with cross-attention, classifier-free guidance, and a VAE. What is missing is size. Lesson 12 counts what it takes to train that; and the classes you have used
# here are, name for name, the ones that its published weights fit into.
