# %% [markdown]
# # 00 · What will I have built at the end?
#
# By the end of this course you will have built a program that turns random noise into images that match a prompt. In this tour you use a finished one: a model with a
# million parameters that generates handwritten digits, trained from scratch on two CPU cores. The lessons after it take the program apart, and you build
# each part yourself, until the same code opens a Stable Diffusion checkpoint.
#
# | | |
# |---|---|
# | After this lesson you can | generate images from prompts and watch them emerge from noise; predict what the guidance scale does to them; recognise the whole of sampling in a dozen lines of code |
# | Study time | {{study time}} |
# | Compute time | about a minute on 2 CPU cores (a GPU is not needed) |
# | You need | minidiff installed (`make demo` has worked) and a little Python; the few symbols are explained where they appear |
#
# New terms are in bold where they are explained; all of them are in the [glossary](GLOSSARY.md).

# %%
from itertools import pairwise

import torch
import torch.nn.functional as F

from minidiff import TextToImage, image_files
from minidiff.course.figures.page import Page
from minidiff.course.lessons import budget, grid, show, style
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier

style()
pipe = TextToImage.load("mnist")
size = sum(parameter.numel() for parameter in pipe.net.parameters())
print(f"{size:,} parameters, on {pipe.device.type}")

# %% [markdown]
# ## From a prompt to an image

# %%
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
prompts = [f"a handwritten {digit}" for digit in DIGITS]

images = pipe.decode(pipe.latents(prompts, steps=20, seed=0))  # (10, 1, 28, 28), from 0 to 1
grid(
    [images],
    titles=DIGITS,
    alt="Ten generated handwritten digits, zero to nine.",
    caption="Ten prompts, ten images, each made from random noise. Whether a model copies its training images is measured in lesson 04b.",
)

# %% [markdown]
# A **diffusion model** generates an image by starting from random noise and removing the noise step by step. The **seed** is the number that decides which random
# noise an image starts from, so that the same prompt with the same seed gives the same image again. Change it and run the cell once more.
#
# This model knows no language. In training it was given one of ten labels with each image, and a prompt is merely looked up: "a handwritten seven", "the digit
# 7" and "7" all become the label 7. How a network learns what words mean is the subject of lessons 08 and 09. Everything else on this page works in the same way in Stable
# Diffusion.

# %%
try:
    pipe(["a cat"])
except ValueError as error:
    print(error)

# %% [markdown]
# ## Watch it happen


