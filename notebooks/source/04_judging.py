# %% [markdown]
# # 04 · How do I know that a generated picture is good?
#
# **Not by looking at it, and not by any one number.** Every way to judge can be fooled.
# In this lesson you are fooled five times, on purpose, with numbers; then you read the whole table for the course's own model, and
# know what each line of it would miss.
#
# | | |
# |---|---|
# | You will see | four sheets of digits of which one is real; a perfect accuracy that is worth nothing; a perfect distance that was copied; what guidance buys, and what it pays |
# | It costs | about 3 minutes on 2 CPU cores, most of it for drawing 5,000 digits; a GPU is not needed |
# | You need | how a picture is drawn (lesson 03); what a mean and a standard deviation are |

# %%
import copy

import matplotlib.pyplot as plt
import torch

from minidiff import TextToImage, data, image_files
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, show, style
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
# Four sheets have been handed in, each with a thousand digits; here are some of each. **One is real**: handwriting that no
# model was trained on. One was *copied* from the training digits. One is *safe*: of all training digits only the most ordinary of each
# class. And one was drawn by *our model*. Which is which? Make your guesses now. *Cost: about 20 seconds, to draw ours.*

# %%
order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
chosen, others = order[:COUNT], order[COUNT:]
wanted = digits.labels[chosen]  # every sheet has the same digits, in the same order


def draw(labels, scale, steps=STEPS, seed=0):
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


train_features, _ = judged(judge, train.images[:10_000])  # explained below
typical = torch.stack([train_features[train.labels[:10_000] == d].mean(0) for d in range(10)])
how_odd = (train_features - typical[train.labels[:10_000]]).norm(dim=1)
shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))

sheets = {
    "real": digits.images[chosen],
    "ours": draw(wanted, scale=1.5),
    "copied": train.images[hand_out(train.labels, shuffled)],
    "safe": train.images[hand_out(train.labels[:10_000], how_odd.argsort())],
}


def grids(sets, titles, columns=8, rows=3, width=7.2):
    """Sheets two by two, the first columns * rows pictures of each."""
    figure, axes = plt.subplots(
        (len(sets) + 1) // 2, 2, figsize=(width, (len(sets) + 1) // 2 * (width / 2 * rows / columns + 0.3))
    )
    for axis, pictures, title in zip(axes.flat, sets, titles, strict=True):
        axis.imshow(image_files.sheet(pictures[: columns * rows] / 2 + 0.5, columns, zoom=1), vmin=0, vmax=255)
        axis.set(xticks=[], yticks=[], title=title)
        axis.grid(False)
    plt.show()


grids([sheets[name] for name in ("ours", "real", "safe", "copied")], "ABCD")

# %% [markdown]
# Keep your four answers; the lesson gives its own on the way.
#
# ## Fooled by eye
#
# A page of a paper has room for twenty pictures, and somebody has to choose them. Let us take a bad generator: our model at guidance
# scale 0.5, where it only half listens to what it is asked for. Ask it for 300 digits, and show sixteen of them, twice.

# %%
many = digits.labels[: budget(full=300, smoke=80)]
drawn = draw(many, scale=0.5, steps=budget(full=6, smoke=2), seed=50_000)
with torch.no_grad():
    belief = judge(drawn).softmax(1)  # (300, 10): how sure the judge is of each digit
best = belief[torch.arange(len(many)), many].argsort(descending=True)
picked = torch.stack([best[many[best] == d][i] for i in range(2) for d in range(8)])
grids([drawn, drawn[picked]], ["the first sixteen", "sixteen that were chosen"], columns=8, rows=2)
print("the first sixteen were asked for as", " ".join(str(d) for d in many[:16].tolist()))
print(f"of all {len(many)}, the judge reads {(belief.argmax(1) == many).double().mean():.0%} as the digit asked for")

# %% [markdown]
# Same model, same 300 draws. The right sheet is honest about every picture in it, and says nothing about the model. So: **decide which pictures
# to show before you see them** ("the first sixteen of seed 0"), and say how many were drawn.
#
# And even a random sheet only shows whether single pictures are good. Could you see, at the top, on which sheet kinds of digits are missing, and on which
# every digit stands in the training set? For that you need to look at all the pictures at once, and at what they were made
# from. Nobody's eyes can.
#
# ## The judge
#
# So we let a network look. The *judge* is a small classifier, trained on the training digits and nothing else. It turns a picture into 64
# numbers, its **features**, and then reads the digit off these. The features are useful too: pictures that the judge finds alike
# have features that lie close together.

# %%
features, answers = judged(judge, digits.images)  # (5000, 64) and (5000,)
sevens = (digits.labels == 7).nonzero()[:3, 0]
three = (digits.labels == 3).nonzero()[:1, 0]
first = digits.images[sevens[0]]
moved = torch.roll(first, 2, dims=2)  # the same seven, two pixels to the right
row = torch.stack([first, moved, *digits.images[sevens[1:]], *digits.images[three]])
row_features, _ = judged(judge, row)

figure, axes = plt.subplots(1, 5, figsize=(7, 1.9))
names = ["a seven", "it moved", "another", "a third", "a three"]
for axis, picture, point, name in zip(axes, row, row_features, names, strict=True):
    axis.imshow(picture[0], vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[], title=name)
    axis.set_xlabel(f"pixels {(picture - first).norm():.1f}\nfeatures {(point - row_features[0]).norm():.1f}")
