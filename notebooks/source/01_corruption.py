# %% [markdown]
# # 01 · How does noise destroy a picture, and what is left at time t?
#
# To learn how a picture is drawn out of noise, one first has to watch it drown. This half of the story needs no network and no
# training: it is one line of arithmetic. But everything later leans on it, and most bugs in diffusion code are bugs in this line.
#
# | | |
# |---|---|
# | You will see | digits and photographs dissolve, step by step and in one jump, and at which point nobody can read them any more |
# | It costs | about a minute on 2 CPU cores; a GPU is not needed |
# | You need | a little Python with torch; what a mean and a standard deviation are |

# %%
import math

import matplotlib.pyplot as plt
import torch

from minidiff import data, image_files
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, show, style
from minidiff.diffusion import SCHEDULES, cosine, linear
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier

style()
digits = data.mnist("validation")
photos = data.cifar_samples()

# %%
times = torch.linspace(0, 1, 9)
generator = torch.Generator().manual_seed(0)


def row(picture):
    """One picture at nine times, in the range of a screen."""
    pictures = picture.expand(9, *picture.shape)
    noise = torch.randn(pictures.shape, generator=generator)
    return cosine().add_noise(pictures, noise, times).clamp(-1, 1) / 2 + 0.5


show(image_files.sheet(row(digits.images[7]), columns=9, zoom=2))
show(image_files.sheet(row(photos.images[6]), columns=9, zoom=2))

# %% [markdown]
# From left to right, time $t$ goes from 0, the clean picture, to 1, noise alone. A digit survives for long. A photograph loses its
# fine texture at once and its large shapes last. Both end as the same thing, which is the point: **whatever
# the picture was, at $t = 1$ it looks like a draw from one and the same known distribution**, and from that we can draw as many
# as we like.
#
# ## One pixel by hand
#
# Take three pixels: paper ($-1$), gray (0), ink (1). One step of noise shrinks them a little, and adds a little
# random number to each. How much is said by one small number, $\beta$ (beta):
#
# $$x \leftarrow \sqrt{1 - \beta}\; x + \sqrt{\beta}\; \varepsilon, \qquad \varepsilon \text{ drawn from a standard normal distribution}$$

# %%
beta = 0.2
x = torch.tensor([-1.0, 0.0, 1.0])
eps = torch.randn(3, generator=torch.Generator().manual_seed(1))
print("pixels        ", x)
print("shrunk        ", math.sqrt(1 - beta) * x)
print("noise         ", eps)
print("one step later", math.sqrt(1 - beta) * x + math.sqrt(beta) * eps)

# %% [markdown]
# ## A thousand small steps
#
# The first diffusion models took a thousand such steps, with a $\beta$ that grows from 0.0001 to 0.02 (Ho et al. 2020). Here
# they are, on an eight, one after the other. Nothing is hidden: this loop is the whole forward process.

# %%
betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
generator = torch.Generator().manual_seed(0)
x0 = digits.images[[20]].double()
x, kept, noises = x0, [x0], []
for beta in betas:
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x = (1 - beta).sqrt() * x + beta.sqrt() * eps
    kept.append(x)
    noises.append(eps)

shown = [0, 50, 100, 200, 300, 400, 600, 1000]
figure, axes = plt.subplots(1, len(shown), figsize=(8, 1.4))
for axis, step in zip(axes, shown, strict=True):
    axis.imshow(kept[step][0, 0], vmin=-1.5, vmax=1.5)
    axis.set(xticks=[], yticks=[], title=f"{step} steps")
plt.show()

# %% [markdown]
# ## One jump
#
# To train a network we shall want a picture at step 600 without walking there. Look at two steps:
#
# $$x_2 = \sqrt{1-\beta_2}\,\big(\sqrt{1-\beta_1}\,x_0 + \sqrt{\beta_1}\,\varepsilon_1\big) + \sqrt{\beta_2}\,\varepsilon_2$$
#
# The picture has been multiplied by both factors. And the two noises, independent of each other, have become *one*: the sum of two
# normal random numbers is normal, and their variances add. So after any number of steps there is only ever some picture and
# some noise:
#
# $$x_t = \alpha_t\,x_0 + \sigma_t\,\varepsilon, \qquad \alpha_t = \prod_{s \le t}\sqrt{1-\beta_s}, \qquad \sigma_t = \sqrt{1-\alpha_t^2}$$
#
# A word about names. Many papers call $1-\beta$ alpha, and its product "alpha-bar". In this course $\alpha$ is the factor in front of the
# picture, so $\alpha^2$ is their alpha-bar. Mixing these up is one of the most common mistakes there is.
#
# Is the jump really the same as the walk? We can collect the noise of the 600 steps above into the one $\varepsilon$ that the
# formula speaks of, jump with it, and compare.

