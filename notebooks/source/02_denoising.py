# %% [markdown]
# # 02 · Can a network see through noise, and why is one step not enough?
#
# Show a network a noisy image and let it predict the clean one: that is all a diffusion model ever learns, and it is
# enough to make new images from nothing but noise. In this lesson you train three such networks: one for points in the
# plane, one for digits at a single noise level, and a complete digit model, whose training loop you read line by line.
#
# | | |
# |---|---|
# | After this lesson you can | write the training loss, turn one prediction ($\varepsilon$, $x_0$, $v$, velocity) into another, explain why one step gives an average, compute the score from a denoiser, and write the training loop of a diffusion model |
# | Study time | {{study time}} |
# | Compute time | about 4 minutes on 2 CPU cores, half of it for the last training; a GPU is not needed |
# | You need | lesson 01: $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
import copy
import io
import json
import math
from itertools import islice, pairwise

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, grid, show, style
from minidiff.diffusion import euler, flow, heun, ideal, uniform

style()
schedule = flow()  # alpha = 1 - t, sigma = t

# %%
# folded: noise from a seed, images in the range of a screen, and small panels of points


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bright(images, scale=2):
    """Values in [-scale / 2, scale / 2] become [0, 1]."""
    return images / scale + 0.5


def panels(rows, titles, names, alt, caption, limit=3):
    """Rows of point clouds (N, 2), one panel each, a list of titles for each row."""
    size = (1.55 * len(rows[0]) + 0.3, 1.75 * len(rows))
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, squeeze=False)
    for line, row, words in zip(axes, rows, titles, strict=True):
        for axis, points, title in zip(line, row, words, strict=True):
            axis.scatter(*points.T, s=5, lw=0, color=figures.BLUE)
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal", title=title)
            axis.spines[:].set(visible=True, color="0.8")
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name)
    show(figure, alt=alt, caption=caption)


# %%
cloud = data.points("spiral")  # (500, 2)
best = ideal(cloud, schedule)  # explained below
times = [0.0, 0.1, 0.25, 0.5, 1.0]
forward = [schedule.add_noise(cloud, noise(500, 2, seed=1), t) for t in times]
start = noise(500, 2, seed=2)
path = [start, *(step.x for step in heun(best, start, uniform(40, schedule), schedule))]
back = [path[round(40 * (1 - t))] for t in reversed(times)]
titles = [f"t = {t:g}" for t in times]
panels(
    [forward, back],
    [titles, titles[::-1]],
    ["adding noise", "removing it"],
    alt="Two rows of five clouds. Above, a spiral dissolves into noise; below, 500 other noise points become the spiral.",
    caption="Above, time runs from data to noise; below, from noise to data. The lower row starts from new random points.",
)

# %% [markdown]
# The lower row is what this lesson is about. Its 500 starting points know nothing of the spiral.
#
# ## Part 1: the whole method in two dimensions
#
# A digit is a point in 784 dimensions. A point in the plane has two, so you can see the whole data set at once. Nothing else
# changes.
#
# ### Add noise
#
# Here are three points by hand. At $t = 0.25$, three quarters of the point are left and a quarter of the noise has come in:

# %%
x0, eps, t = cloud[:3], noise(3, 2), 0.25
x = (1 - t) * x0 + t * eps
for line in zip(x0, eps, x, strict=True):
    print("x0 = ({:5.2f}, {:5.2f})   eps = ({:5.2f}, {:5.2f})   x = ({:5.2f}, {:5.2f})".format(*torch.cat(line)))
print("schedule.add_noise gives the same:", torch.equal(x, schedule.add_noise(x0, eps, t)))

# %% [markdown]
# On this schedule, the one of *flow matching* ([Lipman et al. 2022](https://arxiv.org/abs/2210.02747),
# [Liu et al. 2022](https://arxiv.org/abs/2209.03003)), every point moves on a straight line. It is at $x_0$ when
# $t = 0$ and arrives at its noise $\varepsilon$ when $t = 1$.
#
# ### Predict the noise
#
# The network gets the noisy point and the time, and predicts the noise. There is one trick: plain layers are slow to learn
# fine detail, so the network also gets sines and cosines of its inputs
# ([Tancik et al. 2020](https://arxiv.org/abs/2006.10739)).


# %%
class NoisePredictor(nn.Module):
    """(x, t) -> eps_hat, the predicted noise in x."""

    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(21, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x, t):  # (B, 2), (B,)
        inputs = torch.cat([x, t[:, None]], dim=1)  # (B, 3)
        waves = torch.cat([3 * inputs, 6 * inputs, 12 * inputs], dim=1)  # (B, 9)
        return self.layers(torch.cat([inputs, waves.sin(), waves.cos()], dim=1))  # (B, 2)


torch.manual_seed(0)
net = NoisePredictor()
print(f"{sum(p.numel() for p in net.parameters()):,} parameters")

# %% [markdown]
# ### Compare
#
# The **training loss** of a diffusion model is the mean squared error between what the network predicts from $x_t$, here
# the noise, and what was really mixed into it. Training repeats three lines: add noise to some points, predict, compare.
# The times are random, so that the network learns all of them, and squared, so that it sees more of the small ones, where
# the detail is.
#
# *Before you run it:* what would the loss be if the network always answered 0? And can training bring it down to 0?
# (About 15 seconds.)

# %%
steps = budget(full=6000, smoke=300)
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
losses = []

for _ in range(steps):
    x0 = cloud[torch.randint(len(cloud), (256,))]
    t, eps = torch.rand(256) ** 2, torch.randn(256, 2)
    value = F.mse_loss(net(schedule.add_noise(x0, eps, t), t), eps)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    decay.step()
    losses.append(value.item())