plt.show()
print(f"read right, of {len(digits):,} validation digits: {(answers == digits.labels).double().mean():.2%}")

# %% [markdown]
# Under each picture is its distance from the first: the root of the sum of the squared differences, of 784 pixels and of 64 features. For
# pixels, a seven that moved by two pixels is about as far away as a seven by somebody else. For the judge it is nearly the same picture, and
# a three is far away. From here on a picture is a point in 64 dimensions, and a set of pictures is a cloud.
#
# (For photographs the field does the same with Inception, a network trained to name a thousand kinds of things, and its 2,048 features:
# Heusel et al. 2017.)
#
# ## Fooled by accuracy alone
#
# The simplest number: ask for a digit, let the judge read it, count how often it is the one you asked for. By hand, for five pictures:

# %%
asked, read = torch.tensor([7, 7, 1, 0, 9]), torch.tensor([7, 1, 1, 0, 9])
print("right:", (asked == read).tolist(), " accuracy:", (asked == read).double().mean().item())

# %% [markdown]
# Now the four sheets, and a fifth from a very lazy generator. It knows **ten pictures**, one for each digit, and draws the one it is asked
# for, a hundred times over.

# %%
train_belief = judge.classify(train_features.float()).softmax(1)
surest = [
    int(torch.where(train.labels[:10_000] == d, train_belief[:, d], torch.tensor(-1.0)).argmax()) for d in range(10)
]
sheets["ten"] = train.images[torch.tensor(surest)][wanted]
NAMES = ["real", "ours", "copied", "safe", "ten"]
clouds, readings = {}, {}
for name in NAMES:
    clouds[name], readings[name] = judged(judge, sheets[name])


def accuracy(name):
    return (readings[name] == wanted).double().mean().item()


print("digit accuracy\n" + "\n".join(f"{name:>8}  {accuracy(name):6.1%}" for name in NAMES))

wrong = (answers != digits.labels).nonzero()[:8, 0]
figure, axes = plt.subplots(1, 9, figsize=(7.6, 1.4), width_ratios=[2.2] + [1] * 8)
axes[0].imshow(image_files.sheet(sheets["ten"][:12] / 2 + 0.5, columns=4, zoom=1), vmin=0, vmax=255)
axes[0].set(xticks=[], yticks=[], title='"ten"')
for axis, i in zip(axes[1:], wrong.tolist(), strict=True):
    axis.imshow(digits.images[i, 0], vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[], title=f"a {digits.labels[i]}\nread {answers[i]}")
plt.show()

# %% [markdown]
# **No sheet has a better accuracy than the worst generator's.** Real handwriting is not at 100 %, because some of it cannot be read: on the right are real
# digits that the judge got wrong. A generator gets above the real digits by leaving such things out. So accuracy has a ceiling, that of real
# data. Above it one does not draw better, but *less*.
#
# What is needed is a number that compares the whole cloud.
#
# ## Fooled by a distance with too few pictures
#
# ### One dimension, by hand
#
# How far apart are two clouds? Take the simplest ones: numbers on a line, and of each cloud only its mean and its standard deviation. The
# **Frechet distance** is the difference of the means, squared, plus the difference of the standard deviations, squared:
#
# $$d = (\mu_a - \mu_b)^2 + (s_a - s_b)^2$$

# %%
a = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
b = torch.tensor([4.0, 4.5, 5.0, 5.5, 6.0], dtype=torch.float64)
print(f"a: mean {a.mean():.2f}, standard deviation {a.std():.3f}")
print(f"b: mean {b.mean():.2f}, standard deviation {b.std():.3f}")
print(f"by hand          {(a.mean() - b.mean()) ** 2:.2f} + {(a.std() - b.std()) ** 2:.3f}")
flat = [values[:, None] for values in (a, b)]  # (5, 1): five pictures with one feature
print(f"metrics.frechet  {metrics.frechet(*flat):.3f}")

# %% [markdown]
# A picture that is wrong in the same way every time moves the mean. A generator that always draws the same has no spread.
# In 64 dimensions the variances become covariance matrices $A$ and $B$ (which feature goes with which), and the same formula reads
#
# $$d = |\mu_a - \mu_b|^2 + \mathrm{tr}\big(A + B - 2\,(AB)^{1/2}\big)$$
#
# where tr, the trace, is the sum of the diagonal. In one dimension $A = s_a^2$, $B = s_b^2$ and $(AB)^{1/2} = s_a s_b$, which gives the line
# above. With Inception's features this is the **FID** of the papers (Heusel et al. 2017).
#
# Now the sheets, each against the four thousand validation digits that are not on sheet *real*:

# %%
reference = features[others]
for name in NAMES:
    print(f"{name:>8}  {metrics.frechet(clouds[name], reference):6.2f}")

# %% [markdown]
# It is not fooled by the ten pictures, and the safe sheet is several times as far away as the real one. But why is the *real* one not
# at zero? Its digits come from the same pile.
#
# ### The floor
#
# Because a thousand digits are not all digits. Their mean and their covariance are a little off by chance, and a distance counts every
# deviation as positive. With fewer pictures there is more of it. Here is how much: $n$ real digits against all the other real ones, twenty
# times for each $n$. And our model, with the first $n$ of its pictures.

