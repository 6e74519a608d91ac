# %% [markdown]
# # 06 · What changes on CIFAR-10, and how long does it really take?
#
# Nothing changes in the method, and a great deal around it. A photograph has three channels; noise eats it in another
# order than a digit; and a network large enough for ten kinds of things is no longer trained over lunch. In this lesson
# you take the data apart byte by byte, do the test that comes before every long run, and work out from measurements
# what the long run costs.
#
# | | |
# |---|---|
# | You will see | photographs drown colour by colour, a network that learns twenty of them by heart, what two mistakes look like, and the price of the rest |
# | It costs | about 4 minutes on 2 CPU cores, most of them for a few small trainings; a GPU is not needed. The full run at the end wants one, and is off |
# | You need | lessons 01 to 03: corruption, training, sampling |

# %%
import copy
import io
import time
from itertools import islice

import matplotlib.pyplot as plt
import torch
from IPython.display import Image, display

from minidiff import TextToImage, data, image_files
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, show, style
from minidiff.diffusion import FLOW, denoiser, flow, heun, ideal, uniform

style()
schedule = flow()  # alpha = 1 - t, sigma = t
photos = data.cifar_samples()  # twenty of CIFAR-10's test pictures; they come with minidiff
print(photos.images.shape, photos.captions[:3])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# %% [markdown]
# Here is what part 3 is after. Each column is a walk from noise, and the denoiser is `ideal` of lesson 02: it knows the
# twenty photographs by heart and nothing else, so every walk ends on one of them. In part 3 you train a network to do
# the same.

# %%
walk = [noise(6, 3, 32, 32, seed=8)]
walk += [step.x for step in heun(ideal(photos.images, schedule), walk[0], uniform(20, schedule), schedule)]
show(image_files.sheet(torch.cat([walk[k] for k in (0, 7, 10, 20)]).clamp(-1, 1) / 2 + 0.5, columns=6, zoom=2))

# %% [markdown]
# ## Part 1: a photograph is 3,073 bytes
#
# CIFAR-10 comes as files of records. A record is one byte for the label, then 1,024 bytes of red, 1,024 of green and
# 1,024 of blue, each row by row. No library is needed to read it. A picture of 2x2 pixels by hand: its left half is
# red, its right half white.

# %%
record = torch.tensor([3, 255, 255, 255, 255, 0, 255, 0, 255, 0, 255, 0, 255], dtype=torch.uint8)
label, planes = int(record[0]), record[1:].reshape(3, 2, 2)
tiny = planes.float() / 127.5 - 1
print(f"label {label}: {data.CIFAR_CLASSES[label]}")
for name, plane in zip(("red", "green", "blue"), tiny, strict=True):
    print(f"{name:6}", plane.tolist())
print("upper left pixel:", tiny[:, 0, 0].tolist())

# %% [markdown]
# The first axis of the tensor is the channel, the next are row and column: (3, H, W). One pixel is a column of three
# numbers through it.
#
# The same with a real picture. First its 3,073 bytes as the archive has them, then the three planes, then the three
# together. On the right is what comes out if the bytes are taken for red, green, blue, red, green, blue, ... No error
# is raised: there are 3,072 of them either way.

# %%
CAR = 6
pixels = ((photos.images[CAR] + 1) * 127.5).round().byte()
record = torch.cat([photos.labels[CAR : CAR + 1].byte(), pixels.flatten()])
print(f"{len(record):,} bytes, the first five: {record[:5].tolist()}")

planes = record[1:].reshape(3, 32, 32)
together, mixed = planes.permute(1, 2, 0), record[1:].reshape(32, 32, 3)
figure, axes = plt.subplots(1, 5, figsize=(8, 1.9))
for axis, picture, title in zip(
    axes, [*planes, together, mixed], ["red", "green", "blue", "together", "mixed up"], strict=True
):
    axis.imshow(picture, vmin=0, vmax=255)
    axis.set(xticks=[], yticks=[], title=title)
plt.show()
print("the library says the same:", torch.equal(planes.float() / 127.5 - 1, photos.images[CAR]))

# %% [markdown]
# The three planes look alike. Most of what is in a photograph is light and shadow, the same in all channels; colour is
# a small difference between them. To measure this, turn the three channels into gray (their sum) and two differences,
# by a rotation, which leaves noise as it is:

# %%
turn = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / torch.tensor([3.0, 2.0, 6.0]).sqrt()[:, None]


def rotated(pictures):
    """(N, 3, H, W): red, green, blue -> gray, red against blue, green against both."""
    return torch.einsum("ij,njhw->nihw", turn, pictures)


for name, variance in zip(("gray", "red - blue", "green - both"), rotated(photos.images).var((0, 2, 3)), strict=True):
    print(f"{name:13} variance {variance:.3f}")
