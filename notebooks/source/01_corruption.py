# %% [markdown]
# # 01 · How does noise destroy a picture, and what is left at time t?
#
# A diffusion model makes images by removing noise, so the first thing to understand is the noise. In this lesson you add it: to
# points, digits and photographs, first in a thousand small steps and then in one jump. There is no network yet and nothing to train, only one line of
# arithmetic. Every later lesson uses that line, and it is surprisingly easy to get wrong.
#
# | | |
# |---|---|
# | After this lesson you can | derive $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ from a thousand small steps; implement it for a batch of images; compare noise schedules by their signal-to-noise ratio; say which parts of an image noise hides first |
# | Study time | {{study time}} |
# | Compute time | about a minute on 2 CPU cores (a GPU is not needed) |
# | You need | a little Python with PyTorch; what a mean and a standard deviation are |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from minidiff import data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.figures.page import Page
from minidiff.course.lessons import budget, grid, show, style
from minidiff.diffusion import SCHEDULES, cosine, linear
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier

style()
digits, photos = data.mnist("validation"), data.cifar_samples()
eight = digits.images[[20]]  # (1, 1, 28, 28)


def noise(shape, seed=0):
    """Standard normal noise, the same in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# %%
# folded: one frame of the animation, a cloud of points and a digit at time t
cloud = data.points("spiral")  # (500, 2)
cloud_noise, eight_noise = noise(cloud.shape), noise(eight.shape)


def frame(t):
    schedule = cosine()
    points, digit = schedule.add_noise(cloud, cloud_noise, t), schedule.add_noise(eight, eight_noise, t)
    alpha, sigma = (float(value) for value in schedule.at(t, cloud))
    with Page(724, 312, palette=False) as page:
        square = {"xlim": (-3, 3), "ylim": (-3, 3), "xticks": [], "yticks": []}
        axes = page.axes(16, 36, 252, 252, title="a cloud of points", **square)
        axes.scatter(*points.T, c=cloud.norm(dim=1), cmap="viridis", s=11, lw=0)
        page.picture(digit[0] / 2 + 0.5, 292, 36, 252).set_title("a digit")
        bars = page.axes(604, 36, 108, 230, ylim=(0, 1.02), title=f"t = {t:.2f}")
        bars.bar(["image", "noise"], [alpha, sigma], color=[figures.BLUE, figures.ORANGE])
        return page.image()


# %% [markdown]
# ## What noise does

# %%
show(
    [frame(t) for t in torch.linspace(0, 1, 26).tolist()],
    still=10,
    alt="Animation: the points of a spiral drift apart into a round cloud while a handwritten eight sinks into gray noise; "
    "a bar for the image falls and a bar for the noise rises.",
    caption="Watch the colours: a point's colour says where on the spiral it started.",
)

# %% [markdown]
# Each point of the spiral drifts to a random place of its own. The digit does exactly the same: its 28×28 pixels are 784
# coordinates, so it is a single point in 784 dimensions, drifting.
#
# The **forward process** replaces data by noise little by little, from time $t = 0$, where the data are clean, to $t = 1$, where only noise is left.
# By then the cloud is round and its colours are mixed. Where a point is no longer tells you where it came from.
#
# This is what makes generation possible. Whatever the data were, at $t = 1$ they look like samples of one known distribution, and from that we can draw as many as we like. In
# the **standard normal distribution**, every coordinate of a point (every pixel of an image) is an independent random number from a bell curve with mean 0 and standard deviation 1.
#
# Before you run the next cell: a digit and a photograph get the same amount of noise. Which one is unrecognisable first? And what does the photograph lose
# first?

# %%
times = torch.linspace(0, 1, 6)
rows = []
for x0 in (F.pad(digits.images[7], (2, 2, 2, 2), value=-1), photos.images[6]):  # both 32x32 pixels
    six = x0.expand(6, *x0.shape)
    rows.append(cosine().add_noise(six, noise(six.shape), times) / 2 + 0.5)  # from [-1, 1] to [0, 1]

grid(
    rows,
    ["digit", "photograph"],
    [f"t = {t:.1f}" for t in times],
    alt="A digit and a photograph of a car at six times from clean to pure noise.",
    caption="Compare the two rows at t = 0.4 and 0.6.",
)

# %% [markdown]
# <details><summary>Answer</summary>
# The photograph. Its fine texture disappears almost at once and its large, smooth areas last longest. The digit stays readable longer, because
# it consists of a few broad strokes. The last section turns "fine" and "broad" into numbers.
# </details>
#
# ### Exercise 1 · Pixels for a network
#
# Write the missing lines and run the check below. It does more than say "wrong": it has tried the usual mistakes
# itself, and tells you which of them gives your numbers. (`notebooks/exercises/` has this lesson without the solutions.)
#
# *easy, 3 minutes.* A file gives you bytes from 0 to 255, in a tensor of dtype `uint8` and of any shape. Noise is symmetric around 0, so images
# should be too: return floats, with 0 mapped to $-1$ and 255 to $1$.
#
# <details><summary>Hint</summary>
# Which number lies halfway between 0 and 255? And what happens to fractions if you convert back to whole numbers?
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
# ## One step, by hand
#
# Take three pixels: one of background ($-1$), one gray (0), one of ink ($1$). A step of the forward process does two things. It shrinks all three a little, and it
# adds a small random number to each.


# %%
# folded: pixels on a number line, one line for each stage
def number_line(stages):
    figure, axis = plt.subplots(figsize=(7, 2))
    heights = list(range(len(stages)))[::-1]
    colours = figures.BLUE, figures.GREEN, figures.ORANGE
    for pixel, colour in zip(torch.stack(list(stages.values())).T, colours, strict=True):
        axis.plot(pixel, heights, color=colour, lw=1, alpha=0.5)
        axis.scatter(pixel, heights, color=colour, s=50, zorder=3)
    axis.set(yticks=heights, yticklabels=list(stages), ylim=(-0.4, 2.4), xlim=(-1.3, 1.3), xlabel="value of the pixel")
    return figure


# %%
beta = 0.2
x = torch.tensor([-1.0, 0.0, 1.0])
eps = noise(3, seed=1)
shrunk = math.sqrt(1 - beta) * x
noisy = shrunk + math.sqrt(beta) * eps
for name, values in {"pixels": x, "shrunk": shrunk, "eps": eps, "one step later": noisy}.items():
    print(f"{name:15}", "  ".join(f"{value:7.4f}" for value in values))

show(
    number_line({"pixels": x, "shrunk": shrunk, "noise added": noisy}),
    alt="Three dots at -1, 0 and 1 on a number line; in the second line they are closer to 0; in the third each "
    "has moved by another amount.",
    caption="Read from top to bottom: the outer two pixels move towards 0 (the middle one is there already), then each "
    "pixel is pushed by a random number of its own.",
)

# %% [markdown]
# How much they shrink and how much noise they get is set by one small number, $\beta$ (beta), here 0.2:
#
# $$x \leftarrow \sqrt{1 - \beta}\; x + \sqrt{\beta}\; \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, 1) \text{ for each pixel}$$
#
# A step needs only the image before it and fresh noise. A sequence in which each state depends only on the one before is called a **Markov chain**.
#
# ### Exercise 2 · One step of noise
#
# *easy, 3 minutes.* Take one step: from the image `x`, noise `eps` of the same shape and the number `beta`, return the next image.
#
# <details><summary>Hint</summary>
# beta is the variance of what is added. What is its standard deviation? And what has to shrink to make space for it?
# </details>


# %%
def one_step(x, eps, beta):
    """The image after one more step of noise. x, eps: (B, C, H, W); beta: a number between 0 and 1."""
    ### BEGIN SOLUTION
    return math.sqrt(1 - beta) * x + math.sqrt(beta) * eps
    ### END SOLUTION


# %%
check.l01_one_step(one_step)

# %% [markdown]
# ## A thousand small steps
#
# The idea comes from [Sohl-Dickstein et al. 2015](https://arxiv.org/abs/1503.03585). [Ho et al. 2020](https://arxiv.org/abs/2006.11239), whose model, DDPM, made it popular,
# take a thousand steps, with $\beta$ growing evenly from 0.0001 to 0.02. Nothing is hidden in the next cell: its loop is the whole forward process.

# %%
betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
generator = torch.Generator().manual_seed(0)
x0 = eight.double()
x, kept, noises = x0, [x0], []
for beta in betas:
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x = (1 - beta).sqrt() * x + beta.sqrt() * eps
    kept.append(x)
    noises.append(eps)

shown = [0, 50, 100, 200, 300, 400, 600, 1000]
grid(
    [[kept[step][0] / 2 + 0.5 for step in shown]],
    titles=[f"{step} steps" for step in shown],
    alt="A handwritten eight after 0, 50, 100, 200, 300, 400, 600 and 1000 steps of noise; it fades into noise.",
    caption="After how many steps would you no longer call it an eight?",
)

# %% [markdown]
# ## One jump
#
# To train a network we shall need images at step 600 by the million, and cannot take 600 steps for each. Is there a shortcut? Follow one pixel
# of ink, $x_0 = 1$, through the thousand steps, twenty thousand times.
#
# Before you run it: after 600 steps, what shape will the histogram of the twenty thousand pixels have, and where will its centre be?

# %%
pixels = torch.ones(20_000)
paths = [pixels]
for beta in betas:
    pixels = (1 - beta).sqrt() * pixels + beta.sqrt() * torch.randn(20_000, generator=generator)
    paths.append(pixels)
paths = torch.stack(paths)  # (1001, 20_000)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(3, 1), sharey=True)
left.plot(paths[:, :20], lw=0.6, color=figures.BLUE, alpha=0.6)
left.axvline(600, color=figures.ORANGE)
left.set(xlabel="step", ylabel="value of the pixel", title="20 of the 20,000 pixels")
right.hist(paths[600].numpy(), bins=40, orientation="horizontal", color=figures.ORANGE)
right.set(xlabel="how many", title="all of them at step 600")
show(
    figure,
    alt="Left: twenty jagged paths leave the value 1 and fan out around 0. Right: the histogram at step 600 is a "
    "bell centred a little above 0.",
    caption="Every path begins at 1. At the orange line all twenty thousand pixels form the histogram on the right.",
)
print(f"at step 600: mean {paths[600].mean():.3f}, standard deviation {paths[600].std():.3f}")

# %% [markdown]
# <details><summary>Answer</summary>
# A bell curve: the normal distribution again. Its centre is what shrinking has left of the 1, and its width is what six hundred small noises have added up to.
# </details>
#
# So six hundred steps seem to act like a single large one. To see why, write out two steps:
#
# $$x_2 = \sqrt{1-\beta_2}\,\big(\sqrt{1-\beta_1}\,x_0 + \sqrt{\beta_1}\,\varepsilon_1\big) + \sqrt{\beta_2}\,\varepsilon_2$$
#
# The image has been multiplied by both square roots. The two noises are independent normal random numbers; their sum is normal too, and their variances add:
#
# $$(1-\beta_2)\,\beta_1 + \beta_2 = 1 - (1-\beta_1)(1-\beta_2)$$
#
# The variance of the noise is 1 minus the square of the factor in front of $x_0$. Every further step preserves this. So after any number $n$ of steps we have
# one factor times the image, plus another factor times *one* standard normal noise:
#
# $$x_n = \alpha_n\,x_0 + \sigma_n\,\varepsilon, \qquad \alpha_n = \prod_{s=1}^{n}\sqrt{1-\beta_s}, \qquad \sigma_n = \sqrt{1-\alpha_n^2}$$
#
# The **closed form** of the forward process is a formula that gives the noisy image directly from $x_0$, without the steps in between. You have just derived it. In `minidiff`, step $n$ of 1000
# is the time $t = n/1000$, and from here on we write $x_t = \alpha_t\,x_0 + \sigma_t\,\varepsilon$.
#
# A warning about names. In this course $\alpha$ is the factor in front of the image. Many papers write $\alpha_t$ for $1-\beta_t$ and call the product of these **alpha-bar**
# ($\bar\alpha_t$), which is the square of the $\alpha_t$ used in this course.
#
# Does the jump agree with the steps exactly? Collect the noise of the first 600 steps above into the one $\varepsilon$ that the formula needs, jump with it, and compare. In
# `minidiff` the two factors are kept in a `Schedule` and the jump is its method `add_noise`.

# %%
steps = 600
alpha = (1 - betas[:steps]).sqrt().prod()
sigma = (1 - alpha**2).sqrt()

one_noise = torch.zeros_like(x0)  # what the noises of all steps add up to
for beta, eps in zip(betas[:steps], noises, strict=False):
    one_noise = (1 - beta).sqrt() * one_noise + beta.sqrt() * eps
one_noise = one_noise / sigma

jump = alpha * x0 + sigma * one_noise
library = linear().add_noise(x0, one_noise, t=0.6)
print(f"alpha = {alpha:.4f}, sigma = {sigma:.4f}")
print(f"largest difference between 600 steps and one jump: {(jump - kept[steps]).abs().max():.1e}")
print(f"the same for the jump by hand and by minidiff: {(library - jump).abs().max():.1e}")
print(f"the collected noise has mean {one_noise.mean():+.2f} and standard deviation {one_noise.std():.2f}")

# %% [markdown]
# These differences are rounding. Compare alpha and sigma with the mean and standard deviation of the twenty thousand pixels, too. (The mean of so many
# random numbers has a standard error of 0.007; here it is off by two of them, which chance does now and then.) From here on we jump.
#
# ### Exercise 3 · The table of alphas
#
# *medium, 5 minutes.* From the table of betas, (N,), make the table of alphas, (N,): entry $i$, counted from 0, is the factor in front of the
# image after $i + 1$ steps.
#
# <details><summary>Hint</summary>
# torch.cumprod multiplies as it goes. Is what you have now alpha, or alpha-bar?
# </details>


# %%
def alphas(betas):
    """The factor in front of the image after each step: (N,) from betas (N,)."""
    ### BEGIN SOLUTION
    return torch.cumprod(1 - betas, dim=0).sqrt()
    ### END SOLUTION


# %%
check.l01_alphas(alphas)

# %% [markdown]
# ### Exercise 4 · A whole batch, each image at its own time
#
# *medium, 8 minutes.* In training, every image of a batch gets its own time, so `alpha` and `sigma` have shape (B,) while the images
# have (B, C, H, W). Return the noisy images. There is a trap here that PyTorch does not warn you about.
#
# <details><summary>Hint</summary>
# Broadcasting aligns shapes from the right. Which axis of the images is (B,) aligned with, then? If that axis happens to have length B, there is no
# error message.
# </details>


# %%
def add_noise(x0, eps, alpha, sigma):
    """Image k noised with alpha[k] and sigma[k]. x0, eps: (B, C, H, W); alpha, sigma: (B,)."""
    ### BEGIN SOLUTION
    alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
    return alpha * x0 + sigma * eps
    ### END SOLUTION


# %%
check.l01_add_noise(add_noise)

# %% [markdown]
# ## Move time yourself
#
# *SNR* is the signal-to-noise ratio: it compares the strength of the image with that of the noise. The section after the next defines it.

# %%
show(
    figures.corruption(digits.images[20], "cosine", t=0.4),
    alt="A noisy eight at t = 0.4 on the cosine schedule, its alpha, sigma and SNR, and the histogram of its "
    "pixels beside a bell curve.",
    caption="Most pixels are background, left of 0; the ink is the tail on the right. As t grows, the histogram "
    "turns into the black bell curve.",
)

# %%
widgets.corruption()

# %% [markdown]
# *Try:* at which $t$ can you no longer read the digit? Find it for `cosine` and for `linear`. Is it the same $t$? Is it the same SNR?
# (On GitHub there is only the still above.)
#
# <details><summary>Answer</summary>
# The times differ, since <code>linear</code> is much noisier at the same t. The two values of the SNR should be close.
# </details>
#
# ## Why the image is shrunk
#
# Why not simply add noise and leave the image as it is? Here is the standard deviation of the pixels over the thousand steps, under the right rule and under two that people write by accident.

# %%
rules = {
    r"right: $\sqrt{1-\beta}\,x + \sqrt{\beta}\,\varepsilon$": lambda b: ((1 - b).sqrt(), b.sqrt()),
    r"not shrunk: $x + \sqrt{\beta}\,\varepsilon$": lambda b: (1.0, b.sqrt()),
    r"no roots: $(1-\beta)\,x + \beta\,\varepsilon$": lambda b: (1 - b, b),
}
figure, axis = plt.subplots(figsize=(7, 3))
for name, factors in rules.items():
    generator, x, deviations = torch.Generator().manual_seed(0), digits.images[:20].double(), []
    for beta in betas:
        keep, add = factors(beta)
        x = keep * x + add * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        deviations.append(float(x.std()))
    axis.plot(deviations, label=name)
axis.set(xlabel="step", ylabel="standard deviation of the pixels", ylim=(0, 3.4))
axis.legend(loc="upper left", fontsize=9)
show(
    figure,
    alt="Three curves over 1000 steps: the right rule levels off at 1, without shrinking the curve climbs above "
    "3, without roots it falls to almost 0.",
    caption="Only the right rule (blue) settles at 1.",
)

# %% [markdown]
# A network that has to work at every $t$ works best with inputs of the same scale. Shrinking by $\sqrt{1-\beta}$ makes exactly as much space as noise of
# variance $\beta$ fills: if a pixel has variance 1, then after the step it has
#
# $$(1-\beta)\cdot 1 + \beta \cdot 1 = 1$$
#
# A schedule is **variance preserving** if $\alpha_t^2 + \sigma_t^2 = 1$ at every $t$, so that data of variance 1 keep variance 1. The digits start lower, since most of a
# digit is background, and are brought to 1. Without shrinking, pixels grow with every step. A schedule that never shrinks the image, with $\alpha_t = 1$ and a growing $\sigma_t$, is called
# **variance exploding** ([Song et al. 2021](https://arxiv.org/abs/2011.13456)). Without the roots, hardly any noise arrives and the image fades to gray: $\beta$ is a variance, and
# noise has to be multiplied by a standard deviation.
#
# ## Schedules: the same images at another pace
#
# A **noise schedule** is a choice of $\alpha_t$ and $\sigma_t$ for every time $t$. Those of `minidiff` include `linear`, the table you have just used;
# `scaled_linear`, Stable Diffusion's; `cosine`, a quarter of a circle
# (after [Nichol & Dhariwal 2021](https://arxiv.org/abs/2102.09672)); `flow`, a straight line from image to noise ([Lipman et al. 2022](https://arxiv.org/abs/2210.02747),
# [Liu et al. 2022](https://arxiv.org/abs/2209.03003)); and `edm`, which is variance exploding ([Karras et al. 2022](https://arxiv.org/abs/2206.00364)). Here is the same eight with
# the same noise under each of them, scaled to the size that a network is given.

# %%
schedules = {name: make() for name, make in SCHEDULES.items()}
eps = noise(eight.shape, seed=2)


def compare(times, alt, caption):
    """The eight under each schedule, at the time that `times` gives for it: (schedules, 1, 28, 28)."""
    images = []
    for name, schedule in schedules.items():
        alpha, sigma = schedule.at(times[name], eight)
        images.append(schedule.add_noise(eight, eps, times[name])[0] / (alpha**2 + sigma**2).sqrt())
    titles = [f"{name}\nt = {float(times[name]):.3f}" for name in schedules]
    grid([[image / 2 + 0.5 for image in images]], titles=titles, side=1.4, alt=alt, caption=caption)
    return torch.stack(images)


halfway = compare(
    dict.fromkeys(schedules, 0.5),
    alt="The same noisy eight at t = 0.5 under each schedule: legible under cosine and flow, faint under "
    "scaled_linear, lost under linear and edm.",
    caption="All of these are at t = 0.5.",
)

# %% [markdown]
# The time alone does not say how noisy an image is. (Two of them agree: halfway, `cosine` and `flow` both have $\alpha = \sigma$.) What matters is how strong the image is compared with the noise. The **signal-to-noise ratio** (SNR) of a noisy image is the
# variance of what is left of the clean image, divided by the variance of the noise. For data of variance 1 it is
#
# $$\text{SNR}(t) = \alpha_t^2 / \sigma_t^2$$
#
# This course, like most papers, uses this formula for all data. Digits have a variance of about 0.38, so at "SNR 1" the variance of the noise is in fact more than twice that of the image.
#
# `Schedule.time_of` finds the time at which $\sigma/\alpha$ has a given value. Now we give each schedule the time at which its SNR is 1.
#
# Before you run it: how different will the images be?

# %%
equal = compare(
    {name: schedule.time_of(1.0) for name, schedule in schedules.items()},
    alt="The same noisy eight under each schedule at SNR 1; all of the images look identical.",
    caption="The times in the titles differ widely. Look for a difference in the images.",
)
print(f"largest difference between any two: {(equal[:, None] - equal).abs().max():.1e}")

# %% [markdown]
# <details><summary>Answer</summary>
# Not at all: the difference is rounding. At equal SNR every schedule gives the same image, up to a factor.
# </details>
#
# So all schedules pass through the same noisy images, up to a factor; only how far they go at either end differs. A schedule decides only *how much time is spent at each noise level*. It is a choice of pace, not of path.
# Lesson 03 makes use of this: a network trained with one schedule can be sampled with another. ([Kingma et al. 2021](https://arxiv.org/abs/2107.00630) show what it means for training.)
#
# ### Exercise 5 · The time at which a schedule is this noisy
#
# *hard, 10 minutes.* On the cosine schedule, $\alpha_t = \cos(\pi t/2)$ and $\sigma_t = \sin(\pi t/2)$. At which time does it have a given
# signal-to-noise ratio? Return the times, (N,), for the ratios `snr`, (N,). (`Schedule.time_of` searches for the time on any schedule; for this
# one there is a formula.)
#
# <details><summary>Hint</summary>
# Write sigma / alpha as a function of the angle. How is it related to the SNR?
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
# ### All schedules as curves

# %%
show(
    figures.schedules(list(SCHEDULES), t=0.5),
    alt="Three panels over time t with one curve for each schedule: alpha falls, sigma rises, and the logarithm "
    "of the SNR falls.",
    caption="The gray line is t = 0.5. In the right panel, a lower curve means more noise.",
)

# %%
widgets.schedules()

# %% [markdown]
# *Try:* move $t$ to 1. Under which schedules is something of the image left?
#
# <details><summary>Answer</summary>
# Under <code>scaled_linear</code> (alpha is about 0.07), and very little under <code>linear</code> and <code>edm</code>. So Stable Diffusion 1 never saw pure noise in training, but
# has to start from it when it generates. That is why very dark and very bright images come out too gray
# (<a href="https://arxiv.org/abs/2305.08891">Lin et al. 2023</a>).
# </details>
#
# ## When is the digit gone?
#
# Test yourself against three programs:

# %%
levels = [1.0, 0.3, 0.1]
quiz = digits.images[100:124].reshape(3, 8, 1, 28, 28)  # eight images for each row
noisy_quiz = []
for level, row in zip(levels, quiz, strict=True):
    t = cosine().time_of(level**-0.5)
    noisy_quiz.append(cosine().add_noise(row, noise(row.shape, seed=3), t))

grid(
    [row / 2 + 0.5 for row in noisy_quiz],
    [f"SNR {level:g}" for level in levels],
    alt="Three rows of eight noisy digits each. The first row can be read with some effort, the last looks like "
    "pure noise.",
    caption="Each row shows eight different images. Write down what you read before you go on.",
)

# %% [markdown]
# The first is a small network, the course's *evaluation classifier*, which was trained on clean digits.
# The second is the same network, but each pixel is first averaged with its eight neighbours. The third remembers ten
# thousand training digits perfectly, and for each of them computes a likelihood. The **likelihood** of a clean image is the probability density of the noisy image, given that this clean image is what lies
# underneath. Here that is
#
# $$p(x_t \mid x_0) \propto \exp\!\big(-\lVert x_t - \alpha_t x_0 \rVert^2 / 2\sigma_t^2\big)$$
#
# Then it adds up the likelihoods of all zeros, of all ones, and so on, and answers with the largest sum.
#
# Before you run it: rank the three. Will blurring help or hurt?

# %%
memory = budget(full=10_000, smoke=500)
classifier, train = load_classifier("judge"), data.mnist("train")
known, known_labels = train.images[:memory].flatten(1), F.one_hot(train.labels[:memory], 10).float()


def plain(x, alpha, sigma):
    return judged(classifier, x / alpha)[1]  # divided by alpha: as bright as the digits it was trained on


def blurred(x, alpha, sigma):
    return judged(classifier, F.avg_pool2d(x / alpha, 3, stride=1, padding=1))[1]


def from_memory(x, alpha, sigma):
    squares = torch.cdist(x.flatten(1), alpha * known) ** 2  # (B, memory)
    return (torch.softmax(-squares / (2 * sigma**2), dim=1) @ known_labels).argmax(1)


readers = {"classifier": plain, "classifier after a blur": blurred, f"memory of {memory:,} digits": from_memory}
for level, row, labels in zip(levels, noisy_quiz, digits.labels[100:124].reshape(3, 8).tolist(), strict=True):
    print(f"SNR {level:<4g}{'':22}", *labels)
    for name, read in readers.items():
        answers = read(row, *cosine().at(cosine().time_of(level**-0.5), row)).tolist()
        print(f"   {name:27}", *(a if a == label else "·" for a, label in zip(answers, labels, strict=True)))

# %% [markdown]
# The first line of each block is the truth; a dot is a wrong answer. Eight digits are few, so here are a thousand, at twelve noise levels.

# %%
count, snrs = budget(full=1000, smoke=60), torch.logspace(2, -3.5, 12)
clean, labels = digits.images[:count], digits.labels[:count]
generator, right = torch.Generator().manual_seed(0), {name: [] for name in readers}
for snr in snrs:
    t = cosine().time_of(snr**-0.5)
    noisy = cosine().add_noise(clean, torch.randn(clean.shape, generator=generator), t)
    for name, read in readers.items():
        right[name].append(float((read(noisy, *cosine().at(t, noisy)) == labels).double().mean()))

figure, axis = plt.subplots(figsize=(7, 3.2))
for name, fractions in right.items():
    axis.plot(snrs, fractions, marker="o", markersize=4, label=name)
axis.axhline(0.1, color=figures.GRAY, linestyle="--", label="guessing")
axis.set(xscale="log", xlabel="SNR (more noise to the right)", ylabel="fraction read correctly", ylim=(0, 1.03))
axis.invert_xaxis()
axis.legend(fontsize=9)
show(
    figure,
    alt="Accuracy of three readers against falling SNR: the plain classifier fails first, after a blur it lasts "
    "longer, and the reader with a memory lasts longest.",
    caption="From SNR 3 to 0.1 the memory (green) still reads most of the digits, and the plain classifier (blue) few of them.",
)

# %% [markdown]
# <details><summary>Answer</summary>
# From worst to best: the classifier, the classifier after a blur, the memory; only at the left end, with hardly any noise, does the memory come last. Blurring helps a great deal. The noise of neighbouring pixels is independent and averages out, while a stroke is wider than one pixel and survives. A blur is the simplest denoiser there is.
# </details>
#
# Were the hidden digit one of the ten thousand, no reader could beat the memory. But these digits are held out: with hardly any noise, the memory goes by the
# most similar digit it knows, while the classifier has learned what makes a digit.
#
# Remember two things. Noise hides a digit from a reader that does not expect noise long before the information is gone, so we need
# a network trained at every noise level. And information does not vanish at some moment $t$; it runs out gradually, over several powers of ten of the SNR.
#
# ## What goes first: fine detail
#
# *May be skipped at first reading.*
#
# Any image is a sum of waves, some broad and some fine. Here is a photograph split in two, at four waves across the image, and the same for a noisy copy of it.


# %%
def waves_across(x):
    """How many waves fit across images (..., H, W), for each of their Fourier coefficients: (H, W)."""
    height, width = x.shape[-2:]
    return torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.fftfreq(width) * width)


photo = photos.images[6]
rows = []
for x in (photo, photo + 0.5 * noise(photo.shape)):
    broad = torch.fft.ifft2(torch.fft.fft2(x) * (waves_across(x) <= 4)).real
    rows.append([x / 2 + 0.5, broad / 2 + 0.5, (x - broad) / 2 + 0.5])

grid(
    rows,
    ["clean", "noisy"],
    ["the image", "= broad waves", "+ fine waves"],
    side=1.6,
    alt="A photograph of a car, its broad waves and its fine waves, clean and with noise. The noise leaves the "
    "broad waves nearly unchanged and covers the fine ones.",
    caption="Compare the two rows in the middle column, then in the right one.",
)

# %% [markdown]
# The broad waves hardly change; the fine ones are buried. The **power spectrum** of an image says how strong it is at each spatial frequency, from broad waves to fine
# ones. That of photographs falls steeply ([Field 1987](https://doi.org/10.1364/JOSAA.4.002379)). Noise that is independent in every pixel is **white noise**: it is equally strong at all frequencies, a
# horizontal line.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
for axis, (name, images) in zip(
    axes, {"digits": digits.images[:500], "photographs": photos.images}.items(), strict=True
):
    power = torch.fft.fft2(images, norm="ortho").abs().square().mean((0, 1))
    frequency = waves_across(images).round()
    axis.plot(
        range(1, 16),
        [float(power[frequency == k].mean()) for k in range(1, 16)],
        marker="o",
        markersize=4,
        label="images",
    )
    for ratio, colour in zip((0.1, 0.5, 2.0), (figures.SKY, figures.ORANGE, figures.RED), strict=True):
        axis.axhline(ratio**2, color=colour, linestyle="--", label=f"noise, $\\sigma/\\alpha$ = {ratio:g}")
    axis.set(title=name, yscale="log", xlabel="waves across the image")
axes[0].set_ylabel("power")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
show(
    figure,
    alt="Power against the number of waves across the image, for digits and for photographs: both fall steeply; "
    "three horizontal lines are noise levels.",
    caption="Where the blue curve is below a dashed line, noise of that strength is louder than the image.",
)

# %% [markdown]
# As noise rises, the dashed line climbs and hides the curve from its right end: fine waves first, broad ones last. Compare the panels at
# $\sigma/\alpha = 0.5$: the digits' curve meets the line at 7 waves, the photographs' between 5 and 6. That is the comparison of the first section in numbers. Sampling runs the other way. As the noise falls, large shapes
# appear first and details last. [Dieleman 2024](https://sander.ai/2024/09/02/spectral-autoregression.html) therefore calls diffusion "spectral autoregression".
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | the image at time t, in one jump | $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ | {{schedules.add_noise: return alpha * x0 + sigma * eps}} |
# | the factors of all steps are multiplied | $\alpha_t = \prod_s \sqrt{1 - \beta_s}$ | {{schedules._alphas: return torch.cumprod(1 - betas, dim=0).sqrt()}} |
# | variance is preserved | $\alpha_t^2 + \sigma_t^2 = 1$ | {{schedules.table: torch.sqrt(1 - alphas**2)}} |
# | cosine: a quarter of a circle | $\alpha_t = \cos(\pi t/2)$ | {{schedules.cosine: torch.cos(half_pi * t)}} |
# | flow: a straight line | $\alpha_t = 1 - t,\ \sigma_t = t$ | {{schedules.flow: lambda t: 1 - t, lambda t: t}} |
# | one time for each image of a batch | shapes $(B)$ and $(B, C, H, W)$ | {{schedules.broadcast: shape = (-1,) + (1,) * (like.ndim - 1)}} |
#
# ## What you can do now
#
# You can bring any image to any noise level in one line, say what a schedule changes and what it does not, and predict which details go first. What is missing is the way back:
# [lesson 02](02_denoising.ipynb) trains a network that is given $x_t$ and $t$, and estimates the clean image. How to choose a schedule is still being studied: the larger the image,
# the more noise it takes to hide the same shape ([Hoogeboom et al. 2023](https://arxiv.org/abs/2301.11093)).
#
# ## Further reading
#
# - [Sohl-Dickstein et al. 2015, *Deep Unsupervised Learning using Nonequilibrium Thermodynamics*](https://arxiv.org/abs/1503.03585): where the forward process comes from.
# - [Ho et al. 2020, *Denoising Diffusion Probabilistic Models*](https://arxiv.org/abs/2006.11239): the thousand steps of this lesson; equation 4 is the jump.
# - [Nichol & Dhariwal 2021, *Improved Denoising Diffusion Probabilistic Models*](https://arxiv.org/abs/2102.09672): why the linear table wastes its last steps, and the cosine schedule.
# - [Song et al. 2021, *Score-Based Generative Modeling through Stochastic Differential Equations*](https://arxiv.org/abs/2011.13456): variance preserving, variance exploding, and infinitely small steps.
# - [Kingma et al. 2021, *Variational Diffusion Models*](https://arxiv.org/abs/2107.00630): diffusion written in terms of the SNR alone.
# - [Karras et al. 2022, *Elucidating the Design Space of Diffusion-Based Generative Models*](https://arxiv.org/abs/2206.00364): the choices of several papers side by side in one table, and `edm`.
# - [Lipman et al. 2022, *Flow Matching for Generative Modeling*](https://arxiv.org/abs/2210.02747) and [Liu et al. 2022, *Flow Straight and Fast*](https://arxiv.org/abs/2209.03003): straight lines from data to noise.
# - [Lin et al. 2023, *Common Diffusion Noise Schedules and Sample Steps are Flawed*](https://arxiv.org/abs/2305.08891): what the rest of signal at $t = 1$ does to Stable Diffusion's images.
# - [Hoogeboom et al. 2023, *simple diffusion*](https://arxiv.org/abs/2301.11093): how a schedule has to change with the size of the image.
# - [Field 1987, *Relations between the statistics of natural images and the response properties of cortical cells*](https://doi.org/10.1364/JOSAA.4.002379): the falling spectrum of photographs.
# - [Dieleman 2024, *Diffusion is spectral autoregression*](https://sander.ai/2024/09/02/spectral-autoregression.html): the last section of this lesson, at length.
