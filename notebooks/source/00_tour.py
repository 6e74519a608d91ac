# %% [markdown]
# # 00 · What will I have built at the end?
#
# **A machine that turns noise into pictures, steered by words.** In this tour you use one that is
# finished: a model of handwritten digits, a million numbers trained from nothing on a laptop. The lessons
# after it take the machine apart, and you build each piece yourself, up to the point where the same code
# loads Stable Diffusion.
#
# | | |
# |---|---|
# | You will see | a digit come out of noise, step by step, and what the guidance scale does to it |
# | It costs | about a minute on 2 CPU cores; a GPU is not needed |
# | You need | a working `make demo`, and no mathematics yet |

# %%
from minidiff import TextToImage, image_files
from minidiff.course.lessons import budget, show

pipe = TextToImage.load("mnist")
size = sum(parameter.numel() for parameter in pipe.net.parameters())
print(f"{size:,} parameters, on {pipe.device.type}")

# %% [markdown]
# ## From a prompt to a picture
#
# Ten prompts in, ten pictures out. None of them is looked up anywhere: each began as a square of random
# numbers, and `seed` decides which ones. Change it and run the cell again.

# %%
import torch

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
prompts = [f"a handwritten {digit}" for digit in DIGITS]

pictures = pipe.decode(pipe.latents(prompts, steps=20, seed=0))  # (10, 1, 28, 28), from 0 to 1
show(image_files.sheet(pictures, columns=10, zoom=3))

# %% [markdown]
# **What the words do here.** This model understands no language. It was told one of ten labels during training,
# and a prompt is looked up: "a handwritten seven", "the digit 7" and "7" all come to the label 7. How a network
# learns what words *mean* is the subject of lessons 08 and 09. Everything else you see on this page works
# the same way in Stable Diffusion.

# %%
try:
    pipe(["a cat"])
except ValueError as error:
    print(error)

# %% [markdown]
# ## Watch it happen
#
# Drawing is a walk from time $t = 1$, where there is only noise, to $t = 0$. At every stop the network looks at the
# noisy picture $x_t$ and says which clean picture it believes to be behind it: $\hat{x}_0$. Then the walk moves a
# little way in that direction, and asks again.
#
# Below, the upper row is the noisy picture and the lower row is what the network believes. See
# how it is vague at first, an average of many sevens, and makes up its mind on the way. That is why one
# step is not enough.

# %%
import matplotlib.pyplot as plt


