# %% [markdown]
# # 02 · Can a network see through noise, and why is one step not enough?
#
# **It can, and that is all there is to learn.** A network that is shown noisy things, and guesses what is behind the
# noise, can also make new things out of nothing but noise. In this lesson you train three of them: one for points on a
# page, one for digits at a single noise level, and a real one. You also see why one guess is not enough.
#
# | | |
# |---|---|
# | You will see | a spiral come out of noise, guesses that are blurry for a good reason, and a digit model as it learns |
# | It costs | about 3 minutes on 2 CPU cores, 2 of them for the last training; a GPU is not needed |
# | You need | lesson 01: $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ |

# %%
import io
import json
from itertools import islice, pairwise

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Image, display
from torch import nn

from minidiff import TextToImage, data, image_files
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, show, style

style()

# %% [markdown]
# Here is where the first part ends: the upper row adds noise to a cloud of points, the lower row takes it away
# again. The lower row begins with 500 points that know nothing of the spiral.

# %%
from minidiff.diffusion import flow, heun, ideal, uniform

schedule = flow()  # alpha = 1 - t, sigma = t
cloud = data.points("spiral")  # (500, 2)
TIMES = [1.0, 0.75, 0.5, 0.25, 0.0]


def panels(rows, titles, labels=None):
    """Clouds of points in rows, one small panel each."""
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=(1.2 * len(titles), 1.25 * len(rows) + 0.2), squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        for axis, points in zip(line, row, strict=True):
            axis.scatter(*points.T, s=1, lw=0, color=figures.BLUE)
            axis.set(xlim=(-1.9, 1.9), ylim=(-1.9, 1.9), xticks=[], yticks=[], aspect="equal")
            axis.grid(False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis, label in zip(axes[:, 0], labels or [""] * len(rows), strict=True):
        axis.set_ylabel(label)
    plt.show()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


there = [schedule.add_noise(cloud, noise(500, 2, seed=1), t) for t in reversed(TIMES)]
start = noise(500, 2, seed=2)
best = ideal(cloud, schedule)
back = [start, *(step.x for step in heun(best, start, uniform(40, schedule), schedule))]
panels([there, back[::10]], ["", "", "", "", ""], ["t = 0 to 1", "t = 1 to 0"])

# %% [markdown]
# ## Part 1: the whole method, on a page
#
# A picture of 28x28 pixels is a point in 784 dimensions. A point on a page has two, so that you can see all of the
# data at once. Nothing else changes.
#
# ### Noise
#
# Three points by hand. At $t = 0.25$ three quarters of the point are left, and a quarter of the noise has come:

# %%
x0 = cloud[:3]
eps = noise(3, 2)
t = 0.25
x = (1 - t) * x0 + t * eps
for line in zip(x0, eps, x, strict=True):
    print("x0 = ({:5.2f}, {:5.2f})   eps = ({:5.2f}, {:5.2f})   x = ({:5.2f}, {:5.2f})".format(*torch.cat(line)))
print("the library says the same:", torch.equal(x, schedule.add_noise(x0, eps, t)))

# %% [markdown]
# On this schedule, the one of *flow matching*, every point travels on a straight line: it is at $x_0$ when $t = 0$, and
# arrives at its noise $\varepsilon$ when $t = 1$.
#
# ### Ask
#
# The network sees where a point is now, and what time it is. It answers with the noise that it believes to be in there.
# It is as plain as networks get: four layers. There is one trick. Plain layers are slow to learn fine detail, so they are also
# shown the sines and cosines of the three numbers, some of which change quickly. (The course's UNet is told the time in this way.)

# %%


class Guess(nn.Module):
    """(x, t) -> the noise in x."""

    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(21, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x, t):  # (B, 2), (B,)
        seen = torch.cat([x, t[:, None]], dim=1)  # (B, 3)
        waves = torch.cat([3 * seen, 6 * seen, 12 * seen], dim=1)  # (B, 9)
        return self.layers(torch.cat([seen, waves.sin(), waves.cos()], dim=1))  # (B, 2)


torch.manual_seed(0)
guess = Guess()
print(f"{sum(p.numel() for p in guess.parameters()):,} parameters")

# %% [markdown]
# ### Compare
#
# Training is three lines, over and over: noise some points, ask, compare. The times are drawn at random, so that the
# network gets to know all of them, and squared, so that it sees more of those near 0, where the detail is. *Cost: about 15 seconds.*

# %%
steps = budget(full=6000, smoke=300)
optimizer = torch.optim.Adam(guess.parameters(), lr=2e-3)
slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
losses = []

for _ in range(steps):
    x0 = cloud[torch.randint(len(cloud), (256,))]
    t, eps = torch.rand(256) ** 2, torch.randn(256, 2)
    value = F.mse_loss(guess(schedule.add_noise(x0, eps, t), t), eps)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    slower.step()
    losses.append(value.item())

print(f"mean squared error, first 100 steps: {sum(losses[:100]) / 100:.3f}, last 100: {sum(losses[-100:]) / 100:.3f}")

# %% [markdown]
# Always to answer 0 would cost 1, the variance of the noise. The network does better, but it does not get to zero. Is
# it too small, or badly trained? For data that fit into memory there is a denoiser that nobody can beat, and it is a
# formula: `ideal`. It drew the lower row at the top of this page. It looks at all 500 points, and asks of each how likely it is that $x_t$ came from there. Then it
# answers with their mean, each weighted by that likelihood.

# %%


def noise_error(answer, n=4000):
    """Mean squared error of a function (x, t) -> eps_hat, over many points and ten times."""
    generator = torch.Generator().manual_seed(5)
    errors = []
    for t in torch.linspace(0.05, 0.95, 10):
        x0 = cloud[torch.randint(len(cloud), (n,), generator=generator)]
        eps = torch.randn(n, 2, generator=generator)
        errors.append(F.mse_loss(answer(schedule.add_noise(x0, eps, t), t), eps))
    return torch.stack(errors).mean().item()


with torch.no_grad():
    print(f"over all times, our network:       {noise_error(lambda x, t: guess(x, t.expand(len(x)))):.3f}")
print(f"over all times, the best there is: {noise_error(lambda x, t: (x - (1 - t) * best(x, t)) / t):.3f}")

# %% [markdown]
# The rest cannot be had by anybody: where two arms of the spiral have been blurred into each other, there is no telling from
# which of them a point came. **A loss that stays above zero is not a failure.** Remember this when you train on
# pictures, where no formula tells you the floor.
#
# ### Walk back
#
# Now the other way. Every point travels on a straight line and reaches its noise at $t = 1$. So at time $t$ it still has
# $\varepsilon - x$ to go, in the time $1 - t$ that is left: its velocity is
#
# $$\frac{dx}{dt} = \frac{\varepsilon - x}{1 - t}$$
#
# The network believes to know $\varepsilon$. To go back in time, take small steps against that velocity, and ask again after
# each. This is Euler's method. It begins just below $t = 1$, where no time is left and nothing can be divided by it.

# %%
x = start
walk = [x]
with torch.no_grad():
    for now, to in pairwise(torch.linspace(0.99, 0, 61)):
        eps_hat = guess(x, now.expand(len(x)))
        x = x + (to - now) * (eps_hat - x) / (1 - now)
        walk.append(x)

panels([[*walk[::15], back[-1]]], [*(f"t = {t:.2f}" for t in TIMES), "ideal"])

# %% [markdown]
# The first five pictures are the walk of the network. It has never been shown where to go from here; it was only asked
# about noise. The last picture is where the same start ends with the ideal denoiser: at the 500 points of the data. **The best denoiser of the
# training data repeats the training data.** The network's spiral is softer, and between the points there is something: that
# networks draw anything new is owed to their not being perfect. Lesson 04 measures how new it is.
#
# How few steps will do? Ask the best denoiser there is, with the library's `euler`:

# %%
from minidiff.diffusion import euler

ends = [list(euler(best, start, uniform(n, schedule), schedule))[-1].x for n in (1, 2, 5, 20)]
panels([[cloud, *ends]], ["the data", "1 step", "2 steps", "5 steps", "20 steps"])

# %% [markdown]
# With one step everything falls onto a single place in the middle, and that is not a mistake of the denoiser. Part 4 says why.
#
# That is the whole method: noise, ask, compare; then walk back. Stable Diffusion adds words, and a
# smaller space to work in; the method is this one. The picture below and
# the widget after it show the same for other clouds, other samplers, and any number of steps.

# %%
show(figures.playground("spiral", t=0.5, sampler="heun", steps=10))

# %% [markdown]
# *Try:* two steps, then twenty: which points get lost between the arms? Then move t towards 0, and see how the arrows turn from the
# middle of the cloud to its arms.

# %%
widgets.playground()

# %% [markdown]
# ## Part 2: pictures
#
# ### One noise level
#
# Can that be done in 784 dimensions? Take digits at $t = 0.6$, and a network as plain as the last one. This time it answers
# with the clean picture: that is the same thing, as part 3 shows. *Cost: about 25 seconds.*

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
# A walk meets every level, so the network has to know them all, and it has to be told at which one it is: time
# is an input, as it was on the page. (How a UNet is told the time is a subject of lesson 05.) The shipped model is such
# a network. Here both look at digits that neither has seen.

# %%
from minidiff.diffusion import denoiser

pipe = TextToImage.load("mnist", device="cpu")
unet, fold, pred = pipe.net.unet, pipe.fold, pipe.prediction
validation = data.mnist("validation")


def told(prompt):
    """The shipped model as a Denoiser of pictures: told a prompt, or nothing (None)."""
    context = pipe.encode_negative(None, 1) if prompt is None else pipe.encode([prompt])

    @torch.no_grad()
    def denoise(x, t):
        inner = denoiser(unet, schedule, pred, context.expand(len(x), -1, -1))
        return fold.decode(inner(fold.encode(x), t))

    return denoise


def pictures(rows, labels, titles):
    """Rows of digits, (n, 1, 28, 28) in [-1, 1] each, with a label to the left of each row."""
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(0.75 * len(titles) + 1.1, 0.78 * len(rows) + 0.3))
    for line, row, label in zip(axes, rows, labels, strict=True):
        for axis, picture in zip(line, row, strict=True):
            axis.imshow(picture[0], vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    plt.show()


levels = [0.2, 0.4, 0.6, 0.8]
four = validation.images[4:5]
noisy = [schedule.add_noise(four, noise(1, 1, 28, 28, seed=3), t) for t in levels]
with torch.no_grad():
    pictures(
        [
            [x[0] for x in noisy],
            [one_level(x)[0] for x in noisy],
            [told(None)(x, t)[0] for x, t in zip(noisy, levels, strict=True)],
        ],
        ["noisy", f"trained at\nt = {LEVEL}", "trained\nat all t"],
        [f"t = {t}" for t in levels],
    )

# %% [markdown]
# And in numbers. *Cost: about 10 seconds.*

# %%
grid = torch.linspace(0.05, 1, 20).tolist()
sample = validation.images[: budget(full=200, smoke=20)]
error = {"one": [], "all": []}
with torch.no_grad():
    for t in grid:
        x = schedule.add_noise(sample, noise(*sample.shape, seed=4), t)
        error["one"].append(F.mse_loss(one_level(x), sample).item())
        error["all"].append(F.mse_loss(told(None)(x, t), sample).item())
mean_digit = digits.images.mean(0)
plt.figure(figsize=(5, 2.6))
plt.plot(grid, error["one"], label=f"trained at t = {LEVEL}")
plt.plot(grid, error["all"], label="trained at all t")
plt.axhline(
    F.mse_loss(mean_digit.expand_as(sample), sample).item(), color=figures.GRAY, ls=":", label="always the mean digit"
)
plt.axvline(LEVEL, color=figures.GRAY, lw=0.8)
plt.yscale("log")
plt.xlabel("t")
plt.ylabel("mean squared error of $\\hat{x}_0$")
plt.legend(loc="lower right")
plt.show()

# %% [markdown]
# A network that knows one level comes close to the other there, and falls behind on both sides: with less noise it erases details it
# could have kept, with much more it takes noise for ink. And look at the right end: when only noise is left, even the
# better of the two is no better than the dotted line. Nothing can be known, and the best answer is the mean digit.
#
# ## Part 3: four names for one answer
#
# The first network answered with the noise, the second with the picture. Papers also use $v$ and the velocity. They all say the same,
# because $x_t$ is known: if you know $x_t$ and any mixture $a\, x_0 + b\, \varepsilon$, you have two equations for two
# unknowns.
#
# | name | the network says | from |
# |---|---|---|
# | eps | $\varepsilon$ | Ho et al. 2020 |
# | x0 | $x_0$ | |
# | v | $\alpha \varepsilon - \sigma x_0$, divided by $\sqrt{\alpha^2 + \sigma^2}$ (which is 1 if variance is preserved) | Salimans and Ho 2022 |
# | flow | $\varepsilon - x_0$, the velocity on straight lines | Lipman et al. 2022 |
#
# By hand, with one pixel: a picture of 0.8, a noise of -0.5, and $t = 0.25$.

# %%
x0, eps, alpha, sigma = 0.8, -0.5, 0.75, 0.25
x = alpha * x0 + sigma * eps
velocity = eps - x0
print(f"x = {x:.3f}, velocity = {velocity:.3f}")
print(f"x0 = x - t * velocity = {x - 0.25 * velocity:.3f},  eps = x + (1 - t) * velocity = {x + 0.75 * velocity:.3f}")

# %% [markdown]
# Now the shipped model, which says *flow*, on eight digits. Its answer is turned into each of the others (`target`),
# and each of those back into a picture (`to_x0`).

# %%
from minidiff.diffusion import PREDICTIONS, predict, target, to_x0

t = 0.7
latents = fold.encode(validation.images[:8])  # (8, 4, 14, 14): 2x2 pixels are one place with 4 channels
x = schedule.add_noise(latents, noise(*latents.shape), t)
alpha, sigma = schedule.at(t, x)
context = pipe.encode_negative(None, 8).expand(8, -1, -1)
with torch.no_grad():
    said = predict(unet, schedule, x, t, context)
x0_hat = to_x0(pred, said, x, alpha, sigma)
eps_hat = (x - alpha * x0_hat) / sigma

for name, other in PREDICTIONS.items():
    translated = target(other, x0_hat, eps_hat, alpha, sigma)
    difference = (to_x0(other, translated, x, alpha, sigma) - x0_hat).abs().max()
    first = ", ".join(f"{number:6.3f}" for number in translated[0, 0, 7, 5:8])
    print(f"as {name:4}  three of the numbers: {first}   largest difference in x0_hat: {difference:.0e}")

# %% [markdown]
# The numbers differ, the picture does not. Does it matter then what a network is trained to say? Yes, since networks make
# mistakes. Add the same small error to each of these answers, and see how large it is in the picture:

# %%
ts = torch.linspace(0.02, 0.98, 49)
small = 0.01
plt.figure(figsize=(5, 2.6))
for name, other in PREDICTIONS.items():
    factor = []
    for t in ts.tolist():
        alpha, sigma = schedule.at(t, x)
        wrong = target(other, x0_hat, eps_hat, alpha, sigma) + small
        x_t = schedule.add_noise(x0_hat, eps_hat, t)
        factor.append(((to_x0(other, wrong, x_t, alpha, sigma) - x0_hat).abs().mean() / small).item())
    plt.plot(ts, factor, label=name)
plt.yscale("log")
plt.xlabel("t")
plt.ylabel("error in $\\hat{x}_0$ / error in answer")
plt.legend()
plt.show()

# %% [markdown]
# An error in $\varepsilon$ is multiplied by $\sigma / \alpha$. Near $t = 0$ that makes it vanish, near $t = 1$ it explodes: a
# network that answers with eps cannot say what the picture is when hardly any of it is left. Nor does x0 help at the other end, where the
# picture is in plain sight and the network still adds its error to it. v and flow are safe at both ends.
# That is why newer models, and ours, use them.
#
# ## Part 4: why one step does not do
#
# A pixel is ink (1) in half of the pictures and paper (-1) in the other half. You have to guess, and your error is squared:

# %%
pixel = torch.tensor([1.0, -1.0])
for value in (1.0, 0.5, 0.0, -1.0):
    print(f"guess {value:4}: mean squared error {((value - pixel) ** 2).mean():.2f}")

# %% [markdown]
# The best guess is 0, the mean: a gray that none of the pictures has. Whoever minimises a squared error answers with the
# mean of all that is still possible. At $t = 1$ everything is possible, so the answer is the mean of all the data; told
# "seven", the mean of all sevens. Compare three ways to get there: the mean itself, what the shipped model believes when it is shown
# nothing but noise, and what `ideal` says.

# %%
pure = noise(1, 1, 28, 28, seed=6)
sevens = digits.images[digits.labels == 7]
pictures(
    [
        [sevens.mean(0), told("7")(pure, 1.0)[0], ideal(sevens, schedule)(pure, 1.0)[0]],
        [mean_digit, told(None)(pure, 1.0)[0], ideal(digits.images, schedule)(pure, 1.0)[0]],
    ],
    ["sevens", "all digits"],
    ["mean", "model", "ideal"],
)

# %% [markdown]
# (The model's answers are the roughest of the three. It was never shown a mean, and it was rarely asked so close to $t = 1$.)
#
# So a single step from pure noise can only give the average digit, however good the network is. With a little of the way
# done, fewer pictures remain possible, and their mean gets sharper. That is why the walk takes small steps and asks again:
# **each answer is an average, but an average of less and less.** Below, all rows start from the same noise.

# %%
sevens_drawn = [
    pipe.decode(pipe.latents(["7"] * 6, steps=n, sampler="euler", scale=1, seed=0)) * 2 - 1 for n in (1, 2, 20)
]
pictures(sevens_drawn, ["1 step", "2 steps", "20 steps"], [""] * 6)

# %% [markdown]
# Look at it the other way round: one picture, more and more noise, and what the model makes of it.

# %%
show(figures.one_step(pipe, four[0], [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0]))

# %% [markdown]
# *Try:* move t slowly to 1 and watch the belief: details go first, then it may become another digit, and at last it is the average.
# Then choose a prompt that is wrong, and find the t from which on the network believes the prompt more than the picture.

# %%
widgets.one_step(pipe)

# %% [markdown]
# ## Part 5: the loss has a shape
#
# How large is the error at each time? Measured with the shipped model, told nothing, on digits it was not trained on: as the
# error in the velocity (which is what it was trained to make small), in the noise, and in the picture. *Cost: about 10 seconds.*

# %%
latents = fold.encode(validation.images[: budget(full=200, smoke=20)])
eps = noise(*latents.shape, seed=7)
times = torch.linspace(0.025, 0.975, 20).tolist()
per_picture = {"flow": [], "eps": [], "x0": []}  # each 20 lists of one error a picture
for t in times:
    x = schedule.add_noise(latents, eps, t)
    alpha, sigma = schedule.at(t, x)
    with torch.no_grad():
        said = predict(unet, schedule, x, t, context[:1].expand(len(x), -1, -1))
    x0_hat = to_x0(pred, said, x, alpha, sigma)
    eps_hat = (x - alpha * x0_hat) / sigma
    for name, wrong in {"flow": said - (eps - latents), "eps": eps_hat - eps, "x0": x0_hat - latents}.items():
        per_picture[name].append(wrong.square().mean(dim=(1, 2, 3)))

plt.figure(figsize=(5, 2.6))
for name, errors in per_picture.items():
    plt.plot(times, torch.stack(errors).mean(1), label=name)
plt.yscale("log")
plt.xlabel("t")
plt.ylabel("mean squared error")
plt.legend()
plt.show()

errors = torch.stack(per_picture["flow"])  # (20 times, pictures)
share = errors.mean(1).var() / errors.var()
print(f"flow: mean {errors.mean():.3f}; easiest time {errors.mean(1).min():.3f}, hardest {errors.mean(1).max():.3f}")
print(f"{share:.0%} of the variance of a picture's loss comes from its t alone")
print(f"so with even times the loss of a batch of 64 is {errors.mean():.3f} give or take {errors.std() / 8:.3f}")

# %% [markdown]
# As x0 the task is easy near 0 and hard near 1; as eps it is the other way round; as flow both ends are hard. A training step draws a
# $t$ for each of its pictures, so that its loss depends on the luck of the draw: **the loss of a diffusion model jumps from step to
# step, and the jumps say nothing about learning.** What one looks at is a running mean.
#
# ## Part 6: train a real one
#
# The network is the shipped one, a million numbers, from a random start. This is the training that `minidiff train mnist`
# does, only shorter: the shipped weights have seen more than ten times as many pictures. Inside are the same three lines, and two things for
# steadiness: the learning rate warms up and decays, and one draws with a moving average of the weights (exercise 4).
#
# *Is my loss normal?* The band below was measured with three runs that differ only in their seed, and widened by a tenth. A healthy run
# stays in it. *Cost: about 2 minutes; the picture is redrawn as it learns.*

# %%
from minidiff.diffusion import FLOW
from minidiff.files import asset
from minidiff.training import TrainConfig, train
from minidiff.training.recipes.mnist import MNIST

band = json.loads(asset("loss_band.json").read_text())
DIGITS = [str(d) for d in range(10)]


def running_mean(losses):
    recent = losses[-band["window"] :]
    return sum(recent) / len(recent)


def drawing(curve, rows):
    """The loss so far beside the healthy band, and samples; as PNG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.6), width_ratios=[1, 1.25])
    left.fill_between(band["steps"], band["low"], band["high"], color=figures.SKY, alpha=0.4, lw=0, label="healthy")
    left.plot(range(1, len(curve) + 1), curve, label="this run")
    left.set(xlabel="step", ylabel=f"loss, mean of {band['window']} steps", yscale="log", xlim=(0, band["steps"][-1]))
    left.set_yticks(ticks := [0.2, 0.3, 0.5, 1, 2], labels=[str(tick) for tick in ticks])
    left.minorticks_off()
    left.legend()
    right.axis("off")
    if rows:
        right.imshow(
            image_files.sheet(torch.cat([row for _, row in rows]), columns=10, zoom=1, border=4), vmin=0, vmax=255
        )
        right.set_title("after " + ", ".join(str(step) for step, _ in rows) + " steps")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image(buffer.getvalue())


# %%
torch.manual_seed(0)
net = MNIST.build().to(pipe.device, memory_format=torch.channels_last)
batches = ((fold.encode(images), labels) for images, labels in data.batches(digits, band["batch"]))
run = train(net, schedule, FLOW, batches, TrainConfig(steps=600), null=net.text_encoder.null)
todo = budget(full=600, smoke=12)

losses, curve, rows = [], [], []
screen = display(drawing(curve, rows), display_id=True)
for progress in islice(run, todo):
    losses.append(float(progress.loss))
    curve.append(running_mean(losses))
    if progress.step % (todo // 4) == 0:
        mine = TextToImage(MNIST, progress.net, pipe.device)
        rows.append((progress.step, mine.decode(mine.latents(DIGITS, steps=10, seed=0))))
    if progress.step % 30 == 0 or progress.step == todo:
        screen.update(drawing(curve, rows))

# %%
marks = [row for row in zip(band["steps"], band["low"], band["high"], strict=True) if row[0] <= todo]
inside = [low <= curve[step - 1] <= high for step, low, high in marks]
print(f"loss at the end {curve[-1]:.3f}; inside the band at {sum(inside)} of {len(inside)} marks")

# %% [markdown]
# **Read the curve like this.** A loss that stays above the band: the network is not learning what it is asked for. Look at the target, at the
# time it is told, and at the range of the pictures. A loss *below* the band is as bad a sign: the task has
# become too easy, as with pictures in [0, 1], or a network that gets to see the answer. A loss that jumps within the band is what part 5
# predicts. And compare the rows of digits: from the second on, the loss hardly tells them apart.
#
# The judge, a network that reads digits, can count how many of ours it takes for the digit that was asked for:

# %%
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier

judge = load_classifier("judge", pipe.device)
wanted = torch.arange(10).repeat(budget(full=10, smoke=1))
for name, model in {"yours": mine, "shipped": pipe}.items():
    drawn = model.decode(model.latents([str(d) for d in wanted.tolist()], steps=10, seed=100))
    _, answers = judged(judge, drawn * 2 - 1)
    print(f"{name:8} {(answers == wanted).double().mean():.0%} of {len(wanted)} read as the digit asked for")

# %% [markdown]
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | noise | $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ | {{schedules.add_noise: return alpha * x0 + sigma * eps}} |
# | what a network may be asked for | $a\, x_0 + b\, \varepsilon$ | {{predictions.target: return a * x0 + b * eps}} |
# | back to the picture | $\hat{x}_0 = (b\, x_t - \sigma\, \text{out}) / (b\, \alpha - a\, \sigma)$ | {{predictions.to_x0: return (b * x - sigma * out) / determinant}} |
# | the best guess: how likely each point is | $\text{softmax}(-\lVert x_t - \alpha x_0 \rVert^2 / 2 \sigma^2)$ | {{ideal.ideal: torch.softmax(-squares / (2 * variance), dim=1)}} |
# | the loss | $\lVert \text{out} - (a\, x_0 + b\, \varepsilon) \rVert^2$, the mean | {{loss.loss: return F.mse_loss(out, target(pred, x0, eps, *schedule.at(t, x0)))}} |
# | the average of the weights | $\bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta$ | {{optimise.update: mean.lerp_(new, 1 - decay)}} |
# | one step of the walk | $x + d\alpha\, \hat{x}_0 + d\sigma\, \hat\varepsilon$ | {{samplers.euler}} |

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 · The loss
# *easy, 4 minutes.* Write the loss of a network that predicts the noise, for any schedule. `net(x, t)` takes noisy pictures (B, C, H, W) and their
# times (B,), and answers in the shape of the pictures. `x0` and `eps` are (B, C, H, W); `alpha` and `sigma` have the shape
# (B, 1, 1, 1) already. The result is a single number, the mean squared error, as a tensor.
#
# <details><summary>Hint</summary>
# Noise, ask, compare. What does the network get to see, and what is its answer compared with?
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
# ### Exercise 2 · The picture behind the noise
# *easy, 3 minutes.* A network has looked at `x` (B, C, H, W) and says that the noise in it is `eps_hat`, of the same shape. `alpha` and `sigma` are (B, 1, 1, 1).
# Which picture does it believe in? The result has the shape of `x`.
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
# *medium, 6 minutes.* The same for a network that says $v = \alpha \varepsilon - \sigma x_0$, on a schedule that preserves variance: $\alpha^2 + \sigma^2 = 1$.
# All arguments have the shapes of exercise 2. The result does not need a division, and that is the charm of $v$.
#
# <details><summary>Hint</summary>
# You want to get rid of $\varepsilon$. It is in $x$ with the factor $\sigma$, and in $v$ with the factor $\alpha$: by what do you multiply the two, so that
# the difference has none left?
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
# ### Exercise 6 · Catch the bug
# *medium, 8 minutes.* Now you write the test, and the check hands it functions: two that do exercise 2 right, and some that are each wrong in one way.
# `x0_from_eps` is one of them, with the arguments of exercise 2. Return True if it is right, and False, or let an `assert` fail, if it is not.
#
# <details><summary>Hint</summary>
# You know an $x_0$ and an $\varepsilon$ if you make them yourself. And a function that goes wrong for several images may be right for a single one.
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
# ### Exercise 4 · The average of the weights
# *medium, 8 minutes.* While a network trains, its weights tremble. One draws with their exponential moving average, which after every training step becomes
# `decay` times itself plus `1 - decay` times the new weights, and which begins with the weights before training.
#
# `begin()` gives you two things: `weights`, a dict of tensors, and `training_step`, a function without arguments. Call `begin` once and
# `training_step()` `n` times. Like an optimizer, it changes the tensors in `weights` in place. Return the average, a dict with the same names.
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
# ### Exercise 5 · The best guess there is
# *hard, 12 minutes.* Write the ideal denoiser. `x` (B, D) are noisy points, `points` (N, D) are all the clean ones there are, `alpha` and `sigma` are
# numbers. Every clean point $p$ is as likely to be the origin of $x$ as the Gaussian of standard deviation $\sigma$ around $\alpha p$ is high at
# $x$, which is proportional to
#
# $$\exp\left(-\frac{\lVert x - \alpha p \rVert^2}{2 \sigma^2}\right)$$
#
# Divide by the sum over all $p$, and you have probabilities. The result, (B, D), is the mean of the points under these.
#
# <details><summary>Hint</summary>
# `x[:, None] - points[None]` has the shape (B, N, D). And `torch.softmax` is exp and division in one.
# </details>


# %%
def best_guess(x, points, alpha, sigma):
    """The mean of the points that x could have come from, each as much as it is likely: (B, D)."""
    ### BEGIN SOLUTION
    squares = ((x[:, None] - alpha * points[None]) ** 2).sum(2)  # (B, N)
    share = torch.softmax(-squares / (2 * sigma**2), dim=1)
    return share @ points
    ### END SOLUTION


# %%
check.l02_best_guess(best_guess)

# %% [markdown]
# ## Where to go next
#
# You can train a denoiser, and you have walked back with the simplest of all steps. Lesson 03 asks how to walk well: with how few steps, with or
# without fresh noise, and what goes wrong on the way. To train longer, run `minidiff train mnist --minutes 10` in a terminal.
