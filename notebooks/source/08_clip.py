# %% [markdown]
# # 08 · How do words and pictures come to live in one space?
#
# **By being shown together.** One network reads, another looks, and each turns what it was given into a point of the same space. Training
# does one thing only: it pulls a picture towards its own caption, and pushes it away from all others. In this lesson you build
# both networks' inputs by hand, train the two for half a minute, and then ask the finished ones what they know, and what they do not.
#
# | | |
# |---|---|
# | You will see | words cut into pieces; a mask that hides the future; a matrix that turns diagonal; a search for pictures that nobody has described; questions that such a network cannot answer |
# | It costs | about 2 minutes on 2 CPU cores, half a minute of them for training; a GPU is not needed |
# | You need | attention (lesson 05); what a softmax and a cross-entropy are |

# %%
from collections import Counter
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange

from minidiff import data, image_files
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, show, style
from minidiff.data import Scene, caption
from minidiff.data.color_digits import draw
from minidiff.formats.clip import load_clip

style()
clip, tokenizer = load_clip()
print(f"{sum(p.numel() for p in clip.parameters()):,} parameters")

# %% [markdown]
# Eight pictures against eight captions. Each number says how alike a picture and a caption are to the network that you have just loaded. It has seen none
# of this handwriting, and of the third picture not even the combination: in all of its training there was no green seven.

# %%
digits = data.mnist("test")


