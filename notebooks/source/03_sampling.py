# %% [markdown]
# # 03 · How do I get from noise to a picture, and how few steps are enough?
#
# **A denoiser says where the picture is. A sampler goes there, a little at a time.** In this lesson you take the first
# such step by hand, then meet five ways to take it, and measure how few of them are enough.
#
# | | |
# |---|---|
# | You will see | one step back as two bell curves multiplied; five samplers from the same noise; paths on a page; errors that halve, and errors that fall to a quarter |
# | It costs | about 2 minutes on 2 CPU cores, half of it in one measurement; a GPU is not needed |
# | You need | $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ from lesson 01, the denoiser $\hat{x}_0$ from lesson 02 |

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import torch

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, show, style

style()
COLOUR = {
    "ddpm": figures.RED,
    "ddim": figures.SKY,
    "euler": figures.BLUE,
    "heun": figures.GREEN,
    "dpmpp_2m": figures.ORANGE,
}
pipe = TextToImage.load("mnist")

# %% [markdown]
# The whole lesson in one row: the same noise, walked back to a seven in 1, 2, 3, 5, 10, 20 and 100 steps.

# %%
counts = (1, 2, 3, 5, 10, 20, 100)
start = torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(3))


def row(latents, titles, width=7.5):
    """Pictures side by side, each with a title. latents: a list of (1, 4, 14, 14)."""
    figure, axes = plt.subplots(1, len(latents), figsize=(width, width / len(latents) + 0.45))
    for axis, latent, title in zip(axes, latents, titles, strict=True):
        axis.imshow(pipe.decode(latent)[0, 0].cpu(), vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
    plt.show()


row(
    [pipe.latents("7", steps=n, sampler="euler", scale=2.0, latents=start) for n in counts],
    [f"{n} steps" if n > 1 else "1 step" for n in counts],
)

# %% [markdown]
# One step gives an average of sevens. After that the picture sharpens, and soon more steps change nothing that you
# would see. How soon depends on how each step is taken.
#
# ## One step, by hand
#
# Take a real seven, and add noise up to $t = 0.6$. The model shipped with the course looks at it and says what it believes
# in. (It works on the picture folded 2x2: four channels of 14x14, as in the tour. `cfg` is guidance, here at
# $w = 2$; lesson 09 builds it. All you need to know is that `denoise(x, t)` returns $\hat{x}_0$.)

# %%
from minidiff.diffusion import FLOW, cfg, ddim, ddpm, dpmpp_2m, euler, flow, heun, ideal, uniform

schedule = flow()  # alpha = 1 - t, sigma = t
denoise = cfg(pipe.net.unet, schedule, FLOW, pipe.encode(["7"]), pipe.encode_negative(None, 1), scale=2.0)

digits = data.mnist("validation")
seven = digits.images[digits.labels == 7][:1]
x0 = pipe.fold.encode(seven).to(pipe.device)
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(pipe.device)

t, t_to = 0.6, 0.5
x = schedule.add_noise(x0, eps, t)
x0_hat = denoise(x, t)
row([x0, x, x0_hat], ["a real seven $x_0$", f"$x_t$ at t = {t}", r"what is believed, $\hat{x}_0$"], width=4.5)

# %% [markdown]
# We want the picture at $t = 0.5$: a little less noise. Pick **one pixel** and ask what is known about its value there.
# Two things are.
#
# - **The belief.** If $\hat{x}_0$ is right, the pixel is $\alpha_{to}\,\hat{x}_0$ plus noise of standard deviation $\sigma_{to}$.
# - **The noisy picture.** $x_t$ itself came out of the picture we look for, by one more step of corruption: multiplied by
#   $k = \alpha_t / \alpha_{to}$, then noise of variance $\sigma_t^2 - k^2 \sigma_{to}^2$ added. Read backwards, this says: the
#   pixel is around $x_t / k$.
#
# Each is a bell curve. Both hold, so multiply them: the product is a bell curve again, narrower than either.

# %%
alpha, sigma = 1 - t, t
alpha_to, sigma_to = 1 - t_to, t_to
kept = alpha / alpha_to
added = sigma**2 - (kept * sigma_to) ** 2  # the variance of the noise between the two times

pixel = (0, 1, 7, 6)  # picture, channel, row, column
belief, noisy = x0_hat[pixel].item(), x[pixel].item()
centre_a, width_a = alpha_to * belief, sigma_to
centre_b, width_b = noisy / kept, added**0.5 / kept

trust_a, trust_b = 1 / width_a**2, 1 / width_b**2
mean = (trust_a * centre_a + trust_b * centre_b) / (trust_a + trust_b)
std = (trust_a + trust_b) ** -0.5
print(f"the belief says    {centre_a:+.4f}, give or take {width_a:.4f}")
print(f"x_t says           {centre_b:+.4f}, give or take {width_b:.4f}")
print(f"together           {mean:+.4f}, give or take {std:.4f}")

line = torch.linspace(min(centre_a, centre_b) - 1.5, max(centre_a, centre_b) + 1.5, 400)
figure, axis = plt.subplots(figsize=(6, 2.6))
for centre, width, label in (
    (centre_a, width_a, "from the belief"),
    (centre_b, width_b, "from $x_t$"),
    (mean, std, "from both"),
):
    density = torch.exp(-(((line - centre) / width) ** 2) / 2) / width / (2 * torch.pi) ** 0.5
    axis.plot(line, density, label=label, linewidth=2.5 if label == "from both" else 1.5)
axis.set(xlabel=f"value of the pixel at t = {t_to}", ylabel="density", title="what is known about one pixel")
axis.legend()
plt.show()

# %% [markdown]
# **DDPM's step draws from the third curve**: the mean, plus its standard deviation times fresh noise. This is *ancestral
# sampling* (Ho et al. 2020, equations 6 and 7). With the product multiplied out:
#
# $$\mu = \frac{k\,\sigma_{to}^2}{\sigma_t^2}\, x_t + \frac{\alpha_{to}\,(\sigma_t^2 - k^2\sigma_{to}^2)}{\sigma_t^2}\, \hat{x}_0
# \qquad
# \text{std} = \frac{\sigma_{to}}{\sigma_t} \sqrt{\sigma_t^2 - k^2\sigma_{to}^2}$$
#
# Look at the last step, to $\sigma_{to} = 0$: the mean is $\hat{x}_0$ and the standard deviation is 0. A finished picture gets no
# more noise. Now the function of the library, with the same fresh noise, at the same pixel:

# %%
fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(pipe.device)
(step,) = ddpm(denoise, x, [t, t_to], schedule, noise=lambda x: fresh)
print(f"by hand   {mean + std * fresh[pixel].item():.6f}")
print(f"ddpm      {step.x[pixel].item():.6f}")

# %% [markdown]
# A sampler of this course is a *generator*: it yields every step with the new `x`, the belief it used (`x0_hat`) and
# the time it reached (`t`). So a loop over it can draw, count or stop. Ho et al. took 1000 steps; here are 50, from pure noise:

# %%
torch.manual_seed(0)  # of the fresh noise
walked = list(ddpm(denoise, start.to(pipe.device), uniform(50, schedule), schedule))
chosen = walked[9::8]
row([s.x for s in chosen], [f"t = {s.t:.2f}" for s in chosen])
row([s.x0_hat for s in chosen], ["believed"] * len(chosen))

# %% [markdown]
# ## Without the dice: DDIM, which is Euler
#
# Each of DDPM's steps throws dice. Are they needed? Once you have a belief about the picture, you have one about the
# noise too. Three lines:
#
# $$\begin{aligned}
# \hat\varepsilon &= (x_t - \alpha_t \hat{x}_0) / \sigma_t && \text{so that } x_t = \alpha_t \hat{x}_0 + \sigma_t \hat\varepsilon \text{ exactly} \\
# x_{to} &= \alpha_{to}\, \hat{x}_0 + \sigma_{to}\, \hat\varepsilon && \text{DDIM: the same two, mixed for the new time} \\
#        &= x_t + (\alpha_{to} - \alpha_t)\, \hat{x}_0 + (\sigma_{to} - \sigma_t)\, \hat\varepsilon && \text{Euler: the first line taken away from the second}
# \end{aligned}$$
#
# The second line is Song et al. 2020, equation 12, without its noise. The third is Euler's method for the differential equation
# $\;dx = \hat{x}_0\, d\alpha + \hat\varepsilon\, d\sigma$. So *a sampler is a solver*, and
# better solvers than Euler's are known. At our pixel:

# %%
noise_hat = (noisy - alpha * belief) / sigma
change = (alpha_to - alpha) * belief + (sigma_to - sigma) * noise_hat
print(f"x_t {noisy:+.4f}   x0_hat {belief:+.4f}   eps_hat {noise_hat:+.4f}   change {change:+.4f}")
print(f"by hand   {noisy + change:.6f}")
for sampler in (euler, ddim):
    (step,) = sampler(denoise, x, [t, t_to], schedule)
    print(f"{sampler.__name__:<9} {step.x[pixel].item():.6f}")

# %% [markdown]
# Without dice, the start noise decides everything: the same noise gives the same picture, with any number of steps that
# is large enough. That is what makes it possible to ask *how few* steps will do: there is a right answer to come close to.
#
# ## Second order: Heun, and DPM-Solver++(2M)
#
# Euler believes that the slope at the start of a step holds all the way. On a curve it does not. To see the curve, take data so
# simple that the best denoiser is known: numbers near $-1$ or near $+1$ (`ideal`, from lesson 02).

# %%
line_data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
believe = ideal(line_data, schedule, std=0.2)


def slope(x, t):
    """dx/dt on the flow schedule: the believed noise less the believed picture."""
    x0_hat = believe(x, t)
    return (x - (1 - t) * x0_hat) / t - x0_hat


fine = uniform(500, schedule, 0.98, 0.02)
curve = [torch.tensor([[0.25]], dtype=torch.float64)]
curve += [s.x for s in heun(believe, curve[0], fine, schedule)]
values = torch.cat(curve)[:, 0]


def at(t):
    """Where the true curve is at time t, (1, 1)."""
    return curve[int((fine - t).abs().argmin())]


figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))

