# %% [markdown]
# # 04b · Would my numbers survive a careful reviewer?
#
# You have a model, an accuracy, and a Fréchet distance beside its floor. You submit them, and a careful reviewer sends back six questions: how large is
# the error, what exactly is wrong with the images, are they new, on which data did you choose your settings, can your judge be trusted, and is your code right? This lesson
# answers them one by one, for those who publish numbers and for those who read papers that do. The rest of the course does not depend on it.
#
# | | |
# |---|---|
# | After this lesson you can | put an error bar on any metric; measure precision and recall; find copies of the training set; keep choices and results on separate data; find bugs in an evaluation |
# | Study time | {{study time}} |
# | Compute time | about 3 minutes on 2 CPU cores, most of it for generating 4,000 digits; no GPU needed |
# | You need | the judge, its features and the Fréchet distance (lesson 04) |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
import copy

import matplotlib.pyplot as plt
import torch

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.figures.page import Page
from minidiff.course.lessons import budget, grid, show, style
from minidiff.evaluation import metrics
from minidiff.evaluation.judges import judged
from minidiff.evaluation.labelled import evaluate
from minidiff.formats.model_folder import load_classifier

style()
pipe = TextToImage.load("mnist")
judge = load_classifier("judge")
train, digits = data.mnist("train"), data.mnist("validation")
COUNT, STEPS = budget(full=1000, smoke=70), budget(full=10, smoke=2)

# %% [markdown]
# The sheets of lesson 04 are back, without their disguise: *real* handwriting that no model was trained on; *ours*, generated at guidance scale 1.5; *copied* from the training set;
# *safe*, the most typical training digits only; and *ten*, the same ten images again and again.

# %%
# folded: the sheets of lesson 04, and the features of each
order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
chosen, others = order[:COUNT], order[COUNT:]
wanted = digits.labels[chosen]  # every sheet has the same digits, in the same order


def generate(labels, scale, steps=STEPS, seed=0):
    """One digit for each label, (N, 1, 28, 28) in [-1, 1]."""
    parts = [
        pipe.decode(pipe.latents([str(d) for d in part.tolist()], steps=steps, scale=scale, seed=seed + 100 * i))
        for i, part in enumerate(labels.split(100))
    ]
    return (torch.cat(parts) * 2 - 1).cpu()


def hand_out(pool, ranked):
    """For each wanted digit the next row of `ranked` that has this label in `pool`, and none twice."""
    rows = torch.empty_like(wanted)
    for digit in range(10):
        asked = wanted == digit
        rows[asked] = ranked[pool[ranked] == digit][: int(asked.sum())]
    return rows


features, answers = judged(judge, digits.images)
train_features, _ = judged(judge, train.images[:10_000])
typical = torch.stack([train_features[train.labels[:10_000] == d].mean(0) for d in range(10)])
how_odd = (train_features - typical[train.labels[:10_000]]).norm(dim=1)
shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
sure = judge.classify(train_features.float()).softmax(1).T.clone()  # (10, 10000)
sure[train.labels[:10_000] != torch.arange(10)[:, None]] = -1
surest = sure.argmax(1)  # of each digit, the one that the judge is surest of

sheets = {
    "real": digits.images[chosen],
    "ours": generate(wanted, scale=1.5),
    "copied": train.images[hand_out(train.labels, shuffled)],
    "safe": train.images[hand_out(train.labels[:10_000], how_odd.argsort())],
    "ten": train.images[surest][wanted],
}
NAMES = list(sheets)
clouds, readings = {}, {}
for name in NAMES:
    clouds[name], readings[name] = judged(judge, sheets[name])
reference = features[others]  # what all sheets are compared with
grid(
    [list(sheets[name][:7] / 2 + 0.5) for name in NAMES],
    names=NAMES,
    alt="Five rows of seven handwritten digits, named real, ours, copied, safe and ten.",
    caption="The first digits of each sheet. By eye, only the last row gives itself away.",
)

# %% [markdown]
# ## How large is the error?
#
# A thousand images gave a distance of 0.63, say. Another thousand would have given another number. How different? If images cost nothing, you would generate many sets and see.
# The **bootstrap** estimates how far a measurement would vary over fresh sets from a single set: sample as many of its rows again, with replacement, measure, and repeat ([Efron 1979](https://doi.org/10.1214/aos/1176344552)).
# This is what it does to a set of eight:

# %%
generator = torch.Generator().manual_seed(1)
picks = [torch.arange(8)] + [torch.randint(8, (8,), generator=generator).sort().values for _ in range(3)]
grid(
    [list(sheets["ours"][8:16][pick] / 2 + 0.5) for pick in picks],
    names=["the set", "resample 1", "resample 2", "resample 3"],
    alt="A row of eight digits, and below it three rows in which some of these digits occur twice or more and others are missing.",
    caption="Each resample has eight digits again: some of them twice or more, some not at all.",
)

# %% [markdown]
# The **standard error** of a measurement is its standard deviation over repeated samples. The bootstrap estimates it by the standard deviation over the resamples.
# For the mean of five numbers there is a formula to compare with:

# %%
values = torch.tensor([2.0, 4.0, 4.0, 5.0, 10.0])
generator = torch.Generator().manual_seed(0)
for _ in range(3):
    pick = torch.randint(5, (5,), generator=generator)
    print(f"rows {pick.tolist()}: {[int(v) for v in values[pick]]}, mean {values[pick].mean():.1f}")

again = metrics.bootstrap(lambda rows: float(rows.mean()), values, draws=1000)
print(f"standard deviation of a thousand such means: {again.std():.2f}")
print(f"the formula, s / sqrt(n):                    {values.std(correction=0) / 5**0.5:.2f}")

# %% [markdown]
# For a Fréchet distance there is no such formula, and the bootstrap does not need one.
#
# Before you run it: the four sheets are *real*, *ours*, *copied* and *safe*. How many of the last three will differ significantly from *real*?

# %%
distances, errors = {}, {}
for name in ("real", "ours", "copied", "safe"):
    resampled = metrics.bootstrap(lambda rows: metrics.frechet(rows, reference), clouds[name], draws=100)
    distances[name], errors[name] = metrics.frechet(clouds[name], reference), float(resampled.std())
    apart, error = distances[name] - distances["real"], (errors[name] ** 2 + errors["real"] ** 2) ** 0.5
    against = "" if name == "real" else f"   minus real: {apart:+.2f} ± {error:.2f}"
    print(f"{name:>8}  {distances[name]:.2f} ± {errors[name]:.2f}{against}")