print("of noise     ", [round(float(v), 2) for v in rotated(noise(500, 3, 32, 32)).var((0, 2, 3))])

# %% [markdown]
# ### Captions and mirrors
#
# There are ten classes, and a label becomes a caption of the simplest kind. As with the digits of lesson 00, such a
# model understands no language: "a photo of a cat" is looked up.

# %%
print(data.CIFAR_CLASSES)
print("among the twenty:", {name: int((photos.labels == k).sum()) for k, name in enumerate(data.CIFAR_CLASSES)})

seven = data.mnist("validation")
seven = seven.images[seven.labels == 7][0, 0]
cat = photos.images[0].permute(1, 2, 0) / 2 + 0.5
figure, axes = plt.subplots(1, 4, figsize=(6, 1.8))
for axis, picture, title in zip(
    axes, [seven, seven.flip(1), cat, cat.flip(1)], ["a seven", "no seven", "a cat", "a cat"], strict=True
):
    axis.imshow(picture)
    axis.set(xticks=[], yticks=[], title=title)
plt.show()

# %% [markdown]
# Photographs can be mirrored, left for right, and are as good as new ones. Digits cannot. Mirroring half of the
# pictures, others in each epoch, is the one *augmentation* of the full run: whatever is done to the training pictures,
# the model learns to draw, so tilted or recoloured ones would come out tilted and recoloured. (Ho et al. 2020 mirror
# too, and report that it helps slightly.)
#
# ## Part 2: noise in colour
#
# Every number gets noise of its own: three for each pixel. It is easy to write it another way. By hand, on two pixels:

# %%
own = noise(1, 3, 1, 2, seed=3)
shared = noise(1, 1, 1, 2, seed=3).expand(1, 3, 1, 2)  # (B, 1, H, W) fits (B, 3, H, W) without complaint
for name, eps in (("one each", own), ("shared", shared)):
    print(name)
    for channel, row in zip("RGB", eps[0, :, 0], strict=True):
        print(f"   {channel}  {row[0]:5.2f} {row[1]:5.2f}")

# %% [markdown]
# Below, the car at $t = 0.6$ with either kind of noise. The right column shows red minus blue of the noisy picture.

# %%
t, clean = 0.6, photos.images[[CAR]]
figure, axes = plt.subplots(2, 3, figsize=(5.6, 3.9))
for row, name, eps in zip(
    axes, ("one each", "shared"), (noise(1, 3, 32, 32), noise(1, 1, 32, 32).expand(1, 3, 32, 32)), strict=True
):
    x = schedule.add_noise(clean, eps, t)[0]
    for axis, picture in zip(row, (eps[0] / 4 + 0.5, x / 2 + 0.5), strict=False):
        axis.imshow(picture.clamp(0, 1).permute(1, 2, 0))
    row[2].imshow(x[0] - x[2], vmin=-1, vmax=1)
    row[0].set_ylabel(name)
for axis, title in zip(axes[0], ("noise", "noisy picture", "red - blue"), strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# With shared noise the differences between the channels have no noise at all: the colours lie open at every $t$, and a
# network that is trained so reads them off. Its loss is lower than that of the right training. Then it is asked to
# draw, begins with three channels of noise, and takes the differences between them for colours: the coloured noise
# stays. **A loss that is better than expected deserves as much suspicion as one that is worse.**
#
# Now move the time yourself.

# %%
show(figures.corruption(photos.images[CAR], "flow", 0.3))

# %%
widgets.corruption(photos.images)

# %% [markdown]
# *Try:* find the $t$ at which the ship (picture 1) is gone, and that of the horse (picture 13). Which of the two has
# the larger flat regions?
#
# ### Flat regions last
#
# Lesson 01 showed that broad waves are stronger than fine ones. Here is what this means at a given time: the SNR of
# every band of waves, for gray and for the two colour differences. Above the line there is more picture than noise.


# %%
def spectrum(pictures):
    """Mean power of pictures (N, C, 32, 32) by channel and wave number, 1 to 15 waves across the picture: (C, 15)."""
    power = torch.fft.fft2(pictures, norm="ortho").abs().square().mean(0)  # (C, 32, 32)
    waves = torch.hypot(torch.fft.fftfreq(32)[:, None] * 32, torch.fft.fftfreq(32) * 32).round()
    return torch.stack([power[:, waves == k].mean(1) for k in range(1, 16)], dim=1)


bands = spectrum(rotated(photos.images))
gray, colour = bands[0], bands[1:].mean(0)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), sharey=True)
for axis, (name, power) in zip(axes, {"gray": gray, "colour differences": colour}.items(), strict=True):
    for t in (0.2, 0.5, 0.8):
        axis.plot(range(1, 16), schedule.snr(t) * power, marker="o", markersize=4, label=f"t = {t}")
    axis.axhline(1, color=figures.GRAY, linestyle="--")
    axis.set(title=name, yscale="log", xlabel="waves across the picture")