a, b = 0.45, 0.2  # one long step
begin = at(a)
(by_euler,), (by_heun,) = (list(s(believe, begin, [a, b], schedule)) for s in (euler, heun))
end = slope(by_euler.x, b).item()
reach = torch.tensor([b - 0.06, b + 0.06])
left.plot(fine, values, color=figures.GRAY, label="the true curve")
left.plot([a, b], [begin.item(), by_euler.x.item()], "s-", color=COLOUR["euler"], label="Euler: slope at the start")
left.plot(reach, by_euler.x.item() + end * (reach - b), color="black", linewidth=2.5, label="the slope at the end")
left.plot([a, b], [begin.item(), by_heun.x.item()], "D-", color=COLOUR["heun"], label="Heun: the mean of both")
left.set(xlabel="t", ylabel="x", title="Heun: a slope at both ends", xlim=(0.6, 0.1), ylim=(0.1, 1.0))
left.legend(fontsize=8, loc="upper left")

log_snr = torch.log((1 - fine) / fine)
beliefs = torch.cat([believe(x, t) for x, t in zip(curve, fine, strict=True)])[:, 0]
knots = torch.tensor([-1.3, -0.6, 0.1])  # two beliefs behind, the step ahead
known = [believe(at(1 / (1 + k.exp())), 1 / (1 + k.exp())).item() for k in knots[:2]]
middle = (knots[1] + knots[2]) / 2
read = known[1] + (known[1] - known[0]) * float((middle - knots[1]) / (knots[1] - knots[0]))
right.plot(log_snr, beliefs, color=figures.GRAY, label="the true belief")
right.axvspan(knots[1], knots[2], alpha=0.15, color=figures.GRAY, linewidth=0, label="this step")
right.hlines(known[1], knots[1], knots[2], color=COLOUR["euler"], label="Euler, DDIM: the last belief")
right.plot([knots[0], middle], [known[0], read], "--", color=COLOUR["dpmpp_2m"])
right.plot(knots[:2], known, "o", color="black", label="the last two beliefs")
right.plot([middle], [read], "^", color=COLOUR["dpmpp_2m"], label="2M: read in the middle")
right.set(xlabel=r"$\log(\alpha/\sigma)$: less noise to the right", ylabel=r"$\hat{x}_0$")
right.set(title="2M: a line through two beliefs", xlim=(-1.8, 0.7), ylim=(0, 0.85))
right.legend(fontsize=8, loc="upper left")
plt.show()