# %%
# folded: one frame of the animation, ten images at time t
def frame(x, t):
    with Page(466, 256, palette=False) as page:
        page.text(8, 8, f"t = {t:.2f}", fontsize=12)
        for k, image in enumerate(pipe.decode(x)):
            page.picture(image, 8 + 92 * (k % 5), 52 + 104 * (k // 5), 84, title=DIGITS[k])
        return page.image().convert("L")


# %%
start = torch.randn(10, *pipe.latent_shape(), generator=torch.Generator().manual_seed(0))  # noise for ten images
moments = [start, *(step.x for step in pipe.stream(prompts, steps=20, latents=start))]
show(
    [frame(x, 1 - k / 20) for k, x in enumerate(moments)],
    alt="Animation: ten squares of noise turn into the digits zero to nine while t falls from 1 to 0.",
    caption="Twenty steps from noise to digits. At which t can you first tell what a digit will be?",
)

# %% [markdown]
# <details><summary>Answer</summary>
# Some of them at about t = 0.65, nearly all by t = 0.5. It helps that you know the prompts.
# </details>
#
# Time $t$ runs backwards here, from 1, where there is only noise, to 0. At each step the network is given the noisy image $x_t$ and the time. The **denoised
# estimate** $\hat{x}_0$ is the network's best guess at the clean image behind a noisy one. Then the noisy image is moved a little way towards this estimate, and the next step begins.
# Going from noise to an image step by step is called **sampling**.
#
# Before you run it: at $t = 1$ the network's input is nothing but noise, and its prompt is "seven". What will its first estimate look like?

# %%
STEPS = 20
noise = torch.randn(1, *pipe.latent_shape(), generator=torch.Generator().manual_seed(3))
# scale=1.0: follow the prompt, without amplifying it (next section)
steps = list(pipe.stream(["a handwritten seven"], steps=STEPS, scale=1.0, latents=noise))
noisy = [noise, *(step.x for step in steps)]  # before the first step, and after each
chosen = [0, 4, 8, 12, 16, STEPS - 1]
grid(
    [[pipe.decode(noisy[k])[0] for k in chosen], [pipe.decode(steps[k].x0_hat)[0] for k in chosen]],
    ["noisy image $x_t$", "estimate $\\hat{x}_0$"],
    [f"t = {1 - k / STEPS:.2f}" for k in chosen],
    alt="Above, a noisy image at six times from pure noise to a nearly clean seven; below, the network's estimate "
    "for each, at first blurred, then sharp.",
    caption="Below each noisy image is the estimate that the network makes from it. The last estimate is the "
    "finished image.",
)

# %% [markdown]
# <details><summary>Answer</summary>
# A blurred seven. In training, every seven was at some time buried in noise like this, so the noise does not tell the network which one to expect, and its best guess is a
# kind of average of all sevens. As the noise goes down, the image itself says more and more, and the estimate becomes sharp. That is why one step is not enough: lesson 02 is about this blur.
# </details>
#
# ### Exercise 1 · As few as possible
#
# There is no code to write in this lesson: run it, look, and explain what you see. From lesson 01 on you write code, and checks read it.
#
# *easy, 3 minutes.* Generate forty sevens with `images = pipe.decode(pipe.latents(["7"] * 40, steps=1))` and look at them with `grid(images.split(10))`. How few steps give
# readable sevens? How few give forty *different* ones?
#
# <details><summary>Answer</summary>
# One step is enough to be readable: the classifier that you meet below reads all forty as sevens. But they look nearly alike, since each is close to the average seven. By twenty steps
# the standard deviation between them has almost tripled. More steps buy diversity and sharpness; lesson 03 measures how many are enough.
# </details>
#
# ## Turn up the guidance scale
#
# One number says how strongly a prompt is followed: the guidance scale $w$. Where you do not choose it, `pipe` takes 1.5.
#
# Before you run it: each column starts from the same noise in every row. What will the row $w = 0$ show? And what will change from $w = 1$ to $w = 8$?

# %%
scales = [0, 1, 2, 4, 8]
start = torch.randn(10, *pipe.latent_shape(), generator=torch.Generator().manual_seed(1))
grid(
    [pipe.decode(pipe.latents(prompts, steps=20, scale=scale, latents=start)) for scale in scales],
    [f"w = {scale}" for scale in scales],
    DIGITS,
    alt="Ten columns with the prompts zero to nine, five rows with guidance scales 0 to 8. In the top row the "
    "digits do not match the prompts; from scale 1 on they do, and get bolder.",
    caption="Each column has one prompt and one noise. Follow a column from top to bottom.",
)

# %% [markdown]
# <details><summary>Answer</summary>
# At w = 0 the model draws whichever digit the noise suggests. From w = 1 on, nearly all digits are those of the prompts (look at the two and the five at w = 1). As w grows,
# strokes become bolder and stray marks disappear.
# </details>
#
# What does the number do? At each step the network makes two predictions: a conditional one, with the prompt, and an unconditional one, without it. Their difference points towards "more like
# a seven". The **guidance scale** $w$ says how far to go in the direction from the unconditional to the conditional prediction.
#
# $$\text{prediction} = \text{unconditional} + w \cdot (\text{conditional} - \text{unconditional})$$
#
# So the prompt is ignored at $w = 0$, followed at $w = 1$, and amplified beyond. Amplifying
# the difference between the predictions with and without the prompt is called **classifier-free guidance** ([Ho & Salimans 2022](https://arxiv.org/abs/2207.12598)). You build it in lesson 09.
#
# Guidance trades diversity for accuracy, and both can be measured. An **evaluation classifier** is a second network, trained to recognise real images, that reads the
# generated ones and says how many of them show what the prompt asked for. For diversity, take the standard deviation of each pixel over the images of one prompt, averaged over pixels and prompts.

# %%
classifier = load_classifier("judge", pipe.device)
wanted = torch.arange(10).repeat(budget(full=10, smoke=2))
for scale in (0, 1, 2, 4):
    images = pipe.decode(pipe.latents([str(d) for d in wanted.tolist()], steps=20, scale=scale, seed=100))
    _, answers = judged(classifier, images * 2 - 1)
    correct = (answers == wanted).double().mean()
    diversity = torch.stack([images.cpu()[wanted == d].std(0).mean() for d in range(10)]).mean()
    print(f"w = {scale}:  {correct:4.0%} read as the digit of the prompt,  diversity for one prompt {diversity:.3f}")

# %% [markdown]
# At $w = 0$ the images for one prompt show different digits, so the first value is not a diversity within one digit. With so few images all of these are rough. `minidiff evaluate mnist` takes a thousand, and lesson 04 is about how far to trust them.
#
# ### Exercise 2 · Away from the prompt
#
# *medium, 5 minutes.* Here are ten images for the prompt "7" with `scale=-1`. What do they have in common, and why?

# %%
grid(
    [pipe.decode(pipe.latents(["7"] * 10, scale=-1))],
    alt="Ten generated digits, none of which is a clear seven.",
    caption="The prompt of all ten was 7.",
)

# %% [markdown]
# <details><summary>Answer</summary>
# They are anything but sevens. Now the difference is subtracted, so each step moves away from what sevens have and other digits lack. The unconditional prediction still keeps the
# images near digits.
# </details>
#
# ### Exercise 3 · A negative prompt
#
# *hard, 5 minutes.* What does `negative="1"` do to sevens? In the equation above, the prediction for the negative prompt takes the place of one term. Which one?

# %%
grid(
    [pipe.decode(pipe.latents(["7"] * 10, scale=2.0, negative=negative)) for negative in (None, "1")],
    ["no negative prompt", 'negative="1"'],
    alt="Two rows of ten generated sevens from the same noise, without and with a negative prompt.",
    caption="Each column starts from the same noise. Compare the bars at the top.",
)

# %% [markdown]
# <details><summary>Answer</summary>
# That of the unconditional prediction. Now the difference between a seven and a <i>one</i> is amplified: not the long stroke that they share, but the bar at the
# top. They are still sevens, so the effect is small.
# </details>
#
# ## The whole of it in a dozen lines
#
# Is something more complicated hidden in `pipe`? Not much. Its default sampler is a refinement of the loop below (lesson 03); with `sampler="euler"` and the same guidance scale it gives the
# same image. Two details first. This network predicts a
# velocity: noise minus image, the direction of the straight line from one to the other. A step follows that line a little way back. And the network works on images folded to 4×14×14, in which each
# square of 2×2 pixels has become four channels of a single position. These are the same 784 numbers, but a quarter of the positions means a quarter of the work.

# %%
seven, nothing = pipe.encode(["a handwritten seven"]), pipe.encode_negative(None, 1)
w = 2.0
x = noise.to(pipe.device)  # (1, 4, 14, 14)
with torch.no_grad():
    for t, later in pairwise(torch.linspace(1, 0, 21).to(pipe.device)):
        conditional = pipe.net.unet(x, 1000 * t[None], seven)  # this network reads the time in thousandths
        unconditional = pipe.net.unet(x, 1000 * t[None], nothing)
        velocity = unconditional + w * (conditional - unconditional)
        x = x + (later - t) * velocity
image = (F.pixel_shuffle(x, 2) / 2 + 0.5).clamp(0, 1)  # unfolded, and from [-1, 1] to [0, 1]

library = pipe.decode(pipe.latents(["a handwritten seven"], steps=20, scale=w, sampler="euler", latents=noise))
print(f"largest difference from minidiff's own: {(image - library).abs().max():.0e}")
show(
    image_files.sheet(image, columns=1, zoom=6),
    alt="A generated handwritten seven.",
    caption="Sampled with a plain loop around the network. The starting noise is that of the seven above.",
)

# %% [markdown]
# You will have written the loop yourself by the end of lesson 03, and guidance by the end of lesson 09. The method as a diagram:
#
# ![Noise is added along the top and removed along the bottom; in between, the network predicts with and without the prompt](../assets/images/method.png)
#
# Each part is a file that you can read in one sitting:
#
# | part | what it does | lesson | in code |
# |---|---|---|---|
# | noise schedule | says how much image and how much noise there is at time $t$ | 01 | {{schedules.add_noise}} |
# | denoiser | turns the network's output into the denoised estimate $\hat{x}_0$ | 02 | {{predictions.to_x0}} |
# | sampler | takes the steps from $t = 1$ to $t = 0$ | 03 | {{samplers.euler}} |
# | UNet | is the network: noisy image, time and prompt in, prediction out | 05 | {{unet.UNet}} |
# | guidance | amplifies the difference that the prompt makes | 09 | {{guidance.cfg}} |
#
# ## The same code, other weights
#
# To use another model, load it by another name. The next one understands a little English: words for digits, colours and positions.

# %%
model = "color_digits"
sentences = [
    "a red seven on a blue background",
    "a green seven on a white background",
    "a yellow three on a purple background",
]
other = TextToImage.load(model)
images = other.decode(other.latents(sentences, steps=20, seed=0))
grid(
    [images],
    titles=[prompt.replace(" on ", "\non ") for prompt in sentences],
    side=1.92,
    alt="Three images generated from sentences: a red seven on blue, a green seven on white, a yellow three on purple.",
    caption="One image for each prompt. Only the green seven is certain to be a new combination: it was left out of the training images.",
)

# %% [markdown]
# How a model combines words in a new way, and how often it fails, is the question of lesson 09. Lesson 10 moves on to larger images, lesson
# 11 to Stable Diffusion.
#
# ## Where the course goes
#
# | | lesson | what you build or measure | class meeting |
# |---|---|---|---|
# | **01** | [Corruption](01_corruption.ipynb) | noise, added in one jump; noise schedules | first |
# | **02** | [Denoising](02_denoising.ipynb) | denoisers of points and of digits, and the loop that trains them | second |
# | **03** | [Sampling](03_sampling.ipynb) | samplers, and how few steps are enough | third |
# | 04 | [Judging](04_judging.ipynb) | metrics, and ways to fool them | |
# | **05** | [UNet](05_unet.ipynb) | the network, block by block, and what breaks without each | fourth |
# | 06 | [Colour](06_colour.ipynb) | photographs, and what a full training run costs | |
# | 07 | [Classifier guidance](07_classifier_guidance.ipynb) | steering by the gradient of a classifier | |
# | 08 | [CLIP](08_clip.ipynb) | words and images in one space | |
# | **09** | [Text to image](09_text_to_image.ipynb) | prompts, classifier-free guidance, attention maps | fifth |
# | 10 | [Latents](10_latents.ipynb) | an autoencoder, and diffusion in its latents | |
# | 11 | [Stable Diffusion](11_stable_diffusion.ipynb) | a checkpoint opened with your code; image to image, inpainting | |
# | 12 | [Scaling up](12_scaling_up.ipynb) | hours and dollars, from a network and a data set | |
#
# The five lessons with a bold number make a short course of their own, with one class meeting for each: add noise, learn to remove it, sample, look inside the network, and steer it with text. The
# others add depth and fit into any spare meeting. Before lesson 09, read the section *Two towers* of lesson 08, where text becomes vectors. Within the lessons, a section under the line
# "May be skipped at first reading" can wait.
#
# ## What you can do now
#
# You can generate images, watch them emerge, and turn the one knob that matters most. You have also seen the whole algorithm, but as a spectator: why the loop works, and how the network
# came to know what a seven looks like, is still open. [Lesson 01](01_corruption.ipynb) starts at the beginning, with three pixels and a little noise.
#
# ## Further reading
#
# - [Ho et al. 2020, *Denoising Diffusion Probabilistic Models*](https://arxiv.org/abs/2006.11239): the paper that made diffusion models popular.
# - [Ho & Salimans 2022, *Classifier-Free Diffusion Guidance*](https://arxiv.org/abs/2207.12598): the guidance scale.
# - [Lipman et al. 2022, *Flow Matching for Generative Modeling*](https://arxiv.org/abs/2210.02747): networks that predict a velocity, as the one in this tour does.
# - [Rombach et al. 2022, *High-Resolution Image Synthesis with Latent Diffusion Models*](https://arxiv.org/abs/2112.10752): Stable Diffusion, where lesson 11 arrives.
# - [Weng 2021, *What are Diffusion Models?*](https://lilianweng.github.io/posts/2021-07-11-diffusion-models/): a survey in one long page, with the derivations.
