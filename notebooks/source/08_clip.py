# %% [markdown]
# # 08 · How do words and pictures come to live in one space?
#
# By being shown together. One network reads a caption, another looks at an image, and each turns its input into a vector in the same space. Training
# pulls every image towards its own caption and pushes it away from all the others. In this lesson you work out the loss by hand, take both networks
# apart, watch a small pair of them learn, and find out what a trained pair knows and what it does not.
#
# | | |
# |---|---|
# | After this lesson you can | read a matrix of similarities; write the contrastive loss; turn images and text into tokens; search and classify images with words; say what such a network cannot tell you |
# | Study time | {{study time}} |
# | Compute time | about 2 minutes on 2 CPU cores, half a minute of it for training; a GPU is not needed |
# | You need | attention (lesson 05); what a softmax and a cross-entropy are |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
from itertools import pairwise
from textwrap import fill

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.colors import LinearSegmentedColormap

from minidiff import data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, grid, show, style
from minidiff.data import Scene, caption
from minidiff.data.color_digits import draw
from minidiff.formats.clip import load_clip

style()
clip, tokenizer = load_clip()
digits = data.mnist("test")
print(f"{sum(p.numel() for p in clip.parameters()):,} parameters")

# %% [markdown]
# ## Six images, six captions
#
# **CLIP** (contrastive language-image pre-training, [Radford et al. 2021](https://arxiv.org/abs/2103.00020)) is a pair of networks, an image encoder and a text encoder, trained so that
# an image and its caption get similar vectors. You have just loaded a small one. Next, each of six images is compared with each of six captions.
#
# Before you run it: the right pairs are on the diagonal. Which of the wrong pairs will look most alike to the network?


