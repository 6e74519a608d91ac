# %% [markdown]
# # 11 · Does my code really run Stable Diffusion?
#
# **What you see below was made without a network: on a small checkpoint with random weights, written on the spot by diffusers in the layout of Stable Diffusion 1.5;
# and, where there is something to look at, on our emoji model, which is kept in that layout and goes through the same pipeline. Set `CHECKPOINT` in the next cell, and all of it runs on the real weights.**
#
# Yes, it does. The classes that you have used since lesson 05 have the names and shapes of Stable Diffusion's tensors, so that its files fit in; and the same noise becomes the same picture as in
# diffusers, the library that most people draw with. In this lesson you open the files, check both, follow one prompt through all parts, and begin walks from a picture instead of from noise.
#
# | | |
# |---|---|
# | You will see | what is in a checkpoint; where its parameters are; that nothing warns you when a file is read wrongly; a prompt on its way through tokenizer, text tower, UNet and VAE; a sketch that becomes an emoji; half an emoji drawn anew |
# | It costs | about a minute on 2 CPU cores. With the real weights: some 4 GB of files, which both libraries read, and a GPU, or patience: on two cores one look of the large UNet takes about four seconds |
# | You need | lessons 08 to 10: CLIP, guidance, latents; and `diffusers`, to write the checkpoint and to compare with (it is in the `parity` extra) |

# %%
CHECKPOINT = None  # a folder, or an id such as "stable-diffusion-v1-5/stable-diffusion-v1-5", which is fetched

# %%
import copy
import json
import struct
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import diffusers
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
import transformers

from minidiff import TextToImage, data
from minidiff.course import checks as check, figures, widgets
from minidiff.course.lessons import budget, grid, show, style
from minidiff.diffusion import EPS, V
from minidiff.formats.model_folder import find_model
from minidiff.formats.scheduler_config import timing_of
from minidiff.formats.unet import unet_config
from minidiff.networks import UNet, flops
from minidiff.pipeline.image_to_image import keep, remaining
from minidiff.training.recipes import RECIPES
from minidiff.training.recipes.vae import psnr

style()
for library in (diffusers, transformers):  # no bars, and errors alone
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
STEPS = budget(full=20, smoke=5)
emoji = TextToImage.load("emoji", device="cpu")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def latent_shape(pipe):
    side = pipe.config.picture[-1] // pipe.factor
    return pipe.config.unet.in_channels, side, side


def of_diffusers(folder, device="cpu", dtype=torch.float32):
    """The same folder, opened by diffusers."""
    absent = {"safety_checker": None, "feature_extractor": None, "local_files_only": True}
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, **absent).to(device, dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# %% [markdown]
# Where we are going: the same four prompts, from the same noise, drawn by our code and by diffusers from one folder.

# %%
THINGS = ["a red apple", "a cat face", "a red heart", "a mushroom"]
artist = TextToImage.load(CHECKPOINT) if CHECKPOINT else emoji  # who draws what is looked at
WORDS = "a photo of {}" if CHECKPOINT else "a twemoji emoji of {}"
prompts = [WORDS.format(thing) for thing in THINGS]
beginnings = torch.cat([noise(1, *latent_shape(artist), seed=k) for k in range(len(prompts))])

dtype = next(artist.net.unet.parameters()).dtype
theirs = of_diffusers(find_model(CHECKPOINT or "emoji"), artist.device, dtype)
how = {"num_inference_steps": STEPS, "guidance_scale": artist.config.scale, "output_type": "pt"}
ours = artist.decode(artist.latents(prompts, latents=beginnings, steps=STEPS)).cpu()
pictures = theirs(prompts, latents=beginnings.to(artist.device, dtype), **how).images.float().cpu()
grid([ours, pictures], names=["minidiff", "diffusers"], side=0.9)
print(f"largest difference, of values between 0 and 1: {(ours - pictures).abs().max():.3f}")

# %% [markdown]
# (A hundredth, which nobody sees. On our schedule a walk begins at $t = 0.999$, where a thousandth of the picture is left; diffusers takes 1 - 0.999 in float32, and gets four digits of it. On Stable Diffusion's own schedule, in
# part 2, the two are closer by far.)
#
# ## Part 1: what is in a checkpoint
#
# So far our own model. Now a folder as others write it. diffusers makes a pipeline with all the modules of Stable Diffusion 1.5, in their order and number, but a tenth as wide or less, with random weights,
# and saves it. (Random weights draw nothing. But every tensor has its name and its place, and that is what has to be got right.)


# %%
def small_checkpoint(folder):
    """Stable Diffusion 1.5 in small, with random weights and the words of our emoji captions, written by diffusers."""
    torch.manual_seed(0)
    words = emoji.tokenizer
    tokenizer = transformers.CLIPTokenizer(vocab=words.vocab, merges=words.merges, model_max_length=77)
    text = transformers.CLIPTextConfig(
        vocab_size=len(words.vocab), hidden_size=64, intermediate_size=256, num_hidden_layers=12, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(sample_size=16, block_out_channels=(32, 64, 96, 96), cross_attention_dim=64)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64, 96, 96), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, timestep_spacing="leading"
    )
    parts = vae, transformers.CLIPTextModel(text), tokenizer, unet, scheduler, None, None
    diffusers.StableDiffusionPipeline(*parts, requires_safety_checker=False).save_pretrained(folder)
    return Path(folder)


