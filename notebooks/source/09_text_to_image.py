# %% [markdown]
# # 09 · How does a prompt produce a picture nobody has seen?
#
# **Ask the same network twice, with the words and without, and walk along the difference.** That is classifier-free
# guidance: one line, and prompts are followed. In this lesson you watch the difference, amplify it, and ask for ten
# pictures that were kept away from everything that was ever trained here. Then you look for the point where it breaks.
#
# | | |
# |---|---|
# | You will see | ten pictures nobody has seen; what the words add to a noisy picture; one seed at five scales; which word looks where; where guidance hurts, in numbers, and two remedies |
# | It costs | about 3 minutes on 2 CPU cores, most of them for drawing 1,300 small pictures; a GPU is not needed |
# | You need | a sampler (lesson 03), attention (lesson 05), and what CLIP's text tower is (lesson 08). Lesson 07 helps |

# %%
import matplotlib.pyplot as plt
import torch

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, lessons, widgets
from minidiff.course.lessons import budget, show, style
from minidiff.data import HELD_OUT, Scene, caption
from minidiff.data.color_digits import OTHERS, draw as painted
from minidiff.diffusion import cfg, denoiser, to_x0
from minidiff.evaluation.color_digits import evaluate_color, look_at, measure
from minidiff.evaluation.metrics import diversity
from minidiff.formats.model_folder import load_classifier

style()
pipe = TextToImage.load("color_digits", device="cpu")
schedule, unet, judge = pipe.schedule, pipe.net.unet, load_classifier("judge")
SHAPE = pipe.fold.encode(torch.zeros(1, *pipe.config.picture)).shape[1:]  # of a picture as the network sees it
STEPS = budget(full=20, smoke=2)


def draw(prompts, **options):
    """A picture for each prompt (or context), (N, 3, 32, 32) in [-1, 1]."""
    return pipe.decode(pipe.latents(prompts, **({"steps": STEPS} | options))) * 2 - 1


def noise(n, seed=0):
    """Start noise for n pictures, or with n = 1 for one."""
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def grid(rows, names=None, titles=None, width=7.2):
    """Rows of pictures in [-1, 1], so many inches wide; a name before each row, a title above each column."""
    side = (width - 0.9 * bool(names)) / len(rows[0])
    lessons.grid([[picture / 2 + 0.5 for picture in row] for row in rows], names, titles, side)


# %% [markdown]
# Ten pairs of a digit and a colour were never in any training: not in the denoiser's, not in CLIP's, not as a picture
# and not as a caption. There were zeros, and there were orange digits, but no orange zero. Here they are asked
# for, one each, first try, seed 0:

# %%
GROUND = ["blue", "yellow", "white", "yellow", "black", "green", "purple", "white", "white", "black"]
unseen = [Scene(digit, color, ground) for (digit, color), ground in zip(HELD_OUT.items(), GROUND, strict=True)]
prompts = [caption(scene) for scene in unseen]
print(*prompts[:3], "...", sep="\n")
first = draw(prompts, seed=0)
grid([first[:5]], titles=[f"{s.color} {s.digit} on {s.background}" for s in unseen[:5]])
grid([first[5:]], titles=[f"{s.color} {s.digit} on {s.background}" for s in unseen[5:]])
digit, colors, *_ = measure(judge, first, unseen)
print(
    f"the judge reads the digit asked for in {int(digit.sum())} of 10, the colours are right in {int(colors.sum())} of 10"
)

# %% [markdown]
# One try is no measure; that comes below. First: how did the words get in?
#
# ## What the network is told
#
# The prompt is cut into tokens, CLIP's text tower makes a vector of each (lesson 08), and these vectors are the
# *context*: what the attention of the UNet looks at. The tower is frozen: training the denoiser has not changed one of
# its weights. Whatever the words have to do with each other, it knew before.

# %%
prompt = "a red seven on a blue background"
print("pieces: ", pipe.tokenizer.pieces(prompt))
print("ids:    ", pipe.tokenizer(prompt)[0].tolist())
context = pipe.encode([prompt])  # (1, L, D)
null = pipe.encode_negative(None, 1)  # the same for the empty text
print("context:", tuple(context.shape), " null context:", tuple(null.shape), ' which is that of "":', end=" ")
print(torch.equal(null, pipe.encode([""])))

# %% [markdown]
# "No prompt" is a prompt as well: the empty one. That is how the network can be asked both questions.
#
# ## Ask twice
#
# A real red seven on blue goes under noise, nearly all of it ($t = 0.85$). Then the network says which picture it believes to be behind it:
# told nothing, told the truth, and told something else. It is the same noisy picture each time.

# %%
T, OTHER = 0.85, "a green two on a yellow background"
sevens = data.mnist("validation")
seven = sevens.images[sevens.labels == 7][:1]
real = painted([Scene(7, "red", "blue")], seven)  # (1, 3, 32, 32)
x = schedule.add_noise(pipe.fold.encode(real), noise(1), T)