# %%
counts = [65, 125, 250, 500, 1000, 2500]
floors = torch.tensor([metrics.floor(features, n) for n in counts])  # mean and standard deviation
drawn_counts = [n for n in counts if n <= COUNT]
ours = [metrics.frechet(clouds["ours"][:n], reference) for n in drawn_counts]

figure, axis = plt.subplots(figsize=(6, 3))
axis.fill_between(
    counts, floors[:, 0] - floors[:, 1], floors[:, 0] + floors[:, 1], alpha=0.25, label="one standard deviation"
)
axis.plot(counts, floors[:, 0], marker="o", label="real against real: the floor")
axis.plot(drawn_counts, ours, marker="s", label="our model")
axis.set(xscale="log", yscale="log", xlabel="number of pictures n", ylabel="Frechet distance")
axis.set_xticks(counts, [str(n) for n in counts])
axis.minorticks_off()
axis.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
axis.legend()
plt.show()
for n, (mean, std) in zip(counts, floors.tolist(), strict=True):
    print(f"n = {n:>4}: real against real {mean:5.2f} +- {std:.2f}")

# %% [markdown]
# **Real digits, 65 of them, score several times worse than a thousand pictures of our model.** Whoever compares the two numbers concludes that
# the model draws better digits than people do. Two distances can only be compared at the same $n$, against the same reference, with the same
# features, and every one of them should stand next to its floor.
#
# (With few pictures our model comes out at or below the floor. That does not make it better than people: it is one draw for each $n$, near the edge of what chance does, and
# pictures that differ less among themselves, as ours do, have a lower floor of their own.)
#
# ### The error of one distance
#
# You have one set of a thousand pictures. How far would the number move with another thousand? The **bootstrap** (Efron 1979) gets an
# answer from the set itself: draw as many of its rows again, *with replacement*, so that some come twice and some not at all, measure, repeat. By hand, with the mean of five numbers:

# %%
values = torch.tensor([2.0, 4.0, 4.0, 5.0, 10.0])
generator = torch.Generator().manual_seed(0)
for _ in range(3):
    pick = torch.randint(5, (5,), generator=generator)
    print(f"rows {pick.tolist()}: {[int(v) for v in values[pick]]}, mean {values[pick].mean():.1f}")

again = metrics.bootstrap(lambda rows: float(rows.mean()), values, draws=1000)
print(f"spread of a thousand such means: {again.std():.2f}")
print(f"the formula for a mean agrees:   {values.std(correction=0) / 5**0.5:.2f}")

# %%
errors = {}
for name in ("real", "ours", "copied", "safe"):
    resampled = metrics.bootstrap(lambda rows: metrics.frechet(rows, reference), clouds[name], draws=100)
    errors[name] = float(resampled.std())
    print(f"{name:>8}  {metrics.frechet(clouds[name], reference):.2f} +- {errors[name]:.2f}")

# %% [markdown]
# (Take the *spread* of the resamples, not their centre: a resample holds many rows twice, so it is like a smaller set, and its distance is
# larger.)
#
# Look at how close the first three are, compared with their errors. Where two numbers differ by less than that, nobody can say which set is better, and
# whoever prints them with two decimals and the smaller one in bold has been fooled. And look at *copied*: it has the distance of
# real digits, because it *is* real digits. We come back to it.
#
# ## Two numbers instead of one: precision and recall
#
# A distance says that something is off, not what. Two questions tell more (Kynkaanniemi et al. 2019):
#
# - **Precision**: how many of the generated pictures lie where real ones are? It falls when pictures are bad.
# - **Recall**: how many of the real pictures lie where generated ones are? It falls when kinds of pictures are missing.
#
# "Where real ones are" needs a meaning. Around every real point draw a ball that reaches to its $k$-th nearest real neighbour. A generated
# point in any of the balls is among the real ones. On a page, with $k = 1$:

# %%
real_points = torch.tensor([[0.0, 0.0], [1.0, 0.2], [0.3, 1.0], [3.0, 0.2], [3.6, 0.9], [2.2, 2.2]])
fake_points = torch.tensor([[0.3, 0.2], [0.9, 0.7], [0.5, 0.5], [1.9, 0.9], [-0.2, 2.1]])


def reach(cloud):
    """How far it is from each point to the nearest other one."""
    apart = torch.cdist(cloud, cloud)
    apart.fill_diagonal_(float("inf"))  # no point is its own neighbour
    return apart.min(1).values


figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.3), sharey=True)
for axis, cloud, points, name, colours in (
    (axes[0], real_points, fake_points, "precision", (figures.BLUE, figures.ORANGE)),
    (axes[1], fake_points, real_points, "recall", (figures.ORANGE, figures.BLUE)),
):
    apart, radii = torch.cdist(points, cloud), reach(cloud)
    inside = (apart <= radii).any(1)
    for centre, radius in zip(cloud.tolist(), radii.tolist(), strict=True):
        axis.add_patch(plt.Circle(centre, radius, color=colours[0], alpha=0.12, lw=0))
    for those, marker, colour, label in (
        (cloud, "o", colours[0], "centres of the balls"),
        (points[inside], "s", colours[1], "inside a ball"),
        (points[~inside], "x", colours[1], "in none"),
    ):
        axis.scatter(*those.T, marker=marker, color=colour, s=30, label=label)
    axis.set(title=f"{name} = {int(inside.sum())}/{len(points)}", aspect="equal", xlim=(-2.1, 5), ylim=(-1.4, 4.4))
    axis.legend(fontsize=8, loc="upper right")