room = TemporaryDirectory()
where = find_model(CHECKPOINT) if CHECKPOINT else small_checkpoint(room.name)
for file in sorted(path for path in where.rglob("*") if path.is_file()):
    print(f"{file.stat().st_size / 1e3:12,.1f} KB   {file.relative_to(where)}")

# %% [markdown]
# Five folders, and a file that names them. Three hold networks: the text tower (lesson 08), the UNet (05), the VAE (10). `tokenizer` holds words, `scheduler` what is meant by time.
#
# ### A file of weights, by hand
#
# The weights are in the format *safetensors*, which needs no library to be read: eight bytes say how long a table of contents is; the table follows, as JSON; then come the numbers of all tensors, one after the other.


# %%
def contents(path):
    """The table of contents of a safetensors file: name -> dtype, shape, and where its bytes are."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        table = json.loads(file.read(length))
    table.pop("__metadata__", None)
    return table


weights = next((where / "unet").glob("*.safetensors"))
found = {name: tuple(entry["shape"]) for name, entry in contents(weights).items()}
for name in list(found)[:4]:
    print(name, contents(weights)[name])
print(f"... {len(found)} tensors")

# %% [markdown]
# That is all there is in it. The older `.ckpt` and `.bin` are *pickles*: small programs that build objects when they are opened, and can do anything else on your machine as well. minidiff does not open them.
#
# ### Does it fit?
#
# Our UNet, made from the numbers in the folder's `config.json`. It lies on the meta device (lesson 12): all shapes, no content. What does it need, what was found?

# %%
config_file = where / "unet" / "config.json"
with torch.device("meta"):
    ours = UNet(unet_config(json.loads(config_file.read_text()), config_file))
    full = UNet()  # the defaults: Stable Diffusion 1.5
needed = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
real = {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()}
print(f"needed {len(needed)}, found {len(found)}, in both {len(needed.keys() & found.keys())}")
print("the same shapes:", needed == found)
print("and the names at full size are the same:", real.keys() == found.keys())
for name in ("conv_in.weight", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"):
    print(f"  {name}: here {found[name]}, at full size {real[name]}")
print(f"at full size: {sum(p.numel() for p in full.parameters()):,} parameters")

# %% [markdown]
# Look at the second name, from left to right: on the way **down**, level 1, the first attention there, its only block, the **second** attention of it, to the text, and of this what makes the **keys**. All of lesson 05 is in such a name.
# That its last number is 768 at full size is the width of the text tower: that is where the words come in.
#
# ### Where the parameters are
#
# 860 million of them, and two million in the model that draws our emoji. Sorted by what they do:

# %%
KINDS = {
    "ResBlocks": ["resnets"],
    "attention to itself": ["attn1"],
    "attention to the text": ["attn2"],
    "feed-forward": ["ff."],
    "the rest": [""],
}


def by_kind(unet):
    """Parameters of each kind, as shares of all."""
    counts = Counter()
    for name, parameter in unet.named_parameters():
        counts[next(kind for kind, parts in KINDS.items() if any(p in name for p in parts))] += parameter.numel()
    return [100 * counts[kind] / counts.total() for kind in KINDS]


networks = {"Stable Diffusion 1.5": full, "our emoji": emoji.net.unet}
figure, axis = plt.subplots(figsize=(7, 1.3))
shares = {name: by_kind(unet) for name, unet in networks.items()}
before = [0.0] * len(networks)
for k, kind in enumerate(KINDS):
    part = [share[k] for share in shares.values()]
    axis.barh(list(networks), part, left=before, label=kind)
    before = [a + b for a, b in zip(before, part, strict=True)]
axis.invert_yaxis()
axis.set(xlabel="share of the parameters, in %", xlim=(0, 100))
axis.legend(ncols=3, fontsize=8, loc="lower center", bbox_to_anchor=(0.45, 1.0))
plt.show()

with torch.device("meta"):
    asked = {
        "Stable Diffusion 1.5": (full, torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768)),
        "our emoji": (UNet(emoji.config.unet), torch.zeros(1, 4, 16, 16), torch.zeros(1, 32, 64)),
    }
    for name, (unet, x, context) in asked.items():
        size = sum(p.numel() for p in unet.parameters())
        work = sum(flops(unet, x, torch.zeros(1), context).values())
        texts = sum("attn2.to_k" in key for key in unet.state_dict())
        print(f"{name}: {size:,} parameters in {len(unet.state_dict())} tensors, levels of {unet.config.channels}")
        print(f"   looks at the text {texts} times; to ask it once costs {work / 1e9:,.2f} billion operations")

# %% [markdown]
# The same kinds of parts, in about the same shares. **There is no trick in the large one that is not in the small one.** It has a level more, two blocks a level where ours has one, and ten times the width and more, which
# makes more than a hundred times the parameters.
#
# ## Part 2: what a folder says about time
#
# A network knows nothing of schedules. It was shown noisy latents, and a number from 0 to 999. Which number means how much noise is written in a small file:

# %%
scheduler = json.loads((where / "scheduler" / "scheduler_config.json").read_text())
said = ["num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type", "timestep_spacing"]
for name in said:
    print(f"{name:22} {scheduler.get(name)}")

# %% [markdown]
# `scaled_linear` is Stable Diffusion's: the *roots* of the betas lie on a straight line. From betas to what is left of the picture, by hand for three of them:

# %%
three = torch.linspace(0.1**0.5, 0.5**0.5, 3, dtype=torch.float64) ** 2
print("betas             ", three.numpy().round(3))
print("1 - beta          ", (1 - three).numpy().round(3))
print("multiplied so far ", (1 - three).cumprod(0).numpy().round(3), "= alpha squared")
print("alpha             ", (1 - three).cumprod(0).sqrt().numpy().round(3))

n, first, last = (scheduler[key] for key in ("num_train_timesteps", "beta_start", "beta_end"))
betas = torch.linspace(first**0.5, last**0.5, n, dtype=torch.float64) ** 2
alpha = (1 - betas).cumprod(0).sqrt()
loaded = artist if CHECKPOINT else TextToImage.load(where, device="cpu")
t = torch.arange(1, n + 1, dtype=torch.float64) / n
print("as the pipeline has it:", torch.allclose(alpha, loaded.schedule.alpha(t)))

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 2.2), sharey=True)
for axis, (name, schedule) in zip(
    axes, {"Stable Diffusion's": loaded.schedule, "our emoji model's": emoji.schedule}.items(), strict=True
):
    axis.plot(t, schedule.alpha(t), label="picture, $\\alpha$")
    axis.plot(t, schedule.sigma(t), label="noise, $\\sigma$")
    axis.set(xlabel="t", title=name)
axes[0].legend(fontsize=9)
plt.show()
print(f"what is left of the picture at the last step of Stable Diffusion's: {alpha[-1]:.3f}")

# %% [markdown]
# At its last step seven hundredths of the picture are still there: in training the network never saw noise alone, and it has learned that the mean of what it is shown tells the mean of the picture. A walk begins with noise alone, whose
# mean is always about 0, and so Stable Diffusion 1.5 hardly ever draws a very dark or a very bright picture (Lin et al. 2024, who change the betas so that nothing is left; `rescale_betas_zero_snr` in a config, `zero_terminal_snr` here).
#
# ### One word
#
# `prediction_type` says what the network's answer *is*. In 1.x it is the noise, `epsilon`. In the larger 2.x it is $v = \alpha \varepsilon - \sigma x_0$ (lesson 02). For one number:

# %%
x0, eps, a = torch.tensor(0.8), torch.tensor(-0.5), torch.tensor(0.6)
s = (1 - a**2).sqrt()
x, v = a * x0 + s * eps, a * eps - s * x0
print(f"alpha {a:.1f}, sigma {s:.1f}: x = {x:.2f}, v = {v:.2f}")
print(f"x0 from v, alpha x - sigma v:          {a * x - s * v:.2f}")
print(f"x0 from v taken for eps, (x - sigma v) / alpha: {(x - s * v) / a:.2f}")

# %% [markdown]
# ### Nothing warns you
#
# A file that fits is not yet a file that is read rightly. Each of these pictures comes from our emoji model, with all of its tensors in their places, and one thing misunderstood:

# %%
RED = "a twemoji emoji of a red apple"


def misread(prediction):
    """The emoji model, whose answers are taken for something else."""
    other = copy.copy(emoji)
    other.prediction = prediction
    return other.decode(other.latents([RED], steps=STEPS))[0]


z = emoji.latents([RED], steps=STEPS)
of_another = (emoji.vae.decode(z / 0.18215 * emoji.vae.config.scaling)[0] + 1) / 2  # `decode` divides by its own factor
wrong_words = copy.copy(emoji)
wrong_words.tokenizer = lambda texts: (emoji.tokenizer(texts) + 1) % len(emoji.tokenizer.vocab)
outcomes = {
    "as it should be": emoji.decode(z)[0],
    "answers taken\nfor eps": misread(EPS),
    "answers taken\nfor v": misread(V),
    "scaled like\nanother's": of_another,
    "ids off\nby one": wrong_words.decode(emoji.latents(wrong_words.encode([RED]), steps=STEPS))[0],
}
grid([list(outcomes.values())], titles=list(outcomes), side=0.95)

# %% [markdown]
# No error in any of them. This is why the next cell does not ask whether pictures look all right. It asks whether all numbers are those of diffusers.
#
# ### The same as diffusers
#
# Both read the same folder. Same prompts, same noise, guidance 7.5; three samplers, with the answers read as eps, then as v. diffusers picks its sampler by the class of the scheduler, ours by name. With random weights the final
# picture is one of blots, and every one of its numbers depends on every layer of all three networks. *Cost: a quarter of a minute.*

# %%
library = theirs if CHECKPOINT else of_diffusers(where)
BOTH = {
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
}
WANTED, UNWANTED = "a red apple", "a fish"
start = noise(1, *latent_shape(loaded))
seconds = {"minidiff": 0.0, "diffusers": 0.0}
compared = []
with TemporaryDirectory() as other:
    for prediction in ("epsilon", "v_prediction"):
        for name, kind in BOTH.items():
            library.scheduler = kind.from_config(scheduler, prediction_type=prediction, clip_sample=False)
            library.scheduler.save_pretrained(other)
            timing = timing_of(json.loads((Path(other) / "scheduler_config.json").read_text()))
            again = TextToImage(loaded.config, loaded.net, loaded.device, loaded.tokenizer, loaded.vae, timing)
            began = perf_counter()
            z = again.latents(WANTED, negative=UNWANTED, latents=start, steps=STEPS, scale=7.5, sampler=name)
            ours = again.decode(z).cpu()
            seconds["minidiff"] += perf_counter() - began
            began = perf_counter()
            how = {
                "negative_prompt": UNWANTED,
                "num_inference_steps": STEPS,
                "guidance_scale": 7.5,
                "output_type": "pt",
            }
            want = library(WANTED, latents=start.to(library.device, library.dtype), **how).images.float().cpu()
            seconds["diffusers"] += perf_counter() - began
            compared.append(ours[0])
            print(f"{name:10}{prediction:14} largest difference {(ours - want).abs().max():.0e}")
grid([compared[:3], compared[3:]], names=["eps", "v"], titles=list(BOTH))
print(f"time: {seconds['minidiff'] / seconds['diffusers']:.2f} of diffusers'")

# %% [markdown]
# Differences of one in a hundred thousand come from the order in which numbers are added.
#
# ## Part 3: one prompt, all the way
#
# Now with a model that has learned something. A prompt goes through four rooms. **First the tokenizer** makes pieces of it, and a number of each (lesson 08):

# %%
PROMPT, OTHER = WORDS.format("a red apple"), WORDS.format("a green apple")
ids, other_ids = artist.tokenizer([PROMPT, OTHER])
spelled = {number: piece for piece, number in artist.tokenizer.vocab.items()}
pieces = [spelled[i] for i in ids.tolist()]
words = pieces.index("<|endoftext|>") + 1
print(" ".join(f"{piece}={i}" for piece, i in zip(pieces[:words], ids.tolist(), strict=False)))
print(f"and {len(ids) - words} more that fill up to {len(ids)}")

# %% [markdown]
# **Then the text tower** makes a row of numbers of each piece, which has all pieces *before* it in view. So change one word, and see which rows change:

# %%
states, others = artist.encode([PROMPT, OTHER]).float().cpu()
changed = (states - others).norm(dim=1) / states.norm(dim=1)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), width_ratios=[1, 1.3])
axes[0].imshow(states[:words], aspect="auto", cmap="RdBu", vmin=-2, vmax=2, interpolation="nearest")
axes[0].set_yticks(range(words), labels=[piece.removesuffix("</w>") for piece in pieces[:words]], fontsize=8)
axes[0].set(xlabel="number of the row")
axes[0].grid(False)
axes[1].bar(range(len(changed)), 100 * changed)
axes[1].axvspan(words - 0.5, len(changed) - 0.5, color=figures.GRAY, alpha=0.15, label="filling")
axes[1].set(xlabel="piece", ylabel="change of its row, in %")
axes[1].legend(fontsize=9)
plt.show()
first = int((ids != other_ids).nonzero()[0])
print("no change before the word that differs:", bool((changed[:first] < 1e-3).all()))

# %% [markdown]
# Left, the rows themselves. Right, what becomes of them with "green" in place of "red": nothing before that word, a little at it, and most of all behind the apple, at the end and at all the pieces that only fill up. They
# have seen the whole sentence, and the UNet looks at them too.
#
# **Then the UNet**, once for every step, with the text and without (lesson 09). **At the end the VAE.** Below, in columns, some steps of the walk: what the UNet is given; what the text changes in its answer; what it believes, by
# the linear map of lesson 10 (`pipe.preview`, a pixel for a place, for nothing) and decoded:

# %%
walk = list(artist.stream([PROMPT], steps=STEPS, seed=0))
which = sorted({round(k * (STEPS - 1) / 4) for k in range(5)})
context, null = artist.encode([PROMPT]), artist.encode_negative(None, 1)


def said_by_the_text(x, t):
    """How much the answer changes with the text, at each place: (3, h, w) in [0, 1]."""
    time = artist.schedule.net_time(t.double().cpu()).float().reshape(1).to(x.device)
    with torch.no_grad():
        with_text, without = (artist.net.unet(x, time, c) for c in (context, null))
    size = (with_text - without).float().norm(dim=1).cpu()
    return (size / size.max()).expand(3, -1, -1)


rows = [[], [], [], []]
for k in which:
    step = walk[k]
    rows[0].append(artist.preview(step.x)[0].cpu())
    rows[1].append(said_by_the_text(step.x, step.t))
    rows[2].append(artist.preview(step.x0_hat)[0].cpu())
    rows[3].append(artist.decode(step.x0_hat)[0].cpu())
grid(
    rows,
    names=["$x_t$, linear", "where the text\nmatters", "$\\hat{x}_0$, linear", "$\\hat{x}_0$, decoded"],
    titles=[f"step {k + 1}" for k in which],
    side=0.9,
)

# %% [markdown]
# Where the text matters, the network says something else than it would have said without: at first all over the disc that is to be an apple, later at its edge, its leaf, and what is hard to see.
#
# And what each room costs, for one picture:


# %%
def timed(name, network, room, *given):
    """room(*given), with a line about how long it took, and how large the network in it is."""
    began = perf_counter()
    out = room(*given)
    size = f"{sum(p.numel() for p in network.parameters()):>13,} parameters" if network else ""
    print(f"{name:14} {1000 * (perf_counter() - began):8.1f} ms   {size}")
    return out


tokens = timed("tokenizer", None, artist.tokenizer, [PROMPT]).to(artist.device)
context = timed("text tower", artist.net.text_encoder, artist.net.text_encoder, tokens)
x = noise(1, *latent_shape(artist)).to(artist.device, dtype)
timed("UNet, once", artist.net.unet, artist.net.unet, x, torch.zeros(1, device=artist.device), context)
timed("VAE's decoder", artist.vae.decoder, artist.decode, x)
print(f"{STEPS} steps with guidance ask the UNet about {2 * STEPS} latents")

# %% [markdown]
# ## Part 4: image to image, or start later
#
# A walk comes past $t = 0.6$ with a latent that is part picture, part noise. Could it have come from somewhere else? Nobody can tell from the latent: **a picture that you noise to $t = 0.6$ yourself is as good a start.**
# So encode a picture, noise it, and walk the rest of the way (Meng et al. 2021). How much of the walk is left is called the *strength*. For ten steps and a strength of 0.6, by hand:

# %%
times = torch.linspace(1, 0, 11)
steps, strength = len(times) - 1, 0.6
kept = int(steps * strength)
print("all times ", times.numpy().round(1))
print("left      ", times[steps - kept :].numpy().round(1), f" the last {kept} steps")
print("library   ", remaining(times, strength).numpy().round(1))

# %% [markdown]
# The sketch below was made of three ellipses. Columns: less and less is kept of it. Above, what the walk begins with (decoded, so that one can see it); below, where it ends.

# %%
side = artist.config.picture[-1]
down, along = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
sketch = torch.ones(1, 3, side, side)


def ellipse(center, radii, colour):
    inside = ((along - center[0]) / radii[0]) ** 2 + ((down - center[1]) / radii[1]) ** 2 < 1
    sketch[0] = torch.where(inside, torch.tensor(colour)[:, None, None] * 2 - 1, sketch[0])


ellipse((0.0, 0.15), (0.7, 0.65), (0.85, 0.15, 0.15))
ellipse((0.05, -0.62), (0.06, 0.28), (0.4, 0.25, 0.1))
ellipse((0.35, -0.7), (0.28, 0.12), (0.3, 0.65, 0.2))
init = artist.to_latents(sketch)
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
begins, ends = [(sketch[0] + 1) / 2], [artist.decode(init)[0].cpu()]
for strength in STRENGTHS:
    later = remaining(artist.times(STEPS, "dpmpp_2m"), strength)
    eps = noise(*init.shape, seed=3).to(init)
    begins.append(artist.decode(artist.schedule.add_noise(init, eps, later[0]))[0].cpu())
    drawn = artist.latents([PROMPT], init=init, strength=strength, steps=STEPS, seed=3)
    ends.append(artist.decode(drawn)[0].cpu())
titles = ["sketch", *[f"{strength:g}" for strength in STRENGTHS]]
grid([begins, ends], names=["begins as", "ends as"], titles=titles, side=0.9)

# %% [markdown]
# (The picture at the bottom left is the sketch, encoded and decoded.) With little strength the network may only touch up; with much it keeps no more than where there was red. At 1 nothing is left but a trace, since the walk begins
# at the last time of the grid. Now another prompt, with a picture that the model has drawn:

# %%
apple = artist.latents([PROMPT], steps=STEPS, seed=0)
row = [artist.decode(apple)[0].cpu()]
for strength in STRENGTHS:
    drawn = artist.latents([OTHER], init=apple, strength=strength, steps=STEPS, seed=3)
    row.append(artist.decode(drawn)[0].cpu())
grid([row], names=["green, from"], titles=["red", *titles[1:]], side=0.9)

# %% [markdown]
# A red apple stays red up to a strength of 0.6. As in lesson 03, colour and large forms are decided first: who wants to change them has to go back to where they were decided. Strength is no dial from "a little like the text" to "much like it". It is a place on the walk.
#
# ## Part 5: inpainting, or keep what is known
#
# Half of a picture is known, the other half is to be drawn. After every step, **put the known half back, as noisy as the rest is by then.** The network sees a latent of which one half is right, and draws what fits
# to it. A line by hand, with four places, of which the mask says that the last two are to be new:

# %%
x, known, eps = (
    torch.tensor([0.3, 0.1, -0.4, 0.9]),
    torch.tensor([1.0, 2.0, 3.0, 4.0]),
    torch.tensor([0.5, -0.5, 1.0, 0.0]),
)
mask, t = torch.tensor([0.0, 0.0, 1.0, 1.0]), 0.25
noised = (1 - t) * known + t * eps
print("known, noised to t:", noised.numpy())
print("put back          :", (mask * x + (1 - mask) * noised).numpy())
four = [value.reshape(1, 1, 1, 4) for value in (known, mask, eps)]
print("library           :", keep(*four, emoji.schedule)(x.reshape(1, 1, 1, 4), torch.tensor(t)).flatten().numpy())

# %% [markdown]
# The noise is the same at all steps: the noise that the walk began with. A picture that is being denoised does not get new noise at each step, it keeps what it has, only less of it; and the new half fits better to one that
# holds still.
#
# Below, the mask is white where something new is to be drawn. It lives on the places of the latent, each of which is a square of pixels.

# %%
held = data.emoji("validation")
names = list(zip([item.name for item in held.items], held.styles, strict=True))
k = names.index(("smiling face with tear", "twemoji"))
known_picture = F.interpolate(held.floats([k]), size=side)
latent = artist.to_latents(known_picture)
mask = torch.zeros(1, 1, *latent.shape[2:])
mask[..., latent.shape[2] // 2 :, :] = 1  # the lower half
WISHES = ("a crying face", "a grinning face", "a teapot", "a face with tongue")
row = [(known_picture[0] + 1) / 2, F.interpolate(mask, size=side)[0].expand(3, -1, -1)]
for wish in WISHES:
    drawn = artist.latents([WORDS.format(wish)], init=latent, mask=mask, strength=1.0, steps=STEPS, seed=1)
    row.append(artist.decode(drawn)[0].cpu())
titles = ["known", "mask", *[wish.removeprefix("a ").replace(" ", "\n", 1) for wish in WISHES]]
grid([row], titles=titles, side=0.95)

# %% [markdown]
# The face was in no training in this style. (Its eyes were not drawn by the network, its mouths were.) Three wishes fit to what is there, and the lines meet at the edge. A teapot cannot fit; something is put there all the same, since
# nothing in the walk asks whether the whole makes sense.
#
# ### Turn it
#
# All of parts 4 and 5 in one: a picture to begin from, a part of it that is to be new, a prompt, and how much of the walk is left.

# %%
WISH = WORDS.format("a crying face")
show(figures.edit(artist, known_picture[0], WISH, strength=0.9, part="lower half", steps=STEPS))

# %% [markdown]
# *Try:* everything new, at all strengths from 0.1 on: where does the old picture go? The middle new, and a prompt that asks for what is there already. A prompt that cannot fit, with ten seeds.
# (For a picture of your own, hand over `{"mine": from_pil(...)[0]}`; `from_pil` is in `minidiff/pipeline/image_to_image.py`, and wants 64x64 pixels for this model.)

# %%
widgets.edit(artist, prompt=WISH, steps=STEPS)

# %% [markdown]
# ### What stays is not quite the same
#
# The known half was encoded and decoded. So it comes back as the VAE has it, not as it was:

# %%
hole = F.interpolate(mask, size=side)[0].bool()
outside = ~hole.expand(3, -1, -1)
drawn = row[-1]
error = (drawn - row[0])[outside].square().mean().sqrt()
print(
    f"PSNR of the whole picture, encoded and decoded: {psnr(artist.vae, known_picture.to(artist.device)).item():.1f} dB"
)
print(f"of the known half of the last picture above:    {-20 * error.log10():.1f} dB")
pasted = torch.where(hole, drawn, row[0])
grid(
    [[drawn, pasted, 3 * (drawn - row[0]).abs() * outside]],
    titles=["as drawn", "known half\npasted", "difference\nx3"],
    side=0.95,
)

# %% [markdown]
# Fine outlines suffer, as in every picture that goes through the VAE; and along the edge the decoder looks at neighbours that are new. Who needs the known pixels exactly pastes them over the result, and then has to look at the seam. (Checkpoints *for inpainting*, whose UNets see the mask and the rest of the picture as more channels, are another matter: minidiff refuses them, by name.)
#
# ## Part 6: what did 860 million parameters do that two million did not?
#
# Nothing of another kind, as you have seen. But look at the numbers beside each other. Of Stable Diffusion 1.5 its model card says how many steps of 2,048 pictures it was trained for (lesson 12); most of these pictures are
# of a list of about 600 million, chosen by a network for being pleasant (LAION-Aesthetics v2, 5+). Beside it is our recipe.

# %%
recipe = RECIPES["emoji"]
trained = {  # parameters, pictures shown, different pictures, numbers of a latent
    "Stable Diffusion 1.5": (859_520_964, (237_000 + 194_000 + 515_000 + 595_000) * 2048, 600e6, 4 * 64 * 64),
    "our emoji": (
        sum(p.numel() for p in emoji.net.unet.parameters()),
        recipe.train.steps * recipe.batch,
        len(data.emoji("train")),
        4 * 16 * 16,
    ),
}
print(f"{'':22}{'parameters':>14}{'pictures shown':>17}{'each of them':>15}{'numbers to learn for a parameter':>36}")
for name, (parameters, shown, different, size) in trained.items():
    print(
        f"{name:22}{parameters:>14,}{shown:>17,}{shown / different:>9,.0f} times{different * size / parameters:>36,.0f}"
    )

# %% [markdown]
# The last column is all the numbers of all latents of the training pictures, over the parameters of the UNet. Ours has nearly room for all of its pictures, and has seen each of them hundreds of times: half of what it draws from training captions is nearest to
# the very picture (lesson 10). The large one would have to keep more than ten thousand numbers in every parameter. **It has no choice but to learn what pictures have in common.** It remembers all the same, where a picture was often in the list: Carlini et
# al. 2023 got some of its training pictures back, nearly pixel by pixel, by their captions.
#
# So what 860 million parameters did is not draw better apples from apples. They had room for what hundreds of millions of captions have in common: horses and astronauts, and how one would sit on the other. Whether a thing that
# you ask for was ever drawn is a question that lesson 10 could answer with a list, and for which nobody has a list here.
#
# ## From the equation to the code
#
# | in words | equation | in code |
# |---|---|---|
# | what a scheduler's config means | $\alpha_k^2 = \prod_{i \le k} (1 - \beta_i)$ | {{schedules._alphas: torch.cumprod(1 - betas}} |
# | one word for what is predicted | $x_0 = (x - \sigma \varepsilon) / \alpha = \alpha x - \sigma v$ | {{scheduler_config.PREDICTED: PREDICTED = {"epsilon": EPS}} |
# | the steps that are left | the last $\lfloor n s \rfloor$ of $n$ | {{image_to_image.remaining: return times[steps - int(steps * strength) :]}} |
# | a walk that begins with a picture | $x = \alpha z + \sigma \varepsilon$ | {{text_to_image.TextToImage._start: start = self.schedule.add_noise(init.expand_as(noise), noise, times[0])}} |
# | what is known is put back | $m\,x + (1 - m)(\alpha z + \sigma \varepsilon)$ | {{image_to_image.keep: return mask * x + (1 - mask)}} |
# | files of others, refused by name | | {{diffusers_folder._known: minidiff draws with Stable Diffusion 1.x and 2.x}} |
#
# ## Exercises
#
# ### Exercise 1 · Start later
#
# *medium, 6 minutes.*
#
# `times`, $(n + 1,)$, are those of a whole walk of $n$ steps, from noise to 0. `strength`, within 0 and 1, is the share of the steps that is left; where $n$ times strength is no whole number, it is cut off. `mean`, $(B, c, h, w)$, is what the encoder says of a picture, as it
# comes: `scaling` has to be multiplied in. `eps` is noise of the same shape. On the schedule of our emoji model, $\alpha = 1 - t$ and $\sigma = t$. Return two things: the times that are left to visit, beginning with the one where you start; and the `x` to start with.
#
# <details><summary>Hint</summary>
#
# Count how many steps are left. They have one time more than that, and they are the last ones. x is the scaled latent, noised to the first of them.
#
# </details>


# %%
def start(times, strength, mean, scaling, eps):
    """{"times": those that are left, (k + 1,), "x": where the walk begins, (B, c, h, w)}."""
    ### BEGIN SOLUTION
    steps = len(times) - 1
    kept = times[steps - int(steps * strength) :]
    t = kept[0]
    return {"times": kept, "x": (1 - t) * scaling * mean + t * eps}
    ### END SOLUTION


# %%
check.l11_start(start)

# %% [markdown]
# ### Exercise 2 · Keep what is known
#
# *medium, 5 minutes.*
#
# A sampler has done `k` steps and has arrived at the latent `x`, $(B, c, h, w)$, at time `t`. `known` is the latent of the picture, clean. `mask`, $(1, 1, h, w)$, is 1 where something new is drawn and 0 where the known picture stays (between them at a soft edge). `noises`, $(n + 1, B, c, h, w)$,
# are all the noises of this walk: the walk began with `noises[0]`, and step number $i$, of a sampler that likes some more, has added `noises[i]`. Again $\alpha = 1 - t$ and $\sigma = t$. Return the latent for the next step.
#
# <details><summary>Hint</summary>
#
# Of the noises one belongs to the known part, at all steps. Which one does a picture have in it that is being denoised?
#
# </details>


# %%
def keep_known(x, known, mask, noises, t, k):
    """The latent with the known part put back, (B, c, h, w)."""
    ### BEGIN SOLUTION
    noised = (1 - t) * known + t * noises[0]
    return mask * x + (1 - mask) * noised
    ### END SOLUTION


# %%
check.l11_keep(keep_known)

# %% [markdown]
# ### Exercise 3 · What the network means
#
# *medium, 7 minutes.*
#
# `x`, $(B, c, h, w)$, is a noisy latent, and `out` what the network has answered. `betas`, $(n,)$, are those of the scheduler; the latent was noised as if by all steps up to and with the one of number `index`, counted from 0. `says_v` is true where the answer is $v$, and false where it is the noise.
# Return the clean latent that the network believes in.
#
# <details><summary>Hint</summary>
#
# Each step leaves $1 - \beta$ of the picture's variance; so what is left after all of them? Its root is alpha. Then one formula for each kind, both of which stand in part 2.
#
# </details>


# %%
def clean(x, out, betas, index, says_v):
    """x0 as the network believes it, (B, c, h, w)."""
    ### BEGIN SOLUTION
    variance = (1 - betas[: index + 1]).prod()
    alpha, sigma = variance.sqrt(), (1 - variance).sqrt()
    if says_v:
        return alpha * x - sigma * out
    return (x - sigma * out) / alpha
    ### END SOLUTION


# %%
check.l11_clean(clean)

# %% [markdown]
# ### Exercise 4 · Does the file fit?
#
# *medium, 7 minutes.*
#
# `needed` and `found` say of each tensor, by its name, which shape it has: `{"conv_in.bias": (320,), ...}`. The first is what a network needs, the second what is in a file, in any order. Text towers were published in two dialects: in one of them every name begins with `text_model.`, which the network does not have. So a
# `text_model.` at the beginning of a found name does not count. Return three numbers: how many tensors are missing; how many were found that nobody needs; and how many have the right name and another shape.
#
# <details><summary>Hint</summary>
#
# First make a dict of what was found, under names without the prefix. The keys of a dict are a set: `needed.keys() - found.keys()`.
#
# </details>


# %%
def report(needed, found):
    """[missing, not needed, of another shape]"""
    ### BEGIN SOLUTION
    found = {name.removeprefix("text_model."): shape for name, shape in found.items()}
    both = needed.keys() & found.keys()
    other = [name for name in both if needed[name] != found[name]]
    return [len(needed.keys() - both), len(found.keys() - both), len(other)]
    ### END SOLUTION


# %%
check.l11_report(report)

# %% [markdown]
# ## Where to go next
#
# Set `CHECKPOINT`, and run it again. (`minidiff sample "..." --model ID` is the same on the command line, with `--init`, `--strength` and `--mask` for parts 4 and 5.) Then read `minidiff/pipeline/text_to_image.py` once more from top to bottom: 250 lines, and no line of it is new to you. Lesson 12 counts what it takes to train what you
# have just loaded.