# %%
steps = 600
alpha = (1 - betas[:steps]).sqrt().prod()
sigma = (1 - alpha**2).sqrt()

one_noise = torch.zeros_like(x0)  # what the noises of all steps have added up to
for beta, eps in zip(betas[:steps], noises, strict=False):
    one_noise = (1 - beta).sqrt() * one_noise + beta.sqrt() * eps
one_noise = one_noise / sigma

jump = alpha * x0 + sigma * one_noise
print(f"alpha = {alpha:.4f}, sigma = {sigma:.4f}")
print(f"largest difference between walk and jump: {(jump - kept[steps]).abs().max():.1e}")
print(f"the collected noise has mean {one_noise.mean():+.2f} and standard deviation {one_noise.std():.2f}")

# %% [markdown]
# The difference is rounding, and the collected noise is as standard normal as 784 numbers can be. From here on nobody walks.
#
# In `minidiff` the two factors live in a `Schedule`, and the jump is `add_noise`. Time runs from 0 to 1, so step 600 of
# 1000 is $t = 0.6$:

# %%
schedule = linear()
library = schedule.add_noise(x0, one_noise, t=0.6)
print(f"by hand and by minidiff: {(library - jump).abs().max():.1e} apart")

# %% [markdown]
# Now you can move time yourself. Beside the picture are the histogram of its pixels and the curve it is heading for.

# %%
show(figures.corruption(digits.images[20], "cosine", t=0.4))

# %%
widgets.corruption()

# %% [markdown]
# *Try:* at which $t$ can you no longer read the digit? Find it for `cosine`, then for `linear`. Is it the same $t$? Is it the same SNR?
# (In the browser, click the slider and use the arrow keys. On GitHub there is only the picture above.)
#
# ## Why the picture is shrunk
#
# Why not simply add noise? Because numbers would grow without end, and a network that works at every $t$ wants inputs
# of one size. Shrinking by $\sqrt{1-\beta}$ makes exactly the room that noise of variance $\beta$ takes. If a pixel has
# variance 1, the next one has
#
# $$(1-\beta)\cdot 1 + \beta \cdot 1 = 1$$
#
# That is why schedules with $\alpha^2 + \sigma^2 = 1$ are called **variance preserving**. Below, the standard deviation of the pixels along the thousand
# steps, under the right rule and under two that people write by accident.

# %%
rules = {
    r"right: $\sqrt{1-\beta}\,x + \sqrt{\beta}\,\varepsilon$": lambda b: ((1 - b).sqrt(), b.sqrt()),
    r"not shrunk: $x + \sqrt{\beta}\,\varepsilon$": lambda b: (1.0, b.sqrt()),
    r"no roots: $(1-\beta)\,x + \beta\,\varepsilon$": lambda b: (1 - b, b),
}
figure, axis = plt.subplots(figsize=(6, 2.8))
for name, factors in rules.items():
    generator, x, spread = torch.Generator().manual_seed(0), digits.images[:20].double(), []
    for beta in betas:
        keep, add = factors(beta)
        x = keep * x + add * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        spread.append(float(x.std()))
    axis.plot(spread, label=name)
axis.set(xlabel="step", ylabel="std of the pixels", ylim=(0, 3.4))
axis.legend(loc="upper left", fontsize=9)
plt.show()

# %% [markdown]
# The digits begin below 1, since most of a digit is paper; the right rule brings them to 1 and holds them there. Without shrinking,
# the pixels grow. Without the roots, the noise that arrives is so faint that the picture fades to gray: $\beta$ is a
# *variance*, and what noise is multiplied by is a *standard deviation*.
#
# ## Schedules: the same walk at another pace
#
# A noise schedule is a choice of $\alpha_t$ and $\sigma_t$. `minidiff` has five. `linear` is the table you just walked; `scaled_linear` is
# Stable Diffusion's; `cosine` is a quarter of a circle; `flow` is a straight line from picture to noise; `edm` never shrinks the
# picture at all and adds noise of up to 80 times its size (shown here scaled back to a screen).