plt.show()

print("from the last fake point to each real one:", [f"{d:.2f}" for d in torch.cdist(fake_points[-1:], real_points)[0]])
print("how far the balls reach:                  ", [f"{r:.2f}" for r in reach(real_points)])
print("metrics.precision_recall:                 ", metrics.precision_recall(real_points, fake_points, k=1))

# %% [markdown]
# Blue is real, orange is generated. The generated points all sit on the left, where they look fine: that costs recall. One stands
# alone: that costs precision. (Each lonely point also has the largest ball. Such an outlier in the real data lets a lot pass, which is the
# weakness of this measure.)
#
# Third, **diversity** within a class: the mean distance between two pictures of the same digit, each pair counted once. By hand, for
# three sevens, that is three pairs:

# %%
three_sevens = features[sevens]
pairs = [(three_sevens[i] - three_sevens[j]).norm().item() for i, j in ((0, 1), (0, 2), (1, 2))]
print(f"{pairs[0]:.2f}, {pairs[1]:.2f}, {pairs[2]:.2f}: mean {sum(pairs) / 3:.3f}")
print(f"metrics.diversity: {metrics.diversity(three_sevens, torch.tensor([7, 7, 7])):.3f}")

# %%
crowd = features[others[:COUNT]]  # as many other real digits as there are on each sheet


def numbers(cloud, reading):
    """Accuracy, distance, precision, recall, and diversity as a share of that of real digits."""
    variety = metrics.diversity(cloud, wanted) / metrics.diversity(clouds["real"], wanted)
    share = (reading == wanted).double().mean().item()
    return share, metrics.frechet(cloud, reference), *metrics.precision_recall(crowd, cloud), variety


TITLE = f"{'':>8}{'accuracy':>10}{'distance':>10}{'precision':>11}{'recall':>8}{'diversity':>11}"
LINE = "{:>8}{:>10.1%}{:>10.2f}{:>11.2f}{:>8.2f}{:>11.2f}"
print(TITLE)
for name in NAMES:
    print(LINE.format(name, *numbers(clouds[name], readings[name])))

# %% [markdown]
# Read the line of *real* first: it is what nobody can beat honestly, and it is not all ones. Then *safe*: as accurate as can be, all of it
# where real digits are, and a recall that gives it away. Did you find it? It was sheet C. The *ten* have no diversity and no recall at all.
#
# And *copied* can hardly be told from *real* in any column.
#
# ## Fooled by memory
#
# All these numbers ask whether the pictures are like real ones. None asks whether they are *new*. A generator that
# hands out its training set passes every one of them, and you know such a generator: the ideal denoiser of lesson 02 walked
# back to the training points exactly.
#
# So for each picture find the nearest training digit, by brute force. On a line, with three of each:

# %%
asked = torch.tensor([[1.0], [4.25], [8.0]])
pool = torch.tensor([[0.75], [5.0], [8.0]])
for value, apart in zip(asked, (asked - pool.T).abs(), strict=True):
    print(f"{value.item()}: distances {apart.tolist()}, the nearest is row {int(apart.argmin())}")
print("metrics.nearest:", [found.tolist() for found in metrics.nearest(asked, pool)])

# %%
few = slice(0, budget(full=500, smoke=50))
train_pool, heldout = train.images[: budget(full=55_000, smoke=2000)], digits.images[others]
found = {name: metrics.nearest(sheets[name][few], train_pool) for name in ("real", "ours", "copied")}

figure, axes = plt.subplots(1, 3, figsize=(8, 2.2))
for axis, (name, (distance, row)) in zip(axes, found.items(), strict=True):
    pairs = torch.cat([sheets[name][:5], train_pool[row[:5]]])
    axis.imshow(image_files.sheet(pairs / 2 + 0.5, columns=5, zoom=1), vmin=0, vmax=255)
    axis.set(xticks=[], title=f"{name}: {distance[:5].mean():.1f} away")
    axis.set_yticks([16, 46], ["picture", "nearest in\ntraining"] if name == "real" else ["", ""])
    axis.grid(False)
    axis.tick_params(length=0)
plt.show()

# %% [markdown]
# Sheet D is a copy: each of its digits *is* a training digit. Ours are near to training digits, but so are new digits by people; there are
# 55,000 to choose from. So the distance needs something to compare with. The **memorisation ratio** is the mean distance to the nearest training digit,
# divided by the mean distance to the nearest of some held-out digits, which the generator has never seen. If it draws from memory, the first is much smaller.

# %%
for name in found:
    ratio = metrics.memorisation(sheets[name][few], train_pool, heldout)
    print(f"{name:>8}  {ratio:.3f}")