print(f"mean squared error, first 100 steps: {sum(losses[:100]) / 100:.3f}, last 100: {sum(losses[-100:]) / 100:.3f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Always answering 0 costs 1, the variance of the noise. And no, the loss cannot reach 0: where the noise has blurred
# two arms of the spiral into each other, nothing in $x_t$ says which arm a point came from.
#
# </details>
#
# ### The best possible answer
#
# Is the rest of the loss the network's fault? For a data set that fits into memory you can find out, because the best
# answer is a formula. The **ideal denoiser** compares $x_t$ with every clean point of the
# training set, computes how likely it is that $x_t$ came from each, and returns the mean of the points, weighted by these
# probabilities. (Exercise 5 asks you to write it.)
#
# From left to right: clean points, noisy points, the ideal denoiser's estimates of the clean points, and our network's.

# %%
rows = []
for t in (0.25, 0.1):
    x = schedule.add_noise(cloud, noise(500, 2, seed=4), t)
    with torch.no_grad():
        ours = (x - t * net(x, torch.full((500,), t))) / (1 - t)  # x0_hat, from x = (1 - t) x0 + t eps
    rows.append([cloud, x, best(x, t), ours])
panels(
    rows,
    [["clean, $x_0$", "noisy, $x_t$", "ideal, $\\hat{x}_0$", "network, $\\hat{x}_0$"], [""] * 4],
    ["t = 0.25", "t = 0.1"],
    alt="Two rows of four clouds: the spiral, the noisy points, and the estimates of the ideal denoiser and the network. "
    "At t = 0.25 the estimates fill a blob, at t = 0.1 they lie on the arms.",
    caption="At t = 0.25 a point could have come from several arms. Both denoisers answer with the average, which lies between the arms.",
    limit=1.5,
)

# %%
at = torch.linspace(0.02, 0.98, 49).tolist()
x0, eps = cloud.repeat(4, 1), noise(2000, 2, seed=5)
ours, ideals = [], []
for t in at:
    x = schedule.add_noise(x0, eps, t)
    with torch.no_grad():
        ours.append(F.mse_loss(net(x, torch.full((2000,), t)), eps).item())
    ideals.append(F.mse_loss((x - (1 - t) * best(x, t)) / t, eps).item())

figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(at, ours, label="our network")
axes.plot(at, ideals, ls="--", label="ideal denoiser")
axes.set(xlabel="t", ylabel="mean squared error of $\\hat{\\varepsilon}$", ylim=(0, 1.1))
axes.legend()
show(
    figure,
    alt="Loss against t for the network and the ideal denoiser: the same curve, but for the smallest times.",
    caption="For most t our network is as good as possible. Look at the left end: there, the ideal denoiser does better.",
)
print(f"mean over these times: our network {sum(ours) / len(at):.3f}, ideal denoiser {sum(ideals) / len(at):.3f}")

# %% [markdown]
# For most times, all of the loss is unavoidable. The **irreducible loss** is what even the best possible denoiser pays, because
# different clean points can lead to the same noisy one. So a loss that stays above zero is not a failure. Remember this when
# you train on images. Their loss does not reach 0 either, and the formula gives the floor only for the training images
# themselves, not for new ones.
#
# Why the bump? Near $t = 0.2$ the arms blur into each other, and the error peaks. Near 0.1 the arms are apart again: noise
# across an arm can be seen, noise along it cannot, so half of the error is left. At still smaller $t$ the error rises once more, because
# noise smaller than the width of the line looks like data. There the ideal denoiser does better. One reason is that it knows
# the 500 points by heart; our network has learned the shape of the spiral, not the list.
#
# (The means differ from the training loss because training drew more of the small, hard times. Compare two losses only if
# their $t$ had the same distribution.)
#
# ### Exercise 1 · The loss
# *easy, 4 minutes.* Write the loss of a network that predicts the noise, for any schedule. `net(x, t)` takes noisy images
# (B, C, H, W) and their times (B,) and returns a tensor in the shape of the images. `x0` and `eps` are (B, C, H, W);
# `alpha` and `sigma` already have the shape (B, 1, 1, 1). Return a single number, the mean squared error, as a tensor.
#
# <details><summary>Hint</summary>
# Add noise, predict, compare. What is the network's input, and what is its output compared with?
# </details>


# %%
def loss(net, x0, eps, t, alpha, sigma):
    """The mean squared error of a network that predicts the noise: a scalar."""
    ### BEGIN SOLUTION
    x = alpha * x0 + sigma * eps
    return ((net(x, t) - eps) ** 2).mean()
    ### END SOLUTION


# %%
check.l02_loss(loss)

# %% [markdown]
# ### Sample
#
# Now the other way, from noise to data. A point that moves on a straight line and reaches $\varepsilon$ at $t = 1$ has, at time
# $t$, the distance $\varepsilon - x$ still to go and the time $1 - t$ to do it in. Its velocity is
#
# $$\frac{dx}{dt} = \frac{\varepsilon - x}{1 - t}$$
#
# We do not know $\varepsilon$, but the network predicts it. To go back in time, take a small step against that velocity,
# predict again, and so on. **Euler's method** solves a differential equation in small steps, each along the velocity
# at its start. We begin at $t = 0.99$, because at $t = 1$ the formula would divide by zero.

# %%
x = start
path = [x]
with torch.no_grad():
    for now, to in pairwise(torch.linspace(0.99, 0, 61)):
        eps_hat = net(x, now.expand(len(x)))
        x = x + (to - now) * (eps_hat - x) / (1 - now)
        path.append(x)

ideal_path = [start, *(step.x for step in euler(best, start, uniform(60, schedule), schedule))]
shown = (0, 30, 45, 54, 60)
panels(
    [[points[k] for k in shown] for points in (path, ideal_path)],
    [[f"t = {first * (1 - k / 60):.2f}" for k in shown] for first in (0.99, 1)],
    ["our network", "ideal denoiser"],
    alt="Two rows of five clouds from noise to a spiral: sampled with the network above, with the ideal denoiser below.",
    caption="The same starting points and sixty steps each. The network's spiral has more stray points.",
)
for n in (60, 1000):
    ends = list(euler(best, start, uniform(n, schedule), schedule))[-1].x
    copies = (torch.cdist(ends, cloud).min(1).values < 0.001).double().mean()
    print(f"ideal denoiser, {n} steps: {copies:.0%} of the samples lie within 0.001 of a training point")

# %% [markdown]
# It works: a network that was only ever trained to predict noise turns 500 random points into a spiral. It is not
# perfect, and the loss would not have told you: small errors hardly move the mean, but leave a point between two arms.
#
# The ideal denoiser has another flaw: with more and more steps, its samples become copies of the training points. A generative
# model that makes anything new does so because its network is not the ideal denoiser of its training set.
# ([Kamb and Ganguli 2024](https://arxiv.org/abs/2412.20292) study how; lesson 04b measures how new the samples are.)
#
# *Before you run it:* how few steps are enough? Where do the 500 points end after a single step of the ideal
# denoiser, from $t = 1$ straight to $t = 0$?

# %%
ends = [list(euler(best, start, uniform(n, schedule), schedule))[-1].x for n in (1, 2, 5, 20)]
panels(
    [[cloud, *ends]],
    [["the data", "1 step", "2 steps", "5 steps", "20 steps"]],
    [""],
    alt="The data, a spiral, and where the ideal denoiser ends in 1, 2, 5 and 20 steps: one point, two blobs, a spiral.",
    caption="Look at the second panel: with one step, all 500 points land on the same spot.",
    limit=1.5,
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# After one step all points land on one spot, the mean of the data. The denoiser makes no mistake there; Part 4 says why. Five
# steps are not enough: they end between the arms. Twenty are nearly enough.
#
# </details>
#
# That is the whole method: add noise, predict, compare; then sample by following the predictions. Stable Diffusion
# adds words and a smaller space to work in. The method stays the same.
#
# ## Part 2: images
#
# ### One noise level
#
# Does this work in 784 dimensions? We take digits at $t = 0.6$ and a network as plain as the last one. This one predicts the
# clean image; Part 3 shows that the choice is free. (About 25 seconds.)

# %%
digits = data.mnist("train")
LEVEL = 0.6

torch.manual_seed(0)
one_level = nn.Sequential(
    nn.Flatten(),
    nn.Linear(784, 512), nn.SiLU(),
    nn.Linear(512, 512), nn.SiLU(),
    nn.Linear(512, 784), nn.Unflatten(1, (1, 28, 28)),
)  # fmt: skip
optimizer = torch.optim.Adam(one_level.parameters(), lr=1e-3)

for x0, _ in islice(data.batches(digits, 128), budget(full=1500, smoke=60)):
    x = schedule.add_noise(x0, torch.randn_like(x0), LEVEL)
    value = F.mse_loss(one_level(x), x0)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()

print(f"mean squared error of the last batch: {value.item():.3f}")

# %% [markdown]
# ### All noise levels
#
# Sampling passes through every noise level, so the network has to handle all of them, and the time has to be one of its
# inputs. The course's own digit model is such a network, and it takes one more input, a prompt. A
# **conditional prediction** is made for a prompt, such as "7", and an **unconditional prediction** without one.

# %%
from minidiff.diffusion import denoiser

pipe = TextToImage.load("mnist", device="cpu")
unet, fold, pred = pipe.net.unet, pipe.fold, pipe.prediction
validation = data.mnist("validation")


def shipped(prompt=None):
    """The course's digit model as a denoiser of images (B, 1, 28, 28); without a prompt it is unconditional."""
    context = pipe.encode_negative(None, 1) if prompt is None else pipe.encode([prompt])

    @torch.no_grad()
    def denoise(x, t):
        inner = denoiser(unet, schedule, pred, context.expand(len(x), -1, -1))
        return fold.decode(inner(fold.encode(x), t))

    return denoise


# %% [markdown]
# (`fold` turns every 2×2 pixels into one position with four channels. Nothing is lost, and the network has a quarter of the
# positions to work on.)
#
# *Before you run it:* both networks get the same noisy four, which is held out from their training. At which noise levels
# will the one-level network keep up?

# %%
levels = [0.2, 0.4, 0.6, 0.8]
four = validation.images[4:5]
noisy = [schedule.add_noise(four, noise(1, 1, 28, 28, seed=3), t) for t in levels]
with torch.no_grad():
    one = [one_level(x)[0] for x in noisy]
every = [shipped()(x, t)[0] for x, t in zip(noisy, levels, strict=True)]
grid(
    [[bright(x[0]) for x in noisy], [bright(x) for x in one], [bright(x) for x in every]],
    ["noisy", f"trained at t = {LEVEL}", "trained at all t"],
    [f"t = {t}" for t in levels],
    alt="A noisy four at four noise levels, and below it the estimates of a network trained at t = 0.6 and of one trained at all t.",
    caption="Compare the two lower rows at the left and right ends, away from t = 0.6.",
)

# %% [markdown]
# The same with numbers, over many held-out digits (about 10 seconds):

# %%
at = torch.linspace(0.05, 1, 20).tolist()
sample = validation.images[: budget(full=200, smoke=20)]
mean_digit = digits.images.mean(0)
error = {"one": [], "all": [], "mean": [F.mse_loss(mean_digit.expand_as(sample), sample).item()] * 20}
for t in at:
    x = schedule.add_noise(sample, noise(*sample.shape, seed=4), t)
    with torch.no_grad():
        error["one"].append(F.mse_loss(one_level(x), sample).item())
    error["all"].append(F.mse_loss(shipped()(x, t), sample).item())

figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(at, error["one"], label=f"trained at t = {LEVEL}")
axes.plot(at, error["all"], label="trained at all t")
axes.plot(at, error["mean"], color=figures.GRAY, ls=":", label="always the mean digit")
axes.axvline(LEVEL, color=figures.GRAY, lw=0.8)
axes.set(yscale="log", xlabel="t", ylabel="mean squared error of $\\hat{x}_0$")
axes.legend(loc="lower right")
show(
    figure,
    alt="Error of the estimate against t, for the one-level network, the network for all levels and the mean digit.",
    caption="The gray line is where the one-level network was trained. Follow the blue curve away from it, to the left and to the right.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only where the task is hard for both. Even at t = 0.6 it loses, because the other network is a better kind, a UNet, and was
# trained for longer. With less noise, its error first falls a little and then rises: at t = 0.05 it is worse than at 0.6. With much
# more, it takes noise for ink and does worse than the mean digit.
#
# </details>
#
# At the right end, even the network for all levels is no better than the dotted line: nothing is known about the image
# there, and the best answer is the mean digit.
#
# ## Part 3: four ways to state one prediction
#
# Our first network predicted the noise, the second the clean image. Papers use two more targets. Here are all four, for one noisy
# digit:

# %%
from minidiff.diffusion import PREDICTIONS, predict, target, to_x0

clean, eps, t = four, noise(1, 1, 28, 28, seed=3), 0.5
alpha, sigma = schedule.at(t, clean)
targets = [target(PREDICTIONS[name], clean, eps, alpha, sigma)[0] for name in ("eps", "x0", "v", "flow")]
grid(
    [[bright(schedule.add_noise(clean, eps, t)[0]), *(bright(x, 4) for x in targets)]],
    None,
    ["input: $x_t$", "$\\varepsilon$", "$x_0$", "$v$", "flow: $\\varepsilon - x_0$"],
    alt="A noisy four, and the four things a network can be trained to predict from it: noise, image, v and velocity.",
    caption="The network's input at t = 0.5, and four possible training targets, shown at half the contrast. Each of them determines the others.",
)

# %% [markdown]
# They all carry the same information, because $x_t$ is known. If you know $x_t = \alpha x_0 + \sigma \varepsilon$ and some
# other mixture $a\, x_0 + b\, \varepsilon$, you have two equations in two unknowns.
#
# | name | the network predicts | paper |
# |---|---|---|
# | eps | $\varepsilon$ | [Ho et al. 2020](https://arxiv.org/abs/2006.11239) |
# | x0 | $x_0$ | |
# | v | $(\alpha \varepsilon - \sigma x_0) / \sqrt{\alpha^2 + \sigma^2}$; the root is 1 where variance is preserved | [Salimans and Ho 2022](https://arxiv.org/abs/2202.00512) |
# | flow | $\varepsilon - x_0$, the velocity on straight lines | [Lipman et al. 2022](https://arxiv.org/abs/2210.02747) |
#
# **v-prediction** means that a network predicts $\alpha \varepsilon - \sigma x_0$, and **flow prediction** that it predicts
# the velocity $\varepsilon - x_0$. (Some papers call the velocity $v$ too. In this course $v$ is always the former.)
#
# By hand, for one pixel: a clean value of 0.8, a noise of −0.5, and $t = 0.25$.

# %%
x0, eps, alpha, sigma = 0.8, -0.5, 0.75, 0.25
x = alpha * x0 + sigma * eps
velocity = eps - x0
print(f"x = {x:.3f}, velocity = {velocity:.3f}")
print(f"x0 = x - t * velocity = {x - 0.25 * velocity:.3f},  eps = x + (1 - t) * velocity = {x + 0.75 * velocity:.3f}")

# %% [markdown]
# In the library, `target` turns a clean image and its noise into any of the four, and `to_x0` finds the image again.
#
# ### Which one should a network predict?
#
# *May be skipped at first reading.*
#
# If all four say the same, does the choice matter? It does, because networks make errors. Add the same small error to each
# prediction and see how large it becomes in the image:

# %%
ts = torch.linspace(0.02, 0.98, 49).tolist()
clean, eps, small = four, noise(1, 1, 28, 28), 0.01
figure, axes = plt.subplots(figsize=(6, 3))
for name, other in PREDICTIONS.items():
    factor = []
    for t in ts:
        alpha, sigma = schedule.at(t, clean)
        wrong = target(other, clean, eps, alpha, sigma) + small
        x_t = schedule.add_noise(clean, eps, t)
        factor.append(((to_x0(other, wrong, x_t, alpha, sigma) - clean).abs().mean() / small).item())
    axes.plot(ts, factor, label=name)
axes.set(yscale="log", xlabel="t", ylabel="error in $\\hat{x}_0$ / error in prediction")
axes.legend()
show(
    figure,
    alt="By how much an error of the prediction is magnified in the image, against t: four curves, for eps, x0, v and flow.",
    caption="Above 1, an error grows on its way into the image. eps explodes on the right; v and flow stay near 1 or below.",
)

# %% [markdown]
# An error in $\varepsilon$ is multiplied by $\sigma / \alpha$ on its way into $\hat{x}_0$. Near $t = 0$ it vanishes; near $t = 1$
# it explodes. Predicting $x_0$ has the opposite weakness: near $t = 0$ the clean image is in plain sight, and the network still
# adds its error to it. v and flow are safe at both ends, which is why newer models, and ours, use one of them.
#
# ### Exercise 2 · The picture behind the noise
# *easy, 3 minutes.* A network has looked at `x` (B, C, H, W) and predicts that the noise in it is `eps_hat`, of the same shape.
# `alpha` and `sigma` are (B, 1, 1, 1). Which clean image does that imply? Return it in the shape of `x`.
#
# <details><summary>Hint</summary>
# Solve $x = \alpha x_0 + \sigma \varepsilon$ for $x_0$.
# </details>


# %%
def x0_from_eps(x, eps_hat, alpha, sigma):
    """x0_hat, the clean picture that goes with eps_hat."""
    ### BEGIN SOLUTION
    return (x - sigma * eps_hat) / alpha
    ### END SOLUTION


# %%
check.l02_x0_from_eps(x0_from_eps)

# %% [markdown]
# ### Exercise 3 · The picture behind v
# *medium, 6 minutes.* The same for a network that predicts $v = \alpha \varepsilon - \sigma x_0$, on a schedule that preserves
# variance: $\alpha^2 + \sigma^2 = 1$. All arguments have the shapes of exercise 2. The result needs no division, and that
# is the charm of $v$.
#
# <details><summary>Hint</summary>
# You want to get rid of $\varepsilon$. It is in $x$ with the factor $\sigma$, and in $v$ with the factor $\alpha$. By what do you
# multiply each, so that it cancels when you subtract?
# </details>


# %%
def x0_from_v(x, v, alpha, sigma):
    """x0_hat, the clean picture that goes with v."""
    ### BEGIN SOLUTION
    return alpha * x - sigma * v  # alpha^2 x0 + alpha sigma eps - sigma alpha eps + sigma^2 x0
    ### END SOLUTION


# %%
check.l02_x0_from_v(x0_from_v)

# %% [markdown]
# ### Exercise 4 · Catch the bug
#
# *May be skipped at first reading.*
#
# *medium, 8 minutes.* Now you write the test. The check hands your function several versions of exercise 2: two are right, and the
# others are each wrong in one way. `x0_from_eps` is one of them, with the arguments of exercise 2. Return True if it is right; if it
# is not, return False or let an `assert` fail.
#
# <details><summary>Hint</summary>
# You know $x_0$ and $\varepsilon$ if you make them yourself. And a function that goes wrong for several images may be right for a
# single one.
# </details>


# %%
def catch_x0_from_eps(x0_from_eps):
    """True if a function that should find the clean image does."""
    ### BEGIN SOLUTION
    x0, eps = torch.randn(2, 3, 2, 4, 5)
    angle = torch.tensor([0.2, 0.7, 1.3]).reshape(3, 1, 1, 1)
    alpha, sigma = angle.cos(), angle.sin()
    return torch.allclose(x0_from_eps(alpha * x0 + sigma * eps, eps, alpha, sigma), x0, atol=1e-3)
    ### END SOLUTION


# %%
check.l02_catch(catch_x0_from_eps)

# %% [markdown]
# ## Part 4: why one step is not enough
#
# *Before you run it:* below, six noise vectors become sevens in one step, two steps and twenty steps. In which rows will the six
# look alike?

# %%
sevens = digits.images[digits.labels == 7]
six = fold.decode(torch.cat([noise(1, 4, 14, 14, seed=k) for k in range(6)]))  # (6, 1, 28, 28)


def sampled(denoise, n):
    return [bright(x) for x in list(euler(denoise, six, uniform(n, schedule), schedule))[-1].x]


grid(
    [sampled(ideal(sevens, schedule), 1), *(sampled(shipped("7"), n) for n in (1, 2, 20))],
    ["ideal, 1 step", "model, 1 step", "model, 2 steps", "model, 20 steps"],
    alt="Four rows of six sevens: blurred and identical, blurred and similar, sharper, and sharp and different.",
    caption="Each column starts from the same noise. One step gives blur; more steps give sharper sevens that differ more.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The six are identical in the first row: from pure noise, the ideal denoiser returns the mean seven, whatever the noise. The
# model's one-step sevens are blurred too, but they differ. The differences come from errors of the network: pure noise holds no
# information about the digit. It was trained with few times near 1 (only one $t$ in 20,000 is above 0.98; Part 7 shows how
# $t$ is drawn), so it treats pure noise as if a trace of a digit were left in it.
#
# </details>
#
# To see where the blur comes from, take a single pixel that is ink (1) in half of the images and paper (−1) in the other
# half. You have to predict it, and pay the squared error:

# %%
for guess in (1.0, 0.5, 0.0, -1.0):
    errors = [(guess - pixel) ** 2 for pixel in (1.0, -1.0)]
    print(f"predict {guess:4}: mean squared error {sum(errors) / 2:.2f}")

# %% [markdown]
# The best prediction is 0, the mean: a gray that no image contains. A network trained with the squared error learns the
# **posterior mean** $E[x_0 \mid x_t]$, which is the mean of all clean images that could have led to this $x_t$, each weighted by
# its probability. At $t = 1$ any image could have, so the posterior mean is the mean of all the data or, with the
# prompt "7", of all sevens. Compare that mean with the estimates of the model and of `ideal` from pure noise:

# %%
pure = noise(1, 1, 28, 28, seed=6)
rows = [
    [sevens.mean(0), ideal(sevens, schedule)(pure, 1.0)[0], shipped("7")(pure, 1.0)[0]],
    [mean_digit, ideal(digits.images, schedule)(pure, 1.0)[0], shipped()(pure, 1.0)[0]],
]
grid(
    [[bright(x) for x in row] for row in rows],
    ['prompt "7"', "unconditional"],
    ["mean", "ideal", "model"],
    alt="Blurred images: the mean seven and the mean digit, and what the ideal denoiser and the model estimate from pure noise.",
    caption="From pure noise, the ideal estimate is exactly the mean, and the model's is a rough version of it.",
)

# %% [markdown]
# So a single step from pure noise gives a blurred average, however good the network is. A little later,
# fewer images remain possible and their mean is sharper. That is why sampling takes small steps and predicts again after
# each: every prediction is an average, but of fewer and fewer images.
#
# The other way round: one image, more and more noise, and the model's estimate.

# %%
words = {
    "alt": "A four at six noise levels, and below each the model's unconditional estimate, which ends as a blur at t = 1.",
    "caption": "At t = 0.7 the estimate is a sharp nine: enough of the four is hidden that the model settles on another digit. (error: root mean square)",
}
show(figures.one_step(pipe, four[0], [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]), **words)

# %% [markdown]
# *Try:* move $t$ slowly to 1 and watch the estimate. Then enter a wrong prompt, such as "7", and find the $t$ above which the
# estimate follows the prompt instead of the image.

# %%
widgets.one_step(pipe)

# %% [markdown]
# <details><summary>Answer</summary>
#
# At small $t$ the image decides and the prompt hardly matters; near $t = 1$ the prompt is all the model has. Where one takes over
# from the other depends on the digit: strokes that a seven could share survive longer.
#
# </details>
#
# ### Exercise 5 · The best guess there is
# *hard, 12 minutes.* Write the ideal denoiser. `x` (B, D) are noisy points, `points` (N, D) are all the clean points there are,
# `alpha` and `sigma` are numbers. The probability that $x$ came from a clean point $p$ is proportional to the height of a Gaussian of
# standard deviation $\sigma$ around $\alpha p$:
#
# $$\exp\left(-\frac{\lVert x - \alpha p \rVert^2}{2 \sigma^2}\right)$$
#
# Divide by the sum over all $p$, and you have probabilities. Return the mean of the points under them, (B, D).
#
# <details><summary>Hint</summary>
# `x[:, None] - points[None]` has the shape (B, N, D). And `torch.softmax` is exp and division in one.
# </details>


# %%
def best_guess(x, points, alpha, sigma):
    """The mean of the points that x could have come from, each weighted by its probability: (B, D)."""
    ### BEGIN SOLUTION
    squares = ((x[:, None] - alpha * points[None]) ** 2).sum(2)  # (B, N)
    weights = torch.softmax(-squares / (2 * sigma**2), dim=1)
    return weights @ points
    ### END SOLUTION


# %%
check.l02_best_guess(best_guess)

# %% [markdown]
# ## Part 5: the score, or which way is uphill
#
# Every prediction is an average, yet sampling ends in sharp digits. Why does following averages work? Watch it first, on
# a data set of five clusters.

# %%
# folded: the animation of the score, the density and points that follow the average velocity
five = data.points("islands").double()  # (500, 2), five clusters
best_five = ideal(five, schedule)


def log_density(x, t):
    """log p_t(x) at the positions x (B, 2), up to a constant: each data point has become a Gaussian."""
    squares = ((x[:, None] - (1 - t) * five) ** 2).sum(2)  # (B, 500)
    return torch.logsumexp(-squares / (2 * t**2), dim=1)


def score_frames(n):
    """n images from t = 1 towards 0: contours of the density, arrows of the score, 120 moving points."""
    side = torch.linspace(-2.1, 2.1, 61).double()
    everywhere, some = (torch.cartesian_prod(s, s) for s in (side, torch.linspace(-1.8, 1.8, 11).double()))
    x, frames = noise(120, 2, seed=3).double(), []
    steps = heun(best_five, x, uniform(n, schedule), schedule)
    blues = plt.cm.Blues([0.15 * k for k in range(6)])
    for k in range(n):
        t = 1 - k / n
        density = log_density(everywhere, t).reshape(61, 61).T
        arrows = (1 - t) * best_five(some, t) - some  # the direction of the score
        arrows = 0.24 * arrows / arrows.norm(dim=1, keepdim=True)
        figure, axes = plt.subplots(figsize=(4, 4.1))
        axes.contourf(side, side, (density - density.max()).exp(), [k / 6 for k in range(7)], colors=blues)
        axes.quiver(*some.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.007, color=figures.ORANGE)
        axes.scatter(*x.T, s=5, lw=0, color="black")
        axes.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), xticks=[], yticks=[], aspect="equal", title=f"t = {t:.2f}")
        axes.spines[:].set_visible(False)
        figure.savefig(buffer := io.BytesIO(), dpi=80)
        plt.close(figure)
        frames.append(Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE))
        x = next(steps).x
    return frames


# %%
show(
    score_frames(budget(full=18, smoke=4)),
    alt="Animation from t = 1 to t near 0. Arrows first point to the middle, then turn to five clusters; points gather there.",
    caption="Blue: the density at time t. Arrows: uphill, all drawn equally long, since only their direction counts. Black: samples.",
)

# %% [markdown]
# The blue contours are $p_t$, the density of the noisy data at time $t$. The orange arrows point in the direction in which it
# rises most steeply. The **score** is the gradient of the log density of the noisy data, $\nabla_x \log p_t(x)$: it points in the
# direction in which $x$ becomes more likely, and its length says how steeply. Near $t = 1$ there is one hill, and
# every arrow points to its top in the middle. As $t$ falls, the hill splits into five.
#
# The arrows were not computed from the density. They come from the denoiser. **Tweedie's formula** says that
# $\nabla_x \log p_t(x) = (\alpha\, \hat{x}_0 - x) / \sigma^2$: the score points from $x$ to the posterior mean $\hat{x}_0$, shrunk by
# $\alpha$ as all data are at time $t$. The formula is decades older than diffusion models
# ([Robbins 1956](https://projecteuclid.org/euclid.bsmsp/1200501653), [Efron 2011](https://doi.org/10.1198/jasa.2011.tm11181)). For a
# finite data set it takes two lines to derive. Each data point $x_i$ has become a Gaussian around $\alpha x_i$, so
#
# $$\log p_t(x) = \log \sum_i e^{-\lVert x - \alpha x_i \rVert^2 / 2\sigma^2} + \text{const}, \qquad
# \nabla_x \log p_t(x) = \sum_i w_i\, \frac{\alpha x_i - x}{\sigma^2} = \frac{\alpha \sum_i w_i x_i - x}{\sigma^2}$$
#
# where the weights $w_i$ are the softmax of exercise 5, and $\sum_i w_i x_i$ is the ideal denoiser's $\hat{x}_0$. To check it,
# measure the slope of $\log p_t$ by moving a little in both directions:

# %%
x, h = 1.2 * noise(100, 2, seed=9).double(), 1e-6
for t in (1.0, 0.75, 0.5, 0.25, 0.1):
    slope = [(log_density(x + h * e, t) - log_density(x - h * e, t)) / (2 * h) for e in torch.eye(2)]
    formula = ((1 - t) * best_five(x, t) - x) / t**2
    difference = (torch.stack(slope, 1) - formula).abs().max()
    print(f"t = {t:4}: longest arrow {formula.norm(dim=1).max():6.1f}, largest difference {difference:.0e}")

# %% [markdown]
# So a denoiser knows the score. The noise is the same thing at another scale:
# $\hat\varepsilon = -\sigma\, \nabla_x \log p_t(x)$. **Denoising score matching** means learning the score by training a denoiser
# ([Vincent 2011](https://doi.org/10.1162/NECO_a_00142)). [Song and Ermon 2019](https://arxiv.org/abs/1907.05600) did so at many noise
# levels at once and generated images by following the arrows.
#
# ### Why the average velocity is enough
#
# *May be skipped at first reading.*
#
# The black points in the animation follow an average velocity, $\hat\varepsilon - \hat{x}_0$. Yet at every $t$ they are distributed
# as the blue density. One pixel shows why. Its data are −1 and 1, half each. On the left, 20,000 points move on straight lines, each at its own
# velocity $\varepsilon - x_0$. In the middle, points that start from the same noise move at the average velocity.
#
# *Before you run it:* the two sets of paths look quite different. At $t = 0.5$, will their histograms?

# %%
pixel = torch.tensor([[-1.0], [1.0]])
eps, times = noise(20_000, 1, seed=8), uniform(60, schedule)  # 1, ..., 0
x0 = pixel[torch.randint(2, (20_000,), generator=torch.Generator().manual_seed(8))]
own = torch.stack([schedule.add_noise(x0, eps, t) for t in times])[..., 0]  # (61, 20_000)
average = torch.stack([eps, *(step.x for step in heun(ideal(pixel, schedule), eps, times, schedule))])[..., 0]

figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.8))
for axis, paths, title in zip(axes, (own, average), ("own straight lines", "average velocity"), strict=False):
    axis.plot(times, paths[:, :50], color=figures.BLUE, lw=0.7, alpha=0.6)
    axis.axvline(0.5, color=figures.GRAY, lw=0.8)
    axis.set(xlim=(1, 0), ylim=(-3, 3), xlabel="t", ylabel="x", title=f"{title} (50 of 20,000)")