def pictures_of(scenes, seed=0):
    """A picture of each scene, (N, 3, 32, 32) in [-1, 1], in handwriting that no training has seen."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for scene in scenes:
        fits = (digits.labels == scene.digit).nonzero()[:, 0]
        rows.append(fits[torch.randint(len(fits), (), generator=rng)])
    return draw(scenes, digits.images[torch.stack(rows)])


def matrix(axis, values, pictures, captions=None, number="{:.2f}", **limits):
    """Numbers as colours: a row for each picture, a column for each caption."""
    n, m = values.shape
    axis.imshow(values, cmap="viridis", aspect="auto", **limits)
    axis.grid(False)
    axis.set(yticks=[], xticks=[])
    if captions:
        axis.set_xticks(range(m), captions, rotation=38, ha="right", rotation_mode="anchor", fontsize=8)
    for i in range(n):
        inset = axis.inset_axes([-1 / m, 1 - (i + 0.97) / n, 0.9 / m, 0.94 / n])
        inset.imshow(pictures[i].permute(1, 2, 0) / 2 + 0.5)
        inset.axis("off")
        for j in range(m if number else 0):
            ink = "k" if values[i, j] > 0.6 else "w"  # on yellow, or on blue
            axis.text(j, i, number.format(values[i, j]), ha="center", va="center", fontsize=8, color=ink)


scenes = [
    Scene(7, "red", "blue"),
    Scene(7, "blue", "red"),
    Scene(7, "green", "white"),
    Scene(1, "red", "blue"),
    Scene(4, "white", "black"),
    Scene(0, "yellow", "purple"),
    Scene(8, "orange", "black", "top left", "small"),
    Scene(5, "purple", "yellow", "bottom right", "small"),
]
captions, pictures = [caption(scene, 2) for scene in scenes], pictures_of(scenes)
with torch.no_grad():
    cosines = clip.embed_images(pictures) @ clip.embed_text(tokenizer(captions)).T

figure, axis = plt.subplots(figsize=(7, 4.4))
matrix(axis, cosines, pictures, captions)
plt.show()

# %% [markdown]
# ## A small world
#
# CLIP's authors collected 400 million pictures with the words that stood beside them on the internet (Radford et al. 2021). That does not fit into a lesson. So the course has a small world of
# its own, `color_digits`: handwritten digits in 8 colours on 7 other colours, at 5 places and in 2 sizes, and captions that say so.

# %%
sample = data.color_digits(12, "test", seed=1)
figure, axes = plt.subplots(3, 4, figsize=(8, 5))
for axis, image, words in zip(axes.flat, sample.images, sample.captions, strict=True):
    axis.imshow(image.permute(1, 2, 0) / 2 + 0.5)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    middle = len(words) // 2
    cut = min((k for k, letter in enumerate(words) if letter == " "), key=lambda k: abs(k - middle))
    axis.set_title(f"{words[:cut]}\n{words[cut + 1 :]}", fontsize=8)
plt.show()
print("one scene in all wordings:")
for k in range(len(data.WORDINGS)):
    print("  ", caption(Scene(7, "red", "blue", "top left", "small"), k))
print("never in any training:", ", ".join(f"{color} {digit}" for digit, color in data.HELD_OUT.items()))

# %% [markdown]
# Not all captions say everything, as outside: the last wording leaves the background open. And ten pairs of a digit and a colour are never in any training of this course, neither as pictures nor in words. They
# are there to find out whether a network has learned "green" and "seven", or a list of pictures.
#
# ## From words to numbers
#
# A network has a table with one row of numbers for each thing that it may read. What should these things be? Words? Then the table is
# huge, and a typing error is not in it. Letters? Then nothing is missing, but a text becomes long, and a single letter means little. *Byte-pair encoding* (Sennrich et al.
# 2016) lies between: start with letters, and glue together what often stands together.
#
# By hand, for a text with three different words. The last letter of a word carries a mark, `</w>`, so that an *n* at the end is another piece than an *n* inside.

# %%
from minidiff.tokenizer import Tokenizer, join, spell

count = {"seven": 3, "eleven": 1, "ten": 2}
spelled = {word: spell(word) for word in count}
print(" " * 26, "   ".join(" ".join(pieces) for pieces in spelled.values()))
for _ in range(6):
    pairs = Counter()
    for word, times in count.items():
        for pair in pairwise(spelled[word]):
            pairs[pair] += times
    best = min(pairs, key=lambda pair: (-pairs[pair], pair))  # the most frequent; of equals, the first in the alphabet
    spelled = {word: join(pieces, best) for word, pieces in spelled.items()}
    print(
        f"{pairs[best]} times {best[0]:>8} {best[1]:<7} ", "   ".join(" ".join(pieces) for pieces in spelled.values())
    )

texts = [" ".join([word] * times) for word, times in count.items()]
print("\nthe library learns", [" ".join(pair) for pair in Tokenizer.train(texts, merges=6).merges])

# %% [markdown]
# After six merges "seven" and "ten" are one piece each, and the rare "eleven" is in two. The second of them, "even", is not a word of this text, but it ends two of its words. **The list of merges, in this order, is all that has been learned.** A new text is
# spelled in letters, and then gets the same merges in the same order.
#
# Letters are in truth *bytes*, of which there are 256, so that nothing can ever be missing, whatever the script. The tokenizer that belongs to the network above has learned from captions until
# each of their words was one piece. A dot stands for the end of a word:


# %%
def show_pieces(texts):
    """Each text as a row of its pieces, with their ids below."""
    figure, axis = plt.subplots(figsize=(8, 0.55 * len(texts)))
    colors = [figures.BLUE, figures.ORANGE, figures.GREEN, figures.PURPLE, figures.SKY]
    for row, text in enumerate(texts):
        left = 0.0
        for k, (piece, id) in enumerate(zip(tokenizer.pieces(text), tokenizer.encode(text), strict=True)):
            name = piece.replace("</w>", "·")
            wide = max(len(name) + 0.8, len(str(id)) * 0.8 + 0.8)
            axis.add_patch(plt.Rectangle((left, row - 0.35), wide - 0.25, 0.7, color=colors[k % 5], alpha=0.35, lw=0))
            middle = left + wide / 2 - 0.12
            axis.text(middle, row - 0.1, name, ha="center", va="center", family="monospace", fontsize=9)
            axis.text(middle, row + 0.22, id, ha="center", va="center", fontsize=5.5)
            left += wide
        axis.plot(left, row, alpha=0)
    axis.set(ylim=(len(texts) - 0.5, -0.6))
    axis.axis("off")
    plt.show()


show_pieces(
    [
        "a red seven on a blue background",
        "A RED 7 on blue",
        "redder than a crimson seven",
        "a redd sven",
        "eine rote Sieben",
        "семь",
    ]
)

# %% [markdown]
# What is in the captions is one piece a word. "Redder" and "crimson" are not, so they come in parts, and a part such as the last one may be quite another word's end. Russian letters are two bytes each, and bytes that are no Latin letter have got
# some printable sign as a stand-in. Nothing is unknown, but that is not to say that it is *understood*: no training has ever used these pieces.
# `unknown` says which words a text spells out.
#
# A network wants all texts to be equally long. So a text gets a start, an end, and is filled up with more ends; CLIP does so to 77 ids, ours to 24. Whatever is longer is cut, and `left_out` says what was lost:

# %%
print(tokenizer("a red seven")[0].tolist())
print("spelled out:", tokenizer.unknown("a redd sven on blue"))
long = "a small red seven on a blue background, top left, " * 2 + "and a frame"
ids = tokenizer(long)
print("read:    ", tokenizer.decode(ids[0]))
print("left out:", tokenizer.left_out(long))

# %% [markdown]
# ## The tower that reads
#
# Each id becomes its row of the table, and so does its *position*, since attention by itself does not know an order; the two are added. Then come layers of what you know from
# lesson 05: every word asks all others, then each is worked on by itself, both times beside a shortcut. (The norm is a LayerNorm, over the numbers of one word, where there was a GroupNorm.)
#
# One thing is new. **A word may look at itself and at what stands before it, never at what comes after.** This is the *causal mask*: before the softmax, the scores of later
# words are set to minus infinity. By hand for three words that ask, with the same scores each time:

# %%
scores = [1.0, 2.0, 3.0]
for asks in range(3):
    allowed = torch.tensor(scores[: asks + 1])
    print(f"word {asks + 1} may see {asks + 1} of 3:", [round(share, 3) for share in allowed.softmax(0).tolist()])

q = torch.ones(1, 3, 1)
k = torch.tensor(scores).reshape(1, 3, 1)
print("the library:\n", F.scaled_dot_product_attention(q, k, torch.eye(3)[None], is_causal=True)[0].numpy().round(3))

# %% [markdown]
# And in the network: on the left who may look at whom, in the middle who does (first layer, mean of the heads). On the right an experiment: one word of the caption is replaced, and the states of all words are
# compared before and after.


# %%
def shares(attend, run):
    """Who looks at whom in one attention room while `run()` passes through it: (B, N, N), mean of the heads."""
    caught = {}
    rooms = (attend.q_proj, attend.k_proj)
    hooks = [room.register_forward_hook(lambda room, given, out: caught.update({room: out})) for room in rooms]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    q, k = (rearrange(caught[room], "b n (h d) -> b h n d", h=attend.heads) for room in rooms)
    identity = torch.eye(q.shape[2]).expand(*q.shape[:3], -1)
    return F.scaled_dot_product_attention(q, k, identity, is_causal=attend.causal).mean(1)


text = "a red seven on a blue background"
names = ["start", *text.split(), "end"]
n = len(names)
ids, changed = tokenizer([text, "a red seven on a green background"]).split(1)
looks = shares(clip.text_model.encoder.layers[0].self_attn, lambda: clip.text_model(ids))[0, :n, :n]
with torch.no_grad():
    moved = (clip.text_model(ids) - clip.text_model(changed)).norm(dim=-1)[0, :n]

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8, 2.9), width_ratios=[1, 1, 1.1])
left.imshow(torch.ones(n, n).tril(), cmap="Blues", vmin=0, vmax=1.4)
middle.imshow(looks, cmap="viridis", vmin=0)
for axis, title in ((left, "may look"), (middle, "looks")):
    axis.set_xticks(range(n), names, rotation=90)
    axis.set(title=title, xlabel="at", ylabel="who")
    axis.grid(False)
left.set_yticks(range(n), names)
middle.set_yticks([])
middle.set_ylabel("")
right.barh(range(n), moved)
right.set_yticks(range(n), names)
right.invert_yaxis()
right.set(title='"blue" replaced by "green"', xlabel="how far the state moved")
plt.show()

# %% [markdown]
# What stands before the change does not notice it at all. What stands after it does, and the last to stand there is the end. **The end token is the only one that has seen the whole text**, and so its state is the one that is read out. (The padding behind it has seen
# everything too, but the *first* end is taken: it stands where the text ends, however much padding follows.)
#
# Why a mask, if nothing is to be foretold? Radford et al. (2021, section 2.4) kept it so that one could start from a language model, or train one beside. For us it has a pleasant side: a text means the same, whatever it is padded to.
#
# ## The tower that looks
#
# The same layers, without the mask. What are the "words" of a picture? Squares of it (Dosovitskiy et al. 2021):

# %%
side, size = clip.config.vision.patch, clip.config.vision.size
picture = pictures[:1]  # (1, 3, 32, 32)
patches = rearrange(picture, "1 c (h p) (w q) -> (h w) c p q", p=side, q=side)
figure, (left, right) = plt.subplots(1, 2, figsize=(5.2, 2.6))
left.imshow(picture[0].permute(1, 2, 0) / 2 + 0.5)
left.set_title("a picture")
right.imshow(image_files.sheet(patches / 2 + 0.5, columns=size // side, zoom=4))
right.set_title(f"{len(patches)} words")
for axis in (left, right):
    axis.axis("off")
plt.show()

tower = clip.vision_model.embeddings
with torch.no_grad():
    by_convolution = tower.patch_embedding(picture)  # (1, 80, 4, 4): a convolution with steps as wide as itself
    row = len(patches) // 2 + 1  # some patch in the middle
    by_hand = (patches[row] * tower.patch_embedding.weight).sum((1, 2, 3))  # each kernel, laid over this one patch
    print("one patch, by hand:", by_hand[:4].numpy().round(3))
    print("by convolution:    ", by_convolution.flatten(2)[0, :4, row].numpy().round(3))
    print("the tower's words: ", tuple(tower(picture).shape))

# %% [markdown]
# One word more than there are patches: in front stands the *class token*, which is no patch and the same for every picture. It is the counterpart of the end
# token: a place where the whole is collected. From it, and only from it, the picture's point is made. What does it look at, in the last layer?

# %%
looks = shares(clip.vision_model.encoder.layers[-1].self_attn, lambda: clip.embed_images(pictures))[:, 0, 1:]
figure, axes = plt.subplots(2, len(pictures), figsize=(8, 2.1))
for k in range(len(pictures)):
    axes[0, k].imshow(pictures[k].permute(1, 2, 0) / 2 + 0.5)
    axes[1, k].imshow(looks[k].reshape(size // side, -1), vmin=0)
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# Where the ink is: it has learned that paper says little about shape. Nobody told it to.
#
# ## One space
#
# The states of the two towers have different widths and mean different things. So each gets one last matrix that brings it to the same number of dimensions, and then a division by its length. Every picture and every text is
# now a point on a sphere, and what two points have in common is the angle between them:
#
# $$\cos(p, c) = \frac{p \cdot c}{|p|\,|c|}$$
#
# By hand in two dimensions: three pictures, three captions. The second picture is "loud", five times as long as the others. Its direction is all that counts.

# %%
p = torch.tensor([[1.0, 0.2], [2.0, 5.0], [-0.8, 0.4]])
c = torch.tensor([[0.9, -0.3], [0.5, 1.0], [-1.0, 0.1]])
print("cosines, picture by picture:")
for picture_point in p:
    print([f"{float(sum(picture_point * point) / (picture_point.norm() * point.norm())):6.3f}" for point in c])
print("the library:\n", F.cosine_similarity(p[:, None], c[None], dim=-1).numpy().round(3))

figure, axis = plt.subplots(figsize=(4.6, 3.2))
axis.add_patch(plt.Circle((0, 0), 1, fill=False, color=figures.GRAY))
for points, color, name, reach in ((p, figures.BLUE, "picture", 1.17), (c, figures.ORANGE, "caption", 0.83)):
    unit = F.normalize(points, dim=1)
    axis.scatter(*unit.T, color=color, label=name, zorder=3)
    for k, (x, y) in enumerate(unit.tolist()):
        axis.annotate(str(k + 1), (reach * x, reach * y), color=color, ha="center", va="center")
axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xlabel="first number", ylabel="second number")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## The loss: find your partner
#
# A batch is $N$ pictures with their $N$ captions. Their cosines, times a factor that comes in a moment, make a matrix of *logits*. What belongs together is on the diagonal. Now play a game: given picture
# $i$, which of the $N$ captions is its own? A softmax along the row gives each caption a share, and the loss is minus the logarithm of the right one's. Then the same for each caption, along the columns:
#
# $$L = \frac{1}{2N} \sum_i \Big( -\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}} \;-\; \log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ji}}} \Big)$$
#
# By hand, with three pictures:

# %%
from minidiff.training.recipes.contrastive import contrastive_loss

logits = torch.tensor([[4.0, 1.0, 0.0], [2.0, 3.0, 1.0], [0.0, 2.0, 2.0]])
e = 2.718281828**logits
in_rows = [float(e[i, i] / (e[i, 0] + e[i, 1] + e[i, 2])) for i in range(3)]
in_columns = [float(e[i, i] / (e[0, i] + e[1, i] + e[2, i])) for i in range(3)]
for name, right in (("picture finds caption", in_rows), ("caption finds picture", in_columns)):
    surprise = [-torch.tensor(share).log().item() for share in right]
    print(
        name,
        [f"{share:.3f}" for share in right],
        " -log:",
        [f"{s:.3f}" for s in surprise],
        f" mean {sum(surprise) / 3:.4f}",
    )
print(f"the library: {contrastive_loss(logits):.4f}")

# %% [markdown]
# Both halves are needed. Look at the last row: picture 3 cannot decide between captions 2 and 3. Along the columns the same matrix looks different, for caption 3 is hardly claimed by anyone else. The matrix is not symmetric, so neither are the answers.
#
# The others in the batch are the only teachers of what is *wrong*. So large batches teach more, and it matters who is in them: to tell a seven on blue from a one on green, the colour will do. OpenAI's batches had 32,768 pairs. (One trap of our small world: two
# pictures of a batch may show the same scene, and then a caption is right twice. Our training leaves such pairs out of the game.)
#
# ### Temperature
#
# A cosine is at most 1. That is little for a softmax:

# %%
sure = torch.full((256, 256), -1.0).fill_diagonal_(
    1.0
)  # better than any network: 1 for the right one, -1 for all others
for scale in (1, 1 / 0.07, 100):
    print(
        f"times {scale:5.1f}: share of the right one {sure.mul(scale).softmax(1)[0, 0]:.4f}, loss {contrastive_loss(scale * sure):.4f}"
    )

# %% [markdown]
# So the cosines are multiplied by a number, $1/\text{temperature}$, before the softmax. It is learned along with the rest, and since it must stay positive, it is its *logarithm* that is learned, `logit_scale`. It begins at $\log(1/0.07)$, and is never let above 100.
# Our eight pictures at three temperatures, each row a softmax over the eight captions:

# %%
figure, axes = plt.subplots(1, 3, figsize=(8, 2.8))
learned = clip.logit_scale.exp().item()
for axis, scale, name in zip(
    axes, (1, 1 / 0.07, learned), ("1", "1 / 0.07", f"{learned:.0f}, as learned"), strict=True
):
    matrix(axis, (scale * cosines).softmax(1), pictures, number="{:.1f}", vmin=0, vmax=1)
    axis.set_title(f"cosines times {name}", fontsize=10)
figure.get_layout_engine().set(wspace=0.1)
plt.show()

# %% [markdown]
# Too warm, and nobody learns anything, for every caption has the same share, right or wrong. Too cold, and only the most similar of the wrong captions teaches anything, because it has the whole share that the right one lacks.
#
# ## Train one
#
# That is all there is to it. Here is a CLIP of half the shipped size, with random weights. At its heart the loop is five lines long: two towers, a loss, and the three steps of every training. *Cost: about half a minute.*

# %%
from minidiff.evaluation.clip import retrieval
from minidiff.networks import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig

N, STEPS = 128, budget(full=300, smoke=20)
torch.manual_seed(0)
text_config = CLIPTextConfig(
    len(tokenizer.vocab), length=tokenizer.length, width=64, layers=2, heads=4, end=tokenizer.vocab["<|endoftext|>"]
)
vision_config = CLIPVisionConfig(size=32, patch=8, width=64, layers=2, heads=4, mean=(0.5,) * 3, std=(0.5,) * 3)
small = CLIP(CLIPConfig(text_config, vision_config, dim=64))
optimizer = torch.optim.AdamW(small.parameters(), lr=2e-3, weight_decay=0.05)
warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=30)

unseen = data.color_digits(10, "test", seed=5)
losses, snapshots = [], {}
for step, batch in zip(range(STEPS + 1), data.color_digit_batches(N, seed=1), strict=False):
    if step in (0, STEPS // 20, STEPS // 5, STEPS):
        with torch.no_grad():
            snapshots[step] = small(tokenizer(unseen.captions), unseen.images)
        game = retrieval(small, tokenizer, rounds=budget(full=4, smoke=1))
        wrong = [f"{row.first} {row.fraction:4.0%}  " for row in game.rows if row.first.startswith("another")]
        print(f"step {step:>3}, of 100 captions chooses:", *wrong)
    loss = contrastive_loss(small(tokenizer(batch.captions), batch.images))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    warm_up.step()
    losses.append(loss.item())

figure, axes = plt.subplots(1, 4, figsize=(8, 2.3))
for axis, (step, logits) in zip(axes, snapshots.items(), strict=True):
    matrix(axis, logits.softmax(1), unseen.images, number=None, vmin=0, vmax=1)
    found = (logits.argmax(1) == torch.arange(len(logits))).sum()
    axis.set_title(f"step {step}: {found} of 10", fontsize=10)
plt.show()

figure, axis = plt.subplots(figsize=(6, 2.4))
axis.plot(losses)
axis.axhline(torch.tensor(N).log(), color=figures.GRAY, ls="--")
axis.text(STEPS, torch.tensor(N).log() + 0.18, f"log {N}: guessing", ha="right", color=figures.GRAY)
axis.set(xlabel="step", ylabel="loss", ylim=(0, 5.6))
plt.show()

# %% [markdown]
# In half a minute the matrix of ten pictures from the test digits turns diagonal. The lines above it say in which order things are learned (a picture, and 100 captions to choose from: the game of the next section). The background is settled first, since it fills the picture. The
# digit's colour follows. Shape comes last, and here it has only begun: few pixels tell a three from an eight, and many tell blue from red.
#
# The loss cannot reach 0. Some captions leave things open, and some scenes are in a batch twice.
#
# ## The shipped one
#
# The network that you loaded was trained in the same way for longer, in batches made harder: few colours and many digits, so that the colour alone gives nothing away. How good is it? A fair game: show it a picture, and 100 captions, among them nine that differ from the right one in the digit alone.
# All handwriting is from the test digits. *Cost: about 10 seconds.*

# %%
result = retrieval(clip, tokenizer, rounds=budget(full=50, smoke=2))
print(result)

# %% [markdown]
# Guessing would find one in a hundred. Read the second row apart from the first: these are pictures of a green seven or a white six, and no training has ever seen one, or read of one. They are found a little less often, but they are found: the network has got
# "green" from everything green, and "seven" from all sevens. Where it errs, it is nearly always about the digit.
#
# What does the space look like? It has more dimensions than a page. Below are the two directions in which 300 pictures and their captions differ most (the first two principal components), twice: once every point has the colour of
# its background, once that of its digit.

# %%
few = data.color_digits(budget(full=300, smoke=100), "test", seed=2)
with torch.no_grad():
    of_pictures = clip.embed_images(few.images)
    of_captions = clip.embed_text(tokenizer([caption(scene) for scene in few.scenes]))
both = torch.cat([of_pictures, of_captions])
both = both - both.mean(0)
flat = both @ torch.linalg.svd(both, full_matrices=False)[2][:2].T

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, field in zip(axes, ("background", "color"), strict=True):
    colors = [[level / 255 for level in data.COLORS[getattr(scene, field)]] for scene in few.scenes]
    for points, marker, name in ((flat[: len(few)], "o", "picture"), (flat[len(few) :], "^", "caption")):
        axis.scatter(*points.T, c=colors, s=24, marker=marker, edgecolors=figures.GRAY, lw=0.5, label=name)
    axis.set(title=f"by {field}", xlabel="first direction", aspect="equal")
axes[0].set_ylabel("second direction")
axes[0].legend(loc="lower left", fontsize=8)
plt.show()

# %% [markdown]
# On the right are eight heaps in a ring, one for each colour, and in every heap pictures lie among captions. **That is what is meant by one space.** On the left the colours are mixed: these two directions know nothing of the background. It is
# written in others, as the digit is, and there are many more.
#
# It can also be asked the other way round: **a caption is a search.** Below are pictures from a heap of a thousand, and no caption of theirs is used. In front of each row is what was typed; the last three ask for what never was in training.

# %%
heap, rare = (
    data.color_digits(budget(full=900, smoke=90), "test", seed=2),
    data.color_digits(budget(full=100, smoke=30), "test", seed=3, held_out=True),
)
heap_images, heap_scenes = torch.cat([heap.images, rare.images]), heap.scenes + rare.scenes
with torch.no_grad():
    points = torch.cat([clip.embed_images(part) for part in heap_images.split(250)])

queries = [
    "a yellow three",
    "a three in yellow",
    "a black zero on a red background",
    "a green seven",
    "a white six",
    "an orange zero",
]
figure, axes = plt.subplots(len(queries), 1, figsize=(6, 0.62 * len(queries)))
for axis, query in zip(axes, queries, strict=True):
    with torch.no_grad():
        best = (points @ clip.embed_text(tokenizer(query))[0]).argsort(descending=True)[:8]
    axis.imshow(torch.cat(list(heap_images[best]), dim=2).permute(1, 2, 0) / 2 + 0.5)
    axis.set_ylabel(query, rotation=0, ha="right", va="center")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
plt.show()

# %% [markdown]
# Compare the first two rows. For you they mean the same. But whoever said "in yellow" in training went on with the background, "on blue"; a caption that stops there is none the network has met, and it
# takes the yellow for the paper. It has not learned English. It has learned which captions go with which pictures.
#
# ## A classifier out of words
#
# If captions are points, then a classifier can be *written*: one caption for each class, and whichever is closest to the picture wins. Nothing is trained for it, so it is called **zero-shot** classification. With several captions a class, OpenAI took
# the mean of their points (Radford et al. 2021, section 3.1.4). Or one takes the nearest caption of all, and reads the class in it. Here are both for each of the five things that a scene is made of, written with all 5,600 captions of one wording:

# %%
every = [
    Scene(digit, color, background, place, size)
    for digit in range(10)
    for color in data.COLORS
    for background in data.COLORS
    if background != color
    for place in ("center", "top left", "top right", "bottom left", "bottom right")
    for size in ("large", "small")
][:: budget(full=1, smoke=9)]
with torch.no_grad():
    texts = [caption(scene, 6) for scene in every]  # "large red 7, center, on blue"
    words = torch.cat([clip.embed_text(tokenizer(texts[k : k + 400])) for k in range(0, len(texts), 400)])

nearest = torch.cat([(part @ words.T).argmax(1) for part in points.split(250)])
print(f"{len(every):,} captions, {len(heap_images):,} pictures; right, in brackets for the never-seen pairs")
print(f"{'':<12}{'classes':>8}{'guessing':>10}{'nearest mean':>20}{'nearest caption':>20}")
for field in ("digit", "color", "background", "place", "size"):
    truth = [getattr(scene, field) for scene in heap_scenes]
    classes = sorted({getattr(scene, field) for scene in every})
    means = torch.stack([words[[getattr(scene, field) == name for scene in every]].mean(0) for name in classes])
    by_mean = [classes[k] for k in (points @ F.normalize(means, dim=1).T).argmax(1)]
    by_caption = [getattr(every[k], field) for k in nearest]
    shares_right = []
    for said in (by_mean, by_caption):
        right = torch.tensor([a == b for a, b in zip(said, truth, strict=True)]).double()
        shares_right.append(f"{right[: len(heap)].mean():.1%} ({right[len(heap) :].mean():.0%})")
    print(f"{field:<12}{len(classes):>8}{1 / len(classes):>10.0%}" + "".join(f"{part:>20}" for part in shares_right))

# %% [markdown]
# The mean is the poorer way here, and by far for place and size: it throws away what makes a caption sharp. The nearest caption gets everything nearly right but the digit, and the digit for five pictures in six. That is less than in the game above, where
# pictures were large and in the center; here many are small. The never-seen pairs do as well as the others.
#
# Now a data set that it was never meant for: MNIST itself, white on black. Ten captions, and a classifier is there:

# %%
plain = digits.images[: budget(full=2000, smoke=100)]
labels = digits.labels[: len(plain)]
gray = F.pad(plain, (2, 2, 2, 2), value=-1).expand(-1, 3, -1, -1)
with torch.no_grad():
    ten = clip.embed_text(tokenizer([caption(Scene(digit, "white", "black")) for digit in range(10)]))
    said = torch.cat([clip.embed_images(part) @ ten.T for part in gray.split(250)]).argmax(1)
right = (said == labels).double()
print(
    f"{right.mean():.1%} of {len(plain):,} digits; by digit:",
    [f"{digit}: {right[labels == digit].mean():.0%}" for digit in range(10)],
)

# %% [markdown]
# (A white six is one of the pairs that training never saw.) Lesson 04's judge, which was trained for nothing but this, reads more of them right. But it can do nothing else, and it has to be trained anew when a class is added. Here you add a line of text.
#
# ## What it does not know
#
# One number for a picture and a text: that is all CLIP can say. It is easy to read too much into it. Four questions, asked with the numbers shown.
#
# **Order.** "A red seven on a blue background" and "a blue seven on a red background" have the same words. Does it matter to CLIP which is where?

# %%
rng = torch.Generator().manual_seed(0)
names = list(data.COLORS)
ordered = []
while len(ordered) < budget(full=300, smoke=40):
    digit, a, b = (int(torch.randint(k, (), generator=rng)) for k in (10, 8, 8))
    if a != b and names[a] != data.HELD_OUT[digit] != names[b]:
        ordered.append(Scene(digit, names[a], names[b]))
asked = pictures_of(ordered, seed=1)


def compare(pictures, right, wrong):
    """How often the right caption is closer than the wrong one, and how close both are."""
    with torch.no_grad():
        points = clip.embed_images(pictures)
        a, b = ((points * clip.embed_text(tokenizer(texts))).sum(1) for texts in (right, wrong))
    return f"right one closer {(a > b).double().mean():6.1%}   cosine {a.mean():.2f} against {b.mean():.2f}"


truth = [caption(scene) for scene in ordered]
swapped = [caption(Scene(scene.digit, scene.background, scene.color)) for scene in ordered]
backwards = [" ".join(reversed(text.split())) for text in truth]
print("colours swapped          ", compare(asked, truth, swapped))
print("all words backwards      ", compare(asked, truth, backwards))
print("backwards against swapped", compare(asked, backwards, swapped))
print("example:", truth[0], "|", swapped[0], "|", backwards[0])

# %% [markdown]
# Here it does matter: the caption with its colours swapped is far away, and never the closer one. That is not to be taken for granted. On photographs, with two captions of
# the same words for two pictures, none of the models that were tried did much better than chance, CLIP among them (Thrush et al. 2022).
#
# And it is not grammar. Backwards, all the words are still there, and you would guess what is meant. To the network they are as wrong as the swapped ones: which of the two is closer is little more than chance. What it knows is the order of *these* captions.
#
# **Counting, "not", and what is not in this world.** Two small digits in one picture; captions that say what is *not* to be seen; and captions about something else:

# %%
one = pictures_of([Scene(7, "red", "blue", "top left", "small")], seed=2)
other = pictures_of([Scene(7, "red", "blue", "bottom right", "small")], seed=3)
paper = one[0, :, :1, :1]
two = torch.where((one - paper).abs() > (other - paper).abs(), one, other)
lists = {
    "count": (two, ["a small red seven on a blue background, top left", "a small red seven on a blue background, bottom right",
                    "two small red sevens on a blue background", "a small red two on a blue background, top left"]),
    "not": (pictures[:1], ["a red seven on a blue background", "not a red seven on a blue background",
                           "a seven that is not red on a blue background", "a green seven on a blue background"]),
    "world": (pictures[4:5], ["a white four on a black background", "a cat", "a photo of a white dog", "a four"]),
}  # fmt: skip
figure, axes = plt.subplots(3, 2, figsize=(7.6, 4.2), width_ratios=[1, 3.2])
for (left, right), (image, texts) in zip(axes, lists.values(), strict=True):
    left.imshow(image[0].permute(1, 2, 0) / 2 + 0.5)
    left.axis("off")
    with torch.no_grad():
        alike = (clip.embed_images(image) @ clip.embed_text(tokenizer(texts)).T)[0]
    right.barh(range(len(texts)), alike, color=figures.BLUE)
    for k, (text, value) in enumerate(zip(texts, alike.tolist(), strict=True)):
        right.text(max(value, 0) + 0.02, k, f"{value:.2f}  {text}", va="center", fontsize=8)
    right.invert_yaxis()
    right.set(xlim=(-0.6, 2.6), yticks=[], xticks=[-0.5, 0, 0.5, 1])
right.set_xlabel("cosine")
plt.show()

# %% [markdown]
# *Counting:* two sevens fit each of the captions of one seven about equally well, and nothing says that there is more than one. The word "sevens" is unknown, so the only caption that tells the truth comes last. And "a small red *two*" fits almost as well as a seven:
# what counts is that nearly everything else agrees. OpenAI's CLIP cannot count either (Radford et al. 2021, section 6). *"Not":* the word changes next to nothing; a caption of what is *not* there is close, since it names what is there. *Not in this world:* there is no answer
# "none of these". A cosine only says *more* or *less* than another, so ask with rivals, never alone. And note the last bar: "a four" is true, but no caption is ever so short, and it fits hardly better than the cat.
#
# ## The matrix, live
#
# Captions against pictures, with a caption of your own.

# %%
show(figures.clip(clip, tokenizer))

# %% [markdown]
# *Try:* "a red 7", and then "a red 1": which cosines move? Then something with a word of your own, and read what the widget says about it.

# %%
widgets.clip(clip, tokenizer)

# %% [markdown]
# ## The same class at its true size
#
# `CLIPConfig()` without arguments is ViT-L/14, whose text tower reads the prompts of Stable Diffusion 1.x. On the *meta* device it needs no memory (lesson 05):

# %%
with torch.device("meta"):
    large = CLIP(CLIPConfig())


def sizes(net):
    """Parameters of the text tower, of the vision tower, and of all."""
    parts = (net.text_model, net.vision_model, net)
    return [f"{sum(p.numel() for p in part.parameters()):>13,}" for part in parts]


print("                 text tower  vision tower          all")
print("ours         ", *sizes(clip))
print("ViT-L/14     ", *sizes(large))
config = large.config
print(
    f"\n{config.text.vocab:,} pieces, texts of {config.text.length}; pictures of {config.vision.size}, {(config.vision.size // config.vision.patch) ** 2} patches; a space of {config.dim} dimensions"
)

# %% [markdown]
# | | ours | OpenAI's ViT-L/14 (Radford et al. 2021, sections 2.2 to 2.5) |
# |---|---|---|
# | pairs of picture and text | drawn as needed: 4,900 scenes in 55,000 handwritten digits | 400 million from the internet |
# | pairs in a batch | 128 | 32,768 |
# | training | 5,000 batches; 10 minutes of one CPU core | 32 times through all pairs; 12 days on 256 V100 GPUs |
# | vocabulary | 603 pieces, learned from captions | 49,408 pieces |
#
# The classes, the loss and the loop are the same. `load_clip("openai/clip-vit-large-patch14")` loads OpenAI's weights into this class, where there is a network connection and 1.7 GB of room.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | the merge that was learned first comes first | | {{tokenizer._merged: pieces = join(pieces, min(pairs, key=self._rank.get))}} |
# | start, text, end | | {{tokenizer.__call__: row = [self.vocab[START], *self.encode(text)[: self.length - 2], self.vocab[END]]}} |
# | nobody sees what comes later | $\ell_{ij} = -\infty$ for $j > i$ | {{attention.attend: out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)}} |
# | the first end token is read | | {{clip.CLIPText.pooled: where = (ids if self.config.end is None else (ids == self.config.end).int()).argmax(dim=1)}} |
# | a class token, patches, places | | {{clip.VisionEmbeddings.forward: return torch.cat([whole, patches], dim=1) + self.position_embedding.weight}} |
# | length 1 | $c / \lvert c \rvert$ | {{clip.embed_text: return F.normalize(self.text_projection(pooled), dim=-1)}} |
# | cosines times 1 / temperature | $\ell = e^s \cos(p, c)$ | {{clip.CLIP.forward: return self.logit_scale.exp() * cosines}} |
# | find your partner, both ways | $L$ | {{contrastive.contrastive_loss: return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2}} |
#
# ## Exercises
#
# From the end to the beginning: the matrix, its loss, what the towers read, and the merges. Every check tries your function on small exact cases. If something is off, it says which mistake it looks like.

# %% [markdown]
# ### Exercise 1 · The matrix
#
# *easy, 5 minutes.*
#
# `pictures` has shape $(B, D)$, `texts` $(T, D)$: embeddings of any length. `log_scale` is a number, the logarithm of 1 / temperature. Return the logits, shape $(B, T)$: a row for each picture, a column for each text.
#
# <details><summary>Hint</summary>
#
# Divide each row by its own length, `z.norm(dim=1, keepdim=True)`. After that a matrix product of the two gives all cosines at once.
#
# </details>


# %%
def logits_of(pictures, texts, log_scale):
    """Cosines of all pictures with all texts, times exp(log_scale)."""
    ### BEGIN SOLUTION
    pictures = pictures / pictures.norm(dim=1, keepdim=True)
    texts = texts / texts.norm(dim=1, keepdim=True)
    return torch.exp(log_scale) * pictures @ texts.T
    ### END SOLUTION


# %%
check.l08_matrix(logits_of)

# %% [markdown]
# ### Exercise 2 · Find your partner
#
# *easy, 6 minutes.*
#
# `logits` has shape $(N, N)$; what belongs together is on the diagonal. Return the contrastive loss, one number: the mean of both directions, each of which is a mean over the $N$ pairs.
#
# <details><summary>Hint</summary>
#
# `logits.log_softmax(1)` has the logarithms of the shares along the rows, and `.diagonal()` takes the right ones. For the columns, change one number.
#
# </details>


# %%
def partner_loss(logits):
    """The symmetric contrastive loss."""
    ### BEGIN SOLUTION
    rows = logits.log_softmax(1).diagonal()
    columns = logits.log_softmax(0).diagonal()
    return -(rows + columns).mean() / 2
    ### END SOLUTION


# %%
check.l08_contrastive(partner_loss)

# %% [markdown]
# ### Exercise 3 · A picture as words
#
# *medium, 10 minutes.*
#
# `x` has shape $(B, C, H, W)$, `kernel` $(D, C, P, P)$, `start` $(D,)$ and `places` $(1 + N, D)$, where $N$ is the number of patches of $P \times P$ pixels. Each patch becomes $D$ numbers, its products with the $D$ kernels; patches are counted as one reads, the upper row first. In front of
# them goes `start`, and then every token gets its row of `places`. Return $(B, 1 + N, D)$.
#
# <details><summary>Hint</summary>
#
# A convolution whose stride is its own size, `torch.nn.functional.conv2d(x, kernel, stride=P)`, gives $(B, D, H/P, W/P)$. Then the two axes of places become one, which has to change its place with $D$. `start.expand(B, 1, -1)` is one for each picture.
#
# </details>


# %%
def picture_words(x, kernel, start, places):
    """The tokens of a picture: a class token and the patches, each with its place."""
    ### BEGIN SOLUTION
    patches = torch.nn.functional.conv2d(x, kernel, stride=kernel.shape[-1])
    patches = patches.flatten(2).transpose(1, 2)
    return torch.cat([start.expand(len(x), 1, -1), patches], dim=1) + places
    ### END SOLUTION


# %%
check.l08_tokens(picture_words)

# %% [markdown]
# ### Exercise 4 · What the end has read
#
# *medium, 12 minutes.*
#
# One room of the text tower, and the reading. `scores` has shape $(B, L, L)$: how well each word (row) likes each word (column), before the softmax. `v` has shape $(B, L, D)$, `ids` $(B, L)$, and `end` is the id of the end token. Hide what comes later, let every word
# collect from `v` by its shares, and return the state of the **first** end token of each text, $(B, D)$. Every text has at least one; what the padding consists of, and how large `end` is, you do not know.
#
# <details><summary>Hint</summary>
#
# `torch.ones(L, L).triu(1) > 0` is True where the column comes after the row, and `masked_fill` puts a number wherever a mask is True. `(ids == end).int().argmax(1)` finds the first end of each row.
#
# </details>


# %%
def read_at_end(scores, v, ids, end):
    """Causal attention, read at the first end token."""
    ### BEGIN SOLUTION
    later = torch.ones(scores.shape[-2:]).triu(1) > 0
    states = scores.masked_fill(later, float("-inf")).softmax(-1) @ v
    first = (ids == end).int().argmax(1)
    return states[torch.arange(len(ids)), first]
    ### END SOLUTION


# %%
check.l08_read(read_at_end)

# %% [markdown]
# ### Exercise 5 · Merge
#
# *hard, 15 minutes.*
#
# `letters` is a word as a list of numbers from 0 to 255, `merges` a list of pairs of ids, the one learned first in front. The last letter of the word is marked: its id is its number + 256. Then, as long as two neighbours are a pair of `merges`: of all such pairs, take the one that stands first in the list, and put one piece in the place
# of the two; the piece that comes from `merges[k]` has the id 512 + k. Return the list of ids. (These are the ids of CLIP's own vocabulary.)
#
# <details><summary>Hint</summary>
#
# In a loop: collect `merges.index(pair)` for all neighbours that are in `merges`; if there are none, you are done. Take the smallest, go through the word from left to right, and build a new list. `pairwise` from `itertools` gives the neighbours.
#
# </details>


# %%
def merged(letters, merges):
    """The ids of a word's pieces, by byte-pair encoding."""
    ### BEGIN SOLUTION
    word = [*letters[:-1], letters[-1] + 256]
    while ranks := [merges.index(pair) for pair in pairwise(word) if pair in merges]:
        best, old, word = min(ranks), word, []
        while old:
            here = tuple(old[:2]) == merges[best]
            word.append(512 + best if here else old[0])
            old = old[2 if here else 1 :]
    return word
    ### END SOLUTION


# %%
check.l08_merge(merged)

# %% [markdown]
# ## Where to go next
#
# Words now have a place in the same space as pictures. In lesson 09 the states of the text tower, one for each word, become what a diffusion model listens to, and a prompt draws what it says. CLIP itself will be there too: as a judge that can also push.