axes[0].set_ylabel("SNR of the band")
axes[1].legend()
plt.show()
for t in (0.2, 0.5, 0.8):
    left = [int((schedule.snr(t) * power > 1).sum()) for power in (gray, colour)]
    print(f"t = {t}: bands with more picture than noise: {left[0]} of gray, {left[1]} of colour")

# %% [markdown]
# The average over all pixels is no measure of what can still be seen. At $t = 0.5$ noise is louder than the picture in
# the fine bands, and far below it in the broad ones: the sky is still a sky. And colour goes before gray does, except
# for large coloured areas. In reverse that is the order in which a photograph is drawn: light and dark, then the broad
# colours, then texture.
#
# ### Larger pictures drown later
#
# Seen from afar, four neighbouring pixels are one: their mean. Noise suffers from that, since the four numbers have
# nothing to do with each other; the picture hardly does, since neighbours are alike. By hand, and then for squares of
# $s$ by $s$ pixels:

# %%
four = noise(4, seed=2)
print("four numbers:", [round(float(v), 2) for v in four], f" their mean: {four.mean():.2f}")
eps = noise(20, 3, 32, 32)
for s in (1, 2, 4, 8):
    mean_of = torch.nn.AvgPool2d(s)
    picture, grain = mean_of(photos.images).std(), mean_of(eps).std()
    gain = (picture / grain / photos.images.std() * eps.std()) ** 2
    print(
        f"s = {s}: std of the noise {grain:.3f} (1/s: {1 / s:.3f}), of the pictures {picture:.3f}; SNR times {gain:.1f}"
    )

# %% [markdown]
# So noise that hides a picture of 32x32 does not hide one that is $s$ times as wide: averaged back to 32x32, that one
# has only $1/s$ of the noise. To hide the large shapes as well, the ratio of noise to picture has to be $s$ times as
# large:
#
# $$\frac{\sigma'}{\alpha'} = s\,\frac{\sigma}{\alpha}$$
#
# That is the point of Hoogeboom et al. 2023: a schedule that is good for small pictures leaves large ones too clean for
# most of the walk, and should be shifted. A `Schedule` finds the time for us. Below, a photograph, the same four times
# as wide (we have no larger ones, so it was enlarged), and the larger one at the shifted time.