for paths, color, name in ((own, figures.BLUE, "own lines"), (average, figures.ORANGE, "average velocity")):
    axes[2].hist(paths[30].numpy(), bins=60, range=(-2, 2), histtype="step", color=color, label=name, lw=1.3)
axes[2].set(xlabel="x at t = 0.5", ylabel="points", title="histograms at t = 0.5")
figure.legend(*axes[2].get_legend_handles_labels(), fontsize=8, loc="outside lower right", ncols=2)
show(
    figure,
    alt="Left: 50 straight lines that cross. Middle: 50 curves that do not cross. Right: two histograms that coincide.",
    caption="On the left, lines cross; in the middle, none do. The histograms on the right lie on top of each other.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# They coincide, up to the randomness of 20,000 points, and so they would at any other $t$.
#
# </details>
#
# Stand at a position $x$ and count the points that pass you to the right, minus those that pass to the left. This flow is
# the number of points near you times their *average* velocity; who goes which way makes no difference to the count. And
# the histogram changes only through this flow. So give every point near $x$ the average velocity, and you get the same
# histogram at every time as before. The **continuity equation** says this of any density $p_t$: if its points
# at $x$ move with average velocity $u_t(x)$, it changes as $\partial p_t / \partial t = -\nabla \cdot (p_t\, u_t)$.
#
# Here $u_t(x) = E[\varepsilon - x_0 \mid x_t = x]$, which is exactly what the squared error teaches a network. So the average is
# what sampling needs, as long as the steps are small. The
# **probability-flow ODE** is the differential equation $dx/dt = E[\varepsilon - x_0 \mid x_t = x]$ (on our schedule), whose solutions carry noise at
# $t = 1$ to samples of the data at $t = 0$. [Song et al. 2021](https://arxiv.org/abs/2011.13456) derived it for any schedule, and
# lesson 03 looks for good ways to solve it.
#
# Both pictures at once, for other clouds, times, samplers and any number of steps:

# %%
words = {
    "alt": "Left: a noised spiral and the arrows of its score. Right: trajectories from noise, and 300 end points on the spiral.",
    "caption": "Left: the noisy data and their score. Right: trajectories from noise to the data with the ideal denoiser.",
}
show(figures.playground("spiral", t=0.5, sampler="heun", steps=10), **words)

# %% [markdown]
# *Try:* compare two steps with twenty. Where do the points of the short run end? Then move $t$ towards 0 and watch the arrows.

# %%
widgets.playground()

# %% [markdown]
# <details><summary>Answer</summary>
#
# With two steps many points end between the arms, where there are no data: the second step starts from a
# blurred average and cannot make up for it. With twenty, nearly all are on the arms. As $t$ falls, the arrows turn from the middle of the cloud to the
# nearest arm.
#
# </details>
#
# ## Part 6: which times are hard
#
# *May be skipped at first reading.*
#
# How large is the error at each time? We measure it with the course's digit model, unconditionally, on held-out digits: in the
# velocity, which it was trained to predict, in the noise, and in the image. (About 10 seconds.)

# %%
latents, context = fold.encode(validation.images[: budget(full=200, smoke=20)]), pipe.encode_negative(None, 1)
eps = noise(*latents.shape, seed=7)
at = torch.linspace(0.025, 0.975, 20).tolist()
per_image = {"flow": [], "eps": [], "x0": []}  # 20 times each, one error an image
for t in at:
    x = schedule.add_noise(latents, eps, t)
    alpha, sigma = schedule.at(t, x)
    with torch.no_grad():
        out = predict(unet, schedule, x, t, context.expand(len(x), -1, -1))
    x0_hat = to_x0(pred, out, x, alpha, sigma)
    eps_hat = (x - alpha * x0_hat) / sigma
    for name, wrong in {"flow": out - (eps - latents), "eps": eps_hat - eps, "x0": x0_hat - latents}.items():
        per_image[name].append(wrong.square().mean(dim=(1, 2, 3)))

# %%
figure, axes = plt.subplots(figsize=(6, 3))
for name, errors in per_image.items():
    axes.plot(at, torch.stack(errors).mean(1), label=name)
axes.set(yscale="log", xlabel="t", ylabel="mean squared error")
axes.legend()
show(
    figure,
    alt="Mean squared error against t on a log axis, measured in the velocity, in the noise and in the image.",
    caption="One model, three measures: in x0 the small times are easy, in eps the large ones; in the velocity, both ends are hard.",
)

errors = torch.stack(per_image["flow"])  # (20 times, images)
fraction = errors.mean(1).var() / errors.var()
print(
    f"velocity: mean {errors.mean():.3f}; easiest time {errors.mean(1).min():.3f}, hardest {errors.mean(1).max():.3f}"
)
print(f"{fraction:.0%} of the variance of an image's loss comes from its t alone")
print(
    f"so with uniform t, the loss of a batch of 64 is {errors.mean():.3f} with a standard deviation of {errors.std() / 8:.3f}"
)

# %% [markdown]
# A training step draws a random $t$ for each of its images, so the loss jumps from step to step, and the jumps say nothing about
# learning. Look at a running mean instead.
#
# ## Part 7: train a digit model
#
# Now a real one: the network of the course's digit model, a UNet with a million parameters, from random weights. One step of training, as a
# diagram:

# %%
# folded: the training loop as a diagram
figure, axes = plt.subplots(figsize=(8.6, 2.6))
style_of_box = {"boxstyle": "round,pad=0.5", "fc": "w", "ec": figures.BLUE}
boxes = {
    name: axes.text(x, y, words, ha="center", va="center", bbox=style_of_box)
    for name, words, x, y in (
        ("random", "images $x_0$, labels,\nnoise $\\varepsilon$, times $t$", 0.08, 0.45),
        ("noisy", "$x_t = \\alpha x_0 + \\sigma \\varepsilon$", 0.33, 0.75),
        ("network", "network", 0.63, 0.75),
        ("error", "mean\nsquared\nerror", 0.93, 0.45),
        ("target", "target: $\\varepsilon - x_0$", 0.5, 0.15),
    )
}


def connect(start, end, color=figures.GRAY, words="", up=0.07, **style):
    ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch(), "shrinkA": 4, "shrinkB": 4}
    (x, y), (to_x, to_y) = boxes[start].get_position(), boxes[end].get_position()
    axes.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "->", "color": color} | ends | style)
    axes.text((x + to_x) / 2, (y + to_y) / 2 + up, words, color=color if color == figures.RED else "black", ha="center")