# %% [markdown]
# (The copies are at 0.001 and not at 0 because `torch.cdist` rounds.) Real digits do not get 1 either: there are more training digits than held-out ones here, so one of them is likely to be near. What counts is
# to be where real digits are.
#
# That number is a mean, and can be fooled in turn. Two ways to hide a theft: copy only one picture in twenty, or move every copy by one pixel.

# %%
thief = sheets["real"].clone()
thief[::20] = sheets["copied"][::20]
shifted = torch.roll(sheets["copied"], 1, dims=3)
seen_features = judged(judge, train_pool)[0]
print(f"{'':>22}{'pixels':>8}{'features':>10}")
for name, pictures in (("real", sheets["real"]), ("one copy in twenty", thief), ("copies, moved", shifted)):
    by_pixels = metrics.memorisation(pictures[few], train_pool, heldout)
    by_features = metrics.memorisation(judged(judge, pictures[few])[0], seen_features, reference)
    print(f"{name:>22}{by_pixels:>8.3f}{by_features:>10.3f}")

figure, axis = plt.subplots(figsize=(6, 2.4))
for name, pictures in (("real", sheets["real"]), ("one copy in twenty", thief)):
    distance, _ = metrics.nearest(pictures[few], train_pool)
    axis.hist(distance.numpy(), bins=40, range=(0, 14), histtype="step", lw=1.6, label=name)
axis.set(xlabel="distance to the nearest training digit", ylabel="pictures")
axis.legend()
plt.show()

# %% [markdown]
# With one copy in twenty the mean moves by a few hundredths; the histogram shows the theft at once, as the bar at 0. Look at the smallest distances, not only at their mean.
# The copies that moved are nearly innocent in pixels; features, which do not mind a pixel, give them away. There is no
# distance for which no disguise exists, so look at the nearest pairs too.
#
# ## Fooled by guidance
#
# One knob makes every picture more convincing. The tour turned the guidance scale $w$ up to 8, and the digits got bolder. Draw a
# thousand for each of four scales. *Cost: about 60 seconds.*

# %%
scales = [1, 1.5, 2, 4]
rows = {}
print(TITLE)
for w in scales:
    pictures = sheets["ours"] if w == 1.5 else draw(wanted, scale=w)
    rows[w] = numbers(*judged(judge, pictures))
    sheets[f"w = {w}"] = pictures
    print(LINE.format(f"w = {w}", *rows[w]))
print(LINE.format("real", *numbers(clouds["real"], readings["real"])))

same = (wanted == 7).nonzero()[:16, 0]
grids([sheets["w = 1"][same], sheets["w = 4"][same]], ["w = 1", "w = 4"], columns=8, rows=2)

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.6, 2.8))
for column, name, marker in ((0, "accuracy", "o"), (2, "precision", "s"), (3, "recall", "D"), (4, "diversity", "^")):
    axes[0].plot(scales, [rows[w][column] for w in scales], marker=marker, label=name)
axes[0].set(xlabel="guidance scale w", ylabel="share", ylim=(0.5, None))
axes[0].legend(fontsize=8)
axes[1].plot(scales, [rows[w][1] for w in scales], marker="o", color=figures.PURPLE, label="our model")
axes[1].axhline(metrics.floor(features, COUNT)[0], color=figures.GRAY, ls=":", label="the floor")
axes[1].set(xlabel="guidance scale w", ylabel="Frechet distance", ylim=(0, None))
axes[1].legend(fontsize=8)
for axis in axes:
    axis.set_xticks(scales, [str(w) for w in scales])
plt.show()

# %% [markdown]
# **Accuracy and precision rise with $w$; recall and diversity fall.** Each picture gets surer, and the set gets poorer: at $w = 4$ it is on
# its way to sheet *safe*. Whoever shows you pictures at a high scale, with an accuracy and nothing else, shows you half of a trade. The
# distance, which sees both halves, has its smallest value in between. (Diversity above that of real digits, at $w = 1$, is no praise: some of the digits
# are misdrawn, and what is misdrawn is far from everything.)
#
# ## Choose on validation, never on test
#
# So which $w$ is best? You could try some and take the one with the smallest distance. That is allowed, once, on the *validation* digits. But the distance
# of the winner is then not to be believed. Here are twenty "models" that are all equally good: each is 250 real training
# digits. Choose the best by its distance, and then let every model draw 250 fresh ones, compared with fresh real digits.

# %%
first_half, second_half = features[:2500], features[2500:]
tries = [train_features[i * 250 : (i + 1) * 250] for i in range(40)]
before = torch.tensor([metrics.frechet(part, first_half) for part in tries[:20]])
after = torch.tensor([metrics.frechet(part, second_half) for part in tries[20:]])
best = int(before.argmin())
print(f"twenty equal models:         {before.mean():.2f} +- {before.std():.2f}")
print(f"the winner, where it won:    {before[best]:.2f}")
print(f"the winner, on fresh digits: {after[best]:.2f}")

# %% [markdown]
# The winner was lucky, and luck does not come along. Every choice you make on a set of digits makes your numbers on that set too good: the scale, the
# sampler, the training step, the seed. So make all choices on one split, and measure on another, once. In this course
# training sees `train`, choices see `validation`, and what is reported is `test`.
#
# Choose now, with a rule said aloud *before* looking: of the scales whose accuracy reaches that of real digits to within half a percent, the one with
# the smallest distance.