# %% [markdown]
# **Heun** (left) asks twice: it looks ahead with Euler, takes the slope there too, and goes with the mean of both. Two calls of
# the network for each step.
#
# **DPM-Solver++(2M)** (right; Lu et al. 2022b) asks once. It remembers its last belief, draws a straight line through the last two,
# and reads it in the middle of the coming step. Its clock is $\log(\alpha/\sigma)$, in which the equation is simplest: there
# the step from $x_t$ depends on nothing but $\hat{x}_0$ along the way.
#
# How far off they end on this curve:

# %%
print(f"{'steps':<12}{'euler':>10}{'heun':>10}{'dpmpp_2m':>10}")
for n in (8, 16, 32, 64):
    off = []
    for sampler in (euler, heun, dpmpp_2m):
        *_, step = sampler(believe, curve[0], uniform(n, schedule, 0.98, 0.02), schedule)
        off.append(step.x.item() - values[-1].item())
    print(f"{n:<12}" + "".join(f"{error:>+10.4f}" for error in off))

# %% [markdown]
# Going down a column, each doubling about halves the error of Euler, and Heun's falls faster, at two calls a step. 2M costs no more
# than Euler; but it needs a few steps before its straight lines are any good.
#
# ## The same noise under five samplers
#
# Each row is a sampler, each column a number of steps. All pictures begin with the same two squares of noise: one is asked to become a four, the
# other an eight. This takes a few seconds.

# %%
from minidiff.diffusion import SAMPLERS