connect("random", "noisy")
connect("random", "target")
connect("noisy", "network", words="$x_t$, $t$, labels", up=0.05)
connect("network", "error", words="prediction", up=0.12)
connect("target", "error")
connect("error", "network", figures.RED, "gradient", 0.4, connectionstyle="arc3,rad=0.6")
axes.set(xlim=(-0.03, 1), ylim=(0.02, 1.15))
axes.axis("off")
show(
    figure,
    alt="Boxes and arrows: images, labels, time and noise make x_t; the network predicts; the error with the target gives a gradient.",
    caption="One training step. What the gray arrows show is computed afresh for each batch; the red arrow changes the network.",
)

# %% [markdown]
# And as a loop. Read every line; three things are new.
#
# **Logit-normal** times are $t = 1 / (1 + e^{-z})$ with a standard normal $z$, so that most lie in the middle and few near 0 or 1
# ([Esser et al. 2024](https://arxiv.org/abs/2403.03206)).
#
# One label in ten is replaced by "no label", so that the same network learns the unconditional prediction too
# ([Ho and Salimans 2022](https://arxiv.org/abs/2207.12598)). Lesson 09 needs both.
#
# And the weights fluctuate from step to step, so we sample with an average of them. The **exponential moving average (EMA)** of
# the weights is a second copy of the network that, after each training step, keeps most of its own value and takes in a
# little of the new one. It keeps less at first, so that the random weights of the start are soon forgotten.
#
# (About two minutes.)

