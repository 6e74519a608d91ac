# %% [markdown]
# # 03 · How do I get from noise to a picture, and how few steps are enough?
#
# A denoiser looks at a noisy image and estimates the clean one. A **sampler** is an algorithm that turns pure noise into an image
# by calling a denoiser again and again, at falling times $t$. In this lesson you take one such step by hand, at one pixel,
# and find that it is Bayes' rule. Then you drop the randomness and discover that a sampler is a solver of a differential
# equation; and since solvers are an old art, you can measure how few calls are enough.
#
# | | |
# |---|---|
# | After this lesson you can | derive a DDPM step from Bayes' rule; turn it into DDIM, and DDIM into an ODE solver; compare samplers at equal cost; measure the order of a solver; recognise four sampling bugs by their pictures |
# | Study time | {{study time}} |
# | Compute time | 2 to 3 minutes on 2 CPU cores, a third of it in one measurement; a GPU is not needed |
# | You need | $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ from lesson 01, the denoiser $\hat{x}_0$ from lesson 02 |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import torch

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, grid, show, style
from minidiff.diffusion import FLOW, cosine, ddim, ddpm, denoiser, dpmpp_2m, euler, flow, heun, ideal, uniform

style()

# %%
COLOUR = {
    "ddpm": figures.RED,
    "ddim": figures.SKY,
    "euler": figures.BLUE,
    "heun": figures.GREEN,
    "dpmpp_2m": figures.ORANGE,
}
pipe = TextToImage.load("mnist")
start = torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(3)).to(pipe.device)


def last(steps):
    """The state in which a sampler ends."""
    *_, step = steps
    return step.x


# %% [markdown]
# The cost of a sampler is its number of **function evaluations (NFE)**: how often it calls the denoiser. Here is the
# whole lesson in one row: the same noise, turned into a seven with 1 to 100 evaluations.
#
# Before you run it: from which number on will you see no difference?