@torch.no_grad()
def believed(context, x=x, t=T):
    """x0_hat for a noisy picture, told this."""
    return denoiser(unet, schedule, pipe.prediction, context)(x, t)


nothing, told, lied = (believed(each) for each in (null, context, pipe.encode([OTHER])))
row = [pipe.fold.decode(z)[0] for z in (x / 2, nothing, told, lied, told - nothing)]
grid([row], titles=["$x_t$", "told nothing", "told the truth", "told otherwise", "truth - nothing"])

# %% [markdown]
# The last picture is what the words have *added*: gray is nothing, and a colour is a push toward that colour. The less noise there is, the more the network can see for itself, and the
# less the words can add. The same picture, with less and less noise; the size of the difference is its root mean square:

# %%
for t in (0.98, 0.85, 0.6, 0.4, 0.2):
    noisy = schedule.add_noise(pipe.fold.encode(real), noise(1), t)
    gap = believed(context, noisy, t) - believed(null, noisy, t)
    print(f"t = {t:.2f}: the words change the belief by {gap.square().mean().sqrt():.3f}")

# %% [markdown]
# ## Amplify
#
# So there are two answers, and a way from one to the other. **Guidance scale** $w$ says how far to go:
#
# $$\text{out} = \text{out}_\text{null} + w\,(\text{out}_\text{text} - \text{out}_\text{null})$$
#
# At $w = 0$ the words are ignored, at $w = 1$ the network is taken at its word, above that it is exaggerated. By hand, with three pixels, of which
# the prompt has something to say about two:

# %%
out_null, out_text = torch.tensor([0.2, -0.4, 0.5]), torch.tensor([0.6, -0.5, 0.5])
for w in (0, 1, 3):
    print(f"w = {w}:", (out_null + w * (out_text - out_null)).numpy().round(2))

# %% [markdown]
# Where both agree nothing is changed, however large $w$ is. Now the real thing: two calls of the network and one line, against the
# library's `cfg`, which sends both questions through in one batch.

# %%
SCALES = (0, 1, 2, 4, 8)
time = torch.tensor([1000 * T])  # the network's clock
with torch.no_grad():
    out_null, out_text = unet(x, time, null), unet(x, time, context)
    by_hand = to_x0(pipe.prediction, out_null + 4 * (out_text - out_null), x, *schedule.at(T, x))
    guided = {w: cfg(unet, schedule, pipe.prediction, context, null, w)(x, T) for w in SCALES}
print(f"largest difference between the two at w = 4: {(by_hand - guided[4]).abs().max():.1e}")
grid([[pipe.fold.decode(z)[0] for z in guided.values()]], titles=[f"w = {w}" for w in guided])

# %% [markdown]
# This was a single look at one noisy picture. In a walk, the exaggerated belief decides where the next step goes, and the step
# after that is asked from there. The page below shows a whole walk: for five of its steps both answers, their difference, and what
# guidance makes of them.

# %%
show(figures.guidance(pipe, prompt, scale=4.0, seed=0, steps=STEPS))

# %% [markdown]
# Turn it: another prompt, a negative one (it is explained below), scale and seed. In which steps is the difference
# large? When does it show the background, when the shape, when only edges?

# %%
widgets.guidance(pipe)

# %% [markdown]
# ## Turn the scale
#
# The same start noise in every row of a column. Only $w$ changes. *Cost: a few seconds.*

# %%
SIX = ["a red seven on a blue background", "a white three on a black background", "small blue 4, top left, on yellow",
       "a purple two on a green background", "a black nine on an orange background", "a green five on a white background"]  # fmt: skip
start = noise(len(SIX), seed=1)
rows = [draw(SIX, scale=w, latents=start) for w in SCALES]
grid(rows, names=[f"w = {w}" for w in SCALES], titles=["red 7\non blue", "white 3\non black", "small blue 4\non yellow",
     "purple 2\non green", "black 9\non orange", "green 5\non white"], width=6.2)  # fmt: skip

# %% [markdown]
# The first row does not know the prompts. It draws what the noise suggests: some digit in some colours. That row is a
# model of its own, of *all* pictures of this little world, and it lives in the same weights. From row to row the same noise is bent toward the words.
#
# ## One network for both questions
#
# How does a network learn to answer without words? By being left without them. In training each picture loses its caption with
# probability 0.1: what it is told is then the empty text, and it has to guess the noise all the same (Ho and Salimans 2022). Ten captions of a
# batch, with a coin for each:

# %%
batch = data.color_digits(10, "validation", seed=3)
coins = torch.rand(10, generator=torch.Generator().manual_seed(1))
for words, coin in zip(batch.captions[:6], coins, strict=False):
    print(f"{coin:.2f}  ", repr("" if coin < 0.1 else words))
print("...")
print(f"left without words: {int((coins < 0.1).sum())} of 10")

