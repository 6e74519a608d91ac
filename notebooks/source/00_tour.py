# %% [markdown]
# # 00 · What will I have built at the end?
#
# By the end of this course you will have built a program that turns random noise into images and does what a prompt says. In this tour you use a finished one: a
# model of handwritten digits with a million parameters, trained from scratch on two CPU cores. The lessons after it take the program apart, and you build
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
    caption="Ten prompts, ten images. None of them was copied from anywhere: each began as noise.",
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
start = torch.randn(10, *pipe.latent_shape(), generator=torch.Generator().manual_seed(0))  # noise for ten images
frames = [start, *(step.x for step in pipe.stream(prompts, steps=20, latents=start))]
show(
    [image_files.sheet(pipe.decode(x), columns=5, zoom=3) for x in frames],
    alt="Animation: ten squares of noise turn into the digits zero to nine.",
    caption="Twenty steps from noise to digits. When can you first tell which digit it will be?",
)

# %% [markdown]
# Time $t$ runs backwards here, from 1, where there is only noise, to 0. At each step the network is given the noisy image $x_t$ and the time. The **denoised
# estimate** $\hat{x}_0$ is the network's best guess at the clean image behind a noisy one. Then the noisy image is moved a little way towards this estimate, and the next step begins.
# Going from noise to an image step by step is called **sampling**.
#
# Before you run it: at $t = 1$ the network's input is nothing but noise, and its prompt is "seven". What will its first estimate look like?

# %%
STEPS = 20
noise = torch.randn(1, *pipe.latent_shape(), generator=torch.Generator().manual_seed(3))
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
# A blurred seven. Pure noise says nothing about which seven it is going to be, so the best guess is a kind of average of all sevens. As the noise goes down, the image itself
# says more and more, and the estimate becomes sharp. That is why one step is not enough: lesson 02 is about this blur.
# </details>
#
# ### Exercise 1 · As few as possible
#
# There is no code to write in this lesson: change a number, look, and explain what you see. From lesson 01 on you write code, and checks read it.
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
# One number says how strongly a prompt is followed: the guidance scale $w$.
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
# At w = 0 the model draws whichever digit the noise suggests. From w = 1 on, the digits are those of the prompts. At large scales strokes become bolder and shapes more uniform.
# </details>
#
# What does the number do? At each step the network makes two predictions: a conditional one, with the prompt, and an unconditional one, without it. Their difference points towards "more like
# a seven". The **guidance scale** $w$ says how far to go in the direction from the unconditional to the conditional prediction.
#
# $$\text{prediction} = \text{unconditional} + w \cdot (\text{conditional} - \text{unconditional})$$
#
# So the prompt is ignored at $w = 0$, followed at $w = 1$, and amplified beyond. To amplify
# the difference between the predictions with and without the prompt is called **classifier-free guidance** ([Ho & Salimans 2022](https://arxiv.org/abs/2207.12598)). You build it in lesson 09.
#
# Guidance trades diversity for accuracy, and both can be measured. An **evaluation classifier** is a second network, trained to recognise real images, that reads the
# generated ones and says how many of them show what the prompt asked for. For diversity, take the standard deviation between images of the same digit.

# %%
classifier = load_classifier("judge", pipe.device)
wanted = torch.arange(10).repeat(budget(full=10, smoke=2))
for scale in (0, 1, 2, 4):
    images = pipe.decode(pipe.latents([str(d) for d in wanted.tolist()], steps=20, scale=scale, seed=100))
    _, answers = judged(classifier, images * 2 - 1)
    correct = (answers == wanted).double().mean()
    diversity = torch.stack([images.cpu()[wanted == d].std(0).mean() for d in range(10)]).mean()
    print(f"w = {scale}:  {correct:4.0%} read as the digit of the prompt,  diversity within a digit {diversity:.3f}")

# %% [markdown]
# With so few images these are rough numbers. `minidiff evaluate mnist` takes a thousand, and lesson 04 is about how far to trust them.
#
# ### Exercise 2 · Away from the prompt
#
# *medium, 5 minutes.* What do you get with `scale=-1` for the prompt "7", and why?
#
# <details><summary>Answer</summary>
# Everything but sevens. Now the difference is subtracted, so each step moves away from what sevens have and other digits lack. The images are still good digits, since the
# unconditional prediction keeps them so.
# </details>
#
# ### Exercise 3 · A negative prompt
#
# *hard, 5 minutes.* What does `negative="1"` do to the sevens of `pipe.latents(["7"] * 10, scale=2.0, negative="1")`? In the equation above, the prediction for the negative prompt takes the
# place of one term. Which one?
#
# <details><summary>Answer</summary>
# That of the unconditional prediction. Now the difference between a seven and a <i>one</i> is amplified. What the two have in common, the long stroke, is left alone; what only the seven has, the bar at the
# top, is emphasised. They are still sevens, so the effect is small: compare the bars of the same seeds with and without the negative prompt.
# </details>
#
# ## The whole of it in a dozen lines
#
# Is something more complicated hidden in `pipe`? No. Here is sampling with nothing but the network and arithmetic. Two details first. This network predicts a
# velocity: noise minus image, the direction of the straight line from one to the other. A step follows that line a little way back. And the network works on images folded to 4×14×14, in which each
# square of 2×2 pixels has become four channels of a single position. These are the same 784 numbers, but a quarter of the positions means a quarter of the work.

# %%
seven, nothing = pipe.encode(["a handwritten seven"]), pipe.encode_negative(None, 1)
w = 2.0
x = noise.to(pipe.device)  # (1, 4, 14, 14)
with torch.no_grad():
    for t, later in pairwise(torch.linspace(1, 0, 21).to(pipe.device)):
        conditional = pipe.net.unet(x, 1000 * t[None], seven)
        unconditional = pipe.net.unet(x, 1000 * t[None], nothing)
        velocity = unconditional + w * (conditional - unconditional)
        x = x + (later - t) * velocity
image = (F.pixel_shuffle(x, 2) / 2 + 0.5).clamp(0, 1)  # unfolded, and from [-1, 1] to [0, 1]

library = pipe.decode(pipe.latents(["a handwritten seven"], steps=20, scale=w, sampler="euler", latents=noise))
print(f"largest difference from minidiff's own: {(image - library).abs().max():.0e}")
show(
    image_files.sheet(image, columns=1, zoom=6),
    alt="A generated handwritten seven.",
    caption="Sampled without the library: you have just read the whole algorithm.",
)

# %% [markdown]
# You will have written the loop yourself by the end of lesson 03, and guidance by the end of lesson 09. The method as a diagram:
#
# ![Noise is added along the top and removed along the bottom; in between, the network predicts with and without text](../assets/images/method.png)
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
# A model is a name. The next one has learned English, of a kind: a vocabulary of digits, colours and places. Its training images never showed a green seven.

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
    caption="One image for each prompt; none of these images existed before.",
)

# %% [markdown]
# The model combines words in ways that its training images never did. How that works, and how often it fails, is the question of lesson 09. Lesson 10 moves on to larger images, lesson
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
# The five lessons with a bold number are a course of their own, one class meeting each: add noise, learn to remove it, sample, look inside the network, and steer it with text. The
# others add depth and can be taken in any meeting left over. Before lesson 09, read the first sections of lesson 08, where text becomes vectors. Within the lessons, a section under the line
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