# %%
t, picture = 0.5, digits.images[[20]]
eps = torch.randn(picture.shape, generator=torch.Generator().manual_seed(2))


def screen(x, schedule, t):
    """The picture at unit brightness, which is what a network gets to see."""
    alpha, sigma = schedule.at(t, x)
    return x / (alpha**2 + sigma**2).sqrt()


def side_by_side(time_of, title):
    figure, axes = plt.subplots(1, len(SCHEDULES), figsize=(1.6 * len(SCHEDULES), 2.1))
    for axis, (name, make) in zip(axes, SCHEDULES.items(), strict=True):
        schedule = make()
        t = time_of(schedule)
        axis.imshow(screen(schedule.add_noise(picture, eps, t), schedule, t)[0, 0], vmin=-1.5, vmax=1.5)
        axis.set(xticks=[], yticks=[], title=f"{name}\nt = {float(t):.3f}")
    figure.suptitle(title)
    plt.show()


side_by_side(lambda schedule: 0.5, "at the same time")

# %% [markdown]
# At $t = 0.5$ they are at very different places. What makes two noisy pictures equally hard is not the time but the
# **signal-to-noise ratio**,
#
# $$\text{SNR}(t) = \alpha_t^2 / \sigma_t^2$$
#
# A `Schedule` can be asked for the time at which the ratio $\sigma/\alpha$ has a given value. Take the time at which each schedule
# has SNR = 1, as much picture as noise:

# %%
side_by_side(lambda schedule: schedule.time_of(1.0), "at the same SNR")

pictures = []
for make in SCHEDULES.values():
    schedule = make()
    t = schedule.time_of(1.0)
    pictures.append(screen(schedule.add_noise(picture, eps, t), schedule, t))
gap = max((a - b).abs().max() for a in pictures for b in pictures)
print(f"largest difference between any two: {gap:.1e}")

# %% [markdown]
# Five times, one picture. So a schedule decides only *how long the walk stays at each level of noise*. It is a choice of pace, not of
# path, and lesson 03 will use that: a network trained under one schedule can be walked under another.
#
# The comparison of all schedules, as curves:

# %%
show(figures.schedules(list(SCHEDULES), t=0.5))

# %%
widgets.schedules()

# %% [markdown]
# *Try:* move $t$ to 1. Which schedules still have some picture left? (The tables of betas end at a small $\alpha$ that is not zero. What that does to
# pictures that should be very dark or very bright is a known weakness of Stable Diffusion 1: Lin et al. 2023.)
#
# ## When is the digit gone?
#
# You found by eye at which $t$ you can no longer read the digit. Measured: a thousand digits, noised to many levels, read by the *judge*,
# a small network trained on clean digits. It was never shown noise, so let us give it a competitor who knows all about noise: a reader with
# a perfect memory of ten thousand training digits. It asks of each of them how likely *it* is to have become this noisy picture,
# and answers with the digit that collects the most likelihood. That is the best anyone can do who knows those digits and
# nothing else.

# %%
count, memory = budget(full=1000, smoke=60), budget(full=10_000, smoke=500)
judge, train = load_classifier("judge"), data.mnist("train")
clean, labels = digits.images[:count], digits.labels[:count]
known = train.images[:memory].flatten(1)
share_of_label = torch.nn.functional.one_hot(train.labels[:memory], 10).float()

snrs = torch.logspace(2, -3.5, 12)
scores = {"judge, trained on clean digits": [], f"perfect memory of {memory:,} digits": []}
schedule, generator = cosine(), torch.Generator().manual_seed(0)
for snr in snrs:
    t = schedule.time_of(snr**-0.5)
    alpha, sigma = schedule.at(t, clean)
    noisy = schedule.add_noise(clean, torch.randn(clean.shape, generator=generator), t)
    _, answers = judged(judge, (noisy / alpha).clamp(-1, 1))  # as bright as the digits it knows
    distances = torch.cdist(noisy.flatten(1), alpha * known) ** 2
    likelihood = torch.softmax(-distances / (2 * sigma**2), dim=1) @ share_of_label
    for score, reading in zip(scores.values(), (answers, likelihood.argmax(1)), strict=True):
        score.append(float((reading == labels).double().mean()))