# %% [markdown]
# It costs a tenth of the training, and no second network. Three details matter:
#
# - The coin is thrown **for each picture**, not for the batch.
# - The caption is replaced **by what will stand there when you draw**: here the empty text, elsewhere a learned vector.
# - The empty text must have been *trained*. Ask a network that has never been without words, and its answer is an accident; the difference
#   then points anywhere.
#
# ## Why the difference points toward the words
#
# In lesson 07 a classifier of noisy pictures said which way a picture becomes more of a seven: $\nabla \log p(c \mid x_t)$. By Bayes' rule
#
# $$\log p(c \mid x_t) = \log p(x_t \mid c) - \log p(x_t) + \text{const}$$
#
# and the gradients of the two terms on the right are what a denoiser knows, with the words and without them. By Tweedie's formula (lesson 02) the difference of its two
# beliefs *is* the classifier's gradient, for a perfect network:
#
# $$\hat{x}_0(x_t, c) - \hat{x}_0(x_t) = \frac{\sigma_t^2}{\alpha_t}\,\nabla \log p(c \mid x_t)$$
#
# No classifier was trained, and none is there: hence the name. With scale $w$ each step is guided as if the words counted $w$ times, $p(x_t)\,p(c \mid x_t)^w$.
#
# ### On a page
#
# Where all is known, one can see what that does. The data are five islands of points; "nothing" means all of them, "the text" means the one at the top.
# Both denoisers are exact (`ideal`, lesson 02), so whatever goes wrong is guidance itself, not a badly trained network.

# %%
from minidiff.diffusion import flow, heun, uniform
from minidiff.diffusion.ideal import ideal

page, path = data.points("islands", 600), flow()
top = page[(page[:, 1] > 0.6)]
all_of_it, the_text = ideal(page, path, std=0.05), ideal(top, path, std=0.05)


def walked(w, low=0.0, high=1.0):
    """300 points from noise, guided with scale w between the times low and high, and with 1 elsewhere."""

    def guided(x, t):
        scale = w if low <= float(t) <= high else 1
        return all_of_it(x, t) + scale * (the_text(x, t) - all_of_it(x, t))

    start = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    *_, last = heun(guided, start, uniform(40, path), path)
    return last.x


figure, axes = plt.subplots(1, 4, figsize=(8, 2.4), sharey=True)
for axis, w in zip(axes, (0, 1, 3, 8), strict=True):
    ends = walked(w)
    axis.scatter(*page.T, s=2, color=figures.GRAY, alpha=0.5)
    axis.scatter(*ends.T, s=3, color=figures.ORANGE)
    axis.set(title=f"w = {w}", xlim=(-1.4, 1.4), ylim=(-1.2, 1.6), xlabel="x")
    print(f"w = {w}: height {ends[:, 1].mean():.2f}, spread {ends.std(0).mean():.3f}", end="")
    print(f"   (the island: {top[:, 1].mean():.2f}, {top.std(0).mean():.3f})" if w == 1 else "")
axes[0].set_ylabel("y")
plt.show()

# %% [markdown]
# At $w = 1$ the walk ends on the island, about as wide as the island is. Above that two things happen. The points **crowd together**: variety is
# lost. And they are **driven past the data**, away from the other islands, to where hardly any data point lies. The direction "more like the text" is also "less like
# everything else", and it does not stop at the best example. Keep both in mind: in pictures they are called lost diversity and
# saturation.
#
# ## Measured
#
# `evaluate_color` draws, then reads the pictures back: the judge of lesson 04 reads the digit, and a rule about pixels names the two colours. *Both* means that digit
# and colours are as asked for. Every second row is about the ten never-seen pairs. Real pictures go through the same reading, for comparison.
# *Cost: about a minute. `minidiff evaluate color_digits` takes more pictures.*

# %%
measured = budget(full=SCALES, smoke=(1, 4))
report = evaluate_color(pipe, n=budget(full=60, smoke=20), scale=measured, split="validation", steps=STEPS)
print(report)

# %%
KINDS = {"seen": (figures.BLUE, "o"), "never-seen": (figures.ORANGE, "s")}
figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.8))
for kind, (color, marker) in KINDS.items():
    lines = [row for row in report.rows if row.pairs == kind and row.scale is not None]
    at = range(len(lines))
    left.plot(at, [row.both for row in lines], color=color, marker=marker, label=f"{kind} pairs")
    right.plot(at, [row.diversity for row in lines], color=color, marker=marker, label=f"{kind} pairs")
for axis, title in ((left, "digit and colours right"), (right, "diversity (real pictures: 1)")):
    axis.set(xlabel="guidance scale w", ylabel="share", title=title, ylim=(0, 1.05 if axis is left else None))
    axis.set_xticks(range(len(measured)), [str(w) for w in measured])
left.legend(loc="lower right")
right.axhline(1, color=figures.GRAY, lw=1, ls="--")
plt.show()