counts = (2, 5, 10, 20)
figure, axes = plt.subplots(len(SAMPLERS), len(counts), figsize=(6.4, 3.9))
for line, name in zip(axes, SAMPLERS, strict=True):
    for axis, n in zip(line, counts, strict=True):
        pictures = pipe.decode(pipe.latents(["4", "8"], steps=n, sampler=name, scale=2.0, seed=5))
        axis.imshow(torch.cat(list(pictures[:, 0]), dim=1).cpu(), vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
for axis, n in zip(axes[0], counts, strict=True):
    axis.set_title(f"{n} steps")
plt.show()

# %% [markdown]
# Read it row by row. `ddim` and `euler` are the same pictures, as the three lines above promise. They, `heun` and `dpmpp_2m` are heading
# for one and the same pair of digits, and differ in how soon they are there. `ddpm` throws dice on the way and ends elsewhere, somewhere else for
# each number of steps.
#
# ## Paths on a page
#
# Pictures have too many dimensions to see a walk. On the page of lesson 02 you can. The data are five islands, the denoiser is
# the ideal one, and the black dots are where the walks begin.

# %%
from minidiff.diffusion import cosine

islands = data.points("islands").double()
begin = torch.randn(7, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def path(sampler, n, schedule, points=islands):
    """All places that the walks visit, (n + 1, 7, 2), from t = 0.98 to 0.02."""
    torch.manual_seed(0)
    steps = sampler(ideal(points, schedule, 0.02), begin, uniform(n, schedule, 0.98, 0.02), schedule)
    return torch.stack([begin] + [s.x for s in steps])


walks = {
    "ddpm on flow, 50 steps": path(ddpm, 50, flow()),
    "ddim on flow, 50 steps": path(ddim, 50, flow()),
    "ddim on cosine, 50 steps": path(ddim, 50, cosine()),
    "heun on flow, 8 steps": path(heun, 8, flow()),
}
figure, axes = plt.subplots(2, 2, figsize=(6.4, 6.4), sharex=True, sharey=True)
for axis, (title, walk) in zip(axes.flat, walks.items(), strict=True):
    axis.plot(*islands.T, ".", color="#cccccc", markersize=3)
    shown = 3 if title.startswith("ddpm") else 7  # ddpm's fill the page
    axis.plot(walk[:, :shown, 0], walk[:, :shown, 1], linewidth=1.2, marker="." if len(walk) < 20 else None)
    axis.plot(*begin[:shown].T, ".", color="black", markersize=6)
    axis.set(title=title, aspect="equal", xlim=(-2.3, 2.3), ylim=(-2.3, 2.3))
for axis in axes[:, 0]:
    axis.set_ylabel("second coordinate")
for axis in axes[1]:
    axis.set_xlabel("first coordinate")
plt.show()

for name, points in (("a single point", islands[:1]), ("five islands", islands)):
    for title, other in (("flow", flow()), ("cosine", cosine())):
        walk = path(ddim, 200, other, points)
        longer = walk.diff(dim=0).norm(dim=2).sum(0) / (walk[-1] - walk[0]).norm(dim=1)
        print(f"{name:<15} on {title:<7} a path is {longer.mean():.2f} times as long as the straight line")

# %% [markdown]
# DDPM is pushed about at every step, and wanders. The other walks are smooth. What bends them?
#
# With a single point as data, the belief never changes. Then a walk on `flow` is a straight line, and on `cosine` an arc. With five
# islands the belief does change. At first it is the mean of everything, so on `flow` all paths head for the middle; then each
# makes up its mind, and turns. The "straight lines" of `flow` join each picture to *its own* noise. The walks, which follow the average of all such lines,
# are not straight.
#
# DDIM's step is exact on a line and on an arc, as long as $\hat{x}_0$ and $\hat\varepsilon$ stay the same: look at the three lines above.
# **So what costs steps is not the shape of the path, but a belief that changes on the way.** Heun and 2M take account of that change.
#
# ## How few steps will do?
#
# Now measured, with the digits and without guidance ($w = 1$: one network call for each belief, and no help). For each sampler and number of
# steps we draw the same digits from the same noise, and ask two things: *does the judge read the digit that was asked for?* and *how far is the
# cloud of drawn digits from the cloud of real ones?* (the Frechet distance; lesson 04 asks what both are worth). The fair price is the number
# of **network calls**, not of steps: Heun makes two for each.
#
# This is the expensive cell: about a minute on 2 cores.

# %%
from minidiff.evaluation.judges import judged
from minidiff.evaluation.metrics import floor, frechet
from minidiff.formats.model_folder import load_classifier

drawn = budget(full=300, smoke=66)
counts = budget(full=(1, 2, 3, 5, 10, 20), smoke=(1, 2))
judge = load_classifier("judge", pipe.device)
real_features, _ = judged(judge, digits.images.to(pipe.device))
wanted = digits.labels[:drawn]  # real digits give the mix of labels; the others are what we compare with


def measure(sampler, steps):
    """Share of the digits read right, and their Frechet distance to real ones."""
    pictures = []
    for part in wanted.split(100):
        prompts, seed = [str(d) for d in part.tolist()], 100 * len(pictures)
        pictures.append(pipe.decode(pipe.latents(prompts, steps=steps, sampler=sampler, scale=1.0, seed=seed)))
    features, answers = judged(judge, torch.cat(pictures) * 2 - 1)
    return (answers == wanted).double().mean().item(), frechet(features, real_features[drawn:])


results = {}
print(f"n = {drawn} digits, w = 1\n{'sampler':<10}{'steps':>6}{'calls':>6}{'read right':>12}{'Frechet':>9}")
for name in ("ddpm", "euler", "heun", "dpmpp_2m"):
    for steps in counts:
        calls = 2 * steps - 1 if name == "heun" else steps  # Heun's last step, to t = 0, is Euler's
        accuracy, distance = measure(name, steps)
        results.setdefault(name, []).append((calls, accuracy, distance))
        print(f"{name:<10}{steps:>6}{calls:>6}{accuracy:>12.1%}{distance:>9.2f}")

# %%
lowest, spread = floor(real_features, drawn)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
for (name, rows), marker in zip(results.items(), "osD^", strict=True):
    calls, accuracy, distance = zip(*rows, strict=True)
    left.plot(calls, [100 * a for a in accuracy], marker=marker, color=COLOUR[name], label=name)
    right.plot(calls, distance, marker=marker, color=COLOUR[name], label=name)
right.axhspan(lowest - spread, lowest + spread, color=figures.GRAY, alpha=0.25, linewidth=0, label="real against real")
left.set(xlabel="network calls", ylabel="read right, %", xscale="log", title="does the judge agree?")
right.set(
    xlabel="network calls", ylabel="Frechet distance", xscale="log", yscale="log", title="how far from real digits?"
)
for axis in (left, right):
    axis.set_xticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    axis.minorticks_off()
right.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
left.legend()
right.legend()
plt.show()

# %% [markdown]
# One step is bad: its digits are averages. A few calls later both curves are flat, for every sampler. From there on more steps buy nothing
# that this experiment can see: what is left is the mistakes of the network, and no solver mends those. It is a rough experiment. With a few hundred
# digits, distances that differ by less than the width of the gray band may well be equal. Compare the shapes, not the last digits.
#
# Two things to take along. These digits are small and easy; large pictures need more steps, but the curves have the same shape. And
# *good* is not *exact*: a walk may end far from where it should have ended, and be as good a digit there. How exact each
# sampler is, we can measure too.
#
# ## The order of convergence
#
# For exactness we need a walk whose true end is known. Five islands, softened so that everything is smooth, the ideal denoiser,
# and float64. The end of 4000 steps of Heun serves as the truth.

# %%
smooth = data.points("islands", n=100).double()
many = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
counts = (10, 20, 40, 80, 160, 320)


def last(steps):
    """Where a walk ends."""
    *_, step = steps
    return step.x


def errors(sampler, schedule, grid):
    """Mean distance from the truth, for each number of steps. grid: n -> times."""
    denoise = ideal(smooth, schedule, 0.25)
    truth = last(heun(denoise, many, grid(budget(full=4000, smoke=1000)), schedule))
    ends = [last(sampler(denoise, many, grid(n), schedule)) for n in counts]
    return [(end - truth).norm(dim=1).mean().item() for end in ends]


def log_log(axis, title):
    axis.set(xscale="log", yscale="log", xlabel="steps", ylabel="error", title=title)
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.minorticks_off()


measured = {s.__name__: errors(s, flow(), lambda n: uniform(n, flow(), 0.98, 0.02)) for s in (euler, heun, dpmpp_2m)}
figure, axis = plt.subplots(figsize=(5.6, 3.6))
for (name, values), marker in zip(measured.items(), "sD^", strict=True):
    axis.plot(counts, values, marker=marker, color=COLOUR[name], label=name)
for order, name in ((1, "euler"), (2, "heun")):
    top = 0.45 * measured[name][0]
    axis.plot(
        counts, [top * (counts[0] / n) ** order for n in counts], "--", color=figures.GRAY, label=f"slope {order}"
    )
log_log(axis, "flow, from t = 0.98 to 0.02")
axis.legend()
plt.show()

for name, values in measured.items():
    print(f"{name:<9} each doubling divides the error by", ", ".join(f"{a / b:.1f}" for a, b in pairwise(values)))

# %% [markdown]
# **Twice the steps divide Euler's error by 2 and Heun's by 4.** The error goes like $1/n^p$; $p$ is the *order*, 1 for Euler and 2 for the
# others, and on logarithmic axes it is the slope. `dpmpp_2m` does it with half of Heun's calls.
#
# ### How to lose it
#
# An order is a promise about smooth curves. Stable Diffusion's table `scaled_linear` is not smooth at $t = 0$: there the *variance* grows evenly, so
# $\sigma$ behaves like $\sqrt{t}$ and starts with a very steep slope. With evenly spaced times all the way to 0, the last steps
# jump over that bend.

# %%
from minidiff.diffusion import scaled_linear

table = scaled_linear()
early = torch.linspace(0, 0.1, 400, dtype=torch.float64)
cases = {
    "even times, to t = 0": errors(heun, table, lambda n: uniform(n, table)),
    "even times, to t = 0.02": errors(heun, table, lambda n: uniform(n, table, 1.0, 0.02)),
    "times cubed, to t = 0": errors(heun, table, lambda n: uniform(n, table) ** 3),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
left.plot(early, table.sigma(early), label="scaled_linear")
left.plot(early, cosine().sigma(early), label="cosine")
left.plot(early, flow().sigma(early), label="flow")
left.set(xlabel="t", ylabel=r"$\sigma$", title=r"close to the data, $\sigma$ is like $\sqrt{t}$ on a table")
left.legend()
for (name, values), marker in zip(cases.items(), "osD", strict=True):
    right.plot(counts, values, marker=marker, label=name)
log_log(right, "Heun on scaled_linear")
right.legend(fontsize=8)
plt.show()

for name, values in cases.items():
    print(f"{name:<24} each doubling divides the error by", ", ".join(f"{a / b:.1f}" for a, b in pairwise(values)))

# %% [markdown]
# To $t = 0$ in even steps, Heun does no better than a first-order method. Stop at $t = 0.02$, before the bend, and it is second order again.
# Or make the steps shorter where the bend is: with the times cubed, the order holds all the way down to 0, and the error is smaller from the
# start. This is one reason why samplers come with a *time grid* of their own, such as `karras` in `minidiff/diffusion/grids.py`.
#
# ## Flow matching: the same with straight lines
#
# You will hear of *flow matching* and *rectified flow* as a method of their own. Take $\alpha_t = 1 - t$ and $\sigma_t = t$ and look at what Euler's step becomes:
#
# $$x_t = (1 - t)\,x_0 + t\,\varepsilon, \qquad v = \frac{dx_t}{dt} = \varepsilon - x_0, \qquad x_{to} = x_t + (t_{to} - t)\,\hat v$$
#
# Each picture is joined to its noise by a straight line, the network predicts the velocity $v$ along it, and Euler's step follows it. That
# is all there is to it (Liu et al. 2022; Lipman et al. 2022), and you have used it since the beginning of this lesson: the shipped model predicts $v$.
# At our pixel, with the network's raw output and no $\hat{x}_0$ in sight:

# %%
from minidiff.diffusion import denoiser, predict

context = pipe.encode(["7"])
plain = denoiser(pipe.net.unet, schedule, FLOW, context)  # w = 1
with torch.no_grad():
    v = predict(pipe.net.unet, schedule, x, t, context)
(step,) = euler(plain, x, [t, t_to], schedule)
print(f"x + (t_to - t) * v    {(x + (t_to - t) * v)[pixel].item():.6f}")
print(f"euler on flow()       {step.x[pixel].item():.6f}")

# %% [markdown]
# And the other way round: a model that was trained on straight lines can walk on any other path. `rescheduled` finds, for
# each time of the new path, the time of the old one at which the picture is equally noisy, and scales the brightness. Below, one
# network on three paths from the same noise.

# %%
from minidiff.diffusion import edm, rescheduled

ends = {}
for name, other in (("flow", flow()), ("cosine", rescheduled(cosine(), flow())), ("edm", rescheduled(edm(), flow()))):
    believe = denoiser(pipe.net.unet, other, FLOW, context)
    _, sigma_start = other.at(1.0, start)
    for n in (5, 40):
        times = uniform(n, other) ** (
            5 if name == "edm" else 1
        )  # edm's sigma runs to 80: most of its steps belong near 0
        ends[name, n] = last(heun(believe, sigma_start * start.to(pipe.device), times, other))

row(list(ends.values()), [f"{name}, {n} steps" for name, n in ends])
for n in (5, 40):
    apart = [(ends[name, n] - ends["flow", n]).square().mean().sqrt().item() for name in ("cosine", "edm")]
    print(f"{n:>2} steps: root mean square difference from flow: cosine {apart[0]:.3f}, edm {apart[1]:.3f}")

# %% [markdown]
# The three paths lead to the same picture. With few steps each makes errors of its own on the way, with more they meet. So the path
# is not a property of the model: it is chosen when you sample.
#
# ## What goes wrong
#
# Five mistakes, each with the picture it makes. You will meet all of them, and it helps to know their faces.

# %%
from minidiff.diffusion import leading, linear

x1 = start.to(pipe.device)
times = uniform(10, schedule)
*_, before, done = euler(denoise, x1, times, schedule)

few = last(euler(denoise, x1, uniform(2, schedule), schedule))
late = last(euler(denoise, x1, times[4:], schedule))  # pure noise, but the walk begins at t = 0.6
grain = done.x + before.t.item() * fresh  # noise of the last level, on a finished picture
row(
    [done.x, few, late, before.x, grain],
    ["10 steps", "too few: 2", "starts at t = 0.6", "last step left out", "noise at the end"],
)

# %% [markdown]
# **Too few steps.** The first belief is an average, and in two steps it still shows: soft edges, gray smears.
#
# **A grid that starts too late.** The walk starts with pure noise and tells the network that there is a picture in it already.
# The network takes it at its word, and draws strokes into accidents of the noise. Here it was done on purpose; grids do it quietly. The
# grid called `leading` counts its steps from the clean end of a table and never quite starts at noise:

# %%
print(f"the table ends at t = 1.000 with alpha = {linear().at(1.0, x1)[0]:.3f}")
for n in (5, 10, 50):
    first = leading(n, linear())[0]
    print(f"leading, {n:>2} steps: starts at t = {first:.3f} with alpha = {linear().alpha(first):.3f}")

# %% [markdown]
# **The last step left out.** $n$ steps need $n + 1$ times, and it is easy to lose one at the end. Then the noise of the last level stays.
# The upper edge of a digit is plain paper, $x_0 = -1$, so whatever varies there is noise:

# %%
for n in (5, 10, 20):
    *_, before, done = euler(denoise, x1, uniform(n, schedule), schedule)
    left_over, clean = (pipe.fold.decode(s.x)[0, 0, :3].std() for s in (before, done))
    print(
        f"{n:>2} steps: sigma was {before.t:.3f}   noise left at the edge {left_over:.3f}   after the last step {clean:.3f}"
    )

# %% [markdown]
# **Noise added at the last step.** It looks the same, though it comes from the other end: DDPM's formula for the noise does
# not vanish by itself if one takes the variance of the forward step, the "large" one, so the last step must leave it out.
#
# **Times in the wrong order** are refused, since nothing good can come of them:

# %%
try:
    last(euler(denoise, x1, uniform(10, schedule).flip(0), schedule))
except ValueError as error:
    print(error)

# %% [markdown]
# ## Try all of it
#
# On the strip: what the network believed at each step. Beside it: the result, and the same noise walked in 1000 steps.

# %%
show(figures.sampler(pipe, "7", sampler="dpmpp_2m", steps=10, seed=0, scale=2.0))

# %% [markdown]
# Now turn the knobs. Find the smallest number of steps at which each sampler's result is the reference, and see what the
# strip looks like at scale 4.

# %%
widgets.sampler(pipe)

# %% [markdown]
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | what the forward step between two times keeps | $k = \alpha_t / \alpha_{to}$ | {{samplers.ddpm: kept = now.alpha / to.alpha}} |
# | the variance it adds | $\sigma_t^2 - k^2 \sigma_{to}^2$ | {{samplers.ddpm: added = now.sigma**2 - kept**2 * to.sigma**2}} |
# | DDPM: the mean of both bell curves | $\mu = (k \sigma_{to}^2 x_t + \alpha_{to} (\sigma_t^2 - k^2 \sigma_{to}^2) \hat{x}_0) / \sigma_t^2$ | {{samplers.ddpm: x = kept * to.sigma**2 / now.sigma**2 * x}} |
# | DDPM: fresh noise, but not at the end | $x_{to} = \mu + \text{std} \cdot \varepsilon$ | {{samplers.ddpm: x = x + var**0.5 * noise(x)}} |
# | DDIM: mix the belief anew | $x_{to} = \alpha_{to} \hat{x}_0 + \sigma_{to} \hat\varepsilon$ | {{samplers.ddim: x = to.alpha * x0_hat + (to.sigma**2 - fresh**2) ** 0.5 * eps_hat}} |
# | Heun: the mean of two slopes | $(\hat{x}_0 + \hat{x}_0')/2, \; (\hat\varepsilon + \hat\varepsilon')/2$ | {{samplers.heun: x0_hat, eps_hat = (x0_hat + x0_ahead) / 2}} |
# | 2M: a line through two beliefs | $\hat{x}_0 + \frac{h}{2 h'} (\hat{x}_0 - \hat{x}_0')$ | {{samplers.dpmpp_2m: x0_hat + width / (2 * last_width) * (x0_hat - last_x0_hat)}} |
# | even times | $t_i = 1 - i/n$ | {{grids.uniform: return torch.linspace(start, end, n + 1}} |
# | straight lines | $\alpha = 1 - t, \; \sigma = t$ | {{schedules.flow: return Schedule(lambda t: 1 - t, lambda t: t, _thousands)}} |
# | one network on another path | $\sigma/\alpha$ equal on both | {{more_schedules.rescheduled: return trained.time_of(path.sigma(t) / path.alpha(t))}} |
#
# ## Exercises
#
# Every check tries your function on small exact cases. If something is off, it says which mistake it looks like.

# %% [markdown]
# ### Exercise 1 · DDIM's step
#
# *easy, 5 minutes.*
#
# Write one step of DDIM without noise. `x` and `x0_hat` are tensors of one shape, the other four are numbers; return the new `x`, of the same
# shape.
#
# <details><summary>Hint</summary>
#
# Two lines. The first finds the noise that `x` must hold if `x0_hat` is right. The second mixes the two for the new time.
#
# </details>


# %%
def ddim_step(x, x0_hat, alpha, sigma, alpha_to, sigma_to):
    """The picture at the next time, from x and the belief about it."""
    ### BEGIN SOLUTION
    eps_hat = (x - alpha * x0_hat) / sigma
    return alpha_to * x0_hat + sigma_to * eps_hat
    ### END SOLUTION


# %%
check.l03_ddim_step(ddim_step)

# %% [markdown]
# ### Exercise 2 · The loop
#
# *easy, 8 minutes.*
#
# Write the walk. `denoise(x, t)` returns the belief `x0_hat`. `step(x, x0_hat, t, t_to)` returns the new `x`. `times` is a falling row of
# $n + 1$ times, a tensor; `x` is where the walk is at the first of them. Return where it is at the last.
#
# <details><summary>Hint</summary>
#
# n + 1 times have n gaps between them, and a step crosses a gap. `pairwise(times)` from itertools gives the two ends of each.
#
# </details>


# %%
def walk(denoise, step, x, times):
    """From x at times[0] to x at times[-1]."""
    ### BEGIN SOLUTION
    for t, t_to in pairwise(times):
        x = step(x, denoise(x, t), t, t_to)
    return x
    ### END SOLUTION


# %%
check.l03_walk(walk)

# %% [markdown]
# With both, you have a sampler of your own. Once the two checks are content, add a cell and run it on the flow schedule, with the
# denoiser of this lesson:
#
# ```python
# def straight(x, x0_hat, t, t_to):
#     return ddim_step(x, x0_hat, 1 - t, t, 1 - t_to, t_to)
#
# with torch.no_grad():
#     row([walk(denoise, straight, x1, uniform(n, schedule)) for n in (3, 20)], ["3 steps", "20 steps"], width=3)
# ```

# %% [markdown]
# ### Exercise 3 · Heun's step
#
# *medium, 8 minutes.*
#
# `slope(x, t)` returns $dx/dt$, of the shape of `x`. Write one step of Heun's method from `t` to `t_to`. Return the new `x`.
#
# <details><summary>Hint</summary>
#
# Look at the left one of the two pictures above. Which two places is the slope asked for? The length of the step, `t_to - t`, is negative here, and
# nothing needs to be done about it.
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
# ### Exercise 6 · Catch the bug
#
# *medium, 8 minutes.*
#
# Now you write the test, and the check hands it functions: two that take the step of exercise 1 as they should, and some that are each wrong in one
# way. `ddim_step` is one of them. Return True if it is right, and False, or let an `assert` fail, if it is not.
#
# <details><summary>Hint</summary>
#
# Make an $x_t$ of an $x_0$ and an $\varepsilon$ that you know, and let x0_hat be exactly $x_0$. Where must the step lead then? Look at more than the last one.
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
# ### Exercise 4 · DDPM's step
#
# *medium, 12 minutes.*
#
# Write the ancestral step with the small variance, that of the product of the two bell curves. `x`, `x0_hat` and `noise` are tensors of
# one shape, the other four are numbers. It must hold for any two times, and for the last step too, where `sigma_to` is 0. Return the new `x`.
#
# <details><summary>Hint</summary>
#
# Compute `kept` and `added` first, as was done by hand above. The two curves divide by `sigma_to`, which is 0 at the end;
# the formula with the product multiplied out does not.
#
# </details>


# %%
def ancestral_step(x, x0_hat, noise, alpha, sigma, alpha_to, sigma_to):
    """A draw from what x and x0_hat together say about the next picture."""
    ### BEGIN SOLUTION
    kept = alpha / alpha_to
    added = sigma**2 - kept**2 * sigma_to**2
    mean = (kept * sigma_to**2 * x + alpha_to * added * x0_hat) / sigma**2
    return mean + sigma_to / sigma * added**0.5 * noise
    ### END SOLUTION


# %%
check.l03_ancestral_step(ancestral_step)

# %% [markdown]
# ### Exercise 5 · Measure an order
#
# *hard, 10 minutes.*
#
# `steps` and `errors` are tensors of one length: the error that was left after each number of steps. If the error is
# $C / n^p$, return $p$, as a positive number. Real errors obey such a law only nearly, so fit a line rather than compare two points.
#
# <details><summary>Hint</summary>
#
# Take the logarithm of $e = C / n^p$: what is the slope of $\log e$ against $\log n$? The slope of the best line through points $(a, b)$ is
# the sum of $(a - \bar a)\,b$ divided by the sum of $(a - \bar a)^2$; or let `numpy.polyfit` find it.
#
# </details>


# %%
def order(steps, errors):
    """The order of convergence p, where errors go like steps ** -p."""
    ### BEGIN SOLUTION
    a, b = steps.log(), errors.log()
    a = a - a.mean()
    return -(a * b).sum() / (a**2).sum()
    ### END SOLUTION


# %%
check.l03_order(order)

# %% [markdown]
# Then ask it about what was measured above, for `name` among `euler`, `heun`, `dpmpp_2m`:
# `order(torch.tensor(counts).double(), torch.tensor(measured[name]).double())`. The three walks on the table are in `cases`.

# %% [markdown]
# ## Where to go next
#
# You can walk back from noise, and you know what a step costs and what it buys. But the measurement in the middle of this lesson took two
# numbers on trust: what the judge reads, and a distance between clouds. Lesson 04 asks how you know that a generated
# picture is good, and how many pictures it takes to be sure. Or go on to lesson 05, and look into the network itself.
