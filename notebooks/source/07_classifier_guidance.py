# %% [markdown]
# # 07 · How does a classifier steer noise toward a class?
#
# With its gradient. The denoiser in this lesson is unconditional: left alone, it makes whatever digit the noise suggests.
# Beside it sits a small classifier that can read noisy digits, and at every step it answers one question: which tiny change would make this look more like a seven?
# Adding that change is enough to choose the digit. You will see why it is exactly right at one strength, what it does at any other, and how it can be fooled.
#
# | | |
# |---|---|
# | After this lesson you can | derive classifier guidance from Bayes' rule; implement it; say what a guidance scale above 1 does, and what it does not; test whether a classifier knows when it cannot know; tell guidance from conditioning |
# | Study time | {{study time}} |
# | Compute time | 2 to 3 minutes on 2 CPU cores; a GPU is not needed |
# | You need | sampling (lesson 03); the score and the posterior mean $\hat{x}_0$ (lesson 02); the judge (lesson 04); what a gradient is |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
import json

import matplotlib.pyplot as plt
import torch

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures
from minidiff.course.figures.page import Page, signed
from minidiff.course.lessons import budget, grid, show, style
from minidiff.course.tilted import tilted
from minidiff.diffusion import ddpm, flow, guide, heun, uniform
from minidiff.diffusion.ideal import ideal, score
from minidiff.evaluation.judges import judged
from minidiff.files import asset
from minidiff.formats.model_folder import load_classifier
from minidiff.pipeline.classifier_guidance import classifier_log_p

style()
pipe = TextToImage.load("mnist", "cpu")
classifier, judge = load_classifier("noisy_classifier"), load_classifier("judge")
path, digits = flow(), data.mnist("validation")
STEPS = budget(full=20, smoke=4)


# %%
def draw(labels, w, seed=0, guided_by=classifier):
    """One digit for each label, (N, 1, 28, 28) in [-1, 1]: the denoiser is unconditional, only the classifier sees labels."""
    log_p = classifier_log_p(guided_by, labels, pipe.schedule.net_time)
    prompts = ["0"] * len(labels)  # not used: scale=0 is the unconditional prediction
    z = pipe.latents(prompts, scale=0, log_p=log_p, log_p_scale=w, steps=STEPS, seed=seed)
    return (pipe.decode(z) * 2 - 1).cpu()


def sheet(sets, names, labels, **words):
    """The first ten images of each set, a row each."""
    rows = [[image / 2 + 0.5 for image in images[:10]] for images in sets]
    grid(rows, names, [str(label) for label in labels[:10].tolist()], **words)


# %% [markdown]
# Here are ten noise images, each sampled four times. In the first row the classifier is switched off. In the other rows it wants a zero from the first noise, a one from the second, and
# so on; from row to row it may pull harder.
#
# Before you run it: the noise is the same in all four rows. Will the first image become a zero everywhere? And what might be wrong with the last row, where the pull is strongest?