# %% [markdown]
# Read it in three steps. *Between 0 and 1* the words come in: at 0 what is right is right by chance. *Above 1* accuracy is bought, and the right panel says with what:
# pictures of the same digit become more alike than real ones are. (Where diversity grows again at the largest scale, it is not the handwriting that varies: the next section shows what is.) *And compare the two colours*: how much worse are the pairs nobody has seen? Here one cannot tell. The digit's shape and its
# colour were learned from other pairs, so what is tested is whether the network takes them apart and puts them together anew.
#
# (Sixty pictures a row: two or three of them more or less are chance. Lesson 04 says how to tell.)
#
# ## Where guidance hurts
#
# One prompt, nine seeds, three scales.

# %%
NINE = ["a red three on a yellow background"] * 9
HURT = (1, 4, 16)
grid([draw(NINE, scale=w, seed=20) for w in HURT], names=[f"w = {w}" for w in HURT], width=7.4)

# %% [markdown]
# Look along the rows: how much do the threes differ from each other? And look at the edges and at the colours of the last row. The network's answer was pushed to
# where no picture is, as the points on the page were, and what does not fit into the range of pixels is cut off. That can be counted: the share of numbers that lie more than 0.1
# outside of $[-1, 1]$ before they are cut. All 70 combinations of a never-seen pair and a background: *Cost: half a minute.*

# %%
SCENES = [Scene(d, c, OTHERS[c][k]) for k in range(budget(full=7, smoke=2)) for d, c in HELD_OUT.items()]
CAPTIONS = [caption(scene) for scene in SCENES]


def told_in_numbers(name, **options):
    """Draw all SCENES and print: how many are right, how different they are, how much lies outside."""
    latents = pipe.latents(CAPTIONS, seed=500, **({"steps": STEPS} | options))
    outside = (pipe.fold.decode(latents).abs() > 1.1).double().mean()
    pictures = pipe.decode(latents) * 2 - 1
    digit, colors, read, features = measure(judge, pictures, SCENES)
    right, variety = (digit & colors).double().mean(), diversity(features, read)
    print(f"{name:32} both right {right:4.0%}   diversity {variety:5.2f}   outside {outside:6.2%}")
    return pictures


for w in (1, 2, 4, 8):
    loud = told_in_numbers(f"w = {w}", scale=w)

# %% [markdown]
# (Diversity is the mean distance between two pictures in which the judge reads the same digit, in its features. Here it is not divided by that of
# real pictures.)
#
# ### Two remedies
#
# **Rescale** (Lin et al. 2024, section 3.4). Guidance makes the answer louder: its numbers spread out more than those of the answer with the words, and the louder the
# larger $w$ is. So multiply the answer by the ratio of the two standard deviations, picture by picture, and mix that with the unscaled one:
#
# $$\text{out}' = \phi\;\text{out}\,\frac{\operatorname{std}(\text{out}_\text{text})}{\operatorname{std}(\text{out})} + (1 - \phi)\;\text{out}$$
#
# **Interval** (Kynkaanniemi et al. 2024). Guide only in the middle of the walk, and take $w = 1$ before and after. At the beginning, where there is only noise,
# guidance sends all walks the same way; at the end there is nothing left to decide, and the second question can be spared. On the page, with $w = 8$:

# %%
figure, axes = plt.subplots(1, 4, figsize=(8, 2.4), sharey=True)
for axis, (low, high) in zip(axes, ((0.0, 1.0), (0.3, 1.0), (0.0, 0.6), (0.0, 0.3)), strict=True):
    ends = walked(8, low, high)
    axis.scatter(*page.T, s=2, color=figures.GRAY, alpha=0.5)
    axis.scatter(*ends.T, s=3, color=figures.ORANGE)
    axis.set(title=f"t from {low} to {high}", xlim=(-1.4, 1.4), ylim=(-1.2, 1.6), xlabel="x")
    print(f"t from {low} to {high}: height {ends[:, 1].mean():.2f}, spread {ends.std(0).mean():.3f}")
axes[0].set_ylabel("y")
plt.show()

# %% [markdown]
# Leaving out the end (second page) changes nothing: it was not needed. Leaving out the beginning does: with $t$ up to 0.3 the points are back on their island, nearly as wide as it is, though $w$ is 8. In
# pictures the beginning cannot be left out so freely, since much of what the prompt asks for is decided there.
#
# Both are options of `pipe.stream`, and each touches one place in `cfg`. The same 70 prompts at the same too large scale: *Cost: 20 seconds.*

# %%
REMEDIES = {
    "w = 8": {},
    "w = 8, rescale 0.7": {"rescale": 0.7},
    "w = 8, interval 0.2 to 0.7": {"interval": (0.2, 0.7)},
    "both": {"rescale": 0.7, "interval": (0.2, 0.7)},
}
mended = {"w = 8": loud}
for name, options in REMEDIES.items():
    if options:
        mended[name] = told_in_numbers(name, scale=8, **options)