# %%
# folded: images of scenes, and a matrix with images beside its rows and captions above its columns
def images_of(scenes, seed=0):
    """An image of each scene, (N, 3, 32, 32) in [-1, 1], in handwriting from the test set."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for scene in scenes:
        fits = (digits.labels == scene.digit).nonzero()[:, 0]
        rows.append(fits[torch.randint(len(fits), (), generator=rng)])
    return draw(scenes, digits.images[torch.stack(rows)])


COSINE = {
    "cmap": LinearSegmentedColormap.from_list("cosine", [figures.BLUE, "white", figures.ORANGE]),
    "vmin": -1,
    "vmax": 1,
}
PROBABILITY = {"cmap": "Blues", "vmin": 0, "vmax": 1}


def matrix(values, images, captions, zoom=3, number="{:.2f}", bar="", **colours):
    """A figure and the image in it that shows `values` as colours; everything else stands still if they change."""
    cell, side, top = 32 * zoom + 4, 32 * zoom, 62
    n, m = values.shape
    width, height = cell * (m + 1) + (90 if bar else 0), top + cell * n
    figure = plt.figure(figsize=(width / 100, height / 100), layout="none")
    axis = figure.add_axes([0, 0, 1, 1])
    cells = axis.imshow(values, extent=(cell, cell * (m + 1), height, top), **colours)
    for i in range(n):
        y = top + cell * i + 2
        axis.imshow(images[i].permute(1, 2, 0) / 2 + 0.5, extent=(0, side, y + side, y))
        axis.add_patch(plt.Rectangle((0, y), side, side, fill=False, ec="0.8", lw=0.8))
        for j in range(m if number else 0):
            where = cell * (j + 1.5), y + side / 2
            axis.text(*where, number.format(values[i, j]), ha="center", va="center", weight="bold" if i == j else None)
    for j, words in enumerate(captions):
        axis.text(cell * (j + 1.5), top - 6, fill(words, cell // 7), ha="center", va="bottom", fontsize=8.5)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.axis("off")
    if bar:
        edge = figure.add_axes([(width - 70) / width, 0.1, 14 / width, 0.6])
        figure.colorbar(cells, cax=edge, label=bar)
    return figure, cells


# %%
scenes = [
    Scene(7, "red", "blue"),
    Scene(7, "blue", "red"),
    Scene(7, "green", "white"),
    Scene(1, "red", "blue"),
    Scene(4, "white", "black"),
    Scene(8, "orange", "black", "top left", "small"),
]
captions, images = [caption(scene) for scene in scenes], images_of(scenes)
with torch.no_grad():
    cosines = clip.embed_images(images) @ clip.embed_text(tokenizer(captions)).T

figure, _ = matrix(cosines, images, captions, bar="cosine similarity", **COSINE)
show(
    figure,
    alt="A matrix of six images and six captions. The diagonal is orange, with values around 0.8; most other cells are pale or blue.",
    caption="A row for each image, a column for each caption. Compare the red seven with the red one in the fourth row.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The red seven and the red one on blue: both colours are right, and only the shape differs. The blue seven on red has the same three words as the first caption, yet it is much further away:
# for this caption the network tells which colour belongs to what.
#
# </details>
#
# All the handwriting is from the test set, and the green seven is new even as a combination: no training image showed one, and no training caption named one.
#
# CLIP's authors collected 400 million images with the text that stood beside them on the internet. That does not fit into a lesson, so this course has a small world, `color_digits`: handwritten digits
# in eight colours on seven others, in five places and two sizes, with captions in several wordings.

# %%
sample = data.color_digits(12, "test", seed=1)
grid(
    [list(sample.images[:6] / 2 + 0.5)],
    titles=[fill(words, 15) for words in sample.captions[:6]],
    alt="Six coloured digits on coloured backgrounds, each with its caption.",
    caption="Six pairs of the kind that the network was trained on. Not every caption says everything.",
)
print("never in any training:", ", ".join(f"{color} {digit}" for digit, color in data.HELD_OUT.items()))

# %% [markdown]
# Ten pairs of a digit and a colour are kept out of all training, in images and in words. They are there to find out whether a network has learned "green" and
# "seven", or a list of images.
#
# ## An angle says how alike
#
# What was compared? Each encoder ends in a vector, here of 64 numbers. Two numbers are enough to see the idea:

# %%
# folded: pairs of arrows, each with its cosine
image_vectors = torch.tensor([[2.0, 1.0], [1.5, 0.3], [1.4, 0.7], [1.6, 0.5]])
text_vectors = torch.tensor([[0.9, 0.45], [0.9, 0.9], [-0.5, 1.0], [-1.2, -0.2]])
figure, axes = plt.subplots(1, 4, figsize=(8, 2.3))
for axis, p, c in zip(axes, image_vectors, text_vectors, strict=True):
    for (x, y), colour in ((p.tolist(), figures.BLUE), (c.tolist(), figures.ORANGE)):
        axis.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.2})
    axis.set(xlim=(-1.4, 2.1), ylim=(-0.4, 1.2), xticks=[], yticks=[], aspect="equal")
    axis.set_title(f"cosine {F.cosine_similarity(p, c, dim=0).item() + 0.0:.2f}")
    axis.spines[:].set_visible(False)
axes[0].text(1.2, 1.0, "image", color=figures.BLUE)
axes[0].text(-0.6, 0.5, "caption", color=figures.ORANGE)
show(
    figure,
    alt="Four pairs of arrows. In the same direction: cosine 1. A small angle: 0.83. A right angle: 0. Nearly opposite: -0.99.",
    caption="Only the angle counts: in the first pair, one arrow is twice as long as the other.",
)

# %% [markdown]
# An **embedding** is the vector that a network makes of an image, a word or a text, such that similar inputs get similar vectors. The **cosine similarity** of two vectors is the cosine
# of the angle between them: 1 if they point the same way, 0 if they are at right angles, $-1$ if they are opposite. For an image's embedding $p$ and a caption's $c$ it is
#
# $$\cos(p, c) = \frac{p \cdot c}{|p|\,|c|}$$
#
# Here are the four pairs by hand, and by the library:

# %%
for p, c in zip(image_vectors, text_vectors, strict=True):
    product = p[0] * c[0] + p[1] * c[1]
    lengths = (p[0] ** 2 + p[1] ** 2).sqrt() * (c[0] ** 2 + c[1] ** 2).sqrt()
    print(f"by hand {product / lengths:6.3f}    library {F.cosine_similarity(p, c, dim=0):6.3f}")

# %% [markdown]
# The encoders divide their vectors by their length at the end, and a matrix product then gives all cosines at once. That was the line above the first figure:
# `clip.embed_images(images) @ clip.embed_text(tokenizer(captions)).T`.
#
# ## From cosines to probabilities
#
# "Which caption belongs to this image?" is a classification with six classes, and you know what turns scores into probabilities: a softmax. But a cosine is at most 1, and
# that is a narrow range for a softmax. So the cosines are first multiplied by a number. The first row of the matrix, multiplied by three different numbers:

# %%
learned = clip.logit_scale.exp().item()
figure, axes = plt.subplots(1, 3, figsize=(8, 2.3), sharey=True, sharex=True)
for axis, scale in zip(axes, (1, 1 / 0.07, learned), strict=True):
    axis.barh(range(6), (scale * cosines[0]).softmax(0), color=figures.BLUE)
    axis.set(title=f"cosines times {scale:.0f}", xlabel="probability", xlim=(0, 1))
axes[0].set_yticks(range(6), [caption(scene, 2) for scene in scenes], fontsize=9)
axes[0].invert_yaxis()
show(
    figure,
    alt="Three bar charts of six captions. Times 1, all bars are short; times 14 the right caption has most of the probability; times the learned scale it has all.",
    caption="Probabilities of the six captions for the red seven on blue; the scale on the right is the learned one.",
)

# %% [markdown]
# At scale 1 even a perfect network would be unsure: with cosine 1 for the right caption and $-1$ for the 127 wrong ones of a batch, the right one gets $e / (e + 127/e)$, not even 6 %. If the scale is very large, on the other hand, only the
# most similar wrong caption counts, since it takes all the probability that the right one lacks.
#
# The **temperature** of a softmax is a number by which its inputs are divided: the lower it is, the more of the probability goes to the largest input. CLIP learns it along with everything else. It must stay positive, so what is learned is $s$, the *logarithm* of 1 / temperature,
# and the matrix of logits for image $i$ and caption $j$ is
#
# $$\ell_{ij} = e^s \cos(p_i, c_j)$$
#
# In training, $e^s$ starts at 1 / 0.07, about 14, and is never let above 100.
#
# ### Exercise 1 · The matrix
#
# *easy, 5 minutes.*
#
# `pictures` has shape $(B, D)$ and `texts` $(T, D)$: embeddings of any length. `log_scale` is $s$, a number in a tensor. Return the logits, $(B, T)$: a row for each image, a column for each text.
#
# <details><summary>Hint</summary>
#
# Divide each row by its own length, `z.norm(dim=1, keepdim=True)`. After that one matrix product gives all cosines.
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
# ## The loss: find your partner
#
# A batch is $N$ images with their $N$ captions. Their logits form a matrix with the right pairs on the diagonal, and it can be read in two ways: along a row, an image looks for its caption; down a column, a caption looks for its
# image. Here are three pairs, with logits made up for the purpose:

# %%
logits = torch.tensor([[4.0, 1.0, 0.0], [2.0, 3.0, 1.0], [0.0, 2.0, 2.0]])
panels = {
    "logits": logits,
    "softmax of each row:\nimage finds caption": logits.softmax(1),
    "softmax of each column:\ncaption finds image": logits.softmax(0),
}

# %%
# folded: three small matrices with their numbers
figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.7))
for axis, (title, values) in zip(axes, panels.items(), strict=True):
    colours = {"cmap": "Greys", "vmin": -2, "vmax": 10} if title == "logits" else PROBABILITY
    shown = axis.imshow(values, **colours)
    for i in range(3):
        axis.add_patch(plt.Rectangle((i - 0.48, i - 0.48), 0.96, 0.96, fill=False, ec=figures.ORANGE, lw=2.5))
        for j in range(3):
            ink = "white" if title != "logits" and values[i, j] > 0.6 else "black"
            axis.text(j, i, f"{values[i, j]:.2f}".removesuffix(".00"), ha="center", va="center", color=ink)
    axis.set(xticks=range(3), xticklabels="123", yticks=range(3), yticklabels="123")
    axis.set(title=title, xlabel="caption", ylabel="image")
    axis.grid(False)
figure.colorbar(shown, ax=axes, label="probability", shrink=0.7)
show(
    figure,
    alt="Three matrices of three by three: the logits, their softmax along the rows, their softmax down the columns. The diagonal is framed.",
    caption="The loss wants the framed cells to be 1. Image 3 hesitates between two captions, but caption 3 does not.",
)

# %% [markdown]
# The **contrastive loss** (also InfoNCE, [van den Oord et al. 2018](https://arxiv.org/abs/1807.03748)) is the cross-entropy of picking the right partner among all those in the batch. Here that is minus the
# logarithm of each framed probability, averaged over rows and columns:
#
# $$L = -\frac{1}{2N} \sum_i \Big( \log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}} + \log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ji}}} \Big)$$

# %%
from minidiff.training.recipes.contrastive import contrastive_loss

e, total = 2.718281828**logits, 0.0
for i in range(3):
    in_row = e[i, i] / (e[i, 0] + e[i, 1] + e[i, 2])
    in_column = e[i, i] / (e[0, i] + e[1, i] + e[2, i])
    total -= in_row.log() + in_column.log()
    print(f"pair {i + 1}: probability {in_row:.3f} in its row, {in_column:.3f} in its column")
print(f"loss by hand {total / 6:.4f}, by minidiff {contrastive_loss(logits):.4f}")

# %% [markdown]
# Both halves are needed, because the matrix is not symmetric: no other image claims caption 3 as strongly as image 3 does, but image 3 likes caption 2 just as much.
#
# The wrong captions in the sum are called negatives. **In-batch negatives** are the other examples of the same batch, used as wrong answers. The more of them, and the more alike they are, the more there is to
# learn: to tell a seven on blue from a one on green, the colour is enough. OpenAI's batches had 32,768 pairs.
#
# ### Exercise 2 · Find your partner
#
# *easy, 6 minutes.*
#
# `logits` has shape $(N, N)$, with the right pairs on the diagonal. Return the contrastive loss, one number: the mean of both directions, each of which is a mean over the $N$ pairs.
#
# <details><summary>Hint</summary>
#
# `logits.log_softmax(1)` holds the logarithms of the probabilities along the rows, and `.diagonal()` picks the right ones. For the columns, change one number.
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
# ## Two towers
#
# The two encoders never see each other's input. They meet only in the matrix, which is why they are often called two towers. Inside, both are what you know from lesson 05: layers of attention, each followed by a small
# network applied to every position, both with a skip connection. What differs is what they read.
#
# ### The image encoder
#
# Attention works on a list of vectors. How do you make a list of an image? You cut it up:

# %%
from minidiff.image_files import sheet

side, size = clip.config.vision.patch, clip.config.vision.size  # 8 and 32 pixels
patches = rearrange(images[:1], "1 c (h p) (w q) -> (h w) c p q", p=side, q=side)
show(
    sheet(patches / 2 + 0.5, columns=size // side, zoom=6),
    alt="A red seven on blue, cut into sixteen square patches.",
    caption=f"{len(patches)} patches of {side}×{side} pixels. None of them shows a seven.",
)

# %% [markdown]
# A **vision transformer** ([Dosovitskiy et al. 2021](https://arxiv.org/abs/2010.11929)) cuts an image into square patches, turns each patch into a vector, and lets these vectors attend to one another, layer after layer.
#
# Each of the 80 numbers of a patch's vector is the dot product of the patch and one learned kernel. So all patches together are a convolution whose stride is as large as its kernel. Take one patch near the middle:

# %%
embedding = clip.vision_model.embeddings
with torch.no_grad():
    convolved = embedding.patch_embedding(images[:1])  # (1, 80, 4, 4)
    by_hand = (patches[9] * embedding.patch_embedding.weight).sum((1, 2, 3))  # each kernel times this one patch
    print("one patch, by hand:", by_hand[:4].numpy().round(3))
    print("by convolution:    ", convolved[0, :4, 2, 1].numpy().round(3))
    print("into the layers go:", tuple(embedding(images[:1]).shape))

# %% [markdown]
# Seventeen vectors go in, one more than there are patches. The **class token** is a learned vector that is put in front of the patches, the same for every image, and the embedding of the image is made of its final state. It is where the layers collect what they find. Attention by itself has no notion of order, so a position embedding, one learned vector for each of the 17 positions, is added.
#
# ### Exercise 3 · A picture as words
#
# *medium, 10 minutes.*
#
# `x` has shape $(B, C, H, W)$, `kernel` $(D, C, P, P)$, `start` $(D,)$ and `places` $(1 + N, D)$, where $N$ is the number of patches of $P \times P$ pixels. Each patch becomes $D$ numbers, its products with the $D$ kernels. The patches are in
# reading order, the upper row first. Put `start` in front of them, then add to each token its row of `places`. Return $(B, 1 + N, D)$.
#
# <details><summary>Hint</summary>
#
# A convolution whose stride is its own size, `torch.nn.functional.conv2d(x, kernel, stride=P)`, gives $(B, D, H/P, W/P)$. Flatten the two axes of positions into one, and swap it with $D$. `start.expand(B, 1, -1)` makes one copy for each image.
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
# ### The text encoder
#
# A text is cut up too. A dot marks the end of a word, and below each piece is its number:


# %%
# folded: each text as a row of its pieces, with their numbers below
def show_pieces(texts, **words):
    figure, axis = plt.subplots(figsize=(8, 0.62 * len(texts)))
    colors = [figures.BLUE, figures.ORANGE, figures.GREEN, figures.PURPLE, figures.SKY]
    for row, text in enumerate(texts):
        left = 0.0
        for k, (piece, id) in enumerate(zip(tokenizer.pieces(text), tokenizer.encode(text), strict=True)):
            name = piece.replace("</w>", "·")
            wide = max(len(name) + 1.2, 4.2)
            axis.add_patch(plt.Rectangle((left, row - 0.4), wide - 0.25, 0.8, color=colors[k % 5], alpha=0.35, lw=0))
            middle = left + wide / 2 - 0.12
            axis.text(middle, row - 0.12, name, ha="center", va="center", family="monospace", fontsize=10)
            axis.text(middle, row + 0.23, id, ha="center", va="center", fontsize=7)
            left += wide
        axis.plot(left, row, alpha=0)
    axis.set(ylim=(len(texts) - 0.5, -0.6))
    axis.axis("off")
    show(figure, **words)


# %%
show_pieces(
    ["a red seven on a blue background", "A RED 7 on blue", "redder than a crimson seven", "a redd sven", "семь"],
    alt="Five texts in coloured pieces. The words of the captions are one piece each; redder, crimson, redd, sven and the Russian word are in several.",
    caption="Words from the captions are one piece each. Everything else comes in several, down to single letters and bytes.",
)

# %% [markdown]
# A **token** is a piece of text, often a word or a part of one, that a network reads as a unit, by its number in a fixed vocabulary. Capitals are made small first. Each Russian letter is two bytes, and a byte without a letter of its own is shown by a stand-in such as Ñ. So the tokenizer can spell any text, and nothing is unknown. Whether it is *understood* is another question: no
# training caption contained these fragments.
#
# Start and end get tokens of their own, and all texts are padded to one length, 24 here and 77 in OpenAI's CLIP, with more end tokens. Longer texts are cut without warning:

# %%
print(tokenizer("a red seven")[0].tolist())
print("cut off:", tokenizer.left_out("a small red seven on a blue background, top left, " * 2 + "and a frame"))

# %% [markdown]
# Each number selects a row of a table, a position embedding is added, and the layers follow, as in the other tower. One thing is new, and an experiment shows it.
#
# Before you run it: in "a red seven on a blue background", the word "blue" is replaced by "green". The encoder makes one vector for each token. Which of them will change?

# %%
text = "a red seven on a blue background"
before, after = tokenizer([text, text.replace("blue", "green")]).split(1)
with torch.no_grad():
    moved = (clip.text_model(before) - clip.text_model(after)).norm(dim=-1)[0]

names = ["start", *text.split(), "end", "padding", "padding"]
figure, axis = plt.subplots(figsize=(6, 2.9))
axis.barh(range(len(names)), moved[: len(names)], color=figures.BLUE)
axis.set_yticks(range(len(names)), names)
axis.invert_yaxis()
axis.set(title='"blue" replaced by "green"', xlabel="distance between the old and the new vector")
show(
    figure,
    alt="Bars for each token: zero from start to the second a; positive for blue, background, end and the padding.",
    caption="Nothing changes above the replaced word; everything changes from there on.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The replaced word and everything behind it. What stands in front is exactly as before. The end token moves most, more than the word itself: its state becomes the embedding, so training has put the meaning of the whole caption there.
#
# </details>
#
# A **causal mask** lets each token attend to itself and to the tokens before it, never to later ones: the scores of later tokens are set to $-\infty$ before the softmax. By hand, for three
# tokens with the same three scores each:

# %%
scores = [1.0, 2.0, 3.0]
for i in range(3):
    allowed = torch.tensor(scores[: i + 1])
    print(f"token {i + 1} attends to {i + 1} of 3:", [round(weight, 3) for weight in allowed.softmax(0).tolist()])

q = torch.ones(1, 3, 1)
k = torch.tensor(scores).reshape(1, 3, 1)
print("the library:\n", F.scaled_dot_product_attention(q, k, torch.eye(3)[None], is_causal=True)[0].numpy().round(3))

# %% [markdown]
# So which vector stands for the whole text? It must be one that can attend to the whole text. That is true of the end token and for all the padding behind it, and CLIP takes the first of these, the *first end token*. Its state
# does not depend on how much padding follows.
#
# At the very end, each tower has one more matrix. It brings the class token's state and the end token's state, which have different widths, to the same number of dimensions: the shared space.
#
# ### Exercise 4 · What the end has read
#
# *medium, 12 minutes.*
#
# Causal attention, and the reading at its end. `scores` has shape $(B, L, L)$: the attention score of each token (row) for each token (column), before the softmax. `v` has shape $(B, L, D)$, `ids` $(B, L)$, and `end` is the id of the end token. Hide what comes later,
# let every token collect from `v` by its attention weights, and return the result at the *first* end token of each text, $(B, D)$. Every text has at least one. Do not assume anything about the padding, or about how large `end` is.
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
# ### Where the tokens come from
#
# *May be skipped at first reading.*
#
# Words would make a huge vocabulary without typing errors in it; letters would make long texts. **Byte-pair encoding** ([Sennrich et al. 2016](https://arxiv.org/abs/1508.07909)) starts with letters (GPT-2 and CLIP, and our tokenizer, start with bytes, so that any script can be spelled) and again and again merges the pair of neighbours that occurs most often. By hand, for a text with three different words; `</w>` marks the last letter of a word:

# %%
from collections import Counter

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
    words = "   ".join(" ".join(pieces) for pieces in spelled.values())
    print(f"{pairs[best]} × {best[0]:>12} {best[1]:<9} {words}")

texts = [" ".join([word] * times) for word, times in count.items()]
print("\nthe library learns", [" ".join(pair) for pair in Tokenizer.train(texts, merges=6).merges])

# %% [markdown]
# The two frequent words end as one piece each, and the rare "eleven" as two. The list of merges, in this order, is all that has been learned. A new text is spelled in letters and gets the same merges in the same order.
#
# ### Exercise 5 · Merge
#
# *hard, 15 minutes.*
#
# `letters` is a word as a list of numbers from 0 to 255, and `merges` a list of pairs of ids, the one learned first in front. Mark the last letter of the word: add 256 to its number. Then, as long as any two neighbours are a pair in `merges`, find among all such pairs the one that stands
# first in the list, and replace the two ids by one, wherever the pair occurs: `merges[k]` makes the piece with id 512 + k. Return the list of ids. (CLIP's own vocabulary is numbered like this.)
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
# ## Train the two together
#
# Here are a text encoder and an image encoder about half the size of the ones you loaded, with random weights:

# %%
from minidiff.networks import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig

torch.manual_seed(0)
words, end = len(tokenizer.vocab), tokenizer.vocab["<|endoftext|>"]
text_config = CLIPTextConfig(words, length=tokenizer.length, width=64, layers=2, heads=4, end=end)
vision_config = CLIPVisionConfig(size=32, patch=8, width=64, layers=2, heads=4, mean=(0.5,) * 3, std=(0.5,) * 3)
small = CLIP(CLIPConfig(text_config, vision_config, dim=64))
optimizer = torch.optim.AdamW(small.parameters(), lr=2e-3, weight_decay=0.05)
warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=30)

watched = [Scene(d, c, b) for b in ("blue", "black") for c in ("red", "yellow") for d in (1, 8)]
watched_images, watched_captions = images_of(watched), [caption(scene, 3) for scene in watched]

# %% [markdown]
# Training has the usual five lines. While it runs, we look at eight pairs from outside the training set: two backgrounds, two colours on each, two digits in each colour. Four times we also let images look for their caption among 100, and print how often the caption they pick has the wrong digit, colour or background. One pick can be wrong in all three, and guessing has the wrong digit nine times in ten.
#
# Before you run it: what will the network learn first, and what last: the background, the digit's colour, or its shape?

# %%
from minidiff.evaluation.clip import retrieval

N, STEPS = 128, budget(full=300, smoke=20)
losses, snapshots = [], {}
for step, batch in zip(range(STEPS + 1), data.color_digit_batches(N, seed=1), strict=False):
    if step % 10 == 0:
        with torch.no_grad():
            snapshots[step] = small(tokenizer(watched_captions), watched_images)
    if step in (0, STEPS // 15, STEPS // 5, STEPS):
        found = retrieval(small, tokenizer, rounds=budget(full=4, smoke=1)).rows  # finds each image's caption among 100
        wrong = [f"{row.first.split()[1]} {row.fraction:4.0%}   " for row in found if "another" in row.first]
        print(f"step {step:>3}, wrong among 100 captions:  ", *wrong)
    logits = small(tokenizer(batch.captions), batch.images)
    loss = contrastive_loss(logits)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    warm_up.step()
    losses.append(loss.item())

# %%
# folded: the matrix of the eight pairs as an animation; then five moments of it
from PIL import Image

with torch.no_grad():
    moments = {f"step {step}": logits.softmax(1) for step, logits in snapshots.items()}
    moments["the shipped network"] = clip(tokenizer(watched_captions), watched_images).softmax(1)

figure, cells = matrix(
    snapshots[0], watched_images, watched_captions, zoom=2, number="", bar="probability", **PROBABILITY
)
title = figure.axes[0].text(0, 2, "", va="top", fontsize=11)
frames = []
for name, probabilities in moments.items():
    cells.set_data(probabilities)
    title.set_text(fill(name, 11))
    figure.canvas.draw()
    frames.append(Image.frombytes("RGBA", figure.canvas.get_width_height(), figure.canvas.buffer_rgba()).convert("RGB"))
plt.close(figure)
show(
    frames,
    alt="Animation: a matrix of eight images and eight captions is even at first, then falls into two blocks, then into four; that of the shipped network is diagonal.",
    caption="Each row is a softmax over the eight captions. The last frame is the network that you loaded, after 5,000 steps.",
)

names = list(moments)
names = [*(names[k] for k in (0, STEPS // 150, STEPS // 50)), *names[-2:]]
figure, axes = plt.subplots(1, 5, figsize=(8, 2))
for axis, name in zip(axes, names, strict=True):
    shown = axis.imshow(moments[name], **PROBABILITY)
    axis.set(title=fill(name, 11), xticks=[], yticks=[])
    axis.grid(False)
figure.colorbar(shown, ax=axes, label="probability", shrink=0.8)
show(
    figure,
    alt="The matrix at four moments, from even to four blocks on the diagonal, and that of the shipped network, which is diagonal.",
    caption="Five frames of the animation. In the fourth, only the digits are still confused.",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The background first, since it fills most of the image; then the digit's colour; then the shape. Many pixels tell red from yellow, few tell a one from an eight. After half a minute
# this network still confuses the two digits of each block; the shipped one, twice the size and trained for 5,000 steps, does not.
#
# </details>

# %%
figure, axis = plt.subplots(figsize=(6, 2.4))
axis.plot(losses)
axis.axhline(torch.tensor(N).log(), color=figures.GRAY, ls="--")
axis.text(STEPS, torch.tensor(N).log() + 0.18, f"guessing: log {N}", ha="right", color=figures.GRAY)
axis.set(xlabel="step", ylabel="contrastive loss", ylim=(0, 5.6))
show(
    figure,
    alt="The loss starts near the dashed line of guessing and falls, at first quickly, then slowly.",
    caption="The loss cannot reach 0: some captions fit several images of the batch.",
)

# %% [markdown]
# Some captions leave the background open, and some scenes are in a batch twice. In the training of the shipped network such pairs do not count as wrong. Its batches were also made harder, with few colours and many digits, so that colour alone gave little away.
#
# ## Retrieval
#
# Back to the shipped network. A caption is a search query: embed a thousand images once, then embed a text, and the result is the images with the largest cosines. None of their own captions is used. The last two queries ask for pairs that were kept out of training.

# %%
heap = data.color_digits(budget(full=900, smoke=90), "test", seed=2)
rare = data.color_digits(budget(full=100, smoke=30), "test", seed=3, held_out=True)
heap_images = torch.cat([heap.images, rare.images])
with torch.no_grad():
    points = torch.cat([clip.embed_images(part) for part in heap_images.split(250)])

queries = ["a yellow three", "a three in yellow", "a black zero on a red background", "a green seven", "a white six"]
results = []
for query in queries:
    with torch.no_grad():
        similarity = points @ clip.embed_text(tokenizer(query))[0]
    results.append(heap_images[similarity.argsort(descending=True)[:6]] / 2 + 0.5)
grid(
    results,
    names=[fill(query, 16) for query in queries],
    alt="Five queries, each with the six images that fit best.",
    caption="The best six of a thousand for each query. Compare the first two rows, which mean the same to you.",
)

# %% [markdown]
# To you the first two queries mean the same. But in training, "a three in yellow" always went on with "on blue" or another background; a caption that stops there is new to the network, and it takes the yellow for the background. It has not learned English, but which captions go with which images. A search also always returns six images, however few fit: where there are not enough black zeros on red, those come next that agree in two of three.
#
# How good is it? In this game an image has to find its own caption among 100, nine of which differ from it in the digit alone. *Cost: about 10 seconds.*

# %%
print(retrieval(clip, tokenizer, rounds=budget(full=50, smoke=2)))

# %% [markdown]
# Guessing would find one in a hundred. The second row holds the pairs kept out of training, such as a green seven. They are found almost as often: the network learned "green" from everything green, and "seven" from all the other sevens. Where it is wrong,
# it is nearly always about the digit.
#
# ### A map of the space
#
# What does the space look like? It has 64 dimensions, and a page has two. So some 600 images with a large digit, and their captions, are projected onto the two directions in which they differ most (the first two principal components), and a coarse grid is laid over
# them. Each cell shows the image and, independently, the caption closest to its centre.

# %%
many = data.color_digits(budget(full=1000, smoke=300), "test", seed=2)
large = [k for k, scene in enumerate(many.scenes) if (scene.place, scene.size) == ("center", "large")]
few_images, few_scenes = many.images[large], [many.scenes[k] for k in large]
few_captions = [caption(scene, 3) for scene in few_scenes]
with torch.no_grad():
    image_points = torch.cat([clip.embed_images(part) for part in few_images.split(200)])
    text_points = torch.cat([clip.embed_text(ids) for ids in tokenizer(few_captions).split(200)])
points = torch.cat([image_points, text_points])
points = points - points.mean(0)
flat = points @ torch.linalg.svd(points, full_matrices=False)[2][:2].T  # (N, 2): images, then captions

# %%
# folded: the map
columns, lines, cell = 8, 6, (100, 126)
scaled = (flat - flat.min(0).values) / (flat.max(0).values - flat.min(0).values) * torch.tensor([columns, lines])
inside = scaled.long().minimum(torch.tensor([columns - 1, lines - 1]))
off_centre = (scaled - inside - 0.5).norm(dim=1)


def closest(column, line, first, last):
    """Of the points first to last in a cell, the one closest to its centre; None if there is none."""
    here = (inside[first:last] == torch.tensor([column, line])).all(1).nonzero()[:, 0].tolist()
    return min(here, key=lambda k: off_centre[first + k], default=None)


width, height = columns * cell[0], lines * cell[1]
figure = plt.figure(figsize=(width / 100, height / 100), layout="none")
axis, both, agree = figure.add_axes([0, 0, 1, 1]), 0, 0
for column in range(columns):
    for line in range(lines):
        i, j = closest(column, line, 0, len(large)), closest(column, line, len(large), 2 * len(large))
        if i is None or j is None:
            continue
        x, y = column * cell[0], line * cell[1]
        axis.imshow(few_images[i].permute(1, 2, 0) / 2 + 0.5, extent=(x, x + 96, y + 96, y))
        axis.add_patch(plt.Rectangle((x, y), 96, 96, fill=False, ec="0.6", lw=0.8))
        axis.text(x + 48, y + 98, fill(few_captions[j], 16), ha="center", va="top", fontsize=7.5)
        both, agree = both + 1, agree + (few_scenes[i].color == few_scenes[j].color)
axis.set(xlim=(0, width), ylim=(height, 0))
axis.axis("off")
show(
    figure,
    alt="A ring of thumbnails of coloured digits, each with a caption below. Digits of the same colour lie next to each other.",
    caption="Go around the ring: what do neighbours share? And does the caption below an image belong to it?",
)
print(f"{len(large)} images; in {agree} of {both} cells the caption names the colour of the digit above it")

# %% [markdown]
# Neighbours mostly have digits of one colour, and the captions have gathered in the same places as the images. The loss does not require it: it asks only that the right caption be closer than the wrong ones. In OpenAI's CLIP all images lie in one region and all texts in another, which is called the modality gap ([Liang et al. 2022](https://arxiv.org/abs/2203.02053)). An image's neighbour here may have any background and be any digit: those are written in the other 62 directions.
#
# ### A classifier made of words
#
# Write one caption for each class, and let the image choose the closest: that is a classifier. **Zero-shot classification** assigns an image to the class whose description has the most similar embedding, without training on these classes. For MNIST itself, ten captions will do,
# "a white zero on a black background" and so on. (A white six was in no training image. Strictly, only the six is a test of zero-shot: the other digits in white on black were among the training pairs. OpenAI's CLIP earned the name on data sets that it had not been trained on.)

# %%
plain, labels = digits.images[: budget(full=2000, smoke=200)], digits.labels[: budget(full=2000, smoke=200)]
gray = F.pad(plain, (2, 2, 2, 2), value=-1).expand(-1, 3, -1, -1)
with torch.no_grad():
    ten = clip.embed_text(tokenizer([caption(Scene(digit, "white", "black")) for digit in range(10)]))
    answers = torch.cat([clip.embed_images(part) @ ten.T for part in gray.split(250)]).argmax(1)
wrong = (answers != labels).nonzero()[:6, 0]
grid(
    [list(gray[wrong] / 2 + 0.5)],
    titles=[f"read as {answer}" for answer in answers[wrong].tolist()],
    alt="Handwritten digits that the classifier made of captions misread.",
    caption="The first few mistakes. Which of them would you forgive?",
)
print(f"{(answers == labels).double().mean():.1%} of {len(plain):,} digits are right")

# %% [markdown]
# A classifier trained on these labels does better, such as the judge of lesson 04. But it can do nothing else, and has to be trained again for every new class. Here you add a line of text.
#
# ## What it does not know
#
# One number for an image and a text: that is all CLIP can say, and it is easy to read too much into it. Start with the order of words. The second caption below has the colours swapped; the third has all the right words, from last to first.
#
# Before you run it: to you, which of these two is closer to the truth?


# %%
# folded: images, each with captions and their cosines as bars
def bars(cases, **words):
    tall = [max(106, 27 * len(texts) + 10) for _, texts in cases]
    width, height = 780, sum(tall) + 34
    figure, top = plt.figure(figsize=(width / 100, height / 100), layout="none"), height
    for (image, texts), rows in zip(cases, tall, strict=True):
        axis = figure.add_axes([1 / width, (top - 97) / height, 96 / width, 96 / height])
        axis.imshow(image[0].permute(1, 2, 0) / 2 + 0.5)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="0.8")
        axis = figure.add_axes([116 / width, (top - rows + 12) / height, 660 / width, (rows - 14) / height])
        with torch.no_grad():
            alike = (clip.embed_images(image) @ clip.embed_text(tokenizer(texts)).T)[0]
        axis.barh(range(len(texts)), alike, color=figures.BLUE)
        for k, (text, value) in enumerate(zip(texts, alike.tolist(), strict=True)):
            axis.text(max(value, 0) + 0.02, k, f"{value:.2f}  {text}", va="center", fontsize=9)
        axis.invert_yaxis()
        axis.set(xlim=(-0.4, 2.6), yticks=[], xticks=[0, 0.5, 1])
        axis.tick_params(labelbottom=top - rows < 40)
        top -= rows
    axis.set_xlabel("cosine similarity", x=0.24)
    show(figure, **words)


# %%
truth = "a purple seven on a white background"
swapped = "a white seven on a purple background"
bars(
    [(images_of([Scene(7, "purple", "white")], seed=1), [truth, swapped, " ".join(reversed(truth.split()))])],
    alt="A purple seven on white. The true caption has a long bar, the swapped and the reversed caption have short ones.",
    caption="The true caption, the one with swapped colours, and the true one backwards.",
)

# %% [markdown]
# Is that always so? Here are the same three captions for 300 scenes:

# %%
rng = torch.Generator().manual_seed(0)
names, asked = list(data.COLORS), []
while len(asked) < budget(full=300, smoke=40):
    digit, a, b = (int(torch.randint(k, (), generator=rng)) for k in (10, 8, 8))
    if a != b and names[a] != data.HELD_OUT[digit] != names[b]:
        asked.append(Scene(digit, names[a], names[b]))

true = [caption(scene) for scene in asked]
kinds = {
    "true": true,
    "swapped": [caption(Scene(scene.digit, scene.background, scene.color)) for scene in asked],
    "backwards": [" ".join(reversed(text.split())) for text in true],
}
with torch.no_grad():
    points = clip.embed_images(images_of(asked, seed=1))
    fit = {name: (points * clip.embed_text(tokenizer(texts))).sum(1) for name, texts in kinds.items()}
for a, b in (("true", "swapped"), ("true", "backwards"), ("backwards", "swapped")):
    closer = (fit[a] > fit[b]).double().mean()
    print(f"{a:>9} closer than {b:<9} {closer:6.1%}   mean cosines {fit[a].mean():.2f} and {fit[b].mean():.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Backwards, you can still guess what is meant; swapped, the caption is simply false. To the network the two are about equally wrong. It tells the true caption from the swapped one every time, but what it knows is the order of *these* captions. It does not know grammar.
#
# </details>
#
# That it notices swapped words at all is not to be taken for granted. On photographs, CLIP and its relatives did little better than chance when two captions with the same words had to be assigned to two
# images ([Thrush et al. 2022](https://arxiv.org/abs/2204.03162)). The loss offers an explanation: if no wrong caption in a batch has the same words in another order, a bag of words is enough ([Yuksekgonul et al. 2023](https://arxiv.org/abs/2210.01936)). In our small world such captions do turn up.
#
# Next: counting, "not", and something from outside this world.
#
# Before you run it: how far will the cosine fall if "not" is put in front of a true caption?

# %%
one = images_of([Scene(7, "red", "blue", "top left", "small")], seed=2)
other = images_of([Scene(7, "red", "blue", "bottom right", "small")], seed=3)
paper = one[0, :, :1, :1]
two = torch.where((one - paper).abs() > (other - paper).abs(), one, other)  # both sevens in one image
counting = [
    "a small red seven on a blue background, top left",
    "a small red seven on a blue background, bottom right",
    "two small red sevens on a blue background",
    "a small red two on a blue background, top left",
]
negation = [
    "a red seven on a blue background",
    "not a red seven on a blue background",
    "a seven that is not red on a blue background",
    "a green seven on a blue background",
]
outside = ["a white four on a black background", "a cat", "a photo of a white dog", "a four"]
bars(
    [(two, counting), (images[:1], negation), (images[4:5], outside)],
    alt="Three images with four captions each: two small red sevens; a red seven on blue; a white four on black.",
    caption="Which captions are true, and which have long bars?",
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Hardly at all: the caption still names everything that is there, and training never contained a "not".
#
# </details>
#
# *Counting:* the third caption, the only one that tells the whole truth, comes last. Its "sevens" is not a word of the training captions, and no training image showed two digits. But "a small red *two*" fits nearly as well as a seven: almost everything else in it agrees. OpenAI's CLIP
# struggles with counting too (Radford et al., section 6).
#
# *Outside its world:* there is no answer "none of these". A cosine says only that one caption fits better than another, so always compare, and never judge by a single value. Note the last bar: "a four" is true, but no training caption was that short, and it
# fits hardly better than a cat.
#
# ## The matrix, live
#
# Captions against images, with a caption of your own.

# %%
show(
    figures.clip(clip, tokenizer, own="a seven in red"),
    alt="A table of cosine similarities: seven images across, seven captions and one of your own down. In each column the right caption is framed.",
    caption="Rows are captions, the last one is yours. Orange is a positive cosine, blue a negative one.",
)

# %% [markdown]
# *Try:* "a red 7", and then "a red 1": which cosines move? Then use a word that the network has never met.
#
# <details><summary>Answer</summary>
#
# "A red 7" fits the red seven best. With "a red 1" that falls, and the red four is now on top: among these images nothing is closer to a red one. With an unknown word such as "elephant", the line below the box says that it is read in pieces. The cosines change, but there
# is no warning in the numbers.
#
# </details>

# %%
widgets.clip(clip, tokenizer)

# %% [markdown]
# ## The same class at its true size
#
# `CLIPConfig()` without arguments is OpenAI's ViT-L/14, whose text encoder reads the prompts of Stable Diffusion 1.x. The classes, the loss and the loop are the same as ours.
#
# | | ours | OpenAI's ViT-L/14 (Radford et al. 2021, section 2) |
# |---|---|---|
# | parameters | 478 thousand | 428 million |
# | pairs of image and text | composed as needed: 4,900 scenes in 55,000 handwritten digits | 400 million from the internet |
# | pairs in a batch | 128 | 32,768 |
# | training | 5,000 batches; 10 minutes of one CPU core | 32 times through all pairs; 12 days on 256 V100 GPUs |
# | vocabulary | 603 tokens, learned from captions | 49,408 tokens |
# | an image becomes | 16 patches | 256 patches |
#
# `load_clip("openai/clip-vit-large-patch14")` loads OpenAI's weights into this class; that takes a network connection and 1.7 GB.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | cosines times 1 / temperature | $\ell = e^s \cos(p, c)$ | {{clip.CLIP.forward: return self.logit_scale.exp() * cosines}} |
# | length 1 | $c / \lvert c \rvert$ | {{clip.embed_text: return F.normalize(self.text_projection(pooled), dim=-1)}} |
# | find your partner, both ways | $L$ | {{contrastive.contrastive_loss: return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2}} |
# | class token, patches, positions | | {{clip.VisionEmbeddings.forward: return torch.cat([whole, patches], dim=1) + self.position_embedding.weight}} |
# | start, text, end | | {{tokenizer.__call__: row = [self.vocab[START], *self.encode(text)[: self.length - 2], self.vocab[END]]}} |
# | no token attends to later ones | score $-\infty$ for $j > i$ | {{attention.attend: out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)}} |
# | the first end token is read | | {{clip.CLIPText.pooled: where = (ids if self.config.end is None else (ids == self.config.end).int()).argmax(dim=1)}} |
# | the merge learned first comes first | | {{tokenizer._merged: pieces = join(pieces, min(pairs, key=self._rank.get))}} |
#
# ## What you can do now
#
# You can train two encoders into one space, search and classify with words, and say where a cosine stops meaning anything. What is still missing: a cosine judges an image, but it does not make one. In [lesson 09](09_text_to_image.ipynb) the
# text encoder's states, one for each token, become what a diffusion model attends to, and a prompt turns into an image.
#
# The field kept the two towers and changed what is around them: a loss without a softmax, so that pairs need not be compared with the whole batch (SigLIP), and captions with hard negatives, so that word order matters.
#
# ## Further reading
#
# - [Radford et al. 2021, *Learning transferable visual models from natural language supervision*](https://arxiv.org/abs/2103.00020): CLIP. Figure 3 is the whole method in a few lines; section 6 says what it cannot do.
# - [van den Oord et al. 2018, *Representation learning with contrastive predictive coding*](https://arxiv.org/abs/1807.03748): where the loss and the name InfoNCE come from.
# - [Dosovitskiy et al. 2021, *An image is worth 16x16 words*](https://arxiv.org/abs/2010.11929): the vision transformer.
# - [Liang et al. 2022, *Mind the gap*](https://arxiv.org/abs/2203.02053): why images and texts of a trained CLIP lie apart.
# - [Sennrich et al. 2016, *Neural machine translation of rare words with subword units*](https://arxiv.org/abs/1508.07909): byte-pair encoding, with a program as short as yours.
# - [Thrush et al. 2022, *Winoground*](https://arxiv.org/abs/2204.03162): two images, two captions with the same words, and models that cannot tell which is which.
# - [Yuksekgonul et al. 2023, *When and why vision-language models behave like bags-of-words*](https://arxiv.org/abs/2210.01936): why, and what hard negatives do about it.
# - [Zhai et al. 2023, *Sigmoid loss for language image pre-training*](https://arxiv.org/abs/2303.15343): SigLIP, the loss without a softmax.