figure, axis = plt.subplots(figsize=(5.6, 2.3))
floor, floor_std = metrics.floor(features, COUNT)
axis.axvspan(floor - floor_std, floor + floor_std, color=figures.GRAY, alpha=0.25, label="floor ± 1 standard deviation")
axis.errorbar(list(distances.values()), list(distances), xerr=[1.96 * e for e in errors.values()], fmt="o", capsize=4)
axis.set(xlabel="Fréchet distance, with 95 % confidence interval", xlim=(0, None), ylim=(3.5, -0.9))
axis.legend(fontsize=8, loc="upper right")
show(
    figure,
    alt="Four distances with error bars over a gray band for the floor. The bars of real, ours and copied overlap; safe stands apart.",
    caption="Where the intervals of two sheets overlap this much, the data do not say which is better.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only *safe*. The other differences are smaller than their own error: not significant.
#
# </details>
#
# The bars show how sure you can be. A 95 % **confidence interval** reaches 1.96 standard errors to either side of a measurement, and is made so that about 95 of 100 such intervals contain the true value. A difference between two independent sets has an error of its own, the root of the sum of
# the two squared errors. If the difference is smaller than about two of these, print both numbers and put neither in bold.
#
# (Use the standard deviation of the resamples, not their mean. A resample holds many rows twice, so it behaves like a smaller set, and lesson 04 showed what that does to a Fréchet distance.)
#
# ## What exactly is wrong?
#
# A distance says that something is off, not what. Two fractions say more ([Kynkäänniemi et al. 2019](https://arxiv.org/abs/1904.06991)).
# **Precision** is the fraction of generated images whose features lie where those of real images do; it falls when images are bad.
# **Recall** is the fraction of real images whose features lie where those of generated images do; it falls when kinds of images are missing.
#
# "Where real images do" needs a definition. Around every real point, draw a ball that reaches to its nearest real neighbour. Watch the balls grow to full size:

# %%
real_points = torch.tensor([[0.0, 0.0], [0.9, 0.1], [0.2, 0.9], [1.0, 1.0], [3.2, 0.2], [3.9, 0.7], [3.1, 1.0]])
fake_points = torch.tensor([[0.1, 0.4], [0.8, 0.5], [0.5, -0.1], [0.6, 1.1], [1.2, 3.4]])


def reach(cloud):
    """How far it is from each point to the nearest other one."""
    apart = torch.cdist(cloud, cloud)
    apart.fill_diagonal_(float("inf"))  # a point is not its own neighbour
    return apart.min(1).values


# %%
# folded: the animation of growing balls
def balls(page, left, cloud, points, name, colours, size=1.0):
    """Balls around `cloud`, so much of their full size, and which of the points they hold."""
    radii = size * reach(cloud)
    inside = (torch.cdist(points, cloud) <= radii).any(1)
    title = f"{name}: {int(inside.sum())} of {len(points)}"
    axis = page.axes(left, 30, 320, 290, xlim=(-1.4, 5.2), ylim=(-1.3, 4.68), xticks=[], yticks=[], title=title)
    for centre, radius in zip(cloud.tolist(), radii.tolist(), strict=True):
        axis.add_patch(plt.Circle(centre, radius, color=colours[0], alpha=0.15, lw=0))
    axis.scatter(*cloud.T, color=colours[0], s=14)
    axis.scatter(*points[inside].T, marker="s", color=colours[1], s=40)
    axis.scatter(*points[~inside].T, marker="x", color=colours[1], s=40)


def both(size):
    """Precision on the left and recall on the right."""
    with Page(690, 340) as page:
        balls(page, 15, real_points, fake_points, "precision", (figures.BLUE, figures.ORANGE), size)
        balls(page, 355, fake_points, real_points, "recall", (figures.ORANGE, figures.BLUE), size)
        return page.image()


show(
    [both(k / 20) for k in range(21)],
    alt="Animation: balls grow around blue real points on the left and around orange generated points on the right; points turn from crosses into squares when a ball reaches them.",
    caption="Blue: real. Orange: generated. A square lies in a ball, a cross in none.",
)

# %%
print(
    "from the last generated point to each real one:",
    [f"{d:.2f}" for d in torch.cdist(fake_points[-1:], real_points)[0]],
)
print("how far the balls reach:                       ", [f"{r:.2f}" for r in reach(real_points)])
print("metrics.precision_recall:", metrics.precision_recall(real_points, fake_points, k=1))

# %% [markdown]
# The generated points on the left are fine, and one stray point costs precision. The cluster on the right is never generated, and that costs recall.
#
# Before you run the next cell: we add one odd *real* point, far from all others and not far from the stray one. What will happen to precision?

# %%
with_outlier = torch.cat([real_points, torch.tensor([[2.6, 3.9]])])
with Page(690, 340) as page:
    colours = figures.BLUE, figures.ORANGE
    balls(page, 15, real_points, fake_points, "precision", colours)
    balls(page, 355, with_outlier, fake_points, "precision with an outlier", colours)
    show(
        page.image(),
        alt="Left: blue balls that miss one orange point. Right: one more blue point, whose huge ball covers the orange one.",
        caption="Right: a lonely real point has a huge ball, and whatever lies in it counts as real.",
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# It rises, although no generated point has moved. A single outlier in the real data lets bad images pass.
#
# </details>
#
# That is the known weakness of the measure ([Naeem et al. 2020](https://arxiv.org/abs/2002.09797) propose a remedy). In practice the balls reach to the $k$-th neighbour; `metrics.precision_recall` uses $k = 5$.
#
# Now the sheets, together with three more: the points sampled from a Gaussian that fooled the distance in lesson 04, and our model at two other guidance scales. Before you run it: which line will have the lowest precision, and which the lowest recall?

# %%
centre, (values, vectors) = reference.mean(0), torch.linalg.eigh(reference.T.cov())
normal = torch.randn(COUNT, len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
rows = dict(clouds) | {"Gaussian": centre + (normal * values.clamp(min=0).sqrt()) @ vectors.T}
for w in (1, 4):
    rows[f"w = {w}"], _ = judged(judge, generate(wanted, scale=w))

crowd = features[others[:COUNT]]  # as many other real digits as there are on each sheet
print(f"{'':>9}{'distance':>10}{'precision':>11}{'recall':>8}{'diversity':>11}")
for name, cloud in rows.items():
    variety = metrics.diversity(cloud, wanted) / metrics.diversity(clouds["real"], wanted)
    precision_of, recall_of = metrics.precision_recall(crowd, cloud)
    print(f"{name:>9}{metrics.frechet(cloud, reference):>10.2f}{precision_of:>11.2f}{recall_of:>8.2f}{variety:>11.2f}")

# %% [markdown]
# Begin with the line *real*. Not even real digits reach 1 in either column, because the balls are drawn around a finite sample. Compare every line with this one, and a generator that exceeds them is not better than real: a
# higher precision means that it avoids the unusual, a higher recall usually that its images are scattered, which makes its balls large.
#
# The Gaussian, with a Fréchet distance like that of real digits, has almost no precision. *Safe* has a precision near 1 and a low recall. *Ten* still has a high precision, since most of its ten images lie among real ones; its recall of 0 exposes it. Guidance trades one for the other: from $w = 1$ to $w = 4$, precision rises and recall falls. And *copied* can hardly be told from *real* in any column.

# %% [markdown]
# ### Exercise 1 · Precision
#
# *medium, 12 minutes.*
#
# Write precision for any `k`. `real` (N, D) and `fake` (M, D) are features. Around every real point is a ball that reaches to its `k`-th nearest other
# real point, the border included. Return the fraction of fake points that lie in at least one ball. (Recall is the same function with its two arguments
# swapped.)
#
# <details><summary>Hint</summary>
#
# In each row of `torch.cdist(real, real)` the smallest entry is the point itself. `kthvalue(k, dim=1)` finds the k-th smallest, counted from 1.
#
# </details>


# %%
def precision(real, fake, k):
    """The fraction of fake points that lie among the real ones."""
    ### BEGIN SOLUTION
    reach = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # (N,)
    return (torch.cdist(fake, real) <= reach).any(1).double().mean()
    ### END SOLUTION


# %%
check.l04_precision(precision)

# %% [markdown]
# ## Is it new?
#
# All these numbers ask whether the images are *like* real ones. None asks whether they are new. A generator that
# hands out its training set passes every one of them, and you know such a generator: sampling with the ideal denoiser of lesson 02 ends on training points.
# Large models do it too, for some of their images ([Carlini et al. 2023](https://arxiv.org/abs/2301.13188)).
#
# So look at each image beside the training image that is nearest to it:

# %%
few = slice(0, budget(full=500, smoke=50))
train_pool, heldout = train.images[: budget(full=55_000, smoke=2000)], digits.images[others]
found = {name: metrics.nearest(sheets[name][few], train_pool) for name in ("real", "ours", "copied")}
rows, names = [], []
for name, (distance, row) in found.items():
    rows += [list(sheets[name][:7] / 2 + 0.5), list(train_pool[row[:7]] / 2 + 0.5)]
    names += [name, f"nearest, {distance[:7].mean():.1f} away"]
grid(
    rows,
    names=names,
    alt="Three pairs of rows: digits, and below each the nearest training digit. The pairs of real and ours are similar, those of copied identical.",
    caption="Every second row: the nearest of the training digits, and the mean distance in pixels.",
)

# %% [markdown]
# The *copied* sheet is exposed. *Ours* are near to training digits, but so are new digits by people: there are 55,000 to choose from. So the distance to the training set needs something to compare with.
# The **memorisation ratio** is the mean distance to the nearest training image, divided by the mean distance to the nearest of some held-out images.
#
# $$\text{ratio} = \frac{\text{mean}_i \, \min_j \lVert x_i - \text{train}_j \rVert}{\text{mean}_i \, \min_j \lVert x_i - \text{heldout}_j \rVert}$$
#
# By hand, for three numbers:

# %%
queries, known, unknown = (torch.tensor(v)[:, None] for v in ([1.0, 4.25, 8.0], [0.75, 5.0, 8.0], [2.0, 4.0, 6.0]))
for value, apart in zip(queries, (queries - known.T).abs(), strict=True):
    print(f"{value.item()}: distances {apart.tolist()}, the nearest is row {int(apart.argmin())}")
print(
    f"metrics.nearest: {metrics.nearest(queries, known)[0].tolist()}, held out {metrics.nearest(queries, unknown)[0].tolist()}"
)
print(
    f"ratio {(0.25 + 0.75 + 0) / 3:.3f} / {(1 + 0.25 + 2) / 3:.3f} = {metrics.memorisation(queries, known, unknown):.3f}\n"
)
for name in found:
    print(f"{name:>8}  {metrics.memorisation(sheets[name][few], train_pool, heldout):.2f}")

# %% [markdown]
# Again *real* does not get 1: there are more training digits than held-out ones here, so a training digit is more likely to be near. What counts is to be where real digits are.
#
# A mean can be fooled in turn. Suppose that you want to hide a theft.
#
# Before you run it: you could copy only one image in twenty, or copy all of them and move each by one pixel. Will the ratio notice?

# %%
partly = sheets["real"].clone()
partly[::20] = sheets["copied"][::20]
shifted = torch.roll(sheets["copied"], 1, dims=3)
pool_features = judged(judge, train_pool)[0]
print(f"{'':>22}{'pixels':>8}{'features':>10}")
for name, images in (("real", sheets["real"]), ("one copy in twenty", partly), ("copies, moved", shifted)):
    in_pixels = metrics.memorisation(images[few], train_pool, heldout)
    in_features = metrics.memorisation(judged(judge, images[few])[0], pool_features, reference)
    print(f"{name:>22}{in_pixels:>8.3f}{in_features:>10.3f}")

figure, axis = plt.subplots(figsize=(6, 2.6))
for name, images, dashes in (("real", sheets["real"], "-"), ("one copy in twenty", partly, "--")):
    distance, _ = metrics.nearest(images[few], train_pool)
    axis.hist(distance.numpy(), bins=40, range=(0, 14), histtype="step", lw=1.6, ls=dashes, label=name)
axis.set(xlabel="distance to the nearest training digit, in pixels", ylabel="images")
axis.legend()
show(
    figure,
    alt="Two histograms that nearly agree, but for a bar at zero in the one with copies.",
    caption="The mean hides the copies. The bar at 0 does not.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Hardly, in either case, as long as it measures in pixels. With one copy in twenty, the mean hardly moves. Copies that were moved by one pixel are no nearer than many innocent digits; in the judge's features, which hardly react to such a shift, they stand out.
#
# </details>
#
# So look at the smallest distances and not only at their mean, measure in features as well as in pixels, and look at the nearest pairs with your own eyes. Every distance has a disguise that it misses.

# %% [markdown]
# ### Exercise 2 · Learned by heart?
#
# *medium, 8 minutes.*
#
# Write the memorisation ratio. `queries` (N, C, H, W), `train` (M, C, H, W) and `heldout` (K, C, H, W) are images; the distance between two is
# the root of the sum of their squared differences. Return the mean distance to the nearest training image, divided by the mean distance to the nearest held-out one.
#
# <details><summary>Hint</summary>
#
# `flatten(1)` makes a row of each image, and `torch.cdist` gives all distances, (N, M). Which axis holds the images to choose from?
#
# </details>


# %%
def memorisation(queries, train, heldout):
    """Small where the training images are nearer than they should be."""
    ### BEGIN SOLUTION
    to_train, to_heldout = (torch.cdist(queries.flatten(1), pool.flatten(1)).min(1).values for pool in (train, heldout))
    return to_train.mean() / to_heldout.mean()
    ### END SOLUTION


# %%
check.l04_memorisation(memorisation)

# %% [markdown]
# ## On which data did you choose?
#
# You tried twenty settings, measured all of them, and report the best. What is wrong with that? Here are twenty "models" that are exactly equally good: each is 250 real training
# digits. We choose the one with the smallest distance to some held-out digits. Then each model produces 250 fresh images, and is compared with fresh digits.
#
# Before you run it: what will the winner's distance be the second time?

# %%
first_half, second_half = features[:2500], features[2500:]
tries = [train_features[i * 250 : (i + 1) * 250] for i in range(40)]
before = torch.tensor([metrics.frechet(part, first_half) for part in tries[:20]])
after = torch.tensor([metrics.frechet(part, second_half) for part in tries[20:]])
best = int(before.argmin())
print(
    f"twenty equal models:         {before.mean():.2f} ± {before.std():.2f}, then {after.mean():.2f} ± {after.std():.2f}"
)
print(f"the winner, where it won:    {before[best]:.2f}")
print(f"the winner, on fresh digits: {after[best]:.2f}")

figure, axis = plt.subplots(figsize=(4.6, 2.8))
for k in range(20):
    winner = {"color": figures.ORANGE, "lw": 2.5, "zorder": 3} if k == best else {"color": figures.GRAY, "alpha": 0.4}
    axis.plot([0, 1], [before[k], after[k]], marker="o", **winner)
axis.set(xlim=(-0.3, 1.3), ylabel="Fréchet distance", ylim=(0, None))
axis.set_xticks([0, 1], ["digits used\nto choose", "fresh\ndigits"])
show(
    figure,
    alt="Twenty lines between two columns of points; the one that is lowest on the left ends among the others on the right.",
    caption="Orange: the winner. Its lead was luck, and luck does not repeat.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Somewhere among the others. All models are equal, so the smallest of twenty distances is the luckiest, and a second measurement has no reason to be lucky again.
#
# </details>
#
# **Selection bias** is the error that arises when the winner of a comparison is reported with the very score that made it win. Every choice made on a set of digits makes your numbers on that set too good: the guidance scale, the
# sampler, the training step, the seed. So three splits are needed: the network learns from `train`, choices are made on `validation`, and the numbers that you report come from `test`, measured once.
#
# And write the rule down *before* you look, as in lesson 04, together with what counts as a tie. There the two best scales usually differ by less than one standard error: a tie.
#
# ## Can the judge be trusted?
#
# A judge that says "90 %" should be right nine times in ten. Sort its answers into bins by confidence, and compare confidence with accuracy in each:

# %%
clean, labels = digits.images[:2000], digits.labels[:2000]
noisy = clean + 0.4 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
figure, axis = plt.subplots(figsize=(4.8, 3.4))
for name, images, marker in (("clean digits", clean, "o"), ("noise of 0.4 added", noisy, "s")):
    cloud, reading = judged(judge, images)
    confident = judge.classify(cloud.float()).softmax(1).max(1).values.double()
    correct = reading == labels
    bins = (confident * 10).long().clamp(max=9)
    full = [k for k in range(10) if (bins == k).sum() >= 10]
    x, y = ([float(v[bins == k].double().mean()) for k in full] for v in (confident, correct))
    axis.plot(x, y, marker=marker, label=f"{name}: error {metrics.calibration_error(confident, correct):.3f}")
axis.plot([0.2, 1], [0.2, 1], color=figures.GRAY, ls=":", label="well calibrated")
axis.set(xlabel="confidence of the judge", ylabel="fraction read correctly", xlim=(0.2, 1.02), ylim=(0, 1.05))
axis.legend(fontsize=8, loc="lower right")
show(
    figure,
    alt="A reliability diagram: accuracy against confidence. Clean digits lie above the dotted diagonal, noisy ones below it.",
    caption="Above the diagonal the judge is too modest, below it too confident.",
)

# %% [markdown]
# A classifier is **calibrated** if, of all answers that it gives with confidence $p$, a fraction $p$ is correct, for every $p$. The
# **expected calibration error** is the mean gap between a classifier's confidence and its accuracy, over bins of confidence, each weighted by how many answers it holds ([Guo et al. 2017](https://arxiv.org/abs/1706.04599)).
# By hand, for six answers and two bins:

# %%
confident = torch.tensor([0.6, 0.7, 0.8, 0.9, 0.95, 1.0], dtype=torch.float64)
correct = torch.tensor([True, False, True, True, True, False])
low, high = slice(0, 2), slice(2, 6)  # up to 0.75, and above
gaps = [(confident[part].mean() - correct[part].double().mean()).abs().item() for part in (low, high)]
print(f"two answers at {confident[low].mean():.4f}, {correct[low].double().mean():.0%} correct: gap {gaps[0]:.4f}")
print(f"four at {confident[high].mean():.4f}, {correct[high].double().mean():.0%} correct: gap {gaps[1]:.4f}")
print(f"error: 2/6 * {gaps[0]:.4f} + 4/6 * {gaps[1]:.4f} = {2 / 6 * gaps[0] + 4 / 6 * gaps[1]:.4f}")
print(f"metrics.calibration_error: {metrics.calibration_error(confident, correct, bins=4):.4f}")

# %% [markdown]
# On clean digits our judge is too modest, because it was trained to be: with label smoothing, which asks for a little less than full confidence ([Müller et al. 2019](https://arxiv.org/abs/1906.02629)). On noisy digits, which it was not made for,
# it is far too confident. So its confidence means something only for images like those it knows. Whether the generated ones are like that is what we wanted to find out, which is why the calibration error on generated images belongs in the table:
# if it is much larger than on real ones, the judge is looking at something unfamiliar, or the generator drew the wrong digits.
#
# ## Is the code right?
#
# A distance is easy to get wrong. Here is the right line, and five bugs that people really make, all on the same thousand real digits:

# %%
real, cloud = sheets["real"], clouds["real"]
student = copy.deepcopy(judge).train()  # batch normalisation now uses the statistics of the batch
with torch.no_grad():
    by_digit = [student.features(real[wanted == d]).double() for d in wanted.unique()]
cov_a, cov_b = cloud.T.cov(), reference.T.cov()
means = (cloud.mean(0) - reference.mean(0)).square().sum() + cov_a.trace() + cov_b.trace()
half = torch.linalg.eigvals((cov_a.half() @ cov_b.half()).double()).sqrt().real.sum()
bugs = {
    "correct": metrics.frechet(cloud, reference),
    "images in [0, 1], judge wants [-1, 1]": metrics.frechet(judged(judge, real / 2 + 0.5)[0], reference),
    "judge in training mode, one digit a batch": metrics.frechet(torch.cat(by_digit), reference),
    "a tenth of the images": metrics.frechet(cloud[: max(10, COUNT // 10)], reference),
    "reference contains the images themselves": metrics.frechet(cloud, features),
    "matrix root in half precision": float(means - 2 * half),
}

# %%
# folded: the bugs as bars
figure, axis = plt.subplots(figsize=(7.6, 2.7))
axis.axvspan(floor - floor_std, floor + floor_std, color=figures.GRAY, alpha=0.3, label="floor ± 1 standard deviation")
lowest = 0.1
axis.barh(list(bugs), [max(value, lowest) for value in bugs.values()], color=[figures.BLUE] + [figures.ORANGE] * 5)
for k, value in enumerate(bugs.values()):
    axis.text(max(value, lowest) * 1.1, k, f"{value:.2f}", va="center")
axis.invert_yaxis()
axis.set(xscale="log", xlabel="Fréchet distance", xlim=(lowest, 4000))
axis.legend(fontsize=8, loc="lower right")
show(
    figure,
    alt="Bars on a logarithmic axis: the correct distance, three bugs that make it larger and two that make it smaller, near the floor.",
    caption="Three bugs raise the distance. The last two lower it, and stay close to the floor.",
)

# %% [markdown]
# The first three make good images look bad, and you will notice. The last two make *this result look better than it is*, and who looks for a bug in a good number? The floor does not sound the alarm either: both stay
# close to it. What gives them away is a case whose answer you know exactly: a set against itself must give 0 (half precision does not), a copy moved by a constant vector $c$ must give $|c|^2$, and no image may be its own nearest neighbour in the reference.
# (Even the way images are resized changes published FIDs: [Parmar et al. 2021](https://arxiv.org/abs/2104.11222).)
#
# ## The whole table
#
# All of it in one call, on the test digits, which nothing has touched so far. *Compute: about 45 seconds.*

# %%
report = evaluate(pipe, n=budget(full=1000, smoke=65), scale=1.5, steps=budget(full=20, smoke=2))
print(report)

# %% [markdown]
# Read each line against the right column. Here the interval of the distance contains the floor, so by distance our digits cannot be told from real ones. Recall and diversity say what is missing: variety. Memorisation gives no sign of copying.
#
# | line | it asks | it cannot say |
# |---|---|---|
# | digit accuracy | does it generate what it is asked for, as often as real digits are legible? | whether all sevens are the same seven |
# | calibration error | is the judge on familiar ground? | which images are the unfamiliar ones |
# | Fréchet distance, interval, floor | are mean and covariance of the whole cloud right? | what is wrong; whether it is copied; anything beyond the ellipse |
# | diversity | do two images of a class differ as much as two people's do? | whether they differ in sensible ways: noise is diverse |
# | precision, recall | are the images real, and is all that is real covered? | how good the best are; outliers distort it |
# | memorisation ratio | are the images new? | that no single one is a copy |
# | the last lines | how many, which seed, scale, steps, machine? | a table without them cannot be repeated |
#
# ## Try all of it
#
# Damage real digits, and see which number notices.

# %%
words = {
    "alt": "Thirty blurred digits, and six bars for six metrics; a gray band marks real digits, and orange bars lie outside it.",
    "caption": "Blurred digits. An orange number has left the gray band of real digits: this metric notices.",
}
show(figures.metric("blur", 0.4), **words)

# %% [markdown]
# *Try:* which kinds of damage does accuracy never notice? Which one is noticed by memorisation alone?
#
# <details><summary>Answer</summary>
#
# Accuracy has no way to notice missing classes, missing styles, repeats or copies: every single image is still legible. Copies of training digits are real digits, so of these six only the memorisation ratio can tell them from new ones.
#
# </details>

# %%
widgets.metric()

# %% [markdown]
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | bootstrap: rows with replacement | $i_1, \dots, i_N$ uniform in $1..N$ | {{metrics.bootstrap: picks = torch.randint(len(rows), (draws, len(rows)), generator=generator)}} |
# | the fraction of points in any ball of a cloud | $\lVert x - c_i\rVert \le r_i$ for some $i$ | {{metrics.precision_recall}} |
# | precision and recall: the same in both directions | fake among real, real among fake | {{metrics.precision_recall: return covered(fake, real), covered(real, fake)}} |
# | memorisation ratio | $\bar d_{\text{train}} / \bar d_{\text{held-out}}$ | {{metrics.memorisation}} |
# | calibration: gaps, weighted by the size of the bin | $\sum_b (n_b / N)\, \lvert \text{conf}_b - \text{acc}_b \rvert$ | {{metrics.calibration_error: return float(gap.abs().sum() / len(confidence))}} |
#
# ## What you can do now
#
# You can answer all six questions, and you can ask them of any paper: where is the floor, where is the error, on which split was this chosen, did anyone look at nearest neighbours?
#
# What is still missing is people. None of these numbers says whether anyone would like the images, and for large models comparisons by people, two images side by side, have become the measure that counts. They need error bars, too.
#
# [Lesson 05](05_unet.ipynb) takes the network apart, and uses these numbers to see what each part contributes.
#
# ## Further reading
#
# - [Efron 1979, Bootstrap methods: another look at the jackknife](https://doi.org/10.1214/aos/1176344552): the bootstrap, by its inventor.
# - [Kynkäänniemi et al. 2019, Improved precision and recall metric](https://arxiv.org/abs/1904.06991): the balls of this lesson.
# - [Naeem et al. 2020, Reliable fidelity and diversity metrics](https://arxiv.org/abs/2002.09797): what outliers do to them, and a remedy.
# - [Carlini et al. 2023, Extracting training data from diffusion models](https://arxiv.org/abs/2301.13188): copies found in published models, and how.
# - [Guo et al. 2017, On calibration of modern neural networks](https://arxiv.org/abs/1706.04599): why modern classifiers are too confident.
# - [Müller et al. 2019, When does label smoothing help?](https://arxiv.org/abs/1906.02629): what it does to the features, with pictures.
# - [Parmar et al. 2021, On aliased resizing and surprising subtleties in GAN evaluation](https://arxiv.org/abs/2104.11222): bugs in evaluations, measured.
# - [Stein et al. 2023, Exposing flaws of generative model evaluation metrics](https://arxiv.org/abs/2306.04675): seventeen metrics compared with what people say.