grid([pictures[::9] for pictures in mended.values()], names=["w = 8", "rescale", "interval", "both"], width=6.8)

# %% [markdown]
# Compare each line with the one for $w = 8$ above, and with $w = 2$. Rescale takes away part of what lies outside; the interval takes away nearly all of it, and brings some variety back. But a remedy is worth its
# option only if it is better than simply asking for less, and here $w = 2$ does about as well at no cost: this model is small and its world is simple. For a large one, on photographs, Kynkaanniemi et al. report a clearly
# better Frechet distance.
#
# ## Two conventions
#
# You will find the formula in two forms, and the same letter $w$ in both. Ho and Salimans (2022, equation 6) write
#
# $$\tilde\varepsilon = (1 + w)\,\varepsilon_\text{text} - w\,\varepsilon_\text{null}$$
#
# which is the same line with **their $w$ = our $w$ - 1**. In theirs 0 is already conditional.
#
# | who | formula | words ignored | words as they are |
# |---|---|---|---|
# | this course | null + w (text - null) | w = 0 | w = 1 |
# | Stable Diffusion's code (`ldm/models/diffusion/ddim.py`), `unconditional_guidance_scale` | null + w (text - null) | w = 0 | w = 1 |
# | Imagen (Saharia et al. 2022, equation 2) | w text + (1 - w) null, the same | w = 0 | w = 1 |
# | diffusers, `guidance_scale`: "w of equation (2) of the Imagen paper" | the same, but it is switched off up to 1 | not to be had | w = 1 or less |
# | Ho and Salimans 2022, equation 6 | (1 + w) text - w null | w = -1 | w = 0 |
# | threestudio, its guidance modules | text + w (text - null), the same as Ho and Salimans | w = -1 | w = 0 |
#
# So "guidance 3" of one text is "guidance 2" of another. Both forms are right, and mixing them up does no harm at 7.5, where nobody notices, and much at 1. In at least ten public projects somebody has
# asked whether it is a bug. Check a library in one way: draw at 0 and at 1, and see at which of them the words are ignored.

# %%
text_out, null_out = noise(1, 7), noise(1, 8)
for ours in (0.0, 1.0, 2.5, 7.5):
    theirs = ours - 1
    paper = (1 + theirs) * text_out - theirs * null_out
    print(
        f"ours {ours:3}, theirs {theirs:4}: differ by {(null_out + ours * (text_out - null_out) - paper).abs().max():.0e}"
    )

# %% [markdown]
# ## Which word looks where
#
# Words enter by cross-attention: every place of the picture asks, every token has a key, and the shares of all tokens add up to 1 at each place. `attention_maps`
# reads them in the very pass that draws:

# %%
from minidiff.networks import attention_maps

with attention_maps(pipe.net) as passes:
    draw([prompt], seed=0, scale=4.0)
shares = passes[0][0].weights  # of the first pass, in the first room
print("one entry a pass:", len(passes), " rooms:", [each.name for each in passes[0]])
print("batch (nothing, then text), heads, places, tokens:", tuple(shares.shape))
print(f"over the tokens they add up to {shares.sum(-1).min():.4f} to {shares.sum(-1).max():.4f}")

# %%
SOME = budget(full=8, smoke=1)
show(figures.attention(pipe, "a red seven on a blue background", step=SOME, seed=0, steps=STEPS, scale=4.0))

# %% [markdown]
# Each small picture is one token, and the number below it its share of all the attention. Orange: more than the average
# place gives it, blue: less. Before you read meaning into it:
#
# - Every token was made by a tower that had already read the tokens before it. The state of "background" knows which colour came earlier, and the end token knows all.
# - Shares add up to 1, so they have to go somewhere. Tokens that are no words (the start, the end, and the ends that fill up a short text) take some of them.
# - A map says where a token was *listened to*, not what it did there. And attention is not the only way in: in this model a summary of all tokens is also added to the time embedding, and
#   so reaches every block at every place (as the pooled text of SDXL does: Podell et al. 2023). No map shows that.
#
# Step, seed, prompt and scale to turn. Watch one word from the first step to the last.

# %%
widgets.attention(pipe)

# %% [markdown]
# ## A negative prompt
#
# In the formula, "nothing" is the place one starts from and leads away from. Put words there. That is all that a negative prompt is: **it takes the null's place.**
#
# "A red seven" leaves the background open. Draw it 24 times, and the model takes purple more often than anything else. Then draw it with "a red seven on a purple background" as the
# negative prompt. Digit and colour are in both texts and cancel in the difference. What remains is: not on purple. *Cost: ten seconds.*

# %%
from collections import Counter

MANY = budget(full=24, smoke=8)
OPEN, PURPLE = "a red seven", "a red seven on a purple background"
ways = {
    "no negative prompt": {"scale": 2.0},
    "negative: " + PURPLE: {"scale": 2.0, "negative": PURPLE},
    "the other way round": {"scale": 2.0, "negative": OPEN},
}
shown = []
for name, options in ways.items():
    pictures = draw([PURPLE if name == "the other way round" else OPEN] * MANY, seed=900, **options)
    shown.append(pictures[:8])
    print(f"{name}: {dict(Counter(look_at(pictures).backgrounds).most_common())}")