# %%
needed = accuracy("real") - 0.005
good_enough = [w for w in scales if rows[w][0] >= needed] or scales
scale = min(good_enough, key=lambda w: rows[w][1])
print(
    f"accuracy of at least {needed:.1%}: w = {', '.join(str(w) for w in good_enough)}; the smallest distance: w = {scale}"
)

# %% [markdown]
# ## What the judge cannot see
#
# Everything so far trusts one network. It was trained to tell digits apart, and sees what helps with that. Take the real digits of sheet B and
# change them a little, in five ways:

# %%
real = sheets["real"]
framed = torch.nn.functional.pad(real[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=1.0)
changed = {
    "as they are": real,
    "no grays": real.sign(),
    "1 pixel right": torch.roll(real, 1, dims=3),
    "a frame": framed,
    "gray paper": real.clamp(min=-0.7),
    "noise alone": torch.randn(real.shape, generator=torch.Generator().manual_seed(1)).clamp(-1, 1),
}
figure, axes = plt.subplots(1, len(changed), figsize=(8, 2.2))
for axis, (name, pictures) in zip(axes, changed.items(), strict=True):
    cloud, reading = judged(judge, pictures)
    sure = judge.classify(cloud.float()).softmax(1).max(1).values.mean()
    axis.imshow(pictures[4, 0], vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[], title=name)
    axis.set_xlabel(
        f"read {(reading == wanted).double().mean():.1%}\ndistance {metrics.frechet(cloud, reference):.2f}\nsure {sure:.0%}"
    )
plt.show()

# %% [markdown]
# Without grays, edges are jagged; you see it, and the numbers hardly do. A frame around every picture leaves the reading almost untouched; the distance
# does notice it. On paper
# that is dark gray instead of black *you* read every digit, and the judge one in ten, which is what guessing gives: it has never met such paper. What it has never
# met it answers anyway, and it is sure of it. Even noise is a digit to it.
#
# **Features of a judge are not eyes.** A small distance means: alike in what this network looks at. And a generator that is trained long enough
# against any fixed judge learns to please the judge.
#
# ### How sure is it?
#
# A judge that says "90 %" should be right nine times in ten. Whether it is can be measured: sort answers into bins by their confidence, and in each compare
# the mean confidence with the share of right answers. The **expected calibration error** is the mean gap, each bin weighted by how many answers it
# holds (Guo et al. 2017). By hand, six answers and two bins:

# %%
sure = torch.tensor([0.6, 0.7, 0.8, 0.9, 0.95, 1.0], dtype=torch.float64)
right = torch.tensor([True, False, True, True, True, False])
low, high = slice(0, 2), slice(2, 6)  # up to 0.75 and above
gaps = [(sure[part].mean() - right[part].double().mean()).abs().item() for part in (low, high)]
print(f"two answers at {sure[low].mean():.4f}, {right[low].double().mean():.0%} right: gap {gaps[0]:.4f}")
print(f"four at {sure[high].mean():.4f}, {right[high].double().mean():.0%} right: gap {gaps[1]:.4f}")
print(f"error: 2/6 * {gaps[0]:.4f} + 4/6 * {gaps[1]:.4f} = {2 / 6 * gaps[0] + 4 / 6 * gaps[1]:.4f}")
print(f"metrics.calibration_error: {metrics.calibration_error(sure, right, bins=4):.4f}")

# %%
clean, labels = digits.images[:2000], digits.labels[:2000]
noisy = clean + 0.4 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
figure, axis = plt.subplots(figsize=(4.6, 3.2))
for name, pictures, marker in (("clean digits", clean, "o"), ("noise of 0.4 added", noisy, "s")):
    cloud, reading = judged(judge, pictures)
    sure = judge.classify(cloud.float()).softmax(1).max(1).values.double()
    right = reading == labels
    bins = (sure * 10).long().clamp(max=9)
    full = [k for k in range(10) if (bins == k).sum() >= 10]
    x, y = ([float(v[bins == k].double().mean()) for k in full] for v in (sure, right))
    axis.plot(x, y, marker=marker, label=f"{name}: error {metrics.calibration_error(sure, right):.3f}")
axis.plot([0.2, 1], [0.2, 1], color=figures.GRAY, ls=":", label="says what it knows")
axis.set(xlabel="how sure the judge is", ylabel="share read right", xlim=(0.2, 1.02), ylim=(0, 1.05))
axis.legend(fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# On clean digits it is too modest, above the dotted line: it was trained to be ("label smoothing" in `minidiff/training/recipes/judge.py`). On digits
# it was not made for it is far too sure. So its confidence means something only for pictures that are like what it knows, and whether they are is
# what we wanted to find out. That is why accuracy never stands alone in the table.
#
# ## Five bugs in an evaluation
#
# The distance is also easy to compute wrongly. The right line, and five that are easily made, all on the same thousand real digits:

# %%
student = copy.deepcopy(judge).train()  # batch normalisation now goes by the batch it is shown
with torch.no_grad():
    by_digit = [student.features(real[wanted == d]).double() for d in wanted.unique()]
cloud = clouds["real"]
cov_a, cov_b = cloud.T.cov(), reference.T.cov()
means = (cloud.mean(0) - reference.mean(0)).square().sum() + cov_a.trace() + cov_b.trace()
half = torch.linalg.eigvals((cov_a.half() @ cov_b.half()).double()).sqrt().real.sum()
wrong_ways = {
    "right": metrics.frechet(cloud, reference),
    "pixels from 0 to 1 for a judge that wants -1 to 1": metrics.frechet(judged(judge, real / 2 + 0.5)[0], reference),
    "judge left in train mode, one digit a batch": metrics.frechet(torch.cat(by_digit), reference),
    "a tenth of the pictures": metrics.frechet(cloud[: max(10, COUNT // 10)], reference),
    "reference that holds the pictures themselves": metrics.frechet(cloud, features),
    "matrix root in half precision": float(means - 2 * half),
}
for name, value in wrong_ways.items():
    print(f"{value:8.2f}  {name}")

# %% [markdown]
# The first three make good pictures look bad, and you will notice. The last two make *everything look better than it is*, and nobody searches for a bug in
# a good number. The floor does not sound the alarm either: at this $n$ it is 0.50 ± 0.16, and both lie within one standard deviation of it. What gives such a bug
# away is the set whose answer you know. Try every measure on real pictures first, and on pictures that you have spoilt yourself.
#
# ## The table for our own model
#
# All of it in one call, on the test digits, which nothing so far has touched. *Cost: about 45 seconds.*

# %%
report = evaluate(pipe, n=budget(full=1000, smoke=65), scale=scale, steps=budget(full=20, smoke=2))
print(report)

# %% [markdown]
# Read it line by line, each time against the right column:
#
# - **Digit accuracy.** Does it draw what it is asked for? As often as real digits are readable is enough; more is not better. *Cannot say* whether all
#   sevens are the same seven. Below it, the judge's **calibration error**: is the judge as well calibrated on these pictures as on real ones? If not, it is
#   looking at something unusual.
# - **Frechet distance**, with its interval, and the floor. Are mean and spread of the whole cloud right? At the floor or a little above is as good as this
#   number of pictures can show. *Cannot say* what is wrong, nor tell a copy.
# - **Diversity.** Do two pictures of a digit differ as much as two people's do? *Cannot say* whether they differ in sensible ways: noise is diverse.
# - **Precision and recall.** Is what is drawn real, and is all that is real drawn? Compare with the real column, not with 1.
# - **Memorisation ratio.** Are the pictures new? *Cannot say* that no single one is a copy.
# - **The last lines**: how many, which seed, scale, steps, machine. A table without them cannot be repeated, and is not evidence.
#
# None of it says whether a person would like the pictures. For that one asks people, two sheets at a time, without telling them which is
# which: you were asked at the top of this page. The answers were: A ours, B real, C safe, D copied.
#
# ## Try all of it
#
# Damage real digits, and see which number notices.

# %%
show(figures.metric("blur", 0.4))

# %% [markdown]
# *Try:* which damage does accuracy miss longest? Which one is seen by recall alone?

# %%
widgets.metric()

# %% [markdown]
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | Frechet distance | $\lVert\mu_a - \mu_b\rVert^2 + \mathrm{tr}(A + B - 2 (AB)^{1/2})$ | {{metrics.frechet: cov_a.trace() + cov_b.trace() - 2 * cross}} |
# | its root, by way of a symmetric matrix | $\mathrm{tr}\,(AB)^{1/2} = \mathrm{tr}\,(A^{1/2} B A^{1/2})^{1/2}$ | {{metrics.frechet: cross = torch.linalg.eigvalsh(root @ cov_b @ root)}} |
# | the floor: $n$ real ones against the others | $d(X_{1..n}, X_{n+1..})$ | {{metrics.floor: scores = torch.tensor([frechet(features[order[:n]], features[order[n:]]) for order in orders])}} |
# | bootstrap: rows with replacement | $i_1, \dots, i_N$ uniform in $1..N$ | {{metrics.bootstrap: picks = torch.randint(len(rows), (draws, len(rows)), generator=generator)}} |
# | the share of points in any ball of a cloud | $\lVert x - c_i\rVert \le r_i$ for some $i$ | {{metrics.precision_recall}} |
# | precision and recall: asked in both directions | fake among real, real among fake | {{metrics.precision_recall: return covered(fake, real), covered(real, fake)}} |
# | diversity: all pairs of one class | mean of $\lVert x_i - x_j\rVert$, $i < j$ | {{metrics.diversity: distances = torch.pdist(}} |
# | memorisation ratio | $\bar d_{\text{train}} / \bar d_{\text{held-out}}$ | {{metrics.memorisation}} |
# | calibration: gaps, weighted by the size of the bin | $\sum_b (n_b / N)\, \lvert \text{conf}_b - \text{acc}_b \rvert$ | {{metrics.calibration_error: return float(gap.abs().sum() / len(confidence))}} |
#
# ## Exercises
#
# Every check tries your function on small exact cases. If something is off, it says which mistake it looks like.

# %% [markdown]
# ### Exercise 1 · Accuracy, digit by digit
#
# *easy, 5 minutes.*
#
# One number hides that a model draws all digits well but the eight. Return a tensor (`classes`,): entry $d$ is the share of the pictures
# *asked for* as $d$ that were read as $d$. `answers` and `wanted` are labels, (N,); `classes` is a number, and every class is asked for at least once.
#
# <details><summary>Hint</summary>
#
# Look only at the pictures that were asked for as d. Of a row of true and false, the mean is the share.
#
# </details>


# %%
def accuracy_by_class(answers, wanted, classes):
    """The share of each class that was read right, (classes,)."""
    ### BEGIN SOLUTION
    return torch.stack([(answers[wanted == d] == d).double().mean() for d in range(classes)])
    ### END SOLUTION


# %%
check.l04_accuracy(accuracy_by_class)

# %% [markdown]
# ### Exercise 2 · Ask the judge properly
#
# *easy, 8 minutes.*
#
# `pictures` are as a pipeline hands them out, (N, 1, H, W) from 0 to 1. `judge` was trained on pictures from -1 to 1, and whoever had it
# last may have left it in training mode. Its method `judge.features(x)` gives the features of a batch, (B, D). Memory is short: show it at most
# `size` pictures at a time. Return the features of all, (N, D), in float64.
#
# <details><summary>Hint</summary>
#
# `judge.eval()` first: batch normalisation should go by what it learned, not by the batch. `pictures.split(size)` cuts the last part
# shorter if need be.
#
# </details>


# %%
def features_of(judge, pictures, size):
    """The judge's features (N, D), float64, of pictures (N, 1, H, W) in [0, 1]."""
    ### BEGIN SOLUTION
    judge.eval()
    with torch.no_grad():
        return torch.cat([judge.features(part * 2 - 1) for part in pictures.split(size)]).double()
    ### END SOLUTION


# %%
check.l04_features(features_of)

# %% [markdown]
# ### Exercise 3 · Learned by heart?
#
# *medium, 8 minutes.*
#
# Write the memorisation ratio. `queries` (N, C, H, W), `train` (M, C, H, W) and `heldout` (K, C, H, W) are pictures; the distance between two is
# the root of the sum of squared differences. Return the mean distance to the nearest training picture, divided by the mean distance to the nearest held-out one.
#
# <details><summary>Hint</summary>
#
# `flatten(1)` makes a row of each picture, `torch.cdist` gives all distances, (N, M). Which axis holds the pictures to choose from?
#
# </details>


# %%
def memorisation(queries, train, heldout):
    """Small where the training pictures are nearer than they should be."""
    ### BEGIN SOLUTION
    to_train, to_heldout = (torch.cdist(queries.flatten(1), pool.flatten(1)).min(1).values for pool in (train, heldout))
    return to_train.mean() / to_heldout.mean()
    ### END SOLUTION


# %%
check.l04_memorisation(memorisation)

# %% [markdown]
# ### Exercise 4 · Precision
#
# *medium, 12 minutes.*
#
# Write precision for any `k`. `real` (N, D) and `fake` (M, D) are features. Around every real point is a ball that reaches to its `k`-th nearest other
# real point, the border included. Return the share of fake points that lie in at least one ball. (Recall is the same function with its two arguments
# swapped.)
#
# <details><summary>Hint</summary>
#
# In a row of `torch.cdist(real, real)` the smallest entry is the point itself. `kthvalue(k, dim=1)` finds the k-th smallest, counted from 1.
#
# </details>


# %%
def precision(real, fake, k):
    """The share of fake points among the real ones."""
    ### BEGIN SOLUTION
    reach = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # (N,)
    return (torch.cdist(fake, real) <= reach).any(1).double().mean()
    ### END SOLUTION


# %%
check.l04_precision(precision)

# %% [markdown]
# ### Exercise 5 · The Frechet distance
#
# *hard, 15 minutes.*
#
# Write it in full, for features `a` (N, D) and `b` (M, D). Covariances are the unbiased ones, divided by $N - 1$. You need not
# form the matrix root: the trace of $(AB)^{1/2}$ is the sum of the roots of the eigenvalues of $AB$, and those are what
# `torch.linalg.eigvals` returns. (As complex numbers: the imaginary parts are rounding, and a real part may fall just below 0.)
#
# <details><summary>Hint</summary>
#
# `tensor.T.cov()` is the covariance of the columns of a tensor, divided by N - 1. The sum of the diagonal of a matrix is its `trace()`. Clamp the
# eigenvalues at 0 before you take roots.
#
# </details>


# %%
def frechet(a, b):
    """The Frechet distance between two clouds, (N, D) and (M, D)."""
    ### BEGIN SOLUTION
    cov_a, cov_b = a.T.cov(), b.T.cov()
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt()
    return (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * roots.sum()
    ### END SOLUTION


# %%
check.l04_frechet(frechet)

# %% [markdown]
# With all five you have an evaluation of your own. Ask it about sheet A: `frechet(features_of(judge, sheets["ours"] / 2 + 0.5, 500), reference)` is the number of *ours* in the first table of distances.

# %% [markdown]
# ## Where to go next
#
# You can tell a good set of pictures from one that only looks it, and you know how many pictures that takes. [Lesson 05](05_unet.ipynb) uses it: it takes
# the network apart, and asks of each part what the pictures lose without it.