def strip(steps, every, title):
    """The noisy picture and the belief at some of the steps, side by side."""
    chosen = [steps[0], *steps[every - 1 :: every]]
    figure, axes = plt.subplots(2, len(chosen), figsize=(1.1 * len(chosen), 2.7), layout="constrained")
    for column, step in zip(axes.T, chosen, strict=True):
        for axis, latents in zip(column, (step.x, step.x0_hat), strict=True):
            axis.imshow(pipe.decode(latents)[0, 0].cpu(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        column[0].set_title(f"t = {float(step.t):.2f}", fontsize=9)
    axes[0, 0].set_ylabel("noisy\n$x_t$")
    axes[1, 0].set_ylabel("belief\n$\\hat{x}_0$")
    figure.suptitle(title)
    plt.show()


steps = list(pipe.stream(["a handwritten seven"], steps=20, seed=3))
strip(steps, every=4, title="a handwritten seven, in 20 steps")

# %% [markdown]
# The same as an animation, for all ten digits. Each frame is one step of the walk.

# %%
frames = [pipe.decode(step.x) for step in pipe.stream(prompts, steps=12, seed=0)]
show([image_files.sheet(frame, columns=5, zoom=2) for frame in frames])

# %% [markdown]
# ## Turn the guidance scale
#
# At each step the network is asked twice: *what do you see, told that it is a seven?* and *what do you see, told
# nothing?* The difference between the two answers is the direction "more like a seven", and the **guidance scale** $w$
# says how far to go in it:
#
# $$\text{answer} = \text{told nothing} + w \cdot (\text{told seven} - \text{told nothing})$$
#
# With $w = 0$ the prompt is ignored, with $w = 1$ it is followed, above that it is amplified. This is
# *classifier-free guidance*, and lesson 09 builds it. Each column below starts from the same noise in every row.

# %%
scales = [0, 1, 2, 4, 8]
start = torch.randn(10, *steps[0].x.shape[1:], generator=torch.Generator().manual_seed(1))
rows = [pipe.decode(pipe.latents(prompts, steps=20, scale=scale, latents=start)) for scale in scales]

figure, axes = plt.subplots(len(scales), 1, figsize=(6.6, 3.9), layout="constrained")
for axis, scale, row in zip(axes, scales, rows, strict=True):
    axis.imshow(image_files.sheet(row, columns=10, zoom=3), cmap="gray", vmin=0, vmax=255)
    axis.set(xticks=[], yticks=[])
    axis.set_ylabel(f"w = {scale}", rotation=0, ha="right", va="center")
figure.suptitle("the same noise, asked for 0 to 9")
plt.show()

# %% [markdown]
# In the first row the model draws whatever the noise suggests. From $w = 1$ on, the digits are the ones asked
# for. Large scales make them bolder and more alike: guidance buys certainty with variety.
#
# That can be measured. A second network, the *judge*, was trained to read real digits; here it reads ours. (With so few
# pictures these are rough numbers. `minidiff evaluate mnist` takes a thousand, and lesson 04 asks how far to trust
# them.)

# %%
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier

judge = load_classifier("judge", pipe.device)
wanted = torch.arange(10).repeat(budget(full=20, smoke=2))
for scale in (0, 1, 2, 4):
    drawn = pipe.decode(pipe.latents([str(d) for d in wanted.tolist()], steps=20, scale=scale, seed=100))
    _, answers = judged(judge, drawn * 2 - 1)
    drawn = drawn.cpu()
    share = (answers == wanted).double().mean()
    variety = torch.stack([drawn[wanted == d].std(0).mean() for d in range(10)]).mean()
    print(f"w = {scale}:  {share:4.0%} read as the digit asked for,  spread within a digit {variety:.3f}")

# %% [markdown]
# ## What it is made of
#
# The whole machine is four small ideas, and each one is a file you can read in one sitting:
#
# | idea | in words | equation | in code |
# |---|---|---|---|
# | noise schedule | how much picture and how much noise there is at time $t$ | $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ | {{schedules.add_noise: return alpha * x0 + sigma * eps}} |
# | denoiser | what the network says, read as a clean picture | $\hat{x}_0 = (b\, x_t - \sigma_t\, \text{out}) / (b\, \alpha_t - a\, \sigma_t)$ | {{predictions.to_x0: return (b * x - sigma * out) / determinant}} |
# | guidance | ask with and without the prompt, amplify the difference | $\text{out}_\text{nothing} + w\,(\text{out}_\text{seven} - \text{out}_\text{nothing})$ | {{guidance.cfg: * (out_text - out_null)}} |
# | sampler | a walk from $t = 1$ to $t = 0$ that asks at every stop | $x \leftarrow x + d\alpha\, \hat{x}_0 + d\sigma\, \hat\varepsilon$ | {{samplers.euler}} |
#
# Without the helpers, the picture of a seven is these lines. You will have written the loop yourself by the end of
# lesson 03, and the guidance by the end of lesson 09:

# %%
from minidiff.diffusion import FLOW, cfg, flow, heun, uniform

schedule = flow()
seven, nothing = pipe.encode(["7"]), pipe.encode_negative(None, 1)
denoise = cfg(pipe.net.unet, schedule, FLOW, seven, nothing, scale=2.0)

x = torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(3)).to(pipe.device)
for step in heun(denoise, x, uniform(20, schedule), schedule):
    x = step.x

show(image_files.sheet(pipe.decode(x), columns=1))

# %% [markdown]
# ## Where the course goes
#
# | | lesson | question |
# |---|---|---|
# | 01 | corruption | how does noise eat a picture, and what is left at time t? |
# | 02 | denoising | can a network see through noise, and why does one step not do? |
# | 03 | sampling | how do I walk back, and how few steps will do? |
# | 04 | judging | how do I know that a generated picture is good? |
# | 05 | unet | what is in the network, and what breaks when I take it out? |
# | 06 | colour | what changes on CIFAR-10, and how long does it really take? |
# | 07 | classifier guidance | how does a classifier steer noise toward a class? |
# | 08 | clip | how do words and pictures come to live in one space? |
# | 09 | text to image | how does a prompt draw a picture nobody has seen? |
# | 10 | latents | why diffuse in a compressed space? |
# | 11 | stable diffusion | does my code really run Stable Diffusion? |
# | 12 | scaling up | what would it take on one GPU, on eight, on the internet? |
#
# ## Exercises
#
# No code to write yet: change a number in the cells above, look, and say why. From lesson 01 on you write code, and checks read it.
#
# ### Exercise 1 · As few as possible
# *easy, 3 minutes.* How few steps still give a readable seven? Change `steps` in the walk above.
#
# <details><summary>Answer</summary>
# Two or three, most of the time: these digits are small and simple. One step gives an average of sevens. Lesson 02 says why, and lesson 03
# measures it.
# </details>
#
# ### Exercise 2 · Away from the prompt
# *medium, 5 minutes.* What does `scale=-1` draw for the prompt "7", and why?
#
# <details><summary>Answer</summary>
# The difference is now subtracted, so that the walk moves away from what a seven has and other digits lack. It ends at something that is
# anything but a seven.
# </details>
#
# ### Exercise 3 · A negative prompt
# *hard, 5 minutes.* What does `pipe(["7"], negative="1")` do to a seven? Look at the equation: what takes the place of *told nothing*?
#
# <details><summary>Answer</summary>
# The answer for a one. The difference between a seven and a one is amplified, and what the two have in common is not.
# </details>
#
# ## Where to go next
#
# [Lesson 01](01_corruption.ipynb) starts at the beginning, with one pixel and a little noise. The README says which of the later lessons are written.