grid(shown, names=["none", "not on purple", "on purple"], width=6.8)

# %% [markdown]
# Why not simply write "a seven not on purple" into the prompt? Because no caption in training said "not". A negative prompt needs no grammar: it is a subtraction. In the third row the two texts have changed
# places, and so the difference says: on purple.
#
# ## Between two prompts
#
# A context is a tensor, and between two tensors lies a straight line. `pipe.mix` walks along it, and `pipe.stream` takes the result in place of a prompt. The
# same start noise in each row:

# %%
AMOUNTS = torch.linspace(0, 1, 7).tolist()
PAIRS = [("a red seven on a white background", "a blue seven on a white background"),
         ("a green three on a white background", "a green eight on a white background")]  # fmt: skip
rows = []
for one, other in PAIRS:
    between = torch.cat([pipe.mix(one, other, amount) for amount in AMOUNTS])  # (7, L, D)
    rows.append(draw(between, latents=noise(1, seed=5).expand(len(AMOUNTS), -1, -1, -1)))
    lengths = between.norm(dim=-1).mean(1)
    print(f"{one.split(' on ')[0]} to {other.split(' on ')[0]}: mean length of a token", [f"{v:.2f}" for v in lengths])
grid(rows, names=["red to\nblue 7", "green 3\nto green 8"], titles=[f"{amount:.2f}" for amount in AMOUNTS])

# %% [markdown]
# Token by token: word $k$ of the one is mixed with word $k$ of the other, so the two captions should have the same build. No text says what stands in the middle, and no training has
# seen it; the network makes of it what it can. A mixed token is also shorter than either end, as a chord lies inside its circle; whoever wants to, brings the length back.
#
# ## Three things that people call "guidance with CLIP"
#
# They are often confused, since a text and a network named CLIP are in all of them.
#
# | | what steers | needs | asks for a gradient |
# |---|---|---|---|
# | **conditioning** on CLIP's tokens, with $w$ = 1 or more (this lesson, Stable Diffusion) | the denoiser has *read* the words | a denoiser trained with captions | no |
# | **classifier guidance** (lesson 07) | a classifier of *noisy* pictures, $\nabla \log p(c \mid x_t)$ | a classifier trained on noise, for its few classes | yes |
# | **CLIP guidance** | the similarity of text and *believed* picture, $\nabla\, s \cos(\text{text}, \hat{x}_0)$ | any denoiser, and a CLIP | yes, through the denoiser |
#
# The third is an approximation: CLIP was trained on clean pictures, and is shown $\hat{x}_0$, a blurred average of what the picture may become (Chung et al. 2022 call this posterior
# sampling). Its gradient also finds pictures that CLIP likes for reasons that nobody can see. Here all are side by side. The CLIP guidance works on
# $w = 0$: the denoiser is told nothing. The classifier of lesson 07 knows gray digits alone, and so it gets the gray model, told nothing either. *Cost: 15 seconds.*

# %%
from minidiff.formats.clip import load_clip
from minidiff.pipeline.classifier_guidance import classifier_log_p, clip_log_p

clip, tokenizer = load_clip()
EIGHT = unseen[:8]
words = [caption(scene) for scene in EIGHT]
ids = tokenizer(words)


def fits(pictures):
    """The mean cosine of each picture's embedding with that of its own caption."""
    with torch.no_grad():
        return float((clip.embed_text(ids) * clip.embed_images(pictures)).sum(-1).mean())


begin = noise(8, seed=30)
log_p = clip_log_p(clip, ids, pipe.fold.decode)
THREE = {
    "told nothing": {"scale": 0.0},
    "conditioning, w = 1": {"scale": 1.0},
    "conditioning, w = 4": {"scale": 4.0},
    "CLIP guidance": {"scale": 0.0, "log_p": log_p, "log_p_scale": 0.2, "steps": 2 * STEPS},
}
rows = {name: draw(words, latents=begin, **options) for name, options in THREE.items()}
for name, pictures in rows.items():
    digit, colors, *_ = measure(judge, pictures, EIGHT)
    print(
        f"{name:20} cosine {fits(pictures):.3f}   digit right {int(digit.sum())} of 8   colours {int(colors.sum())} of 8"
    )

gray = TextToImage.load("mnist", device="cpu")
asked = torch.tensor([scene.digit for scene in EIGHT])
of_digit = classifier_log_p(load_classifier("noisy_classifier"), asked, gray.schedule.net_time)
latents = gray.latents([str(d) for d in asked.tolist()], scale=0, steps=STEPS, seed=30, log_p=of_digit, log_p_scale=4.0)
rows["classifier guidance"] = (gray.decode(latents) * 2 - 1).expand(-1, 3, -1, -1)
grid(
    list(rows.values()),
    names=[name.replace(" ", "\n", 1) for name in rows],
    titles=[f"{s.color} {s.digit}\non {s.background}" for s in EIGHT],
)