# %%
counts = (1, 2, 3, 5, 10, 20, 100)
sevens = [pipe.latents("7", steps=n, sampler="euler", scale=1.0, latents=start) for n in counts]
grid(
    [[pipe.decode(seven)[0] for seven in sevens]],
    titles=[f"{n} NFE" for n in counts],
    alt="Seven images of a seven made from the same noise; the first is blurred, the last ones look the same.",
    caption="One evaluation gives a blur. Compare the bar and the foot of the seven from left to right.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# One evaluation gives a blur, and after a handful the changes are hard to see. How soon an image
# is finished depends on what the sampler does with each evaluation.
#
# </details>
#
# ## What a noisy value tells you: Bayes' rule
#
# Shrink the problem until you can draw all of it. The data are numbers now, near $-1$ or near $+1$, equally often. Noise one of them:
# $x_t = (1 - t)\,x_0 + t\,\varepsilon$. You see only $x_t$. What do you know about $x_0$?

# %%
schedule = flow()  # alpha = 1 - t, sigma = t
toy = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # the two modes, each with a standard deviation of 0.2
toy_denoise = ideal(toy, schedule, std=0.2)  # the best denoiser there is, from lesson 02

fine = uniform(500, schedule, 0.98, 0.02)  # a sampling trajectory of the toy, from x = 0.25
curve = [torch.tensor([[0.25]], dtype=torch.float64)]
curve += [step.x for step in heun(toy_denoise, curve[0], fine, schedule)]


def at(t):
    """x_t on that trajectory, (1, 1)."""
    return curve[int((fine - t).abs().argmin())]


def bell(x, mean, std):
    """The density of a Gaussian."""
    return torch.exp(-(((x - mean) / std) ** 2) / 2) / std / (2 * torch.pi) ** 0.5


# %% [markdown]
# Below, $t$ falls from nearly 1 to nearly 0, and $x_t$ changes as it does while you sample. Each curve is drawn to the same height.
#
# Before you run it: at $t = 0.9$, $x_t$ is almost pure noise. If you had to name one number for $x_0$, with the smallest squared error,
# which would it be? And is that number likely?

# %%
# folded: prior, likelihood and posterior at a time, as an animation and as four stills
x0_line = torch.linspace(-2, 2, 401, dtype=torch.float64)
prior = bell(x0_line, -1, 0.2) + bell(x0_line, 1, 0.2)


def bayes(axes, t, names=True):
    """Three axes above each other: what is known about x_0 at time t on the trajectory."""
    x = at(t).item()
    likelihood = bell(x, (1 - t) * x0_line, t)
    posterior = prior * likelihood
    colours = "0.45", figures.BLUE, figures.ORANGE
    for axis, values, colour in zip(axes, (prior, likelihood, posterior), colours, strict=True):
        axis.fill_between(x0_line, values / values.max(), color=colour, alpha=0.3, linewidth=0)
        axis.plot(x0_line, values / values.max(), color=colour, linewidth=1.5)
        axis.set(xlim=(-2, 2), ylim=(0, 1.12), yticks=[], xticks=[-2, -1, 0, 1, 2])
    mean = toy_denoise(at(t), t).item()
    axes[2].axvline(mean, color="black", linewidth=1.5)
    axes[2].text(mean - 0.06, 0.8, r"$\hat{x}_0$", ha="right")
    for axis in axes[:2]:
        axis.set_xticklabels([])
    axes[0].set_title(f"t = {t:.2f}, $x_t$ = {x:+.2f}", fontsize=10)
    axes[2].set_xlabel("$x_0$")
    if names:
        words = "prior\n$p(x_0)$", "× likelihood\n$p(x_t | x_0)$", "∝ posterior\n$p(x_0 | x_t)$"
        for axis, name in zip(axes, words, strict=True):
            axis.set_ylabel(name, rotation=0, ha="right", va="center")


def frame(t):
    """A picture of one time, as a PIL image."""
    from io import BytesIO

    from PIL import Image

    figure, axes = plt.subplots(3, 1, figsize=(4.8, 3.4), layout="none")
    figure.subplots_adjust(left=0.25, right=0.97, top=0.91, bottom=0.14, hspace=0.18)
    bayes(axes, t)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


show(
    [frame(t) for t in torch.linspace(0.96, 0.06, 25).tolist()],
    alt="Animation of three stacked curves as t falls: the prior with two bells, the likelihood growing narrow, the posterior going from two bells to one.",
    caption="Prior times likelihood gives the posterior. As t falls the likelihood narrows, until one of the two bells is gone.",
)
figure, axes = plt.subplots(3, 4, figsize=(8, 3.2))
for column, t in zip(axes.T, (0.9, 0.6, 0.4, 0.1), strict=True):
    bayes(column, t, names=column[0] is axes[0, 0])
show(
    figure,
    alt="The same three curves at t = 0.9, 0.6, 0.4 and 0.1; the mean of the posterior moves from near 0 to near 1.",
    caption="Four moments of the animation. The black line is the mean of the posterior.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# A number close to 0, halfway between the bells, where there are hardly any data. That is the blur of the first seven above: an average
# of everything that is still possible.
#
# </details>
#
# What you see is Bayes' rule,
#
# $$p(x_0 \mid x_t) \;\propto\; p(x_0)\; p(x_t \mid x_0), \qquad p(x_t \mid x_0) = \mathcal{N}(x_t;\ \alpha_t x_0,\ \sigma_t^2).$$
#
# The **prior** is what you know about $x_0$ before you look at $x_t$: how often each value occurs in the data. The **likelihood** says
# how probable the observed $x_t$ is for each possible $x_0$. The **posterior** is what you know about $x_0$ after looking at
# $x_t$: the prior times the likelihood, scaled to a total of 1.
#
# A denoiser that is trained with a squared error learns the **posterior mean** $\hat{x}_0 = E[x_0 \mid x_t]$, the average of all clean
# values that are still possible, weighted by how probable they are. Here it is twice: summed over a grid of values, and from the
# formula that `ideal` uses.

# %%
for t in (0.9, 0.6, 0.4, 0.1):
    weight = prior * bell(at(t), (1 - t) * x0_line, t)[0]
    mean = (weight * x0_line).sum() / weight.sum()
    print(f"t = {t}   posterior mean on the grid {mean:+.4f}   ideal denoiser {toy_denoise(at(t), t).item():+.4f}")

# %% [markdown]
# ## One step of DDPM, by hand
#
# Now a real seven, noised to $t = 0.6$, and the network's estimate of it. (The network works on four channels of
# 14x14: each 2x2 block of pixels is folded into one position, to save time.)

# %%
context = pipe.encode(["7"])  # the prompt
denoise = denoiser(pipe.net.unet, schedule, FLOW, context)  # denoise(x, t) returns x0_hat

digits = data.mnist("validation")
x0 = pipe.fold.encode(digits.images[digits.labels == 7][:1]).to(pipe.device)
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(pipe.device)

t, t_to = 0.6, 0.5
x = schedule.add_noise(x0, eps, t)
x0_hat = denoise(x, t)
grid(
    [[pipe.decode(z)[0] for z in (x0, x, x0_hat)]],
    titles=["clean, $x_0$", f"$x_t$ at t = {t}", r"estimate $\hat{x}_0$"],
    side=1.4,
    alt="A handwritten seven, the same image under heavy noise, and the network's smooth estimate of the seven.",
    caption="The estimate is a plausible seven, but not the one on the left.",
)

# %% [markdown]
# Where is the image at $t_\text{to} = 0.5$, with a little less noise? Take one pixel. What do you know about its value there? Bayes' rule again,
# this time for $x_\text{to}$:
#
# - *Prior.* If the clean value is $\hat{x}_0$, then $x_\text{to}$ has mean $\alpha_\text{to}\,\hat{x}_0$ and standard deviation $\sigma_\text{to}$.
# - *Likelihood.* From $t_\text{to}$ to $t$ the forward process multiplies by $k = \alpha_t / \alpha_\text{to}$ and adds noise of variance
#   $\sigma_t^2 - k^2 \sigma_\text{to}^2$. So for the $x_t$ that you see, the likeliest $x_\text{to}$ is $x_t / k$.
#
# Both are Gaussians, and the product of two Gaussians is a Gaussian, narrower than either. Its mean is the average of the two means, weighted by their
# precision, 1 / variance.

# %%
alpha, sigma = 1 - t, t
alpha_to, sigma_to = 1 - t_to, t_to
kept = alpha / alpha_to
added = sigma**2 - (kept * sigma_to) ** 2  # the variance of the noise between the two times

pixel = (0, 1, 7, 6)  # image, channel, row, column
clean, noisy = x0_hat[pixel].item(), x[pixel].item()
prior_mean, prior_std = alpha_to * clean, sigma_to
like_mean, like_std = noisy / kept, added**0.5 / kept

precision, like_precision = 1 / prior_std**2, 1 / like_std**2
mean = (precision * prior_mean + like_precision * like_mean) / (precision + like_precision)
std = (precision + like_precision) ** -0.5
print(f"prior, from x0_hat     mean {prior_mean:+.4f}, standard deviation {prior_std:.4f}")
print(f"likelihood, from x_t   mean {like_mean:+.4f}, standard deviation {like_std:.4f}")
print(f"posterior              mean {mean:+.4f}, standard deviation {std:.4f}")

# %%
# folded: the three Gaussians
line = torch.linspace(min(prior_mean, like_mean) - 1.5, max(prior_mean, like_mean) + 1.5, 400)
figure, axis = plt.subplots(figsize=(6, 2.6))
for centre, width, label, colour in (
    (prior_mean, prior_std, r"prior, from $\hat{x}_0$", "0.45"),
    (like_mean, like_std, "likelihood, from $x_t$", figures.BLUE),
    (mean, std, "posterior", figures.ORANGE),
):
    axis.plot(
        line, bell(line, centre, width), label=label, color=colour, linewidth=2.5 if label == "posterior" else 1.5
    )
axis.set(xlabel=rf"$x_{{\mathrm{{to}}}}$: value of the pixel at t = {t_to}", ylabel="density", ylim=(0, 1.2))
axis.legend()
show(
    figure,
    alt="Three bell curves over the value of one pixel: prior on the left, likelihood on the right, the narrower posterior between them.",
    caption="The posterior lies between the two, and is narrower than both.",
)

# %% [markdown]
# DDPM ([Ho et al. 2020](https://arxiv.org/abs/2006.11239), equations 6 and 7) draws $x_\text{to}$ from the posterior: its mean, plus its standard
# deviation times fresh noise. Multiplied out:
#
# $$\mu = \frac{k\,\sigma_\text{to}^2}{\sigma_t^2}\, x_t + \frac{\alpha_\text{to}\,(\sigma_t^2 - k^2\sigma_\text{to}^2)}{\sigma_t^2}\, \hat{x}_0
# \qquad
# \text{std} = \frac{\sigma_\text{to}}{\sigma_t} \sqrt{\sigma_t^2 - k^2\sigma_\text{to}^2}$$
#
# In the last step $\sigma_\text{to} = 0$: the mean is $\hat{x}_0$, and no noise is added. Now the library's function, with the same fresh noise, at the same pixel:

# %%
fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(pipe.device)
(step,) = ddpm(denoise, x, [t, t_to], schedule, noise=lambda x: fresh)
print(f"by hand   {mean + std * fresh[pixel].item():.6f}")
print(f"ddpm      {step.x[pixel].item():.6f}")

# %% [markdown]
# ### Is one Gaussian enough?
#
# The prior took $\hat{x}_0$ for the truth. But in the toy, at $t = 0.8$, the clean value may still be near $-1$ or near $+1$. There you can
# compute the exact distribution of $x_\text{to}$, with the true prior. Here it is for a long, a medium and a short step:

# %%
# folded: the exact p(x_to | x_t) of the toy, and DDPM's Gaussian
line = torch.linspace(-2.5, 2.5, 1001, dtype=torch.float64)
x_now, x0_now = at(0.8).item(), toy_denoise(at(0.8), 0.8).item()
figure, axes = plt.subplots(1, 3, figsize=(8, 2.4), sharey=True)
for axis, to in zip(axes, (0.2, 0.5, 0.75), strict=True):
    k = 0.2 / (1 - to)
    variance = 0.8**2 - (k * to) ** 2
    deviation = ((1 - to) ** 2 * 0.2**2 + to**2) ** 0.5
    exact = (bell(line, to - 1, deviation) + bell(line, 1 - to, deviation)) * bell(x_now, k * line, variance**0.5)
    gaussian = bell(line, (k * to**2 * x_now + (1 - to) * variance * x0_now) / 0.8**2, to / 0.8 * variance**0.5)
    axis.fill_between(line, exact / exact.sum() / 0.005, color="0.45", alpha=0.35, linewidth=0, label="exact")
    axis.plot(line, gaussian, color=COLOUR["ddpm"], label="DDPM's Gaussian")
    axis.set(title=f"from t = 0.8 to {to}", xlabel=r"$x_{\mathrm{to}}$", yticks=[])
axes[0].legend(loc="upper left", fontsize=8)
axes[0].set(ylim=(0, 2.3))
show(
    figure,
    alt="Three panels. For the long step the exact density has two bells and the Gaussian sits between them; for the short step the two agree.",
    caption="The shorter the step, the better one Gaussian fits.",
)

# %% [markdown]
# In a long step the Gaussian lands between the two modes, where there are hardly any data. In the medium step it is centred well but too narrow: it ignores
# that $x_0$ is still uncertain. In a short step it fits, which is why the first diffusion models took many small steps ([Sohl-Dickstein et al. 2015](https://arxiv.org/abs/1503.03585)).
#
# **Ancestral sampling** starts with pure noise and draws each less noisy image at random, given the one before it, until it is clean.
# Ho et al. took 1000 steps; here are 50. The library's samplers are generators: they yield the new `x`, the estimate `x0_hat` they made it
# with, and the time `t` they reached.

# %%
torch.manual_seed(0)  # of the fresh noise
times = uniform(50, schedule)
steps = list(ddpm(denoise, start, times, schedule))
before = [start, *(step.x for step in steps)]  # before[i] is x at times[i], of which steps[i].x0_hat is the estimate

moments = (0, 10, 20, 30, 40, 49)
grid(
    [[pipe.decode(before[i])[0] for i in moments], [pipe.decode(steps[i].x0_hat)[0] for i in moments]],
    names=["$x_t$", r"$\hat{x}_0$"],
    titles=[f"t = {times[i]:.2f}" for i in moments],
    alt="Two rows of six images: above, noise in which a seven appears; below, a blurred seven that gets sharp.",
    caption="Each estimate below is made from the noisy image above it. It begins as a blur, and sharpens as t falls.",
)

# %% [markdown]
# ### Exercise 1 · DDPM's step
#
# *medium, 12 minutes.*
#
# Write the DDPM step. `x`, `x0_hat` and `noise` are tensors of one shape, the other four are numbers. It must hold for any two times,
# the last step included, where `sigma_to` is 0. Return the new `x`.
#
# <details><summary>Hint</summary>
#
# Compute `kept` and `added` first, as above. The precision of the prior divides by `sigma_to`, which is 0 at the end;
# the formula for $\mu$ and std does not.
#
# </details>


# %%
def ancestral_step(x, x0_hat, noise, alpha, sigma, alpha_to, sigma_to):
    """A sample of the posterior of the next x, given x and x0_hat."""
    ### BEGIN SOLUTION
    kept = alpha / alpha_to
    added = sigma**2 - kept**2 * sigma_to**2
    mean = (kept * sigma_to**2 * x + alpha_to * added * x0_hat) / sigma**2
    return mean + sigma_to / sigma * added**0.5 * noise
    ### END SOLUTION


# %%
check.l03_ancestral_step(ancestral_step)

# %% [markdown]
# ## Without fresh noise: DDIM
#
# Every DDPM step rolls dice. Are they needed? Look at what is in $x_t$:

# %%
eps_hat = (x - alpha * x0_hat) / sigma  # so that x = alpha * x0_hat + sigma * eps_hat, exactly
mixed = 0.7 * x0_hat + 0.3 * eps_hat
grid(
    [[pipe.decode(z)[0] for z in (x, x0_hat, eps_hat, mixed)]],
    titles=["$x_t$, t = 0.6", r"estimate $\hat{x}_0$", r"the rest, $\hat\varepsilon$", "recombined, t = 0.3"],
    side=1.4,
    alt="Four images: a noisy seven, the estimate of the seven, the estimate of the noise, and a less noisy seven.",
    caption="0.4 times the second plus 0.6 times the third is the first; 0.7 and 0.3 times the same two give the fourth.",
)

# %% [markdown]
# Once you have an estimate of the image, you have one of the noise: what is left.
#
# $$\begin{aligned}
# \hat\varepsilon &= (x_t - \alpha_t \hat{x}_0) / \sigma_t && \text{so that } x_t = \alpha_t \hat{x}_0 + \sigma_t \hat\varepsilon \\
# x_\text{to} &= \alpha_\text{to}\, \hat{x}_0 + \sigma_\text{to}\, \hat\varepsilon && \text{DDIM} \\
#        &= x_t + (\alpha_\text{to} - \alpha_t)\, \hat{x}_0 + (\sigma_\text{to} - \sigma_t)\, \hat\varepsilon && \text{the same, as a change of } x_t
# \end{aligned}$$
#
# **DDIM** ([Song, Meng and Ermon 2020](https://arxiv.org/abs/2010.02502), equation 12 without its noise) splits $x_t$ into an estimated image and
# estimated noise, and recombines them in the proportions of the next time. The third line is the same step, written as
# Euler's method for
#
# $$dx = \hat{x}_0\, d\alpha + \hat\varepsilon\, d\sigma.$$
#
# This is the probability-flow ODE of lesson 02, with the score written as $-\hat\varepsilon / \sigma_t$ ([Song et al. 2021](https://arxiv.org/abs/2011.13456)): each
# point moves with the mean velocity of all noisy data at its position, so at every $t$ the distribution is that of noisy data.
#
# On `flow`, $\alpha$ and $\sigma$ are linear in $t$, and this is ordinary Euler in $t$. On a curved schedule it is not: DDIM uses the exact changes of $\alpha$
# and $\sigma$, and approximates only $\hat{x}_0$ and $\hat\varepsilon$. Here it is at our pixel:

# %%
noise_hat = eps_hat[pixel].item()
print(f"x_t {noisy:+.4f}   x0_hat {clean:+.4f}   eps_hat {noise_hat:+.4f}")
print(f"DDIM by hand    {alpha_to * clean + sigma_to * noise_hat:.6f}")
print(f"Euler by hand   {noisy + (alpha_to - alpha) * clean + (sigma_to - sigma) * noise_hat:.6f}")
for sampler in (ddim, euler):
    (step,) = sampler(denoise, x, [t, t_to], schedule)
    print(f"{sampler.__name__:<15} {step.x[pixel].item():.6f}")

# %% [markdown]
# The states that a sampler passes through from noise to data are its **sampling trajectory**. Here are those of the toy, from the same
# eight starts, with 100 evaluations each.
#
# Before you run it: two DDIM trajectories start on the same side of 0. Can they end in different modes? Can they cross?

# %%
# folded: trajectories of ddpm and ddim over the density of noisy data
starts = torch.special.ndtri(torch.linspace(0.06, 0.94, 8, dtype=torch.float64))[:, None]
t_line, x_line = torch.linspace(0.98, 0.02, 200)[None], torch.linspace(-2.5, 2.5, 300)[:, None]
deviation = ((1 - t_line) ** 2 * 0.2**2 + t_line**2) ** 0.5
density = bell(x_line, t_line - 1, deviation) + bell(x_line, 1 - t_line, deviation)
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for axis, sampler, title in zip(
    axes, (ddpm, ddim), ("DDPM: fresh noise in every step", "DDIM: no fresh noise"), strict=True
):
    torch.manual_seed(1)
    grid_100 = uniform(100, schedule, 0.98, 0.02)
    states = torch.stack([starts, *(step.x for step in sampler(toy_denoise, starts, grid_100, schedule))])[:, :, 0]
    axis.imshow(
        density / density.max(0).values, extent=(0.98, 0.02, -2.5, 2.5), origin="lower", aspect="auto", cmap="gray_r", alpha=0.45
    )  # fmt: skip
    for k, states_k in enumerate(states.T):
        axis.plot(grid_100, states_k, color=figures.COLOURS[k % 6], linewidth=1.2)
    axis.set(title=title, xlabel="t", xlim=(0.98, 0.02))
    axis.grid(False)
axes[0].set_ylabel("x")
show(
    figure,
    alt="Two panels over a gray density that splits into two bands as t falls: jagged trajectories of DDPM on the left, smooth ones of DDIM on the right.",
    caption="Gray: the density of noisy data, at each t scaled to its own maximum. It splits into two modes, and both samplers follow it.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# No and no. An ODE has one solution through each point, so its trajectories never cross. By symmetry $x = 0$ is a trajectory too, so none
# crosses 0: the sign of the start decides the mode. DDPM's trajectories cross all the time, and the mode is decided on the way.
#
# </details>
#
# Without fresh noise, the start decides everything: with enough evaluations, every deterministic solver turns the same noise into the same image. So there is a right answer
# to approach, and *how few evaluations are enough* becomes a question of numerical analysis.
#
# ### Exercise 2 · DDIM's step
#
# *easy, 5 minutes.*
#
# Write one step of DDIM without noise. `x` and `x0_hat` are tensors of one shape, the other four are numbers. Return the new `x`.
#
# <details><summary>Hint</summary>
#
# Two lines. The first finds the noise that `x` must contain if `x0_hat` is right. The second combines the two for the new time.
#
# </details>


# %%
def ddim_step(x, x0_hat, alpha, sigma, alpha_to, sigma_to):
    """The image at the next time, from x and the estimate made of it."""
    ### BEGIN SOLUTION
    eps_hat = (x - alpha * x0_hat) / sigma
    return alpha_to * x0_hat + sigma_to * eps_hat
    ### END SOLUTION


# %%
check.l03_ddim_step(ddim_step)

# %% [markdown]
# ### Exercise 3 · The loop
#
# *easy, 8 minutes.*
#
# Write the sampling loop. `denoise(x, t)` returns `x0_hat`. `step(x, x0_hat, t, t_to)` returns the new `x`. `times` is a tensor of
# $n + 1$ falling times; `x` is the state at the first of them. Return the state at the last.
#
# <details><summary>Hint</summary>
#
# n + 1 times have n gaps between them, and a step crosses a gap. `pairwise(times)` from itertools gives the two ends of each.
#
# </details>


# %%
def sample(denoise, step, x, times):
    """From x at times[0] to x at times[-1]."""
    ### BEGIN SOLUTION
    for t, t_to in pairwise(times):
        x = step(x, denoise(x, t), t, t_to)
    return x
    ### END SOLUTION


# %%
check.l03_walk(sample)

# %% [markdown]
# Together they are a sampler of your own. When both checks pass, add a cell and run it:
#
# ```python
# def on_flow(x, x0_hat, t, t_to):
#     return ddim_step(x, x0_hat, 1 - t, t, 1 - t_to, t_to)
#
# with torch.no_grad():
#     ends = [sample(denoise, on_flow, start, uniform(n, schedule)) for n in (3, 20)]
# grid([[pipe.decode(x)[0] for x in ends]], titles=["3 NFE", "20 NFE"])
# ```
#
# ### Exercise 4 · Catch the bug
#
# *medium, 8 minutes.*
#
# Now you write the test. The check hands your function several versions of `ddim_step` from exercise 2: two are right, the others are wrong in one
# way each. Return True if the one you are given is right; return False, or let an `assert` fail, if it is not.
#
# <details><summary>Hint</summary>
#
# Make an $x_t$ from an $x_0$ and an $\varepsilon$ that you know, and let x0_hat be exactly $x_0$. Where must the step lead? Test more than the last step.
#
# </details>


# %%
def catch_ddim_step(ddim_step):
    """True if a function that should take a step of DDIM does."""
    ### BEGIN SOLUTION
    x0, eps = torch.randn(2, 2, 3, 4)
    for numbers in ((0.6, 0.8, 0.96, 0.28), (0.5, 0.5, 0.8, 0.2), (0.8, 0.6, 1.0, 0.0)):
        alpha, sigma, alpha_to, sigma_to = torch.tensor(numbers)
        x_to = ddim_step(alpha * x0 + sigma * eps, x0, alpha, sigma, alpha_to, sigma_to)
        if not torch.allclose(x_to, alpha_to * x0 + sigma_to * eps, atol=1e-3):
            return False
    return True
    ### END SOLUTION


# %%
check.l03_catch(catch_ddim_step)

# %% [markdown]
# ## Better solvers: Heun, and DPM-Solver++(2M)
#
# Euler assumes that the slope at the start of a step holds all the way. On a curve it does not. Here is one trajectory of the toy, and two
# ways to do better:

# %%
# folded: one step of Euler and Heun along the toy's trajectory; 2M's extrapolation of x0_hat
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
a, b = 0.45, 0.2  # one long step
(by_euler,), (by_heun,) = (list(s(toy_denoise, at(a), [a, b], schedule)) for s in (euler, heun))
x0_end = toy_denoise(by_euler.x, b)
slope_end = ((by_euler.x - (1 - b) * x0_end) / b - x0_end).item()  # dx/dt on flow: the noise minus the image
reach = torch.tensor([b - 0.06, b + 0.06])
left.plot(fine, torch.cat(curve)[:, 0], color=figures.GRAY, label="the true trajectory")
left.plot([a, b], [at(a).item(), by_euler.x.item()], "s-", color=COLOUR["euler"], label="Euler: slope at the start")
left.plot(
    reach, by_euler.x.item() + slope_end * (reach - b), color="black", linewidth=2.5, label="the slope at the end"
)
left.plot([a, b], [at(a).item(), by_heun.x.item()], "D-", color=COLOUR["heun"], label="Heun: the mean of both")
left.set(xlabel="t", ylabel="x", title="Heun: a slope at both ends", xlim=(0.6, 0.1), ylim=(0.1, 1.0))
left.legend(fontsize=8, loc="upper left")

estimates = torch.cat([toy_denoise(z, t_z) for z, t_z in zip(curve, fine, strict=True)])[:, 0]
knots = torch.tensor([-1.3, -0.6, 0.1])  # two evaluations so far, and the end of the next step
known = [toy_denoise(at(1 / (1 + k.exp())), 1 / (1 + k.exp())).item() for k in knots[:2]]
middle = (knots[1] + knots[2]) / 2
read = known[1] + (known[1] - known[0]) * float((middle - knots[1]) / (knots[1] - knots[0]))
right.plot(torch.log((1 - fine) / fine), estimates, color=figures.GRAY, label=r"$\hat{x}_0$ along the true trajectory")
right.axvspan(knots[1], knots[2], alpha=0.15, color=figures.GRAY, linewidth=0, label="this step")
right.hlines(known[1], knots[1], knots[2], color=COLOUR["euler"], label="DDIM: the last estimate")
right.plot([knots[0], middle], [known[0], read], "--", color=COLOUR["dpmpp_2m"])
right.plot(knots[:2], known, "o", color="black", label="the last two estimates")
right.plot([middle], [read], "^", color=COLOUR["dpmpp_2m"], label="2M: the line at mid-step")
right.set(xlabel=r"$\log(\alpha/\sigma)$: less noise to the right", ylabel=r"$\hat{x}_0$")
right.set(title="2M: a line through two estimates", xlim=(-1.8, 0.7), ylim=(0, 0.85))
right.legend(fontsize=8, loc="upper left")
show(
    figure,
    alt="Left: Euler's step leaves a bending curve, Heun's ends on it. Right: a line through the last two estimates is extended to the middle of the next step.",
    caption="Left: Euler leaves the curve, Heun stays close to it. Right: 2M extends a line, where DDIM keeps the last value.",
)

# %% [markdown]
# **Heun's method** ([Karras et al. 2022](https://arxiv.org/abs/2206.00364)) takes a trial step with Euler, evaluates the slope at
# its end too, and steps with the mean of both slopes: two function evaluations a step.
#
# **DPM-Solver++(2M)** ([Lu et al. 2022](https://arxiv.org/abs/2211.01095)) draws a line through its last two estimates, as functions of
# $\log(\alpha/\sigma)$, reads it at the middle of the coming step, and takes a DDIM step with that value: one function evaluation a step.
#
# Compare them at equal cost. This is the error at the end of the trajectory:

# %%
print(f"{'NFE':<6}{'euler':>10}{'heun':>10}{'dpmpp_2m':>10}")
for nfe in (8, 16, 32, 64):
    errors = []
    for sampler in (euler, heun, dpmpp_2m):
        n = nfe // 2 if sampler is heun else nfe
        *_, step = sampler(toy_denoise, curve[0], uniform(n, schedule, 0.98, 0.02), schedule)
        errors.append(step.x.item() - curve[-1].item())
    print(f"{nfe:<6}" + "".join(f"{error:>+10.4f}" for error in errors))

# %% [markdown]
# Euler's error halves when the evaluations double. From 16 on, those of the other two fall faster. (At 8, Heun is lucky: its error is just changing
# sign.)
#
# ### Exercise 5 · Heun's step
#
# *medium, 8 minutes.*
#
# `slope(x, t)` returns $dx/dt$, of the shape of `x`. Write one step of Heun's method from `t` to `t_to`. Return the new `x`.
#
# <details><summary>Hint</summary>
#
# Look at the left panel above. At which two points is the slope taken? The length of the step, `t_to - t`, is negative here; the formula
# works as it is.
#
# </details>


# %%
def heun_step(slope, x, t, t_to):
    """x at t_to: second order, two slopes."""
    ### BEGIN SOLUTION
    here = slope(x, t)
    there = slope(x + (t_to - t) * here, t_to)
    return x + (t_to - t) * (here + there) / 2
    ### END SOLUTION


# %%
check.l03_heun_step(heun_step)

# %% [markdown]
# ## Five samplers, the same noise
#
# Each row is a sampler, each column a number of evaluations, and every pair starts from the same two noise images, with the prompts *4* and *8*. (Heun's last step, to
# $t = 0$, is an Euler step, so $n$ steps of Heun cost $2n - 1$ evaluations.)
#
# Before you run it: which two rows will be identical, and which row will show different handwriting?

# %%
budgets, rows = (3, 5, 9, 19), []
for name in COLOUR:
    rows.append([])
    for nfe in budgets:
        n = (nfe + 1) // 2 if name == "heun" else nfe
        pair = pipe.decode(pipe.latents(["4", "8"], steps=n, sampler=name, scale=1.0, seed=5))
        rows[-1].append(torch.cat(list(pair), dim=2))
grid(
    rows,
    names=list(COLOUR),
    titles=[f"{nfe} NFE" for nfe in budgets],
    side=1.68,
    alt="A grid of a four and an eight for five samplers and four numbers of evaluations; the rows ddim and euler are the same, ddpm differs.",
    caption="Read it row by row: four samplers approach the same two images, ddpm ends in other handwriting.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# `ddim` and `euler` are identical, as the algebra promised. They, `heun` and `dpmpp_2m` solve the same equation and approach the same two images.
# `ddpm` adds fresh noise on the way and ends in another 4 and another 8, different for each number of evaluations.
#
# With up to 3 evaluations `dpmpp_2m` *is* Euler: its first and last steps are Euler steps, and from pure noise, where $\log(\alpha/\sigma) = -\infty$, there is
# no line to draw yet.
#
# </details>
#
# ## How few evaluations are enough?
#
# Now measured. For each sampler and number of evaluations we generate the same digits from the same noise, without guidance ($w = 1$), and
# compute two numbers. *Accuracy*: does an evaluation classifier, which we call the judge, read the digit that was asked for? *Fréchet distance*: how far is the cloud of
# generated digits from the cloud of real ones, in the features of the judge? Lesson 04 asks what both numbers are worth. The yardstick is the floor,
# real vs. real at the same n, with the same labels: real digits with exactly the labels that we generate, against the other real ones.
#
# Before you run it: at 5 evaluations, will you be able to tell Euler from Heun by the quality of the digits?
#
# This is the expensive cell: about a minute on 2 CPU cores.

# %%
from minidiff.evaluation.judges import judged
from minidiff.evaluation.metrics import floor, frechet
from minidiff.formats.model_folder import load_classifier

n_digits = budget(full=300, smoke=66)
judge = load_classifier("judge", pipe.device)
real, _ = judged(judge, digits.images.to(pipe.device))
wanted = digits.labels[:n_digits]  # the mix of labels of real digits


def measure(name, n):
    """Accuracy and Fréchet distance of a sampler with n steps."""
    images = []
    for part in wanted.split(100):
        prompts, seed = [str(d) for d in part.tolist()], 100 * len(images)
        images.append(pipe.decode(pipe.latents(prompts, steps=n, sampler=name, scale=1.0, seed=seed)))
    features, answers = judged(judge, torch.cat(images) * 2 - 1)
    return (answers == wanted).double().mean().item(), frechet(features, real[n_digits:])


# %%
def matched_floor(draws=20):
    """Fréchet distances of real digits, drawn at random with exactly the wanted labels, to the other real ones."""
    generator, distances = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        order = torch.randperm(len(real), generator=generator)
        ours = torch.cat([order[digits.labels[order] == d][: int((wanted == d).sum())] for d in range(10)])
        others = torch.ones(len(real), dtype=torch.bool).index_fill(0, ours, False)
        distances.append(frechet(real[ours], real[others]))
    return torch.tensor(distances)


# %%
results = {name: {} for name in ("ddpm", "euler", "heun", "dpmpp_2m")}
print(f"n = {n_digits} digits, w = 1\n{'sampler':<10}{'NFE':>5}{'accuracy':>10}{'Fréchet':>9}")
for name, found in results.items():
    for nfe in budget(full=(1, 2, 3, 5, 9, 19), smoke=(1, 3)):
        if name == "heun" and nfe % 2 == 0:
            continue  # n steps of Heun are 2n - 1 evaluations
        found[nfe] = measure(name, (nfe + 1) // 2 if name == "heun" else nfe)
        print(f"{name:<10}{nfe:>5}{found[nfe][0]:>10.1%}{found[nfe][1]:>9.2f}")
matched = matched_floor()
low, deviation = matched.mean().item(), matched.std().item()
print(
    f"\nfloor, real vs. real, n = {n_digits}, the same labels: {low:.2f}, standard deviation over 20 draws {deviation:.2f}"
)
print("the same with random labels: {:.2f}, standard deviation {:.2f}".format(*floor(real, n_digits)))

# %%
# folded: the Fréchet distance by NFE, one panel a sampler
figure, axes = plt.subplots(1, 4, figsize=(8, 2.8), sharey=True)
for axis, name in zip(axes, results, strict=True):
    for other, found in results.items():
        mine = other == name
        axis.plot(
            list(found), [distance for _, distance in found.values()],
            color=COLOUR[name] if mine else "0.8", marker="o" if mine else None, markersize=5, zorder=2 + mine,
        )  # fmt: skip
    axis.axhspan(low - deviation, low + deviation, color=figures.SKY, alpha=0.3, linewidth=0)
    axis.set(title=name, xlabel="NFE", xscale="log", yscale="log")
    axis.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axis.set_yticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    axis.minorticks_off()
axes[0].set_ylabel("Fréchet distance (log)")
axes[0].text(1, low, "floor", va="center", fontsize=9)
show(
    figure,
    alt="Four panels, one for each sampler, of the Fréchet distance against evaluations: all fall steeply from 1 to 3 and are nearly flat afterwards, in or just above the narrow blue band.",
    caption="Colour: this sampler; gray: the others. Band: the floor, real vs. real at the same n and with the same labels, one standard deviation up and down.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# No. One evaluation is bad, since its digits are averages. From about 3 evaluations on, Euler and Heun differ by less than the band is wide.
#
# </details>
#
# After about 3 evaluations the three deterministic curves are flat: what is left is the network's error, which a more exact solver follows faithfully. (These digits
# are small and easy; large images need more evaluations.) `ddpm` keeps improving up to 9 and ends lower: in these runs, fresh noise seems to wash out part of that error,
# as [Karras et al. 2022](https://arxiv.org/abs/2206.00364) describe in section 4. One run of each is a hint, not proof.
#
# Why a floor with the same labels? The judge's features are mostly about the label, and digits drawn at random have a few fours too many or too few: their floor (last
# line) is higher and much less certain, and from 3 evaluations on every sampler would have looked better than real. When a result is better than real, look for what differs besides the quality.
#
# And *good* is not *exact*: a sampler may end far from the true solution, in a digit that is just as good. How exact each solver is, you can measure too.
#
# ## How exact? The order of convergence
#
# For exactness you need a trajectory whose true end is known. The data are five clusters in the plane, softened so that everything is smooth, with the ideal denoiser in
# float64. The end of 4000 steps of Heun serves as the truth.

# %%
clusters = data.points("islands", n=100).double()
many = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
evaluations = (10, 20, 40, 80, 160, 320)


def errors(sampler, schedule, times):
    """Mean distance from the truth, for each number of evaluations. times: n -> the times of n steps."""
    soft = ideal(clusters, schedule, std=0.25)
    truth = last(heun(soft, many, times(budget(full=4000, smoke=1000)), schedule))
    cost = 2 if sampler is heun else 1
    ends = [last(sampler(soft, many, times(nfe // cost), schedule)) for nfe in evaluations]
    return [(end - truth).norm(dim=1).mean().item() for end in ends]


measured = {
    s.__name__: errors(s, schedule, lambda n: uniform(n, schedule, 0.98, 0.02)) for s in (euler, heun, dpmpp_2m)
}
print(f"{'NFE':<10}" + "".join(f"{nfe:>10}" for nfe in evaluations))
for name, values in measured.items():
    print(f"{name:<10}" + "".join(f"{value:>10.1e}" for value in values))

# %%
# folded: these errors on logarithmic axes


def log_log(axis):
    axis.set(xscale="log", yscale="log", xlabel="NFE (log)", ylabel="error (log)")
    axis.set_xticks(evaluations, [str(n) for n in evaluations])
    axis.minorticks_off()


figure, axis = plt.subplots(figsize=(5.6, 3.6))
for (name, values), marker in zip(measured.items(), "sD^", strict=True):
    axis.plot(evaluations, values, marker=marker, color=COLOUR[name], label=name)
for p, name, where in ((1, "euler", 1.6), (2, "heun", 0.45)):
    axis.plot(
        evaluations, [where * measured[name][0] * (evaluations[0] / n) ** p for n in evaluations], "--", color=figures.GRAY
    )  # fmt: skip
    middle = where * measured[name][0] / 4**p
    axis.text(
        40,
        middle * (1.25 if p == 1 else 0.7),
        f"slope {p}",
        color=figures.GRAY,
        ha="left" if p == 1 else "right",
        va="center",
    )
log_log(axis)
axis.legend(fontsize=9)
show(
    figure,
    alt="Errors of Euler, Heun and 2M against evaluations on logarithmic axes, beside dashed lines of slope 1 and 2.",
    caption="On logarithmic axes the order is the slope: Euler is parallel to slope 1, Heun and 2M to slope 2.",
)

# %% [markdown]
# Double the evaluations, and Euler's error falls to a half, Heun's and 2M's to about a quarter. The **order of convergence** $p$ says how fast a solver's
# error falls: with $n$ evaluations it is proportional to $1 / n^p$ when $n$ is large. Euler has order 1; Heun and 2M have order 2.
#
# Order is not everything. Heun and 2M are parallel, and yet at equal cost Heun is the more exact here. On another problem
# it may be the other way round.
#
# ### Exercise 6 · Measure an order
#
# *hard, 10 minutes.*
#
# `steps` and `errors` are tensors of one length: the error that was left after each number of steps. If the error is
# $C / n^p$, return $p$, as a positive number. Real errors obey such a law only approximately, so fit a line instead of comparing two points.
#
# <details><summary>Hint</summary>
#
# Take the logarithm of $e = C / n^p$: what is the slope of $\log e$ against $\log n$? The slope of the best line through points $(a, b)$ is
# the sum of $(a - \bar a)\,b$ divided by the sum of $(a - \bar a)^2$; or let `numpy.polyfit` find it.
#
# </details>


# %%
def order(steps, errors):
    """The order of convergence p, where errors are proportional to steps ** -p."""
    ### BEGIN SOLUTION
    a, b = steps.log(), errors.log()
    a = a - a.mean()
    return -(a * b).sum() / (a**2).sum()
    ### END SOLUTION


# %%
check.l03_order(order)

# %% [markdown]
# When the check passes, try it on the measurement above: `order(torch.tensor(evaluations).double(), torch.tensor(measured["heun"]).double())`.
#
# ## Flow matching: the lines are straight, the trajectories are not
#
# Left: training pairs of the schedule that you have used all along, each point joined to its noise by a straight line. Middle and right: sampling trajectories
# from the same noise.
#
# Before you run it: the training pairs of `cosine` lie on arcs. Which schedule has the longer sampling trajectories?

# %%
# folded: training pairs and sampling trajectories in the plane
plane = data.points("islands").double()
begin = torch.randn(12, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64).clamp(-2.2, 2.2)


def trajectories(points, path, n=200):
    """All states from t = 0.98 to 0.02, (n + 1, 12, 2)."""
    steps = ddim(ideal(points, path, 0.02), begin, uniform(n, path, 0.98, 0.02), path)
    return torch.stack([begin, *(step.x for step in steps)])


partners = plane[torch.randperm(len(plane), generator=torch.Generator().manual_seed(0))[:12]]
panels = {
    "training pairs: straight lines": torch.stack([begin, partners]),
    "sampling, flow": trajectories(plane, flow()),
    "sampling, cosine": trajectories(plane, cosine()),
}
figure, axes = plt.subplots(1, 3, figsize=(8, 3), sharex=True, sharey=True)
for axis, (title, lines) in zip(axes, panels.items(), strict=True):
    axis.plot(*plane.T, ".", color="#cccccc", markersize=3)
    axis.plot(lines[..., 0], lines[..., 1], linewidth=1.2)
    axis.plot(*begin.T, ".", color="black", markersize=6)
    axis.set(title=title, aspect="equal", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xlabel="first coordinate")
axes[0].set_ylabel("second coordinate")
show(
    figure,
    alt="Three panels with five gray clusters and twelve black noise points: straight lines that cross, and two sets of bent trajectories to the nearby clusters.",
    caption="Left: straight lines, in all directions. Middle and right: trajectories from the same twelve noise points follow their mean, and bend.",
)
for title in list(panels)[1:]:
    length = panels[title].diff(dim=0).norm(dim=2).sum(0) / (panels[title][-1] - begin).norm(dim=1)
    print(f"{title:<18} a trajectory is {length.mean():.2f} times as long as the straight line between its ends")

# %% [markdown]
# <details><summary>Answer</summary>
#
# `flow`, the schedule of the straight lines. There everything first heads for the middle, because $x_t$ itself shrinks. `cosine` keeps the variance, and the same
# trajectories bend less: divide $x_t$ on `cosine` by $\alpha + \sigma$, and it is on `flow`. Much of the hook is a choice of units.
#
# </details>
#
# **Flow matching** trains a network to predict the velocity along the straight line from an image to its noise, and samples by following the
# predicted velocity back ([Lipman et al. 2022](https://arxiv.org/abs/2210.02747); [Liu et al. 2022](https://arxiv.org/abs/2209.03003) call it rectified flow). Set
# $\alpha_t = 1 - t$ and $\sigma_t = t$:
#
# $$x_t = (1 - t)\,x_0 + t\,\varepsilon, \qquad u = \frac{dx_t}{dt} = \varepsilon - x_0, \qquad x_\text{to} = x_t + (t_\text{to} - t)\,\hat u$$
#
# The last formula is the Euler step from above. (Both papers count time the other way, from noise at 0 to data at 1, so their velocity has the opposite sign.) Squared error in
# $u$ is squared error in $x_0$ divided by $t^2$. So this is not another kind of model: flow matching is a schedule, a prediction and a weighting of the loss.
# The shipped model is such a network; in the code its prediction is called `FLOW`.
# At our pixel, with the raw output of the network and no $\hat{x}_0$ in sight:

# %%
from minidiff.diffusion import predict

with torch.no_grad():
    u = predict(pipe.net.unet, schedule, x, t, context)
(step,) = euler(denoise, x, [t, t_to], schedule)
print(f"x + (t_to - t) * u    {(x + (t_to - t) * u)[pixel].item():.6f}")
print(f"euler on flow()       {step.x[pixel].item():.6f}")

# %% [markdown]
# Why do the trajectories bend at all? Many training lines pass through the same point at the same time, and the network predicts
# their *mean* velocity. At first that leads towards the mean of all data; on the way one cluster wins, and the trajectory turns towards it.
#
# Is it the bend that makes a sampler slow? Make the data a single point. Then $\hat{x}_0$ never changes, and trajectories are straight on `flow` and arcs on
# `cosine`. Compare one evaluation with 200:

# %%
for path, shape in ((flow(), "straight"), (cosine(), "an arc")):
    single = ideal(plane[:1], path)
    ends = [last(ddim(single, begin, uniform(n, path, 0.98, 0.02), path)) for n in (1, 200)]
    print(f"{shape:<9} 1 and 200 evaluations end {(ends[0] - ends[1]).norm(dim=1).max():.0e} apart")

# %% [markdown]
# One evaluation is exact, on the line *and* on the arc: DDIM's formula follows both as long as $\hat{x}_0$ and $\hat\varepsilon$ stay the same. What
# costs evaluations is not the shape of the path; it is an estimate that changes along it. Heun and 2M take account of that change.
#
# ## Four bugs and their pictures
#
# A **time grid** is the list of falling times that a sampler steps through. Much can go wrong with it.
#
# One of these five images is right. The others were made with (1) only 2 evaluations, (2) a grid that starts too late, at $t = 0.6$,
# though the image is still pure noise, (3) the last step left out, (4) noise added in the last step.
#
# Before you run it, cover the answer. Then match A to E.

# %%
times = uniform(10, schedule)
*_, almost, done = euler(denoise, start, times, schedule)
images = {
    "A": last(euler(denoise, start, times[4:], schedule)),
    "B": almost.x,
    "C": done.x,
    "D": last(euler(denoise, start, uniform(2, schedule), schedule)),
    "E": done.x + almost.t.item() * fresh,
}
grid(
    [[pipe.decode(image)[0] for image in images.values()]],
    titles=list(images),
    side=1.12,
    alt="Five images, A to E: broken strokes, a seven under fine grain, a clean seven, a soft seven, a seven under fine grain.",
    caption="Which is right, and which bug made each of the others? Two of them look alike.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# C is right. *D* had 2 evaluations: the soft edges of the first estimate are still there. *A* started too late: told that pure
# noise is an image with some noise on it, the network turned accidents of the noise into strokes. *B* lacks the last step, and
# *E* had noise added in the last step: both leave the grain of the last noise level, and by the picture alone you cannot tell which it was.
#
# You will meet all four. Loops lose their last step because $n$ steps need $n + 1$ times; DDPM with the *large* variance, that of the
# forward step, does not lose its noise at $\sigma_\text{to} = 0$: the code must leave it out.
#
# </details>
#
# ## Try all of it
#
# The strip shows the estimate at each time; beside it are the result, and the same noise with 1000 steps.

# %%
show(figures.sampler(pipe, "7", sampler="dpmpp_2m", steps=10, seed=0, scale=2.0),
     alt="Eight small estimates of a seven from t = 1 to 0.1, the result of 10 steps of dpmpp_2m, and the reference of 1000 steps.",
     caption="The estimates sharpen row by row; the two large sevens should look the same.")  # fmt: skip

# %% [markdown]
# *Try:* for each sampler, find the smallest number of steps at which the result looks like the reference. Remember what a step of `heun` costs. Which
# samplers never get there? And what does scale 4 do to the first estimate?

# %%
widgets.sampler(pipe)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The deterministic samplers need only a few steps for a digit. `heun` seems to need the fewest
# steps, but counted in evaluations its lead melts away. `ddpm` and `dpmpp_2m_sde` (2M with fresh noise) add some at every step, so they end in other sevens.
# The scale is guidance (lesson 09; none at 1). At 4 the first estimate is not an average of sevens any more: it is pushed away from the unconditional estimate, beyond any average.
#
# </details>
#
# ## Optional sections
#
# *May be skipped at first reading.*
#
# ### A schedule that costs you an order
#
# An order of convergence is a promise about smooth curves. Stable Diffusion's schedule `scaled_linear` is not smooth at $t = 0$: its *variance* grows linearly there, so
# $\sigma$ grows like $\sqrt{t}$, infinitely steep at first.

# %%
# folded: sigma near t = 0, and Heun's errors on scaled_linear with three time grids
from minidiff.diffusion import scaled_linear

table = scaled_linear()
early = torch.linspace(0, 0.1, 400, dtype=torch.float64)
cases = {
    "even times to t = 0": errors(heun, table, lambda n: uniform(n, table)),
    "even times to t = 0.02": errors(heun, table, lambda n: uniform(n, table, 1.0, 0.02)),
    "times cubed, to t = 0": errors(heun, table, lambda n: uniform(n, table) ** 3),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
for name, path in (("scaled_linear", table), ("cosine", cosine()), ("flow", flow())):
    left.plot(early, path.sigma(early), label=name)
left.set(xlabel="t", ylabel=r"$\sigma_t$", title=r"$\sigma$ close to the data")
left.legend()
for (name, values), marker in zip(cases.items(), "osD", strict=True):
    right.plot(evaluations, values, marker=marker, label=name)
log_log(right)
right.set_title("Heun on scaled_linear")
right.legend(fontsize=8)
show(
    figure,
    alt="Left: sigma of scaled_linear rises steeply from t = 0, cosine and flow gently. Right: Heun's error falls slowly with even times to 0, and with slope 2 for the other two grids.",
    caption="Left: the steep start of sigma. Right: with even times down to 0 Heun is no better than first order; two other time grids restore its order.",
)
for name, values in cases.items():
    print(f"{name:<24} each doubling divides the error by", ", ".join(f"{a / b:.1f}" for a, b in pairwise(values)))

# %% [markdown]
# With even times down to 0, the last steps jump over the bend, and Heun is a first-order method. Stop at $t = 0.02$, before the bend, and the second
# order is back. Or shorten the steps where the bend is, with the times cubed. This is one reason why
# samplers come with time grids of their own, such as `karras` ([Karras et al. 2022](https://arxiv.org/abs/2206.00364)).
#
# ### One network, other schedules
#
# A network that was trained on `flow` can sample on any other schedule. For each time of the new one, `rescheduled` finds the time of `flow` with the
# same ratio $\sigma/\alpha$, and rescales the image. From the same noise, with Heun:

# %%
from minidiff.diffusion import edm, rescheduled

paths = {"flow": schedule, "cosine": rescheduled(cosine(), schedule), "edm": rescheduled(edm(), schedule)}
ends = {}
for name, path in paths.items():
    on_path = denoiser(pipe.net.unet, path, FLOW, context)
    _, sigma_start = path.at(1.0, start)
    for n in (5, 40):
        times = uniform(n, path) ** (
            5 if name == "edm" else 1
        )  # edm's sigma starts at 80: most of its steps belong near 0
        ends[name, n] = last(heun(on_path, sigma_start * start, times, path))
grid(
    [[pipe.decode(end)[0] for end in ends.values()]],
    titles=[f"{name},\n{2 * n - 1} NFE" for name, n in ends],
    alt="Six sevens: flow, cosine and edm with 9 and with 79 evaluations each; only edm with 9 differs, by specks of noise.",
    caption="With few evaluations each schedule makes errors of its own; with many, all lead to the same image.",
)
for n in (5, 40):
    apart = [(ends[name, n] - ends["flow", n]).square().mean().sqrt().item() for name in ("cosine", "edm")]
    print(f"{2 * n - 1:>2} NFE: root mean square difference from flow: cosine {apart[0]:.3f}, edm {apart[1]:.3f}")

# %% [markdown]
# So the sampling schedule is not a property of the model. You choose it when you sample.
#
# ### The bugs in numbers
#
# A grid can start too late without your noticing. The grid called `leading` counts from the clean end of a table, and never quite starts at noise
# ([Lin et al. 2023](https://arxiv.org/abs/2305.08891)):

# %%
from minidiff.diffusion import leading, linear

print(f"the table ends at t = 1.000 with alpha = {linear().at(1.0, start)[0]:.3f}")
for n in (5, 10, 50):
    first = leading(n, linear())[0]
    print(f"leading, {n:>2} steps: starts at t = {first:.3f} with alpha = {linear().alpha(first):.3f}")

# %% [markdown]
# And a loop without its last step leaves noise of exactly the last level behind. The top rows of a digit are blank, so whatever varies there is noise:

# %%
for n in (5, 10, 20):
    *_, almost, done = euler(denoise, start, uniform(n, schedule), schedule)
    left_over, finished = (pipe.fold.decode(step.x)[0, 0, :3].std() for step in (almost, done))
    print(
        f"{n:>2} steps: last sigma {almost.t:.3f}   noise left in blank rows {left_over:.3f}   finished {finished:.3f}"
    )

# %% [markdown]
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | what the forward process keeps between two times | $k = \alpha_t / \alpha_\text{to}$ | {{samplers.ddpm: kept = now.alpha / to.alpha}} |
# | the variance it adds | $\sigma_t^2 - k^2 \sigma_\text{to}^2$ | {{samplers.ddpm: added = now.sigma**2 - kept**2 * to.sigma**2}} |
# | DDPM: the mean of the posterior | $\mu = (k \sigma_\text{to}^2 x_t + \alpha_\text{to} (\sigma_t^2 - k^2 \sigma_\text{to}^2) \hat{x}_0) / \sigma_t^2$ | {{samplers.ddpm: x = kept * to.sigma**2 / now.sigma**2 * x + to.alpha * added / now.sigma**2 * x0_hat}} |
# | DDPM: fresh noise, but not at the end | $x_\text{to} = \mu + \text{std} \cdot \varepsilon$ | {{samplers.ddpm: x = x + var**0.5 * noise(x)}} |
# | DDIM: recombine (`fresh` is 0 unless `eta`, the fraction of DDPM's fresh noise, is more) | $x_\text{to} = \alpha_\text{to} \hat{x}_0 + \sigma_\text{to} \hat\varepsilon$ | {{samplers.ddim: x = to.alpha * x0_hat + (to.sigma**2 - fresh**2) ** 0.5 * eps_hat}} |
# | Heun: the mean of two slopes | $(\hat{x}_0 + \hat{x}_0')/2, \; (\hat\varepsilon + \hat\varepsilon')/2$ | {{samplers.heun: x0_hat, eps_hat = (x0_hat + x0_ahead) / 2, (eps_hat + eps_ahead) / 2}} |
# | 2M: a line through two estimates | $\hat{x}_0 + \frac{h}{2 h'} (\hat{x}_0 - \hat{x}_0')$ | {{samplers.dpmpp_2m: middle = x0_hat + width / (2 * last_width) * (x0_hat - last_x0_hat)}} |
# | even times | $t_i = 1 - i/n$ | {{grids.uniform: return torch.linspace(start, end, n + 1, dtype=torch.float64)}} |
# | flow matching's schedule | $\alpha = 1 - t, \; \sigma = t$ | {{schedules.flow: return Schedule(lambda t: 1 - t, lambda t: t, _thousands)}} |
# | one network on another schedule | $\sigma/\alpha$ equal on both | {{more_schedules.rescheduled: return trained.time_of(path.sigma(t) / path.alpha(t))}} |
#
# ## What you can do now
#
# You can get from noise to an image, say what each evaluation buys, and measure how exact a solver is. What is still missing: two numbers were taken on trust, the judge's
# accuracy and the Fréchet distance. [Lesson 04](04_judging.ipynb) asks how you know that a generated image is good, and how many images it takes to be sure;
# [lesson 05](05_unet.ipynb) opens the network.
#
# The field went on to spend less. Better solvers alone stop at about 10 evaluations for large images; to get to one or two, the network is trained again, to jump along its own
# trajectories (progressive distillation, consistency models).
#
# ## Further reading
#
# - [Ho et al. 2020, *Denoising diffusion probabilistic models*](https://arxiv.org/abs/2006.11239): DDPM; equations 6 and 7 are the step you took by hand.
# - [Sohl-Dickstein et al. 2015, *Deep unsupervised learning using nonequilibrium thermodynamics*](https://arxiv.org/abs/1503.03585): the first diffusion model, and why reverse steps may be Gaussian.
# - [Song, Meng and Ermon 2020, *Denoising diffusion implicit models*](https://arxiv.org/abs/2010.02502): DDIM, and everything between it and DDPM.
# - [Song et al. 2021, *Score-based generative modeling through stochastic differential equations*](https://arxiv.org/abs/2011.13456): the probability-flow ODE.
# - [Karras et al. 2022, *Elucidating the design space of diffusion-based generative models*](https://arxiv.org/abs/2206.00364): Heun, time grids, and a clear view of what can be chosen freely. Read this one first.
# - [Lu et al. 2022, *DPM-Solver++*](https://arxiv.org/abs/2211.01095): 2M, and why to measure time in $\log(\alpha/\sigma)$.
# - [Lipman et al. 2022, *Flow matching for generative modeling*](https://arxiv.org/abs/2210.02747) and [Liu et al. 2022, *Flow straight and fast*](https://arxiv.org/abs/2209.03003): straight lines, and how to make the trajectories straighter too.
# - [Lin et al. 2023, *Common diffusion noise schedules and sample steps are flawed*](https://arxiv.org/abs/2305.08891): grids that start too late, and what they do to brightness.
# - [Salimans and Ho 2022, *Progressive distillation*](https://arxiv.org/abs/2202.00512) and [Song et al. 2023, *Consistency models*](https://arxiv.org/abs/2303.01469): down to a few evaluations, by training.
