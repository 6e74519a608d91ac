"""Figures of the mathematics: the forward process, schedules, the denoised estimate, samplers."""

from functools import partial
from textwrap import fill

import torch
from PIL import Image
from torch import Generator, Tensor

from minidiff.course.figures.estimates import estimate, noise_of, noised
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, ORANGE, WIDTH, Page, few, fitted, look, readable
from minidiff.data import CLOUDS, DATASETS, points
from minidiff.diffusion import DEFAULT_SAMPLER, IN_DIFFUSERS, SAMPLERS, SCHEDULES, Schedule, flow, ideal, score, uniform
from minidiff.files import asset, read_tensors
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import check_between, choose, register

COLUMNS = 5  # names, and noisy pictures, side by side in `schedules`


@register(FIGURES)
def corruption(picture: Tensor, schedule: str, t: float, seed: int = 0) -> Image.Image:
    """An image (C, H, W) in [-1, 1] at time t, the coefficients that made it so, and the histogram of its pixel values."""
    check_between("t", t, 0, 1)
    path = choose(schedule, SCHEDULES, "schedule")()
    shown, rescaled = _noised(picture, path, t, seed)
    (alpha, sigma), ratio = path.at(t, picture.double()), path.snr(t)
    name = r"$x_t\,/\,\sqrt{\alpha^2 + \sigma^2}$" if rescaled else "$x_t$"
    with Page(WIDTH, 300) as page:
        page.picture((shown + 1) / 2, 20, 40, 224, title=f"{name} at t = {t:.2f}")
        page.text(264, 40, fitted(schedule, 125), fontsize=13, weight="bold")
        rows = [("t", t), (r"$\alpha_t$", alpha), (r"$\sigma_t$", sigma), ("SNR", ratio), ("ln SNR", ratio.log())]
        for row, (symbol, value) in enumerate(rows):
            page.text(264, 76 + 28 * row, symbol, fontsize=11)
            page.text(334, 76 + 28 * row, few(float(value)), fontsize=11, family="monospace")
        if rescaled:
            page.text(264, 226, "rescaled like the\ninput of a network", fontsize=9, color=GRAY)
        axes = page.axes(464, 40, 280, 200, xlabel=f"value of a pixel of {name}", ylabel="density", xlim=(-4, 4))
        bars = {"bins": 40, "range": (-4, 4), "density": True, "alpha": 0.6, "label": "pixels"}
        axes.hist(shown.flatten().numpy(), **bars, color=look(schedule, SCHEDULES)["color"])
        x = torch.linspace(-4, 4, 161)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).exp()
        axes.plot(x, normal, color="black", lw=1.5, label="standard normal")
        axes.set_ylim(0, max(0.6, 1.15 * axes.get_ylim()[1]))
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9)  # above: no bar can hide it
        return page.image()