figure, axis = plt.subplots(figsize=(6.5, 3))
for name, score in scores.items():
    axis.plot(snrs, score, marker="o", markersize=4, label=name)
axis.axhline(0.1, color=figures.GRAY, linestyle="--", label="guessing")
axis.set(xscale="log", xlabel="SNR (more noise to the right)", ylabel="digits read right", ylim=(0, 1.03))
axis.invert_xaxis()
axis.legend(fontsize=9)
plt.show()

for name, score in scores.items():
    half = next(snr for snr, value in zip(snrs, score, strict=True) if value < 0.55)
    t = schedule.time_of(half**-0.5)
    print(f"{name}: below 55 % from SNR {half:.3g} on, t = {t:.2f} on the cosine schedule")

# %% [markdown]
# (The perfect memory starts a little below the judge: with hardly any noise it goes by the single most similar digit it knows, and that is
# not always the right one. The judge has learned what makes a digit.)
#
# Two things to take along. First, there is an enormous stretch of noise in which a reader that *expects* noise still reads what the judge
# cannot. Whoever wants to walk back from noise needs a network trained at every level of it. Second, the information does
# not vanish at some moment: it runs out over several powers of ten. The walk back will decide large things early and small things late.
#
# ## What goes first: fine detail
#
# Why does texture die before shape? Split a picture into waves, from broad to fine, and look at how strong each is. Broad
# waves of natural pictures are far stronger than fine ones. Noise is equally strong in all of them. So as noise rises, it
# swallows the waves from the fine end.


# %%
def spectrum(pictures):
    """Mean power of pictures (N, C, H, W) by wave number (waves across the picture), 1 to 15."""
    height, width = pictures.shape[-2:]
    power = torch.fft.fft2(pictures, norm="ortho").abs().square().mean((0, 1))
    waves = torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.fftfreq(width) * width)
    return torch.stack([power[waves.round() == k].mean() for k in range(1, 16)])


figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), sharey=True)
for axis, (name, pictures) in zip(
    axes, {"digits": digits.images[:500], "photographs": photos.images}.items(), strict=True
):
    axis.plot(range(1, 16), spectrum(pictures), marker="o", markersize=4, label="pictures")
    for ratio, color in zip((0.1, 0.5, 2.0), (figures.SKY, figures.ORANGE, figures.RED), strict=True):
        axis.axhline(ratio**2, color=color, linestyle="--", label=f"noise, $\\sigma/\\alpha$ = {ratio:g}")
    axis.set(title=name, yscale="log", xlabel="waves across the picture")
axes[0].set_ylabel("power")
axes[1].legend(fontsize=8)
plt.show()

# %% [markdown]
# Where the blue curve is below a dashed line, the noise is louder than the picture. Read from right to left and you have the order in which a
# picture is drawn when the walk is reversed: first the large shapes, at high noise, then the details.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | the picture at time t, in one jump | $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ | {{schedules.add_noise: return alpha * x0 + sigma * eps}} |
# | all steps multiply | $\alpha_t = \prod_s \sqrt{1 - \beta_s}$ | {{schedules._alphas: return torch.cumprod(1 - betas, dim=0).sqrt()}} |
# | variance is preserved | $\alpha_t^2 + \sigma_t^2 = 1$ | {{schedules.table: torch.sqrt(1 - alphas**2)}} |
# | cosine: a quarter turn | $\alpha_t = \cos(\pi t/2)$ | {{schedules.cosine: torch.cos(half_pi * t)}} |
# | flow: a straight line | $\alpha_t = 1 - t,\ \sigma_t = t$ | {{schedules.flow: lambda t: 1 - t, lambda t: t}} |
# | one time for each picture of a batch | shapes $(B)$ and $(B, C, H, W)$ | {{schedules.broadcast: shape = (-1,) + (1,)}} |
#
# ## Exercises
#
# Write the missing lines, then run the check below. A check does not only say "wrong": it knows the usual mistakes, by having tried them,
# and tells you which one your numbers fit. In `notebooks/exercises/` is this notebook without the solutions.
#
# ### Exercise 1 · Pixels for a network
#
# *easy, 3 minutes.* A file gives you bytes from 0 to 255, in a tensor of dtype `uint8` and any shape. Noise is symmetric around 0, so pictures
# should be too: return them as floats with 0 at $-1$ and 255 at $1$.
#
# <details><summary>Hint</summary>
# What is in the middle of 0 and 255? And what does dividing whole numbers do to fractions, if you convert back?
# </details>