# %%
ten = torch.arange(10)
scales = (0, 1, 4, 16)
sheet(
    [draw(ten, w, seed=7) for w in scales],
    [f"w = {w}" for w in scales],
    ten,
    alt="Four rows of ten digits from the same noise: at w = 0 arbitrary digits, at w = 1 some of those wanted, at 4 and 16 zero to nine in order.",
    caption="The title is the digit that was wanted. Follow one column down: what stays of the first image, and what gives way?",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Without a pull, the noise decides. With a weak one, the classifier gets its way in some columns; with a stronger one, in all or nearly all. Something of the first image may survive: a slant, a loop, the position
# of a stroke. In the last row the strokes are fat. And something is lost that one image each cannot show: many zeros would all look alike. A later section measures it.
#
# </details>
#
# **Classifier guidance** lets a classifier steer an unconditional diffusion model: at every step of sampling, the gradient of the classifier's log-probability is added to
# the score ([Dhariwal and Nichol 2021](https://arxiv.org/abs/2105.05233)). The **guidance scale** $w$ says how hard the classifier may pull: its gradient is multiplied by $w$.
#
# ## By hand: which class is under the noise?
#
# Three clean numbers, all equally likely: $-1$ and $0.1$ belong to class A, $0.8$ to class B. At $t = 0.5$ each of them has become a bell, $x_t = 0.5\,x_0 + 0.5\,\varepsilon$. You see $x_t = 0.2$. Which
# class was it?

# %%
clean, is_b = torch.tensor([-1.0, 0.1, 0.8]), torch.tensor([False, False, True])
alpha, sigma, x = 0.5, 0.5, torch.tensor(0.2, requires_grad=True)  # the gradient will be needed later

likelihood = torch.exp(-((x - alpha * clean) ** 2) / (2 * sigma**2))  # of each clean number
posterior = likelihood / likelihood.sum()
p_b, x0_hat = posterior[is_b].sum(), (posterior * clean).sum()
print("posterior of each clean number:", [round(p, 3) for p in posterior.tolist()])
print(f"p(B | x_t) = {p_b:.3f}     posterior mean of x0 = {x0_hat:.3f}")

# %%
# folded: the three bells, and p(B | x_t)
line = torch.linspace(-1.8, 1.8, 300)
bells = torch.exp(-((line[:, None] - alpha * clean) ** 2) / (2 * sigma**2))
curve = bells[:, is_b].sum(1) / bells.sum(1)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
for k, (number, color) in enumerate(zip(clean.tolist(), (figures.BLUE, figures.BLUE, figures.ORANGE), strict=True)):
    left.plot(line, bells[:, k], color=color, label={0: "class A", 2: "class B"}.get(k))
    left.plot(alpha * number, 1, "o", color=color, clip_on=False)
right.plot(line, curve, color=figures.ORANGE)
for axis in (left, right):
    axis.axvline(0.2, color="black", lw=1, ls="--")
    axis.set_xlabel("$x_t$")
left.text(0.24, 0.06, "$x_t = 0.2$", fontsize=9)
right.plot([0.2], [p_b.item()], "o", color="black")
left.set(title="three clean numbers under noise", ylim=(0, 1.1), ylabel="likelihood", yticks=[0, 0.5, 1])
right.set(title="probability of class B", ylim=(0, 1), ylabel=r"$p(B \mid x_t)$")
left.legend(fontsize=8, loc="upper left")
show(
    figure,
    alt="Left: three overlapping bells at -0.5, 0.05 and 0.4, the last of class B. Right: the probability of class B rises from 0 to nearly 1 with x; at 0.2 it is 0.41.",
    caption="Left: at the dashed line read off the height of each bell. Right: the orange height there, divided by the sum of all three.",
)

# %% [markdown]
# One posterior, two uses. Take its mean, and you have $\hat{x}_0$, the best denoiser there is (lesson 02). Add up the part of one class, and you have the best classifier of noisy numbers there is.
# For small data sets we get both without training anything, and the next section uses both.
#
# Look at the curve on the right. At $x_t = 0.2$ it rises: a slightly larger $x_t$ would make B likelier. The slope of that hill, or rather of its logarithm, is all that guidance needs.
#
# ### Exercise 1 · What the classifier says
#
# *easy, 4 minutes.*
#
# A trained classifier returns logits instead of likelihoods. `logits` has shape $(B, K)$: one number for each of $B$ images and $K$ classes. `labels` has shape $(B,)$: the class that each image should show. Return
# $\log p(\text{label} \mid \text{image})$ for each image, $(B,)$.
#
# <details><summary>Hint</summary>
#
# `log_softmax` turns a row of logits into log-probabilities. Then pick one entry from each row: which two indices does that take?
#
# </details>


# %%
def log_p(logits, labels):
    """The log-probability of each picture's label."""
    ### BEGIN SOLUTION
    return logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    ### END SOLUTION


# %%
check.l07_log_p(log_p)

# %% [markdown]
# ## Bayes' rule, drawn as arrows
#
# Two half-moons, and the class says which one. Every data point carries a narrow Gaussian, so that there is a density between the points too.

# %%
cloud = data.points("moons", budget(full=400, smoke=60)).double()
upper = torch.arange(len(cloud)) % 2 == 1
STD = 0.05  # of the Gaussian around each point
everything, only_upper = ideal(cloud, path, STD), ideal(cloud[upper], path, STD)


def log_p_upper(x, t, x0_hat=None):
    """log p(upper moon | x_t), (B,): the posterior of all points, added up over one class."""
    alpha, sigma = path.at(t, x)
    squares = torch.cdist(x, alpha * cloud).square()  # (B, N)
    log_posterior = torch.log_softmax(-squares / (2 * (alpha**2 * STD**2 + sigma**2)), dim=1)
    return torch.logsumexp(log_posterior[:, upper], dim=1)


# %% [markdown]
# The score of lesson 02 points to where noisy data are denser, whatever their class. The classifier's gradient points to where the upper moon is likelier. Both are exact here.
#
# Before you run it: add the two arrows at every point. Where will the sum lead? And where will the classifier's arrow be shortest?


# %%
# folded: gradient_of, and three fields of arrows
def gradient_of(log_p, x, t):
    """The gradient of log p at each x."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(log_p(x, t, None).sum(), x)[0]


T = 0.3
side = torch.linspace(-0.9, 0.9, 11, dtype=torch.float64)
places = torch.cartesian_prod(side, side)
score_all, pull = score(everything, path)(places, T), gradient_of(log_p_upper, places, T)
fields = {
    r"score, $\nabla \log p(x_t)$": score_all,
    r"classifier, $\nabla \log p(\mathrm{upper} \mid x_t)$": pull,
    "their sum": score_all + pull,
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), sharey=True)
for axis, (title, arrows) in zip(axes, fields.items(), strict=True):
    for half, color in ((upper, figures.ORANGE), (~upper, figures.BLUE)):
        axis.scatter(*(0.7 * cloud[half]).T, s=3, color=color)  # where they lie at t = 0.3: alpha is 0.7
    axis.quiver(*places.T, *arrows.T, scale=100, width=0.007, color="black", alpha=0.75)
    axis.set(title=title, xlabel="$x_1$", aspect="equal", xlim=(-1, 1), ylim=(-1, 1))
axes[0].set_ylabel("$x_2$")
show(
    figure,
    alt="Three fields of arrows over two half-moons. The score leads to both moons; the classifier's arrows lead away from the lower moon and vanish on the right of the upper one; the sum leads to the upper moon from everywhere.",
    caption="Orange: the upper moon, faded as at t = 0.3. Blue: the lower one. Arrows in all three panels have the same scale.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The sum leads to the upper moon from everywhere. The classifier's arrows vanish where the class is certain, as on the right of the upper moon, since $\log p$ is flat at 0 there. They are long where the class is
# doubtful, and longest where it is wrong.
#
# </details>
#
# Why add them? Bayes' rule says $p(x_t \mid c) = p(x_t)\, p(c \mid x_t) / p(c)$. The logarithm turns the product into a sum, and the gradient with respect to $x_t$ drops $p(c)$, which does not depend on $x_t$:
#
# $$\nabla \log p(x_t \mid c) = \nabla \log p(x_t) + \nabla \log p(c \mid x_t)$$
#
# Nothing is approximated. So the third field should be the score of the upper moon alone, as if a second model had been trained on nothing else:

# %%
apart = (score_all + pull - score(only_upper, path)(places, T)).abs().max()
print(f"largest difference between the sum and the score of the upper moon alone: {apart:.1e}")

# %% [markdown]
# ### Exercise 2 · A gradient for each image
#
# *easy, 6 minutes.*
#
# `log_p` is a function from images `x`, $(B, C, H, W)$, to $B$ numbers; number $k$ depends on image $k$ only. Return the gradient of each number with respect to its own image, $(B, C, H, W)$.
#
# <details><summary>Hint</summary>
#
# PyTorch differentiates *one* number. Which single number, made of the $B$, has exactly the gradient of number $k$ at image $k$? And `x` has to be told that a gradient will be wanted.
#
# </details>


# %%
def gradient(log_p, x):
    """The gradient of log_p by x, picture by picture."""
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    total = log_p(x).sum()
    return torch.autograd.grad(total, x)[0]
    ### END SOLUTION


# %%
check.l07_gradient(gradient)

# %% [markdown]
# ### From the score to the denoised estimate
#
# A sampler wants $\hat{x}_0$, not a score. Tweedie's formula (lesson 02) connects them: $\nabla \log p(x_t) = (\alpha \hat{x}_0 - x_t) / \sigma^2$. Write it down for both sides of the equation above, multiply
# by $\sigma^2$, divide by $\alpha$, and put the scale $w$ before the classifier:
#
# $$\hat{x}_0^{\text{guided}} = \hat{x}_0 + w \, \frac{\sigma^2}{\alpha} \, \nabla \log p(c \mid x_t)$$
#
# Try it on the three numbers from the beginning.
#
# Before you run it: at $w = 1$ the result must be the posterior mean of a denoiser that knows the class is B. Which number is that?

# %%
(slope,) = torch.autograd.grad(p_b.log(), x)
print(f"the slope of log p(B | x_t) at 0.2: {slope:.3f}")
for w in (0, 1, 2):
    print(
        f"w = {w}: {x0_hat:.3f} + {w} * {sigma**2 / alpha} * {slope:.3f} = {x0_hat + w * sigma**2 / alpha * slope:.3f}"
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# 0.8, the only number in class B. The classifier returns only a probability, yet its slope holds the number. In general, where both are exact, $\frac{\sigma^2}{\alpha}\nabla\log p(c \mid x_t) = E[x_0 \mid x_t, c] - E[x_0 \mid x_t]$:
# guidance moves from one posterior mean to the other, $w$ times as far. At $w = 2$ it overshoots: the estimate is larger than every number in the data.
#
# </details>
#
# In code, `guide` wraps a denoiser, and the result is a denoiser again, so that every sampler can use it. One detail: on the flow schedule $\alpha = 0$ at $t = 1$, and
# you cannot divide by 0, so guided sampling starts at $t = 0.99$.

# %%
guided = guide(everything, log_p_upper, path, scale=1.0)
apart = (guided(places, T) - only_upper(places, T)).abs().max()
print(f"largest difference between guide(...) at w = 1 and the denoiser of the upper moon: {apart:.1e}")

# %% [markdown]
# ### Exercise 3 · From the score to the image
#
# *medium, 8 minutes.*
#
# You are given the estimate `x0_hat` and the gradient of $\log p(c \mid x_t)$, both $(B, C, H, W)$; `alpha` and `sigma`, one for each image, $(B,)$; and a scale `w`. Return the guided estimate, $(B, C, H, W)$. Before you
# type, redo the derivation on paper.
#
# <details><summary>Hint</summary>
#
# Write Tweedie's formula twice, for the old and for the guided estimate, with the same $x_t$. Subtract one from the other: $x_t$ cancels. Then mind the shapes: $(B,)$ does not broadcast against $(B, C, H, W)$ along the images.
#
# </details>


# %%
def move(x0_hat, gradient, alpha, sigma, w):
    """The belief, moved along the classifier's gradient."""
    ### BEGIN SOLUTION
    factor = sigma**2 / alpha
    return x0_hat + w * factor.reshape(-1, 1, 1, 1) * gradient
    ### END SOLUTION


# %%
check.l07_move(move)

# %% [markdown]
# ## What does a scale above 1 sample?
#
# Scale 1 samples the class, exactly. Here are 300 noise points on their way to the upper moon at three scales. Gray, for comparison: the upper moon itself under the noise of that moment.
#
# Before you run it: will the points at $w = 16$ cover the moon too? The whole moon has the right class.

# %%
start = torch.randn(budget(full=300, smoke=40), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
times = uniform(budget(full=30, smoke=6), path).clamp(max=0.99)
states = {}
for w in (1, 4, 16):
    steps = heun(guide(everything, log_p_upper, path, w), start, times, path)
    states[w] = [start, *(step.x for step in steps)]  # states[w][i] belongs to times[i]

# %%
# folded: the animation
noise = torch.randn(upper.sum(), 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def frame(i):
    with Page(740, 270) as page:
        for k, (w, moving) in enumerate(states.items()):
            axes = page.axes(
                10 + 245 * k, 30, 230, 230, title=f"w = {w}", xlim=(-1.8, 2.2), ylim=(-1.8, 2.2), xticks=[], yticks=[]
            )
            axes.scatter(*path.add_noise(cloud[upper], noise, times[i]).T, s=5, color="0.75", lw=0)
            axes.scatter(*moving[i].T, s=7, color=figures.ORANGE, lw=0)
        page.text(12, 6, f"t = {times[i]:.2f}")
        return page.image()


show(
    [frame(i) for i in range(len(times))],
    alt="Animation of three clouds of orange points over gray ones as t falls: at w = 1 they cover the gray moon; at w = 4 and 16 they leave the gray cloud early and end bunched at its right side, partly off it.",
    caption="Orange: guided samples. Gray: noisy data of the class. When do the two part?",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# No. At $w = 1$ orange follows gray all the way. At $w = 16$ the two part while there is still much noise, and the points end crowded on the far side of the moon, away from the lower one; many lie beside the data.
#
# </details>
#
# You will often read that guidance samples "as if the class counted $w$ times". That density has a name. The **tilted density** of a class is $p(x)\,p(c \mid x)^w$, scaled to a total of 1: the density of the data, reweighted
# toward points of which the classifier is sure. Do the samples above come from it?
#
# On the moons you can check, because there it can be sampled exactly. **Rejection sampling** draws from an easy density and keeps each draw with a probability chosen so that those kept are samples of another density.
# Here you draw $x$ from $p(x)$ and keep it with probability $p(c \mid x)^w$.
#
# Before you run it: what will the exact samples look like at $w = 16$?

# %%
torch.manual_seed(0)  # of DDPM's fresh noise
ends = {"exact": {}, "guided, Heun": {}, "guided, DDPM": {}}
for w in states:
    ends["exact"][w] = tilted(cloud, upper, w, STD, n=len(start))
    ends["guided, Heun"][w] = states[w][-1]
    *_, last = ddpm(guide(everything, log_p_upper, path, w), start, times, path)
    ends["guided, DDPM"][w] = last.x
    for name, sets in ends.items():
        apart = torch.pdist(sets[w]).mean()
        off = torch.cdist(sets[w], cloud[upper]).amin(1).mean()
        print(f"w = {w:>2}, {name:<13} mean distance of two points {apart:.2f}, from the nearest data {off:.3f}")

# %%
# folded: exact and guided samples side by side
figure, axes = plt.subplots(3, 3, figsize=(8, 6.2), sharex=True, sharey=True)
for row, (name, sets), color in zip(axes, ends.items(), (figures.GREEN, figures.ORANGE, figures.PURPLE), strict=True):
    for axis, (w, x) in zip(row, sets.items(), strict=True):
        for half, gray in ((upper, "0.6"), (~upper, "0.8")):
            axis.scatter(*cloud[half].T, s=2, color=gray)
        axis.scatter(*x.T, s=5, color=color)
        axis.set(aspect="equal", xlim=(-1.3, 1.3), ylim=(-0.8, 0.8), title=f"{name}, w = {w}")
show(
    figure,
    alt="Three rows of three panels. Exact samples of the tilted density cover the upper moon at w = 1, 4 and 16 alike. Guided samples cover it at w = 1; at 4 and 16 they bunch at its right end, with Heun beside the data, with DDPM on them.",
    caption="Top row: exact samples of p(x) p(upper | x)^w. Below: what guidance samples. Only the first column agrees.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Just like those at $w = 1$, nearly. On clean data the classifier is sure almost everywhere on the moon, $p(c \mid x) \approx 1$, and 1 to the power of 16 is 1.
#
# </details>
#
# So *guidance does not sample the tilted density*. What goes wrong? At any one time, the guided score is the score of a tilted density, that of the noisy data, $p(x_t)\,p(c \mid x_t)^w$. But these densities do not
# fit together: if you add noise to tilted data, you do not get tilted noisy data. Under noise the classifier is unsure even on the right moon:

# %%
for t in (0.0, 0.2, 0.4, 0.6, 0.8):
    x = path.add_noise(ends["exact"][1], start, t)
    print(f"t = {t}: mean p(upper | x_t) of noisy points of the upper moon: {log_p_upper(x, t).exp().mean():.2f}")

# %% [markdown]
# At high noise the classifier doubts, and $w$ multiplies its pull away from everything doubtful. Later it doubts no longer, and nothing brings the points back along the moon.
#
# [Bradley and Nakkiran 2024](https://arxiv.org/abs/2408.09000) prove as much for classifier-free guidance (lesson 09), whose guided score is the same: neither DDPM nor DDIM samples the tilted density, and they differ from each other,
# as the last two rows above do (Heun solves the ODE of DDIM). In the limit of small steps, they show, guided DDPM takes turns: a step of deterministic denoising *for the class*, then a step of Langevin dynamics, random motion that draws the points toward the tilted density *of that noise level*, with an exponent of its own, larger than $w$.
# That second step, a corrector, is what puts the points in the last row back onto the data.
#
# Then why does everybody use guidance? Because exact samples of the tilted density would not help: they are nearly those of $w = 1$, and with images too, since clean ones leave a good classifier in little doubt. What guidance does instead is more useful. It moves samples away from whatever is
# ambiguous *under noise*, toward the typical examples of a class, and you pay with variety. It helps with imperfect networks too: they err most where data are rare, and samples that are pushed toward the typical stay out of such regions
# (an argument of [Karras et al. 2024](https://arxiv.org/abs/2406.02507)). So treat $w$ as a dial whose effect you measure, not as an exponent whose effect you know.
#
# ## Why not use the classifier we have?
#
# For digits we already have a very good classifier, the judge of lesson 04. But it has to read $x_t$, and it was trained on clean digits. Beside it is a classifier made for this lesson. A
# **noise-conditional classifier** is trained on noisy images and told the time $t$, so that it can say how likely each class is under that much noise. Ours is the encoder of a small UNet with a linear layer at its end
# (`minidiff train noisy_classifier`, some minutes on one core).
#
# Now $x_t = \alpha x_0 + \sigma \varepsilon$ differs from a clean digit in two ways: it is noisy, and it is *faded*, since $\alpha < 1$ turns the black ground gray. To tell which of the two matters, the judge gets three inputs: $x_t$, the faded digit
# $\alpha x_0$ without any noise, and $x_t / \alpha$, which is noisy but not faded.
#
# Before you run it: which of the two will trouble the judge first, noise or fading?

# %%
few = digits.images[: budget(full=1000, smoke=100)]
labels, clean_z = digits.labels[: len(few)], pipe.fold.encode(few)
eps = torch.randn(clean_z.shape, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
NAMES = "judge on x_t", "judge on alpha x_0", "judge on x_t / alpha", "noise-conditional on x_t"
reads = {name: [] for name in NAMES}
with torch.no_grad():
    for t in TIMES:
        x, alpha = path.add_noise(clean_z, eps, t), float(1 - t)
        logits = [judge(pipe.fold.decode(z)) for z in (x, alpha * clean_z, x / alpha)]
        logits.append(classifier(x, path.net_time(t).to(x).expand(len(x))))
        for name, p in zip(NAMES, logits, strict=True):
            sure, answer = p.softmax(1).max(1)
            reads[name].append([(answer == labels).double().mean().item(), sure.mean().item()])
print("right / mean confidence     " + "".join(f"{f't = {TIMES[k]:.1f}':>14}" for k in (1, 2, 3, 5, 7)))
for name, values in reads.items():
    print(f"{name:<28}" + "".join(f"{f'{values[k][0]:.0%} / {values[k][1]:.0%}':>14}" for k in (1, 2, 3, 5, 7)))

# %%
# folded: accuracy and confidence against t
figure, axes = plt.subplots(1, 4, figsize=(9.4, 2.7), sharey=True)
TITLES = "judge on $x_t$", r"judge on $\alpha x_0$", r"judge on $x_t / \alpha$", "noise-conditional on $x_t$"
for axis, title, values in zip(axes, TITLES, reads.values(), strict=True):
    right, sure = torch.tensor(values).T
    color = figures.ORANGE if title == TITLES[-1] else figures.BLUE
    axis.plot(TIMES, right, marker="o", ms=4, color=color, label="fraction right")
    axis.plot(TIMES, sure, ls="--", color="black", lw=1.2, label="mean confidence")
    axis.axhline(0.1, lw=1, color=figures.GRAY, ls=":")
    axis.set(title=title, xlabel="time t", ylim=(0, 1.05))
axes[0].legend(loc="center right", fontsize=8)
axes[0].set_ylabel("fraction")
show(
    figure,
    alt="Four panels over time. The judge's accuracy falls to 0.1 by t = 0.3 on noisy and on merely faded digits while its confidence is 1; unfaded it falls more slowly; the noise-conditional classifier's accuracy and confidence fall together.",
    caption="Where the dashed line lies above the dots, the classifier is surer than it should be. Dotted: guessing.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Fading. At $t = 0.3$ a faded digit without a grain of noise is as unreadable to the judge as $x_t$ itself, though you would read it at a glance: in training the ground was always black. Undo the fading, and the judge
# copes with a little noise, but not with much.
#
# </details>
#
# A **distribution shift** is a difference between the data a network was trained on and the data it is used on. Here are two at once, and only by separating them do you learn which one did the damage. (Had we plotted only the first panel, we
# would have blamed the noise.)
#
# The worst of it is the dashed line: the judge is blind and does not know it. It is the gradient of that false confidence that would pull. A classifier is **calibrated** if it is right as often as it says: of the answers given with 80 % confidence, 80 % are right
# ([Guo et al. 2017](https://arxiv.org/abs/1706.04599)). The noise-conditional classifier cannot see through heavy noise either, but its confidence falls with its accuracy. Near $t = 1$ it finds all classes about equally likely, and its gradient is small. That does not switch guidance off, because the factor $\sigma^2/\alpha$ is large there: an exact classifier moves the estimate from the mean of all digits to the mean of the class, times $w$. It does mean that the gradient has the right size; the judge's has not.
#
# Let the judge guide anyway: once on $x_t$, and once at its best, on $x_t / \alpha$ and only at $t \le 0.3$, where it can still read something. The noise-conditional classifier guides the last row. A guide
# must not mark its own work, so each time another network reads the results.
#
# Before you run it: pulling only at $t \le 0.3$ leaves the judge several steps. Are they enough?

# %%
asked = digits.labels[: budget(full=100, smoke=20)]


def judge_on_x(x, time):
    return judge(pipe.fold.decode(x))


def judge_late(x, time):
    logits = judge(pipe.fold.decode(x / (1 - time / 1000)[:, None, None, None]))  # time is 1000 t, alpha is 1 - t
    return logits * (time <= 300)[:, None]  # above t = 0.3 all classes are equal: no gradient


@torch.no_grad()
def read(images):
    """What the noise-conditional classifier says of finished images, at t = 0: probabilities (N, 10)."""
    return classifier(pipe.fold.encode(images), torch.zeros(len(images))).softmax(1)


by = {
    "judge on $x_t$": draw(asked, 4.0, guided_by=judge_on_x),
    r"judge on $x_t / \alpha$, t ≤ 0.3": draw(asked, 4.0, guided_by=judge_late),
    "noise-conditional": draw(asked, 4.0),
}

# %%
sheet(
    by.values(),
    list(by),
    asked,
    alt="Three rows of ten images. Guided by the judge on x_t: broken strokes and specks. By the judge at t ≤ 0.3 only: digits, mostly not those wanted. By the noise-conditional classifier: clean digits, as wanted.",
    caption="The title is the digit that was wanted; w = 4 in all rows. Only the last guide was trained on noise.",
)
first, second, third = by.values()
for name, images in (("judge on x_t", first), ("judge on x_t / alpha, at t ≤ 0.3", second)):
    found = (read(images).argmax(1) == asked).double().mean()
    print(f"guided by the {name}: the noise-conditional classifier reads {found:.0%} as wanted")
found = (judged(judge, third)[1] == asked).double().mean()
print(f"guided by the noise-conditional classifier: the judge reads {found:.0%} as wanted")

# %% [markdown]
# <details><summary>Answer</summary>
#
# No. The second row looks like unguided samples, since the judge acts too late to do much harm, but hardly more of them are right than by chance: at $t = 0.3$ the digit is decided. A guide must be able to read while there is
# much noise.
#
# </details>
#
# ## The gradient as an image
#
# What does the classifier "say"? Its gradient has the shape of an image, so look at it. Take one noisy four, and ask for three classes. Orange: more ink here would make the class likelier. Blue: less ink would.
#
# Before you run it: the classifier sees a four. Toward which of the classes 4, 9 and 7 will the gradient be weakest?

# %%
# folded: one four at three noise levels, and the gradients toward three classes
WANTED, MOMENTS = (4, 9, 7), (0.3, 0.5, 0.7)
four = digits.images[(digits.labels == 4).nonzero()[3]]
LIMIT = 1.0  # the colours of all nine gradients reach from -LIMIT to LIMIT
with Page(860, 500) as page:
    for r, t in enumerate(MOMENTS):
        x, top = path.add_noise(pipe.fold.encode(four), eps[:1], t), 34 + 155 * r
        with torch.no_grad():
            p = classifier(x, path.net_time(torch.tensor([t], dtype=torch.float64)).to(x)).softmax(1)[0]
        page.text(4, top + 50, f"t = {t}")
        page.picture(four[0] / 2 + 0.5, 62, top, 112, "" if r else "clean")
        page.picture(pipe.fold.decode(x)[0] / 3 + 0.5, 196, top, 112, "" if r else "$x_t$")
        for k, wanted in enumerate(WANTED):
            toward = classifier_log_p(classifier, torch.tensor([wanted]), path.net_time)
            pull = pipe.fold.decode(gradient_of(toward, x, t))[0, 0]
            words = f"p({wanted}) = {p[wanted]:.2f}, length {pull.norm():.1f}"
            page.picture(
                signed(pull / LIMIT), 330 + 146 * k, top, 112, "" if r else f"toward {wanted}", words, frame="0.8"
            ).xaxis.label.set_size(8)
    bar = page.axes(778, 34, 14, 422, xticks=[], ylim=(-LIMIT, LIMIT), ylabel="change of log p per unit of ink")
    ramp = signed(torch.linspace(LIMIT, -LIMIT, 128)[:, None] / LIMIT)
    bar.imshow(ramp.permute(1, 2, 0), extent=(0, 1, -LIMIT, LIMIT), aspect="auto")
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.set_yticks([-1, 0, 1])
    bar.grid(False)
    picture = page.image()
show(
    picture,
    alt="A four at t = 0.3, 0.5 and 0.7, and the classifier's gradients toward 4, 9 and 7, with their lengths. Toward 4 they are almost blank at low noise; toward 9 the gap at the top is orange; at high noise they cover the whole digit.",
    caption="Orange: more ink. Blue: less. The colour bar is the same for all nine gradients.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Toward 4, at low noise: it already sees one, so there is hardly anything to improve.
#
# </details>
#
# Then look at the shapes. At low noise the advice is local: to get a nine, close the gap at the top. At $t = 0.7$ it covers the whole digit. A gradient is advice for the
# *next small change* only; after every step, denoiser and classifier look again.
#
# ### Exercise 4 · All of it
#
# *hard, 12 minutes.*
#
# `denoise(x, t)` returns $\hat{x}_0$, and `classify(x, t)` returns logits, $(B, K)$, of a classifier of *noisy* images. `x` has shape $(B, C, H, W)$; `t`, `alpha`, `sigma` and `w` are numbers; `labels` has shape $(B,)$. Return the guided estimate. Use nothing from `minidiff`.
#
# <details><summary>Hint</summary>
#
# Exercises 1 to 3, one after the other. At each step ask: what does each network get as its input, and with respect to what is the gradient taken?
#
# </details>


# %%
def belief(denoise, classify, x, t, labels, alpha, sigma, w):
    """What a denoiser believes when a classifier of noisy pictures pulls at it."""
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    logs = classify(x, t).log_softmax(dim=1)
    wanted = logs[torch.arange(len(labels)), labels].sum()
    pull = torch.autograd.grad(wanted, x)[0]
    return denoise(x, t).detach() + w * sigma**2 / alpha * pull
    ### END SOLUTION


# %%
check.l07_belief(belief)

# %% [markdown]
# ## How hard should you pull?
#
# Now turn the dial all the way. Two readers look at the results: the judge, which took no part in guiding, and the guide itself.
#
# Before you run it: at $w = 64$ images get worse. Which of the two readers will notice?

# %%
drawn = {w: draw(asked, float(w), seed=500) for w in budget(full=(0, 1, 4, 16, 64), smoke=(0, 4, 64))}
print(f"{'scale':>6} {'judge reads it as wanted':>26} {'guide reads it as wanted':>26} {'confidence of the guide':>26}")
for w, images in drawn.items():
    p = read(images)
    right = [(answers == asked).double().mean() for answers in (judged(judge, images)[1], p.argmax(1))]
    sure = p[torch.arange(len(asked)), asked].mean()  # in the digit that was wanted
    print(f"{w:>6} {right[0]:>26.0%} {right[1]:>26.0%} {sure:>26.1%}")
sheet(
    drawn.values(),
    [f"w = {w}" for w in drawn],
    asked,
    alt="Rows of ten digits at rising scales: at 0 arbitrary digits, at 4 and 16 clean ones as wanted, at 64 thick strokes on a speckled ground.",
    caption="Go down a column. Where is the digit best, and what goes wrong in the last row?",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The judge. Compare the two columns in the last row of the table: the guide still reads many more of these images as wanted than the judge does. Either the guide likes what it has made (more on that below), or specks disturb the judge more, because it never saw noise. Most likely both; a second noise-conditional classifier, trained apart from the first, could tell.
#
# </details>
#
# A longer run comes with the course (`python benchmarks/guidance.py`). It also measures
# diversity (lesson 04), the mean distance between images of one class, relative to real digits, and it compares with *classifier-free guidance*, which you have used since lesson 00 and which
# [lesson 09](09_text_to_image.ipynb) explains: there the denoiser itself knows the digit.
#
# Before you run it: accuracy cannot exceed 100 %. Can diversity exceed that of real digits?

# %%
# folded: accuracy and diversity from assets/guidance.json
known = json.loads(asset("guidance.json").read_text())
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3))
for kind, name, color, marker in (
    ("classifier guidance", "classifier guidance", figures.ORANGE, "o"),
    ("cfg", "classifier-free guidance", figures.BLUE, "s"),
):
    lines = [row for row in known["rows"] if row["guidance"] == kind]
    scales = range(len(lines))
    left.errorbar(
        scales, [r["accuracy"] for r in lines], [2 * r["error"] for r in lines], marker=marker, color=color, label=name
    )
    right.plot(scales, [r["diversity"] for r in lines], marker=marker, color=color, label=name)
    print(
        f"{name}, {known['n']} {known['split']} labels, {known['steps']} steps of {known['sampler']} (± one standard error)"
    )
    for r in lines:
        print(
            f"  scale {r['scale']:>3g}: the judge reads {r['accuracy']:6.1%} ± {r['error']:.1%} as wanted, diversity {r['diversity']:.2f}"
        )
right.axhline(1, color="black", lw=1, ls=":", label="real digits")
left.set(title="read as wanted by the judge", ylim=(0, 1.05), ylabel="fraction")
right.set(title="diversity within a class", ylim=(0, None), ylabel="relative to real digits")
for axis in (left, right):
    axis.set_xlabel("guidance scale w")
    axis.set_xticks(list(scales), [f"{r['scale']:g}" for r in lines])
    axis.legend(fontsize=8, loc="lower right")
show(
    figure,
    alt="Left: accuracy rises from 0.09 at scale 0 to nearly 1 at scale 4 for both kinds of guidance, and falls slightly at 32 for classifier guidance. Right: diversity starts at 1.6, falls below 1, and rises again to 1.2 at scale 32 for classifier guidance.",
    caption="Left: bars are two standard errors. Right: below the dotted line, images of a class differ less than real ones do.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# It does, and it is not a good sign. At scale 0 the label is ignored, so the images of a "class" are all kinds of digits. At scale 1 the judge still reads three in ten of the classifier-guided images as another digit. At the largest scale of classifier guidance strokes swell and specks appear (look at the sheet above), and distances between broken images are large too.
#
# </details>
#
# Scale 1, exact for the moons, is too weak for digits: classifier and denoiser are only approximately right. From there to scale 4 accuracy rises and diversity falls, the
# fidelity-diversity trade-off of lesson 04. Beyond 4 accuracy has nothing left to gain.
#
# ## Where it fails: the guide is not the judge
#
# Leave the denoiser out. Start with gray noise, and let the classifier alone change the image, fifty small steps uphill on $\log p(7)$ at $t = 0$.
#
# Before you run it: what will the image look like when the classifier is certain that it is a seven?

# %%
sevens = torch.full((6,), 7)
climb = classifier_log_p(classifier, sevens, path.net_time)
x = 0.3 * torch.randn(6, 4, 14, 14, generator=torch.Generator().manual_seed(3)) - 0.5
stages = [x]
for _ in range(50):
    pull = gradient_of(climb, x, 0.0)
    x = (x + 0.3 * pull / pull.flatten(1).norm(dim=1)[:, None, None, None]).clamp(-1, 1)
    stages.append(x)
stages = [pipe.fold.decode(x) for x in stages]
print("p(seven), by the guide:", [f"{p:.1%}" for p in read(stages[-1])[:, 7]])
print("p(seven), by the judge:", [f"{p:.1%}" for p in judge(stages[-1]).softmax(1)[:, 7]])


# %%
# folded: the climb as an animation, and before and after
def climbing(step):
    images = stages[step]
    with Page(520, 250) as page:
        page.picture(images[0] / 2 + 0.5, 12, 30, 196, f"step {step}")
        bars = page.axes(290, 30, 200, 180, ylim=(0, 1.02), title="probability of a seven")
        with torch.no_grad():
            both = [read(images)[0, 7].item(), judge(images).softmax(1)[0, 7].item()]
        bars.bar(["guide", "judge"], both, color=[figures.ORANGE, figures.BLUE])
        return page.image()


show(
    [climbing(step) for step in (*range(16), *range(20, 51, 5))],
    alt="Animation: a gray noise image changes slightly while the bar of the guide rises to 1 and the bar of the judge stays at 0.",
    caption="Guide: the classifier that is climbed. Judge: a classifier that is not.",
)
grid(
    [stages[0] / 2 + 0.5, stages[-1] / 2 + 0.5],
    ["before", "after"],
    alt="Six images of gray noise before and after the climb; faint strokes have appeared, but no sevens.",
    caption="To the guide, everything in the second row is certainly a seven.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Like noise. The guide is certain, and you see no seven. (The judge says no as well, but that proves little: you know how it fares on gray ground. Trust your eyes.)
#
# </details>
#
# An **adversarial example** is an input made to fool a classifier: a real image changed imperceptibly ([Szegedy et al. 2013](https://arxiv.org/abs/1312.6199)), or noise that is read with full confidence
# ([Nguyen et al. 2014](https://arxiv.org/abs/1412.1897)). A classifier of digits has seen nothing but digits, and its gradient leads uphill, whether there are digits that way or not. In guided sampling the denoiser keeps it in check, for it knows
# what digits look like. The larger $w$ is, the less the denoiser counts.
#
# **Goodhart's law** says that when a measure becomes a target, it ceases to be a good measure. So never let a guide judge its own images.
#
# Besides fooling itself, a guide costs work: a classifier of noisy images must be trained, with labels, for every new set of classes. "A red seven in the top left corner" is not one of them.
#
# ## Conditioning is not guidance
#
# | | what the denoiser knows | what pushes |
# |---|---|---|
# | scale 0 | nothing | nothing |
# | classifier guidance, this lesson | nothing | the gradient of a classifier |
# | conditioning, scale 1 in lesson 00 | the class | nothing |
# | classifier-free guidance, scale above 1 | the class | the difference that knowing it makes |
#
# **Conditioning** means that the denoiser gets the class as an input and has learned in training what to do with it: it models $p(x_0 \mid c)$ itself. **Guidance** is a push during sampling, on top of what the
# denoiser models. Classifier-free guidance ([Ho and Salimans 2022](https://arxiv.org/abs/2207.12598)) uses both: by the equations above, the conditional estimate minus the unconditional one *is* a classifier's gradient, times $\sigma^2 / \alpha$, and no classifier had to be trained. (In their paper the scale is counted from the conditional model: their $w = 0$ is our scale 1.) Lesson 09 takes it up from there, with words in place of classes.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | what the classifier says | $\log p(c \mid x_t)$ | {{classifier_guidance.classifier_log_p: return -F.cross_entropy(classifier(x, time), labels.to(x.device)}} |
# | its gradient, for each image | $\nabla_{x_t} \log p(c \mid x_t)$ | {{guidance.guide: (gradient,) = torch.autograd.grad(log_p(x, as_time(t), x0_hat).sum(), x)}} |
# | the guided estimate | $\hat{x}_0 + w \, \frac{\sigma^2}{\alpha} \nabla \log p$ | {{guidance.guide: return x0_hat.detach() + scale * sigma**2 / alpha * gradient}} |
# | score and estimate | $(\alpha \hat{x}_0 - x_t) / \sigma^2$ | {{ideal.score: return (alpha * denoise(x, t) - x) / sigma**2}} |
# | an exact sample of the tilted density | keep $x$ with probability $p(c \mid x)^w$ | {{tilted.tilted: < p_class**w}} |
# | a digit as the classifier learns it | $x_t = \alpha x_0 + \sigma \varepsilon$ | {{classifiers.noisy_digits: x = schedule.add_noise(x0, torch.randn(x0.shape, generator=generator), t)}} |
# | guided sampling starts where $\alpha > 0$ | $t \le 0.99$ | {{options.LAST_GUIDED: LAST_GUIDED = 0.99}} |
#
# ## What you can do now
#
# You can make an unconditional model generate the class you want, say what the scale buys and what it costs, and check whether a classifier deserves to guide. What is still missing: words. A
# classifier knows ten classes, and every sentence would be a class of its own. [Lesson 08](08_clip.ipynb) brings words and images into one space, and lesson 09 lets them steer.
#
# The field moved on from classifiers of noisy images. Classifier-free guidance needs none; and where a network reads clean images only, one can hand it $\hat{x}_0$ instead of $x_t$ and differentiate
# through the denoiser, an approximation known as diffusion posterior sampling ([Chung et al. 2022](https://arxiv.org/abs/2209.14687)). In lesson 09 CLIP guides that way.
#
# ## Further reading
#
# - [Dhariwal and Nichol 2021, *Diffusion models beat GANs on image synthesis*](https://arxiv.org/abs/2105.05233): classifier guidance on ImageNet; section 4 is this lesson.
# - [Song et al. 2021, *Score-based generative modeling through stochastic differential equations*](https://arxiv.org/abs/2011.13456): the same sum of two gradients, before it had a scale.
# - [Bradley and Nakkiran 2024, *Classifier-free guidance is a predictor-corrector*](https://arxiv.org/abs/2408.09000): what guidance does not sample, and what it does instead.
# - [Ho and Salimans 2022, *Classifier-free diffusion guidance*](https://arxiv.org/abs/2207.12598): guidance without a classifier.
# - [Karras et al. 2024, *Guiding a diffusion model with a bad version of itself*](https://arxiv.org/abs/2406.02507): why guidance improves images, and how to improve them without losing variety.
# - [Chung et al. 2022, *Diffusion posterior sampling for general noisy inverse problems*](https://arxiv.org/abs/2209.14687): guidance by anything that can be computed from $\hat{x}_0$.
# - [Guo et al. 2017, *On calibration of modern neural networks*](https://arxiv.org/abs/1706.04599): networks that are surer than they are right.
# - [Szegedy et al. 2013, *Intriguing properties of neural networks*](https://arxiv.org/abs/1312.6199) and [Nguyen et al. 2014, *Deep neural networks are easily fooled*](https://arxiv.org/abs/1412.1897): adversarial examples, and white noise that is certainly a lion.