# %%
s, t = 4, 0.6
HORSE = 13
small = photos.images[[HORSE]]
large = torch.nn.functional.interpolate(small, scale_factor=s, mode="bilinear")
shifted = float(schedule.time_of(s * t / (1 - t)))
cases = {
    f"32x32, t = {t}": (small, t),
    f"128x128, t = {t}": (large, t),
    f"128x128, t = {shifted:.2f}": (large, shifted),
}
figure, axes = plt.subplots(1, 3, figsize=(5.4, 2.1))
for axis, (title, (picture, at)) in zip(axes, cases.items(), strict=True):
    x = schedule.add_noise(picture, noise(*picture.shape, seed=4), at)
    alpha, sigma = schedule.at(at, x)
    axis.imshow((x / (alpha**2 + sigma**2).sqrt() / 3 + 0.5).clamp(0, 1)[0].permute(1, 2, 0))
    axis.set(xticks=[], yticks=[], title=title)
    seen = torch.nn.functional.avg_pool2d(x / alpha - picture, len(picture[0, 0]) // 32)
    print(f"{title:18} noise over picture {sigma.item() / alpha.item():.2f}, on a grid of 32x32 {seen.std():.2f}")
plt.show()

# %% [markdown]
# The left and the right one hide as much, though the right one has four times the noise. CIFAR-10 is small enough for a
# schedule that was made for digits; lesson 11 meets pictures of 512x512.
#
# ## Part 3: first learn twenty by heart
#
# Before a run of days comes a run of minutes: train on so few pictures that the network *must* be able to learn them by
# heart, and see if it does. If it does not, then the reading of the data, the target, the sampler or the network is
# broken, and more data and more time would only hide it. This is the one place where memorising is what we want (lesson
# 04 tells you how to notice it where we do not).
#
# The network is our UNet on pictures folded 2x2, so 12 channels of 16x16. It has about a million parameters: 16 for
# each of the 61,440 numbers in the twenty pictures. *Cost: about 2 minutes; the picture is redrawn as it learns.*

# %%
from minidiff.evaluation.metrics import nearest
from minidiff.networks import SpaceToDepth, UNetConfig
from minidiff.pipeline.text_to_image import ModelConfig
from minidiff.training import TrainConfig, train

TWENTY = ModelConfig(
    name="twenty",
    unet=UNetConfig(12, 12, (32, 64), attention=(False, True), layers=1, heads=4, context_dim=32, groups=8),
    picture=(3, 32, 32),
    fold=2,
    labels="cifar10",
)
fold = SpaceToDepth(2)


def training(steps, mistake=lambda images, labels: (images, labels)):
    """The untrained network, and a training that yields after every step; mistake: changes each batch."""
    torch.manual_seed(0)
    net = TWENTY.build().to(memory_format=torch.channels_last)
    batches = (mistake(*batch) for batch in data.batches(photos, 10))
    folded = ((fold.encode(images), labels) for images, labels in batches)
    config = TrainConfig(steps=steps, lr=2.5e-3, ema=0.99)
    return net, train(net, schedule, FLOW, folded, config, null=net.text_encoder.null)


def drawn(net, seed=0):
    """Twenty pictures in [-1, 1], one for each of the twenty captions."""
    pipe = TextToImage(TWENTY, copy.deepcopy(net), "cpu")  # a copy: whoever draws leaves training alone
    return pipe.decode(pipe.latents(photos.captions, steps=budget(full=20, smoke=5), scale=1, seed=seed)) * 2 - 1


def distance(pictures):
    """To the nearest of the twenty, root mean square over the pixels, and which one that is: (N,), (N,)."""
    far, which = nearest(pictures, photos.images)
    return far / 3072**0.5, which


def running_mean(losses, window=50):
    return [sum(losses[max(0, k - window) : k]) / min(k, window) for k in range(1, len(losses) + 1)]


def drawing(losses, rows):
    """The loss so far, and samples; as PNG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.8, 2.6), width_ratios=[1, 1.5])
    left.plot(range(1, len(losses) + 1), running_mean(losses))
    left.set(xlabel="step", ylabel="loss, mean of 50 steps", yscale="log", ylim=(0.03, 3), xlim=(0, todo))
    left.set_yticks(ticks := [0.05, 0.1, 0.3, 1], labels=[str(tick) for tick in ticks])
    left.minorticks_off()
    right.axis("off")
    if rows:
        pictures = torch.cat([row[::2] for row in rows.values()])
        right.imshow(image_files.sheet(pictures / 2 + 0.5, columns=10, zoom=1, border=4))
        right.set_title("after " + ", ".join(str(step) for step in rows) + " steps")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image(buffer.getvalue())


# %%
todo = budget(full=1200, smoke=12)
net, run = training(todo)
losses, rows, both = [], {}, {}
screen = display(drawing(losses, rows), display_id=True)
for progress in run:
    losses.append(float(progress.loss))
    if progress.step % (todo // 3) == 0:
        rows[progress.step] = drawn(progress.net)
        both[progress.step] = rows[progress.step], drawn(net)  # with the averaged weights, with those in training
    if progress.step % 100 == 0 or progress.step == todo:
        screen.update(drawing(losses, rows))
healthy = progress.net
print(f"loss at the end {running_mean(losses)[-1]:.3f}")

# %% [markdown]
# ### Did it pass?
#
# Not by the loss: what is a good loss for twenty pictures? By what is drawn. Each caption of the twenty is drawn once,
# from noise of its own. Above: what came out. Below: the nearest of the twenty, with the distance to it. (Two different
# ones of the twenty are 0.69 apart in the mean.)

# %%
mine = rows[todo]
far, which = distance(mine)
figure, axes = plt.subplots(2, 10, figsize=(8, 2.1))
for column, k in zip(axes.T, range(0, 20, 2), strict=True):
    for axis, picture in zip(column, (mine[k], photos.images[which[k]]), strict=True):
        axis.imshow((picture / 2 + 0.5).permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
    column[0].set_title(photos.captions[k].split()[-1], fontsize=8)
    column[1].set_xlabel(f"{far[k]:.2f}", fontsize=8)
plt.show()
apart = torch.pdist(photos.images.flatten(1)).mean() / 3072**0.5
print(f"distance to the nearest: median {far.median():.3f}, largest {far.max():.3f}; two of the twenty: {apart:.2f}")
print(f"of the class that was asked for: {(photos.labels[which] == photos.labels).double().mean():.0%}")
print(f"different ones of the twenty: {len(which.unique())}")

# %% [markdown]
# It draws what it was shown, and the right kind of it. (Where the distance is large, a picture is not finished yet: a
# longer training would do.) Now the sharper question. The best denoiser that there can be for these twenty is known:
# `ideal`, with no training at all. Started from the same noise, does the network walk to the same picture? Both are
# told the class, so there are two to four pictures to choose from.

# %%
known = fold.encode(photos.images)


def best(x, t):
    """ideal, told the class of each of the twenty: (20, 12, 16, 16) -> the same."""
    of_class = [ideal(known[photos.labels == label], schedule) for label in photos.labels]
    return torch.cat([ask(one[None], t) for ask, one in zip(of_class, x, strict=True)])


start = torch.cat([noise(1, 12, 16, 16, seed=k) for k in range(20)])  # picture k of a call is drawn from seed k
*_, last = heun(best, start, uniform(40, schedule), schedule)
_, theirs = distance(fold.decode(last.x))
chance = sum(1 / (photos.labels == label).sum() for label in photos.labels) / 20
print(f"the network ends where ideal ends: {(which == theirs).double().mean():.0%}; by chance: {chance:.0%}")

# %% [markdown]
# About as often as by chance (with twenty pictures, a few more or fewer mean nothing). It ends on pictures of the right class, but which of them it is was decided early in
# the walk, where the noise is loudest. So look at how well it sees there. Asked once at every $t$: the network about
# the twenty, `ideal` about the same, and the network about the same photographs mirrored, which it has never seen.

# %%
every = torch.linspace(0.1, 0.98, budget(full=12, smoke=4))


@torch.no_grad()
def error(pictures, ask):
    """Root mean square of x0_hat - x0 at each time."""
    eps = noise(*pictures.shape, seed=9)
    return [float((ask(schedule.add_noise(pictures, eps, t), t) - pictures).square().mean().sqrt()) for t in every]


context = healthy.text_encoder(photos.labels)
asked = denoiser(healthy.unet, schedule, FLOW, context)
mirrored = fold.encode(photos.images.flip(3))
plt.figure(figsize=(5.2, 2.8))
plt.plot(every, error(known, asked), marker="o", markersize=4, label="network, the twenty")
plt.plot(every, error(mirrored, asked), marker="s", markersize=4, label="network, the twenty mirrored")
plt.plot(every, error(known, best), marker="D", markersize=4, label="ideal, the twenty")
plt.xlabel("t")
plt.ylabel(r"error of $\hat{x}_0$")
plt.legend(fontsize=9)
plt.show()

# %% [markdown]
# `ideal` makes no error until the noise is very loud: in 3,072 dimensions, two to four pictures are hard to confuse.
# The network errs a little everywhere, and the more the louder the noise, so a walk of its own soon leaves the one of
# `ideal`. On the mirrored photographs it fails as soon as it has to guess: what it has learned is these twenty, not
# what photographs look like. For that it takes tens of thousands, and that is what the long run is for.
#
# ### With the average or without?
#
# While it trained, we drew twice each time: with the exponential moving average of the weights (lesson 02), and with
# the weights as they were at that step.

# %%
print("step    loss    distance to the nearest, mean of twenty")
print("                with the average   without")
for step, (averaged, plain) in both.items():
    a, b = (float(distance(pictures)[0].mean()) for pictures in (averaged, plain))
    print(f"{step:>5}   {running_mean(losses)[step - 1]:.3f}   {a:.3f}              {b:.3f}")

# %% [markdown]
# In this short run the average is no help. In the middle it may even be behind: its memory reaches back a hundred
# steps, to when the network was worse. At the end the learning rate has come down to nothing, the weights have come to
# rest, and the two are the same. The average is for weights that do not come to rest. So let the trained network go on
# at the highest rate, without decay, as Ho et al. 2020 train all the way. *Cost: 10 seconds.*

# %%
restless = copy.deepcopy(net)
folded = ((fold.encode(images), labels) for images, labels in data.batches(photos, 10))
constant = TrainConfig(steps=1_000_000, lr=2.5e-3, warmup=1, ema=0.99)  # of so many steps, the first are at one rate
for progress in islice(
    train(restless, schedule, FLOW, folded, constant, null=restless.text_encoder.null), budget(full=100, smoke=3)
):
    pass
for name, model in {"with the average": progress.net, "without": restless}.items():
    print(f"{name:17} distance to the nearest, mean of twenty {distance(drawn(model))[0].mean():.3f}")

# %% [markdown]
# Both have become worse than before, since every step at this rate throws the weights about. But the average of the weights draws better than the weights themselves. The longer a run at a high rate, the more depends on drawing with the average; forgetting to is a
# mistake that no loss shows.
#
# ### What a failure looks like
#
# A test that cannot fail is no test. The same training, shorter, three times: as it should be, and with one mistake
# each. In the first, the pictures are in [0, 1], as most libraries load them. In the second, the labels are shuffled in
# every batch, as happens when pictures and labels are shuffled apart. *Cost: about 2 minutes for the three.*

# %%
MISTAKES = {
    "none": lambda images, labels: (images, labels),
    "pictures in [0, 1]": lambda images, labels: (images / 2 + 0.5, labels),
    "labels shuffled": lambda images, labels: (images, labels[torch.randperm(len(labels))]),
}
short = budget(full=500, smoke=4)
curves, samples = {}, {}
for name, mistake in MISTAKES.items():
    _, run = training(short, mistake)
    steps = list(islice(run, short))
    curves[name] = [float(step.loss) for step in steps]
    samples[name] = drawn(steps[-1].net)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=[1, 1.4])
for name, curve in curves.items():
    left.plot(range(1, short + 1), running_mean(curve), label=name)
left.set(xlabel="step", ylabel="loss, mean of 50 steps", yscale="log", ylim=(0.08, 3))
left.set_yticks(ticks := [0.1, 0.3, 1], labels=[str(tick) for tick in ticks])
left.minorticks_off()
left.legend(fontsize=8)
right.imshow(
    image_files.sheet(
        torch.cat([pictures[::2] for pictures in samples.values()]) / 2 + 0.5, columns=10, zoom=1, border=4
    )
)
right.set(yticks=[18, 54, 90], yticklabels=list(samples), xticks=[])
plt.show()
for name, pictures in samples.items():
    far, which = distance(pictures)
    share = (photos.labels[which] == photos.labels).double().mean()
    print(f"{name:20} loss {running_mean(curves[name])[-1]:.3f}   nearest {far.mean():.2f}   right class {share:.0%}")

# %% [markdown]
# The first mistake has the *best* loss of the three: pictures of half the contrast leave less to guess. The loss of the
# second can hardly be told from that of the healthy run. So the loss shows neither. The samples show the first at once:
# the network draws pictures in [0, 1], as it was shown, and whoever puts them on a screen takes 0 for gray, so that
# nothing is dark. The second mistake draws pictures that look hardly worse, only they are the wrong ones, and what gives it away is
# the last column: 14 % is what one gets by drawing any of the twenty. (After so few steps the healthy run is not sharp
# either. It is the difference that counts.)
#
# So the test has three questions: is it sharp, is it one of those it was shown, and is it the one that was asked for?
#
# ## Part 4: an honest budget
#
# Now the real network, the one that `minidiff train cifar10` trains: full resolution, 128 and 256 channels. How much
# work is it to ask it once? PyTorch can count the multiplications and additions while it runs.

# %%
from minidiff.networks import flops
from minidiff.training.recipes import RECIPES

recipe = RECIPES["cifar10"]
full = recipe.config.build().to(memory_format=torch.channels_last)
question = noise(1, 3, 32, 32), torch.zeros(1), noise(1, 2, recipe.config.unet.context_dim)
small_net = TWENTY.build()
small_question = noise(1, 12, 16, 16), torch.zeros(1), noise(1, 2, 32)
work = {}
for name, model, asked in (("twenty pictures", small_net, small_question), ("the real one", full, question)):
    work[name] = sum(flops(model.unet, *asked).values())
    size = sum(p.numel() for p in model.parameters())
    print(f"{name:16} {size / 1e6:5.1f} M parameters   {work[name] / 1e9:6.2f} billion operations to ask once")

# %% [markdown]
# A training step asks, and goes back through the network to find the gradients, which is twice the work again: three
# times this number for each picture. What that takes depends on the machine, so measure it. A few steps at a small
# batch are enough, because **pictures a second** hardly depend on the batch once the machine is busy. (A GPU is not
# busy with 4 pictures: there, the cell takes the batch of the recipe.) The optimizer is left out: it has the same work
# to do for 4 pictures as for 128, and then it hardly counts. *Cost: 15 seconds.*

# %%
from minidiff.device import pick_device
from minidiff.training import loss

device = pick_device()
size = budget(full=4, smoke=1) if device.type == "cpu" else recipe.batch
those = torch.arange(size) % 20
images, labels = photos.images[those].to(device), photos.labels[those].to(device)
eps, times = noise(*images.shape).to(device), torch.linspace(0.1, 0.9, size)
full = full.to(device)
seconds = []
for _ in range(budget(full=4, smoke=2)):
    begun = time.perf_counter()
    full.zero_grad()
    loss(full, schedule, FLOW, images, labels, times, eps).backward()
    full.unet.conv_in.bias.grad.sum().item()  # a GPU works ahead; asking for a number waits for it
    seconds.append(time.perf_counter() - begun)
rate = size / sorted(seconds[1:])[len(seconds[1:]) // 2]  # without the first, which is slow: memory is being found
worked = 3 * work["the real one"] * rate
print(f"{device.type}: {rate:.2f} pictures a second, {worked / 1e9:.0f} billion operations a second")

# %% [markdown]
# Then the time is the number of pictures that the run will see, divided by the pictures a second. Ho et al. 2020
# (appendix B) trained their CIFAR-10 model, 35.7 million parameters, for 800,000 steps of 128 pictures. Our recipe has
# a quarter of the steps.

# %%
for name, steps, batch in (
    ("the twenty, above, in this network", budget(full=1200, smoke=12), 10),
    ("one epoch of 45,000 photographs", 45_000 // 128, 128),
    ("minidiff train cifar10", recipe.train.steps, recipe.batch),
    ("Ho et al. 2020", 800_000, 128),
):
    pictures = steps * batch
    print(f"{name:36} {pictures / 1e6:7.2f} M pictures {pictures / rate / 86_400:10.2f} days on this machine")

# %% [markdown]
# Read it from the top. What took the small network a few minutes takes this one many times as long, and an epoch takes hours. The recipe is a matter of months, and the published recipe takes four times as long. On such a machine this is
# no question of patience: it takes another machine, or a smaller network. (The one of part 3 has a ninetieth of the
# work, by the two counts above.)
#
# **For any other machine**, measure its pictures a second, by the cell above or by the steps a second that `minidiff
# train cifar10` shows (on an NVIDIA GPU it also computes in bfloat16 and compiles the network, which the cell does
# not), and divide:
#
# $$\text{days} = \frac{\text{steps} \times \text{batch}}{\text{pictures a second} \times 86400}$$
#
# As a test of the formula, the one figure that Ho et al. report: 21 steps a second on their machine (a TPU v3-8), so
# $800000 / 21 / 3600 = 10.6$ hours, and that is what they say it took. The price of sampling belongs to an honest
# budget as well: 50,000 pictures, as many as the Frechet distances in papers are computed from, at 20 steps and twice a
# step for guidance, ask the network two million times.
#
# What saves time, in the order in which to try it: fold the pictures (a quarter of the pixels, lesson 02 and the
# network above), a smaller network, fewer steps with a decaying learning rate, a machine with a GPU. What does not: a
# larger batch on a machine that is busy already.
#
# ## Part 5: the full run, behind one switch
#
# The cell below does what `minidiff train cifar10` does: fetch the archive, check it, train, draw. It needs 170 MB to
# download, once; memory for the pictures (0.55 GB) and the training; and a GPU. **The
# full run was not done for this page**, for the reason that the arithmetic above gives. Set `FULL = True` to start it. The run saves as it goes, and the same cell goes on where it was stopped.

# %%
from pathlib import Path

FULL = False
folder = Path("runs/cifar10")

if FULL:
    for step, steps, value in recipe.run(folder, device, recipe.train, recipe.batch):
        if step % 100 == 0:
            print(f"step {step:,} of {steps:,}, loss {value:.4f}")
    pipe = TextToImage.load(folder)
    show(image_files.sheet(pipe.decode(pipe.latents(data.CIFAR_CLASSES * 4, seed=0)), columns=10, zoom=2))
else:
    print(f"not run: {recipe.train.steps:,} steps of {recipe.batch} pictures into {folder}")
    print(f"the archive, {data.cifar10_path().name}, would go where data.cifar10_path() says")

# %% [markdown]
# With another folder for the archive, or less time: `minidiff train cifar10 --data FOLDER --minutes 60`. Then `minidiff
# sample "a photo of a cat" --model runs/cifar10`.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | a record: label, then planes | 3073 = 1 + 3 · 32 · 32 | {{cifar.cifar10: records[:, 1:].reshape(-1, 3, 32, 32)}} |
# | bytes to numbers | $b / 127.5 - 1$ | {{cifar._pictures: pixels.float().div_(127.5).sub_(1)}} |
# | half of a batch mirrored | $x_{c, i, j} \leftarrow x_{c, i, W - 1 - j}$ | {{denoiser.mirrored: images.flip(-1)}} |
# | noise of its own for every number | $\varepsilon$ of the shape of $x_0$ | {{loop.train: eps = torch.randn(x0.shape, generator=generator)}} |
# | the time with a given ratio | $\sigma_t / \alpha_t = r$ | {{schedules.time_of: too_clean = self.sigma(middle) < ratio * self.alpha(middle)}} |
# | what drawing is done with | $\bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta$ | {{optimise.update: mean.lerp_(new, 1 - decay)}} |
# | the nearest picture | $\min_k \lVert x - x_k \rVert$ | {{metrics.nearest: torch.cdist(part, pool.flatten(1)).min(1)}} |
#
# ## Exercises
#
# ### Exercise 1 · Records
# *easy, 5 minutes.* `raw` is the whole file: N records, one after the other, as one long row of bytes (uint8). The
# pictures are `side` by `side` pixels. Return all of them, (N, 3, side, side), as floats from -1 to 1. The labels are
# not asked for.
#
# <details><summary>Hint</summary>
# How long is one record? `reshape(-1, length)` gives a table with one record a row, and then the label is a column.
# </details>


# %%
def records(raw, side):
    """The pictures of a file: bytes (N * (1 + 3 * side * side),) -> floats in [-1, 1], (N, 3, side, side)."""
    ### BEGIN SOLUTION
    table = raw.reshape(-1, 1 + 3 * side * side)
    return table[:, 1:].reshape(-1, 3, side, side).float() / 127.5 - 1
    ### END SOLUTION


# %%
check.l06_records(records)

# %% [markdown]
# ### Exercise 2 · Mirrors
# *easy, 5 minutes.* `pictures` are (B, C, H, W). For each there is a coin in `coins`, (B,), of True and False. Mirror
# those pictures, left for right, whose coin is True, and leave the others. The result has the shape and the order of
# `pictures`.
#
# <details><summary>Hint</summary>
# `torch.where(condition, a, b)` chooses number by number, and the condition may be broadcast. Which shape must the
# coins have for that?
# </details>


# %%
def mirror(pictures, coins):
    """The pictures (B, C, H, W), mirrored left for right where coins (B,) is True."""
    ### BEGIN SOLUTION
    return torch.where(coins[:, None, None, None], pictures.flip(3), pictures)
    ### END SOLUTION


# %%
check.l06_mirror(mirror)

# %% [markdown]
# ### Exercise 3 · How many days?
# *easy, 4 minutes.* A trial of `trial_steps` steps with `trial_batch` pictures each took `trial_seconds` seconds. How
# many days will `steps` steps of `batch` pictures take on the same machine? All five are numbers, and so is the result.
#
# <details><summary>Hint</summary>
# How many pictures a second did the trial manage, and how many pictures will the long run see?
# </details>


# %%
def days(steps, batch, trial_steps, trial_batch, trial_seconds):
    """How long the full run takes, in days."""
    ### BEGIN SOLUTION
    rate = trial_steps * trial_batch / trial_seconds  # pictures a second
    return steps * batch / rate / (24 * 60 * 60)
    ### END SOLUTION


# %%
check.l06_days(days)

# %% [markdown]
# ### Exercise 4 · The same view from afar
# *medium, 8 minutes.* On the flow schedule, $\alpha = 1 - t$ and $\sigma = t$. Pictures `s` times as wide, averaged
# over squares of `s` by `s` pixels, should be as noisy as the small ones are at the times `t`, (N,), all below 1. At
# which times are they? There is a formula; `Schedule.time_of` is not needed.
#
# <details><summary>Hint</summary>
# Write r for the ratio of sigma to alpha. What is r at time t, by what is it multiplied, and which time has a given r?
# </details>


# %%
def larger(t, s):
    """The times (N,) for pictures s times as wide that hide as much as t, (N,), does for the small ones."""
    ### BEGIN SOLUTION
    return s * t / (1 + (s - 1) * t)  # r = s t / (1 - t), and the time with the ratio r is r / (1 + r)
    ### END SOLUTION


# %%
check.l06_larger(larger)

# %% [markdown]
# (Stable Diffusion 3 shifts its times by this formula: Esser et al. 2024.)
#
# ### Exercise 5 · Draw with the average, go on without
# *hard, 12 minutes.* While a network trains, draw a picture after every `every` steps, with the moving average of its
# weights.
#
# `begin()` gives you three things: `weights`, a dict of tensors; `training_step`, a function without arguments that
# changes these tensors in place; and `draw`, which takes such a dict and returns a picture. Call `training_step()` `n`
# times. After each step the average becomes `decay` times itself plus `1 - decay` times the weights; it begins with the
# weights before training. One of the tensors is a counter of whole numbers: it is not averaged, its newest value is
# taken. `n` is a multiple of `every`. Return the pictures, stacked along a new first axis. Drawing must not disturb the
# training.
#
# <details><summary>Hint</summary>
# `weight.is_floating_point()` tells a counter from the rest. And `draw` takes any dict with the same names, so nothing
# needs to be put into `weights`.
# </details>


# %%
def album(begin, n, every, decay):
    """Pictures drawn with the average after every, 2 * every, ..., n training steps: (n / every, ...)."""
    weights, training_step, draw = begin()
    ### BEGIN SOLUTION
    mean, pictures = {name: weight.clone() for name, weight in weights.items()}, []
    for step in range(1, n + 1):
        training_step()
        for name, weight in weights.items():
            if weight.is_floating_point():
                mean[name] = decay * mean[name] + (1 - decay) * weight
            else:
                mean[name] = weight.clone()
        if step % every == 0:
            pictures.append(draw(mean))
    return torch.stack(pictures)
    ### END SOLUTION


# %%
check.l06_album(album)

# %% [markdown]
# ## Where to go next
#
# You can read colour pictures, test a training before you pay for it, and name its price. Lesson 07 leaves the price as
# it is and asks how a second network, a classifier of noisy pictures, can steer a model that is trained already.