# %%
def to_model(pixels):
    """Bytes from 0 to 255 (uint8, any shape) as floats from -1 to 1, in the same shape."""
    ### BEGIN SOLUTION
    return pixels.float() / 127.5 - 1
    ### END SOLUTION


# %%
check.l01_to_model(to_model)

# %% [markdown]
# ### Exercise 2 · One step of noise
#
# *easy, 3 minutes.* Take one step: given the picture `x`, noise `eps` of the same shape and the number `beta`, return the next picture.
#
# <details><summary>Hint</summary>
# beta is the variance of what is added. What is its standard deviation, and what has to shrink to make room?
# </details>


# %%
def one_step(x, eps, beta):
    """The picture after one more step of noise. x, eps: (B, C, H, W); beta: a number between 0 and 1."""
    ### BEGIN SOLUTION
    return math.sqrt(1 - beta) * x + math.sqrt(beta) * eps
    ### END SOLUTION


# %%
check.l01_one_step(one_step)

# %% [markdown]
# ### Exercise 3 · The table of alphas
#
# *medium, 5 minutes.* From the table of betas, (N,), make the table of alphas, (N,): entry $i$ is what is left of the picture after the
# steps 0 to $i$.
#
# <details><summary>Hint</summary>
# torch.cumprod multiplies up. Then ask yourself whether what you have is alpha or alpha-bar.
# </details>


# %%
def alphas(betas):
    """What is left of the picture after each step: (N,) from betas (N,)."""
    ### BEGIN SOLUTION
    return torch.cumprod(1 - betas, dim=0).sqrt()
    ### END SOLUTION


# %%
check.l01_alphas(alphas)

# %% [markdown]
# ### Exercise 4 · A whole batch, each picture at its own time
#
# *medium, 8 minutes.* In training every picture of a batch gets a time of its own, so `alpha` and `sigma` have shape (B,) while the pictures
# have (B, C, H, W). Return the noisy pictures. This is the exercise with the trap that torch does not warn about.
#
# <details><summary>Hint</summary>
# Broadcasting aligns shapes at the right end. With which axis of the pictures is (B,) aligned, then? It raises no error if that axis happens to
# be B long.
# </details>


# %%
def add_noise(x0, eps, alpha, sigma):
    """Picture k noised with alpha[k] and sigma[k]. x0, eps: (B, C, H, W); alpha, sigma: (B,)."""
    ### BEGIN SOLUTION
    alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
    return alpha * x0 + sigma * eps
    ### END SOLUTION


# %%
check.l01_add_noise(add_noise)

# %% [markdown]
# ### Exercise 5 · The time at which a schedule is this noisy
#
# *hard, 10 minutes.* On the cosine schedule, $\alpha_t = \cos(\pi t/2)$ and $\sigma_t = \sin(\pi t/2)$. At which time does it have a given
# signal-to-noise ratio? Return the times, (N,), for ratios `snr`, (N,). (`Schedule.time_of` finds such times for any schedule by trial; here
# there is a formula.)
#
# <details><summary>Hint</summary>
# What is sigma / alpha as a function of the angle? And how is it related to the SNR?
# </details>


# %%
def cosine_time(snr):
    """The times (N,) at which the cosine schedule has alpha^2 / sigma^2 = snr, (N,)."""
    ### BEGIN SOLUTION
    return torch.atan(1 / snr.sqrt()) * 2 / math.pi
    ### END SOLUTION


# %%
check.l01_cosine_time(cosine_time)

# %% [markdown]
# ## Where to go next
#
# You can drown any picture to any depth. [Lesson 02](02_denoising.ipynb) trains a network to look through the water: shown $x_t$ and $t$, it says
# what is underneath.