# %%
from minidiff.training.recipes.mnist import MNIST

torch.manual_seed(0)
net = MNIST.build().to(memory_format=torch.channels_last)  # a UNet and an embedding of the labels, with random weights
averaged = copy.deepcopy(net).eval().requires_grad_(False)
optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
print(f"{sum(p.numel() for p in net.parameters()):,} parameters")

# %%
losses, kept, steps = [], {}, budget(full=600, smoke=12)

for step, (images, labels) in enumerate(islice(data.batches(digits, 64), steps)):
    random = torch.Generator().manual_seed(step)
    x0 = fold.encode(images)  # (64, 4, 14, 14)
    t = torch.randn(64, generator=random, dtype=torch.float64).sigmoid()  # logit-normal
    eps = torch.randn(x0.shape, generator=random)
    dropped = torch.rand(64, generator=random) < 0.1
    labels = torch.where(dropped, net.text_encoder.null, labels)  # "no label"

    velocity = net(schedule.add_noise(x0, eps, t), (1000 * t).float(), labels)  # it reads the time in thousandths
    value = F.mse_loss(velocity, eps - x0)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()

    keep = min(0.999, (1 + step) / (10 + step))
    for mean, new in zip(averaged.parameters(), net.parameters(), strict=True):
        mean.lerp_(new.detach(), 1 - keep)

    losses.append(value.item())
    if step + 1 in (50, 100, 250, steps):
        kept[step + 1] = copy.deepcopy(averaged)
        print(f"step {step + 1:3}: loss {sum(losses[-50:]) / len(losses[-50:]):.3f} (mean of the last 50 steps)")