# %% [markdown]
# Compare the cosines with what you see. CLIP guidance climbs exactly that number, so it is no judge of it (lesson 04, and lesson 07 for the same trap with a classifier).
# The judge and the pixel rule have not been asked during the walk; they may judge. What they find is little: a gradient that comes from blurred beliefs is late for the colours, which are decided in the first
# steps, and good for a digit here and there. Conditioning has the words in its training; CLIP guidance has them only at the door.
#
# ## What the model cannot read
#
# Its vocabulary was learned from the captions of this little world. Other words are spelled out in pieces, as with every byte-pair tokenizer, and these pieces have
# hardly occurred in training: the network then gets tokens that mean next to nothing to it. `pipe.unread` says so in one line.

# %%
STRANGE = ["a crimson seven on a blue background", "a red sevn on a blue background", "κόκκινο επτά", "",
           "a red seven, " * 12 + "on a blue background"]  # fmt: skip
for text in STRANGE:
    print(repr(text if len(text) < 60 else text[:57] + "..."), "->", pipe.unread(text) or "all of it was read")
titles = ["crimson", "sevn", "in Greek", "(empty)", "over-long"]
grid([draw(STRANGE, seed=s, scale=4.0) for s in (40, 60)], titles=titles, width=5.2)

# %% [markdown]
# The empty prompt is the null context: both questions are then the same one, and no scale changes anything. Of a text that is too long the end is cut off, and the background with it. And nothing here fails loudly: a
# text-to-image model draws *something* for every text. Whoever serves one should say what it has not read.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | amplify the difference | $\text{out}_\text{null} + w\,(\text{out}_\text{text} - \text{out}_\text{null})$ | {{guidance.cfg: * (out_text - out_null)}} |
# | both questions in one batch | $[\,x_t, x_t\,],\ [\,\varnothing, c\,]$ | {{guidance.cfg: both = torch.cat([null.expand_as(context), context])}} |
# | guidance in an interval | $w$ where $t_\text{low} \le t \le t_\text{high}$, else 1 | {{guidance._amount: torch.where((low <= time) & (time <= high), scale, 1.0)}} |
# | rescale | $\phi\,\text{out}\,\frac{\operatorname{std}(\text{out}_\text{text})}{\operatorname{std}(\text{out})} + (1 - \phi)\,\text{out}$ | {{guidance.rescaled: (1 - amount) * out}} |
# | in training, some pictures lose their words | $c \leftarrow \varnothing$ where $u < 0.1$ | {{loop.train: condition = torch.where(dropped}} |
# | a negative prompt takes the null's place | $\varnothing \leftarrow c_\text{negative}$ | {{text_to_image.stream: null = self.encode_negative(}} |
# | between two prompts | $(1 - a)\,c_1 + a\,c_2$ | {{text_to_image.mix: torch.lerp(}} |
#
# ## Exercises
#
# ### Exercise 1 · Leave the words out
#
# *easy, 5 minutes.*
#
# `context` has shape $(B, L, D)$, the tokens of $B$ captions. `null` has shape $(L, D)$, `u` has shape $(B,)$ with random numbers between 0 and 1, `p` is a number. Return the context for training, $(B, L, D)$: where a picture's `u`
# is below `p`, `null` stands in the place of its tokens; the others keep theirs.
#
# <details><summary>Hint</summary>
#
# `torch.where(mask, a, b)` takes from `a` where the mask is true. What shape must a mask of $B$ decisions have, so that it meets $(B, L, D)$ at the pictures? (In the check $B$, $L$ and $D$ are equal, so that nothing warns you.)
#
# </details>


# %%
def drop(context, null, u, p):
    """Captions, some of them replaced by the null context."""
    ### BEGIN SOLUTION
    without = (u < p).reshape(-1, 1, 1)
    return torch.where(without, null, context)
    ### END SOLUTION


# %%
check.l09_drop(drop)

# %% [markdown]
# ### Exercise 2 · Guidance, in one batch
#
# *medium, 10 minutes.*
#
# `net(x, t, context)` is a network: pictures $(B, C, H, W)$, times $(B,)$ and tokens $(B, L, D)$ go in, an answer for each picture comes out, $(B, C, H, W)$. `text` and `null` are the tokens with and without words, $(B, L, D)$ each; `w` is the
# scale, in the convention of this course. Return the guided answer, $(B, C, H, W)$. Call `net` once.
#
# <details><summary>Hint</summary>
#
# A batch of $2B$: everything twice, one half with `null`, the other with `text`. `chunk(2)` takes it apart again. Which half is which?
#
# </details>