@register(FIGURES)
def schedules(names: list[str], t: float, picture: Tensor | None = None, seed: int = 0) -> Image.Image:
    """Schedules compared: alpha, sigma, ln SNR, marks at time t; picture: (C, H, W) in [-1, 1], at t under each of them."""
    check_between("t", t, 0, 1)
    for name in names:
        choose(name, SCHEDULES, "schedule")
    paths = {name: make() for name, make in SCHEDULES.items() if name in names}
    looks = {name: look(name, SCHEDULES) for name in paths}
    times, now = torch.linspace(0, 1, 201).double(), torch.tensor([t], dtype=torch.float64)

    def curves(path: Schedule, t: Tensor) -> tuple[Tensor, ...]:
        return path.alpha(t), path.sigma(t), path.snr(t).log()

    rows = 0 if picture is None else max(1, -(-len(paths) // COLUMNS))
    down = 18 * max(0, -(-len(paths) // COLUMNS) - 1)  # by how much a legend of several lines moves the rest
    with Page(WIDTH, 300 + down + 156 * rows) as page:
        panels = [
            page.axes(left, 56 + down, 190, 188, xlim=(0, 1), xticks=(0, 0.5, 1), ylim=ylim, xlabel="t", title=title)
            for left, ylim, title in (
                (48, (0, 1.2), r"image left, $\alpha_t$"),
                (298, (0, 1.2), r"noise, $\sigma_t$"),
                (554, (-15, 15), r"$\ln$ SNR"),
            )
        ]
        for name, path in paths.items():
            for axes, line, mark in zip(panels, curves(path, times[1:]), curves(path, now), strict=True):
                axes.plot(times[1:], line, label=fitted(name, 100), **looks[name], lw=1.8)
                axes.plot([t], mark, "o", color=looks[name]["color"], ms=6)
        beyond = [name for name, path in paths.items() if max(path.alpha(times).max(), path.sigma(times).max()) > 1.2]
        if beyond:
            panels[1].text(0.98, 1.1, fitted("out of range: " + ", ".join(beyond), 176), fontsize=9, ha="right")
        for axes in panels:
            axes.axvline(t, color=GRAY, lw=1, zorder=0)
        if paths:
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, 1)}
            page.figure.legend(*panels[0].get_legend_handles_labels(), ncols=COLUMNS, fontsize=9, **place)
        if picture is not None:
            page.text(16, 290 + down, f"the same image and noise at t = {t:.2f}")
            for k, (name, path) in enumerate(paths.items()):
                shown, rescaled = _noised(picture, path, t, seed)
                words = f"ln SNR {few(float(path.snr(t).log()))}", fitted(name + " (rescaled)" * rescaled, 136)
                left, top = 48 + 148 * (k % COLUMNS), 338 + down + 156 * (k // COLUMNS)
                page.picture((shown + 1) / 2, left, top, 88, *words, frame=looks[name]["color"])
        return page.image()


@register(FIGURES)
def one_step(
    pipe: TextToImage, picture: Tensor, times: list[float], prompt: str | None = None, seed: int = 0
) -> Image.Image:
    """The denoised estimate of an image (C, H, W) in [-1, 1] in one forward pass: for each t, x_t above, x0_hat below.

    times: up to seven; for a single one, the error at all times is plotted too. prompt: None for unconditional.
    """
    check_between("the number of times", len(times), 1, 7)

    def estimated(at: list[float]) -> tuple[Tensor, Tensor, Tensor]:
        clean, x = noised(pipe, picture, at, seed)
        x0_hat = estimate(pipe, x, at, prompt)
        return x, x0_hat, (x0_hat - clean).square().mean((1, 2, 3)).sqrt().cpu()

    noisy, estimates, errors = estimated(times)
    size = min(150, (WIDTH - 80) // (len(times) + 1) - 10)
    with Page(WIDTH, 2 * size + 92) as page:
        page.picture((picture + 1) / 2, 20, 34, size, title="$x_0$")
        words = "unconditional" if prompt is None else "prompt: " + readable(prompt, 4 * size)
        page.text(20, size + 60, fill(words, (size + 8) // 6), fontsize=9)
        for column, (above, under) in enumerate(zip(pipe.decode(noisy), pipe.decode(estimates), strict=True)):
            left = 56 + (column + 1) * (size + 10)
            first = page.picture(above, left, 34, size, title=f"t = {times[column]:.2f}")
            first.set_ylabel("noisy, $x_t$" * (column == 0))
            second = page.picture(under, left, size + 50, size, below=f"error {errors[column]:.2f}")
            second.set_ylabel(r"estimate, $\hat{x}_0$" * (column == 0))
        if len(times) == 1:  # the space beside it shows how the error grows with t
            every = [k / 20 for k in range(21)]
            words = r"error: root mean square of $\hat{x}_0 - x_0$"
            axes = page.axes(446, 34, 296, 2 * size + 16, xlim=(0, 1), ylim=(0, 1), xlabel="t", title=words)
            axes.plot(every, estimated(every)[2], color=BLUE)
            axes.plot(times, errors, "o", color=ORANGE, ms=8)
        return page.image()


@register(FIGURES)
def sampler(pipe: TextToImage, prompt: str, sampler: str, steps: int, seed: int, scale: float) -> Image.Image:
    """A sampling trajectory: at most eight of its denoised estimates, the result, and the `reference`.

    That is where all deterministic samplers end. It exists for the shipped weights, seeds 0 to 4 and four scales.
    """
    taken = list(pipe.stream([prompt], steps=steps, scale=scale, sampler=sampler, seed=seed))
    times = pipe.times(steps, sampler).tolist()  # at which each estimate was made
    chosen = torch.linspace(0, steps - 1, min(steps, 8)).round().long().tolist()
    estimates = pipe.decode(torch.cat([taken[k].x0_hat for k in chosen]))
    result, end = pipe.decode(taken[-1].x)[0], reference(pipe, prompt, seed, scale)
    with Page(WIDTH, 276) as page:
        page.text(12, 8, r"$\hat{x}_0$, the denoised estimate at time t")
        for k, (step, each) in enumerate(zip(chosen, estimates, strict=True)):
            page.picture(each, 12 + 90 * (k % 4), 54 + 108 * (k // 4), 80, title=f"t = {times[step]:.2f}")
        page.picture(result, 392, 54, 170, title=f"{fitted(sampler, 95)}, {steps} step{'s' * (steps > 1)}")
        if end is None:
            page.text(584, 110, "no reference\nfor this model,\nseed or scale", color=GRAY)
        else:
            page.picture(end, 580, 54, 170, title=f"{fitted(DEFAULT_SAMPLER, 85)}, 1000 steps")
            words = f"root mean square difference {(result.cpu() - end).square().mean().sqrt():.3f}"
            if getattr(IN_DIFFUSERS.get(sampler), "draws_noise", False):
                words = f"{fitted(sampler, 90)} adds fresh noise at every step,\nand so ends elsewhere"
            page.text(392, 234, words, color=BLUE)
        return page.image()


def reference(pipe: TextToImage, prompt: str, seed: int, scale: float) -> Tensor | None:
    """Where 1000 steps of the default sampler end, (1, 28, 28) in [0, 1]; None where none was made with these weights."""
    known = read_tensors(asset("references.safetensors"))
    seeds, scales = (known["seeds"] == seed).nonzero(), (known["scales"] == scale).nonzero()
    if not (torch.equal(known["weights"], fingerprint(pipe)) and len(seeds) and len(scales)):
        return None
    return known["pictures"][DATASETS[pipe.config.labels].read(prompt), seeds[0, 0], scales[0, 0]][None] / 255


def fingerprint(pipe: TextToImage) -> Tensor:
    """A few values that tell one trained model from another: the last layer's bias."""
    return pipe.net.unet.conv_out.bias.detach().cpu().half()


@register(FIGURES)
def playground(cloud: str, t: float, sampler: str, steps: int, seed: int = 0) -> Image.Image:
    """Points noised to time t, with their score, and trajectories from noise; the schedule is flow, the denoiser ideal."""
    check_between("t", t, 0, 1)
    choose(cloud, CLOUDS, "cloud")
    run = choose(sampler, SAMPLERS, "sampler")
    path, clean = flow(), points(cloud).double()
    denoise = ideal(clean, path, std=0.03)
    draw = partial(torch.randn, generator=Generator().manual_seed(seed), dtype=torch.float64)
    noise, start = draw(clean.shape), draw(300, 2)
    taken = run(denoise, start, uniform(steps, path), path, noise=lambda x: draw(x.shape))
    along = [start, *(step.x for step in taken)]
    square = {"xlim": (-3, 3), "ylim": (-3, 3), "aspect": "equal"}
    square |= {"xlabel": "first coordinate", "ylabel": "second coordinate"}
    with Page(WIDTH, 400) as page:
        left = page.axes(56, 32, 316, 316, title=f"{fitted(cloud, 140)} at t = {t:.2f}, and its score", **square)
        left.scatter(*path.add_noise(clean, noise, t).T, s=6, color=BLUE, alpha=0.6, lw=0)
        if t > 0:
            grid = torch.cartesian_prod(*[torch.linspace(-2.7, 2.7, 17, dtype=torch.float64)] * 2)
            arrows = score(denoise, path)(grid, t)
            length = arrows.norm(dim=1, keepdim=True).clamp(min=1e-12)
            arrows = 0.32 * arrows / (length * length.max()).sqrt()  # the root, so that short ones are seen too
            left.quiver(*grid.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.005, color=ORANGE)
        words = f"{fitted(sampler, 90)}, {steps} step{'s' * (steps > 1)}: from noise to points"
        right = page.axes(436, 32, 316, 316, title=words, **square)
        right.scatter(*clean.T, s=6, color=GRAY, alpha=0.35, lw=0, label="the data")
        for row in torch.stack(along, 1)[:25]:  # (steps + 1, 2)
            right.plot(*row.T, color=BLUE, lw=0.8, alpha=0.7)
        right.scatter(*start[:25].T, s=14, facecolor="none", edgecolor=BLUE, lw=0.8, label="25 starts", zorder=3)
        right.scatter(*along[-1].T, s=7, color=ORANGE, lw=0, label="300 ends", zorder=4)
        right.legend(loc="upper right", fontsize=8, ncols=3, handletextpad=0.1, columnspacing=0.8, borderaxespad=0)
        return page.image()


def _noised(picture: Tensor, path: Schedule, t: float, seed: int) -> tuple[Tensor, bool]:
    """x_t, and whether it had to be rescaled: where images grow with the noise they are shown as the network's input."""
    x = path.add_noise(picture[None], noise_of(picture, seed)[None], t)[0]
    one = torch.ones((), dtype=torch.float64)
    return x * float(path.net_scale(t * one)), bool(path.net_scale(one) != 1)