# %% [markdown]
# *Before you run it:* the next cell samples digits with the averaged weights of these four moments and, in the last row, with
# the course's model, which is the same network trained for longer. Look at the four losses. In which row will you first be able to read every
# digit?

# %%
models = {f"{step} steps": TextToImage(MNIST, trained, "cpu") for step, trained in kept.items()}
models["the course's model"] = pipe
names = [str(d) for d in range(10)]
grid(
    [model.decode(model.latents(names, steps=10, seed=0)) for model in models.values()],
    list(models),
    names,
    alt="Rows of ten digits, each row sampled after more steps of training than the one above: from smudges to readable digits.",
    caption="Each column has one prompt and one starting noise. From top to bottom, the network learns.",
)

# %% [markdown]
# How many are readable? An **evaluation classifier** is a separate network, trained on real images, that judges generated
# ones. Ours says which digit it sees:

# %%
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier

judge = load_classifier("judge", pipe.device)
wanted = torch.arange(10).repeat(budget(full=10, smoke=1))
last = TextToImage(MNIST, net.eval(), "cpu")
for name, model in {
    "last weights": last,
    "averaged weights": models[f"{steps} steps"],
    "the course's model": pipe,
}.items():
    generated = model.decode(model.latents([str(d) for d in wanted.tolist()], steps=10, seed=100))
    _, answers = judged(judge, generated * 2 - 1)
    print(
        f"{name:18} {(answers == wanted).double().mean():.0%} of {len(wanted)} samples read as the digit of the prompt"
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only in the last. After 600 steps most digits can be read, but not all: our network has seen 38,400 images, less than one pass
# through the training set. And the losses would not have told you. From 250 to 600 steps the loss falls by less than 0.1, since
# part of what is left is irreducible, yet strokes come together and become digits.
#
# </details>
#
# The averaged weights take some memory and usually give better samples than the last ones. The course's model was trained on
# more than twenty times as many images. (Where you do not choose, `latents` takes a guidance scale of 1.5 and the sampler
# DPM-Solver++; lessons 09 and 03 explain them.)
#
# ### Exercise 6 · The average of the weights
# *medium, 8 minutes.* Write the exponential moving average of the weights. After every training step, the average becomes
# `decay` times itself plus `1 - decay` times the new weights. It begins with the weights before training.
#
# `begin()` gives you two things: `weights`, a dict of tensors, and `training_step`, a function without arguments. Call `begin`
# once and `training_step()` `n` times. Like an optimizer, it changes the tensors in `weights` in place. Return the average, a
# dict with the same names.
#
# <details><summary>Hint</summary>
# `a = b` gives a tensor a second name and copies nothing. `b.clone()` is a tensor of its own.
# </details>


# %%
def ema(begin, n, decay):
    """The exponential moving average of the weights after n training steps: a dict of tensors."""
    weights, training_step = begin()
    ### BEGIN SOLUTION
    mean = {name: weight.clone() for name, weight in weights.items()}
    for _ in range(n):
        training_step()
        for name, weight in weights.items():
            mean[name] = decay * mean[name] + (1 - decay) * weight
    return mean
    ### END SOLUTION


# %%
check.l02_ema(ema)

# %% [markdown]
# ### Is my loss normal?
#
# *May be skipped at first reading.*
#
# The band below comes from three runs that differ only in their seed, widened by a tenth. The
# package's `train`, which made them, raises the learning rate slowly over the first 100 steps; ours is at its full value from the
# start.

# %%
from minidiff.files import asset

band = json.loads(asset("loss_band.json").read_text())
curve = [sum(losses[max(0, i - 49) : i + 1]) / min(50, i + 1) for i in range(len(losses))]
figure, axes = plt.subplots(figsize=(7, 3.4))
axes.plot(range(1, len(losses) + 1), losses, color=figures.GRAY, lw=0.5, alpha=0.5, label="our loss, each step")
axes.fill_between(band["steps"], band["low"], band["high"], color=figures.SKY, alpha=0.4, lw=0, label="healthy runs")
axes.plot(range(1, len(losses) + 1), curve, label="our loss, mean of the last 50 steps")
axes.set(xlabel="step", ylabel="loss", yscale="log", xlim=(0, band["steps"][-1]))
axes.set_yticks(ticks := [0.2, 0.3, 0.5, 1, 2], labels=[str(tick) for tick in ticks])
axes.minorticks_off()
axes.legend()
show(
    figure,
    alt="The loss of each step, jagged; its running mean; and a band of healthy runs. All fall fast, then slowly.",
    caption="Compare the smooth line with the band: without a warm-up, ours falls faster at first. Part 6 explains why the thin line is jagged.",
)

marks = [row for row in zip(band["steps"], band["low"], band["high"], strict=True) if 100 < row[0] <= len(losses)]
inside = [low <= curve[step - 1] <= high for step, low, high in marks]
print(f"loss at the end {curve[-1]:.3f}; after step 100, inside the band at {sum(inside)} of {len(inside)} marks")

# %% [markdown]
# If the loss stays *above* the band, check the target, the time that goes into the network, and the range of the images. A loss
# *below* the band at the end is as bad a sign: the task has become too easy, as with images in [0, 1], or the network gets to see the answer.
#
# ### The same loop in the package
#
# *May be skipped at first reading.*
#
# `minidiff train mnist` calls the package's `train`, which has the same lines:
#
# | in our loop | in `train` |
# |---|---|
# | `t = torch.randn(64, ...).sigmoid()` | {{loss._logit_normal: return torch.randn(n, generator=generator, dtype=torch.float64).sigmoid()}} |
# | `eps = torch.randn(x0.shape, ...)` | {{loop.train: eps = torch.randn(x0.shape, generator=generator)}} |
# | `labels = torch.where(dropped, ...)` | {{loop.train: condition = torch.where(dropped, torch.as_tensor(null), condition)}} |
# | `F.mse_loss(velocity, eps - x0)` | {{loss.loss: return F.mse_loss(out, target(pred, x0, eps, *schedule.at(t, x0)))}} |
# | `keep = min(0.999, ...)` | {{optimise.update: decay = min(self.decay, (1 + step) / (10 + step))}} |
# | `mean.lerp_(new.detach(), 1 - keep)` | {{optimise.update: mean.lerp_(new, 1 - decay)}} |
#
# Around them it has what longer runs need:
#
# | extra | where |
# |---|---|
# | warm-up, and a decay of the learning rate along half a cosine | {{optimise.optimise: lr = config.lr * (warm * decay / 2)}} |
# | gradient clipping | {{optimise.optimise: nn.utils.clip_grad_norm_(net.parameters(), config.clip)}} |
# | steps whose loss or gradient is not finite are skipped | {{optimise.optimise: if torch.isfinite(value + norm):}} |
# | checkpoints, from which a stopped run goes on as if it had not been stopped | {{optimise.optimise: if done % config.save_every == 0 or time.monotonic() - run.saved_at > config.save_seconds:}} |
#
# **Learning-rate warm-up** raises the learning rate from almost 0 to its full value over the first steps, because the gradients of a
# network with random weights are large and erratic. **Gradient clipping** scales a gradient down whenever its norm exceeds a
# limit, so that one unlucky batch cannot throw the weights far off. Switch the extras off, and it is the same loop:


# %%
from minidiff.diffusion import FLOW
from minidiff.training import TrainConfig, train


def first_losses(config, n=10):
    """The first n losses of the package's loop, from the same random weights and with the same images."""
    torch.manual_seed(0)
    net = MNIST.build().to(memory_format=torch.channels_last)
    pairs = ((fold.encode(images), labels) for images, labels in data.batches(digits, 64))
    run = train(net, schedule, FLOW, pairs, config, null=net.text_encoder.null)
    return [progress.loss.item() for progress in islice(run, n)]


without = first_losses(TrainConfig(warmup=1, clip=math.inf, steps=10**9))  # so many steps that no decay is felt
with_them = first_losses(TrainConfig(steps=600))
for k in (0, 1, 2, 4, 9):
    print(f"step {k + 1:2}: our loop {losses[k]:.6f}   train() {without[k]:.6f}   with its extras {with_them[k]:.6f}")
print("our loop and train() without extras agree exactly:", losses[:10] == without)

# %% [markdown]
# With the extras the first loss is still the same, and then the paths part: the warm-up starts with tiny steps.
#
# To train longer, run `minidiff train mnist --minutes 10` in a terminal.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | add noise | $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ | {{schedules.add_noise: return alpha * x0 + sigma * eps}} |
# | what a network can predict | $a\, x_0 + b\, \varepsilon$ | {{predictions.target: return a * x0 + b * eps}} |
# | back to the image | $\hat{x}_0 = (b\, x_t - \sigma\, \text{out}) / (b\, \alpha - a\, \sigma)$ | {{predictions.to_x0: return (b * x - sigma * out) / determinant}} |
# | the ideal denoiser: how probable each point is | $\text{softmax}(-\lVert x_t - \alpha x_i \rVert^2 / 2 \sigma^2)$ | {{ideal.ideal: torch.softmax(-squares / (2 * variance), dim=1)}} |
# | the score | $\nabla_x \log p_t(x) = (\alpha\, \hat{x}_0 - x) / \sigma^2$ | {{ideal.score: return (alpha * denoise(x, t) - x) / sigma**2}} |
# | the loss | $\lVert \text{out} - (a\, x_0 + b\, \varepsilon) \rVert^2$, the mean | {{loss.loss: return F.mse_loss(out, target(pred, x0, eps, *schedule.at(t, x0)))}} |
# | the average of the weights | $\bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta$ | {{optimise.update: mean.lerp_(new, 1 - decay)}} |
# | one step of sampling | $x + d\alpha\, \hat{x}_0 + d\sigma\, \hat\varepsilon$ | {{samplers.euler}} |
#
# ## What you can do now
#
# You can train a denoiser from scratch, say what its loss means, move between its four predictions and the score, and turn it into a
# sampler. What is still missing is to sample *well*: with how few steps, with or without fresh noise, and what goes wrong on the way. That
# is [lesson 03](03_sampling.ipynb).
#
# The question in the title has moved on. One step of *this* network gives an average. A second network can be trained to jump
# along the trajectories of the first; consistency models ([Song et al. 2023](https://arxiv.org/abs/2303.01469)) are of this kind, and they
# generate in one or two steps.
#
# ## Further reading
#
# - [Sohl-Dickstein et al. 2015, *Deep Unsupervised Learning using Nonequilibrium Thermodynamics*](https://arxiv.org/abs/1503.03585): the first diffusion model.
# - [Ho et al. 2020, *Denoising Diffusion Probabilistic Models*](https://arxiv.org/abs/2006.11239): algorithm 1 is our training loop.
# - [Robbins 1956, *An Empirical Bayes Approach to Statistics*](https://projecteuclid.org/euclid.bsmsp/1200501653) and [Efron 2011, *Tweedie's Formula and Selection Bias*](https://doi.org/10.1198/jasa.2011.tm11181): Tweedie's formula, before and without neural networks.
# - [Vincent 2011, *A Connection Between Score Matching and Denoising Autoencoders*](https://doi.org/10.1162/NECO_a_00142): learning a score by denoising.
# - [Song and Ermon 2019, *Generative Modeling by Estimating Gradients of the Data Distribution*](https://arxiv.org/abs/1907.05600): images from scores at many noise levels.
# - [Song et al. 2021, *Score-Based Generative Modeling through Stochastic Differential Equations*](https://arxiv.org/abs/2011.13456): all of this in continuous time.
# - [Lipman et al. 2022, *Flow Matching for Generative Modeling*](https://arxiv.org/abs/2210.02747) and [Liu et al. 2022, *Flow Straight and Fast*](https://arxiv.org/abs/2209.03003): straight lines, and why the average velocity is enough.
# - [Salimans and Ho 2022, *Progressive Distillation for Fast Sampling of Diffusion Models*](https://arxiv.org/abs/2202.00512): $v$-prediction.
# - [Ho and Salimans 2022, *Classifier-Free Diffusion Guidance*](https://arxiv.org/abs/2207.12598): why one label in ten is dropped.
# - [Karras et al. 2022, *Elucidating the Design Space of Diffusion-Based Generative Models*](https://arxiv.org/abs/2206.00364): the ideal denoiser, and which choices in training matter.
# - [Esser et al. 2024, *Scaling Rectified Flow Transformers for High-Resolution Image Synthesis*](https://arxiv.org/abs/2403.03206): logit-normal times.
# - [Tancik et al. 2020, *Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains*](https://arxiv.org/abs/2006.10739): why sines and cosines of the inputs help.
# - [Kamb and Ganguli 2024, *An Analytic Theory of Creativity in Convolutional Diffusion Models*](https://arxiv.org/abs/2412.20292): what a convolutional denoiser does instead of repeating its training set.
# - [Song et al. 2023, *Consistency Models*](https://arxiv.org/abs/2303.01469): one step after all.