# %%
def guided(net, x, t, text, null, w):
    """Classifier-free guidance: the answer without words, and w times what the words change."""
    ### BEGIN SOLUTION
    answers = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([null, text]))
    without, with_words = answers.chunk(2)
    return without + w * (with_words - without)
    ### END SOLUTION


# %%
check.l09_guided(guided)

# %% [markdown]
# ### Exercise 6 · Catch the bug
#
# *medium, 8 minutes.*
#
# Now you write the test, and the check hands it functions: two that do exercise 2 right, and some that are each wrong in one way. `guided` is one of
# them. Return True if it is right, and False, or let an `assert` fail, if it is not. You choose the `net`: a line of arithmetic will do.
#
# <details><summary>Hint</summary>
#
# What must come out at $w = 0$, at $w = 1$, and beyond? Let the answer of your `net` depend on all three arguments and leave [-1, 1], and give every image tokens of its own.
#
# </details>


# %%
def catch_guided(guided):
    """True if a function that should guide without a classifier does."""
    ### BEGIN SOLUTION
    x, t = torch.randn(3, 1, 2, 2), torch.tensor([0.2, 0.5, 0.9])
    text, null = torch.randn(2, 3, 2, 4)

    def net(x, t, context):
        return 3 * x + (t + 4 * context.mean((1, 2))).reshape(-1, 1, 1, 1)

    without, with_words = net(x, t, null), net(x, t, text)
    for w in (0.0, 1.0, 4.0):
        if not torch.allclose(guided(net, x, t, text, null, w), without + w * (with_words - without), atol=1e-3):
            return False
    return True
    ### END SOLUTION


# %%
check.l09_catch(catch_guided)

# %% [markdown]
# ### Exercise 3 · Away from something, for some of the time
#
# *medium, 10 minutes.*
#
# Three answers of the network lie before you, $(B, C, H, W)$ each: told `nothing`, told the `text`, told the `negative` prompt. `t` has shape $(B,)$: each picture has its own time. Return the guided answer with the negative prompt: with scale `w` where `low <= t <= high`,
# with scale 1 elsewhere.
#
# <details><summary>Hint</summary>
#
# What does the negative prompt do to "nothing"? One of the three answers is not needed. The scale differs from picture to picture, so it is a tensor, and needs four axes.
#
# </details>


# %%
def away(nothing, text, negative, t, w, low, high):
    """Guidance away from a negative prompt, within an interval of times."""
    ### BEGIN SOLUTION
    scale = torch.ones_like(t)
    scale[(t >= low) & (t <= high)] = w
    return negative + scale.reshape(-1, 1, 1, 1) * (text - negative)
    ### END SOLUTION


# %%
check.l09_away(away)

# %% [markdown]
# ### Exercise 4 · Rescale
#
# *medium, 8 minutes.*
#
# `out` is the guided answer, `text` the answer with the words, $(B, C, H, W)$ both. Return the rescaled answer of this lesson's equation, where $\phi$ is `amount`. The standard deviation is that of all numbers of one picture.
#
# <details><summary>Hint</summary>
#
# `std` takes several axes at once, and `keepdim=True` leaves the result in a shape that can be multiplied.
#
# </details>


# %%
def rescale(out, text, amount):
    """The guided answer, brought back toward the spread of the answer with the words."""
    ### BEGIN SOLUTION
    axes = (1, 2, 3)
    ratio = text.std(axes, keepdim=True) / out.std(axes, keepdim=True)
    return amount * ratio * out + (1 - amount) * out
    ### END SOLUTION


# %%
check.l09_rescale(rescale)

# %% [markdown]
# ### Exercise 5 · Which word looks where
#
# *hard, 12 minutes.*
#
# One picture in one cross-attention: `q` has shape (heads, $N$, $d$), the questions of its $N$ pixels, row by row from top to bottom; `k` has shape (heads, $L$, $d$), the keys of $L$ words; `height` divides $N$. Return a map for each word, ($L$, height, width): how large its share is at each pixel, as the mean over the
# heads. At each pixel the maps add up to 1.
#
# <details><summary>Hint</summary>
#
# The softmax formula of lesson 05, without $v$. First all heads get their shares, then comes the mean. A table of pixels by words has the pixels first, and the maps have the words first: what has to be done before the reshape?
#
# </details>


# %%
def maps(q, k, height):
    """The attention that each pixel pays to each word, as pictures."""
    ### BEGIN SOLUTION
    shares = torch.softmax(q @ k.transpose(1, 2) / q.shape[2] ** 0.5, dim=2)  # (heads, N, L)
    words_first = shares.mean(0).T  # (L, N)
    return words_first.reshape(len(words_first), height, -1)
    ### END SOLUTION


# %%
check.l09_maps(maps)

# %% [markdown]
# ## Where to go next
#
# Words steer the noise, in pixels, 32 of them a side. Larger pictures would cost a hundred times as much, and most of it would go into pixels that no word speaks of. Lesson 10 moves the same walk into a compressed
# space, and draws emoji from their names.
