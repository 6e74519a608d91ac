"""One figure for each widget: pure functions, the same arguments give the same PIL image."""

from functools import cache
from textwrap import fill

import torch
from PIL import Image
from torch import Generator, Tensor

from minidiff.course.figures.page import BLUE, FIGURES, GRAY, GREEN, ORANGE, PURPLE, RED, WIDTH, Page
from minidiff.data import CLOUDS, points, read_digit
from minidiff.diffusion import SAMPLERS, SCHEDULES, Schedule, denoiser, flow, ideal, score, uniform
from minidiff.files import asset, read_tensors
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import choose, register

COLOURS = dict(zip(SCHEDULES, (BLUE, ORANGE, GREEN, RED, PURPLE), strict=True))
LINES = dict(zip(SCHEDULES, ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1))), strict=True))  # for printing in gray


@register(FIGURES)
def corruption(picture: Tensor, schedule: str, t: float, seed: int = 0) -> Image.Image:
    """A picture at time t, the numbers that made it so, and how the values of its pixels are spread.

    picture: (C, H, W) in [-1, 1]. schedule: a name in SCHEDULES. t: in [0, 1]. seed: of the noise.
    """
    check_time(t)
    path = choose(schedule, SCHEDULES, "schedule")()
    shown, grown = _noised(picture, path, t, seed)
    alpha, sigma = (float(c) for c in path.at(t, picture.double()))
    name = r"$x_t\,/\,\sqrt{\alpha^2 + \sigma^2}$" if grown else "$x_t$"
    with Page(WIDTH, 300) as page:
        page.picture((shown + 1) / 2, 20, 40, 224, title=f"{name} at t = {t:.2f}")
        page.text(264, 40, schedule, fontsize=13, weight="bold")
        ratio = path.snr(t)
        rows = [("t", t), (r"$\alpha_t$", alpha), (r"$\sigma_t$", sigma), ("SNR", ratio), ("ln SNR", ratio.log())]
        for row, (symbol, value) in enumerate(rows):
            page.text(264, 76 + 28 * row, symbol, fontsize=11)
            page.text(334, 76 + 28 * row, _plain(float(value)), fontsize=11, family="monospace")
        if grown:
            page.text(264, 226, "shown at the size\nat which a network\nsees it", fontsize=9, color=GRAY)
        axes = page.axes(464, 40, 280, 200, xlabel=f"value of a pixel of {name}", ylabel="density", xlim=(-4, 4))
        look = {"color": COLOURS[schedule], "alpha": 0.6, "label": "pixels"}
        axes.hist(shown.flatten().numpy(), bins=40, range=(-4, 4), density=True, **look)
        x = torch.linspace(-4, 4, 161)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).exp()
        axes.plot(x, normal, color="black", lw=1.5, label="standard normal")
        axes.set_ylim(0, max(0.6, 1.15 * axes.get_ylim()[1]))
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9)  # above: no bar can hide it
        return page.image()


@register(FIGURES)
def schedules(names: list[str], t: float, picture: Tensor | None = None, seed: int = 0) -> Image.Image:
    """Schedules side by side: alpha and sigma, the logarithm of their SNR, and a mark at time t.

    names: of SCHEDULES, in any order. picture: (C, H, W) in [-1, 1], shown at time t under each, with the same noise.
    """
    check_time(t)
    paths = {name: choose(name, SCHEDULES, "schedule")() for name in SCHEDULES if name in names}
    for name in names:
        choose(name, SCHEDULES, "schedule")
    times = torch.linspace(0, 1, 201, dtype=torch.float64)
    with Page(WIDTH, 300 if picture is None else 456) as page:
        words = r"$\alpha_t$ falls, $\sigma_t$ rises"
        both = page.axes(48, 32, 300, 212, xlim=(0, 1), ylim=(0, 1.2), xlabel="t", title=words)
        ratio = page.axes(424, 32, 320, 212, xlim=(0, 1), ylim=(-15, 15), xlabel="t", title=r"$\ln$ SNR")
        for name, path in paths.items():
            look = {"color": COLOURS[name], "ls": LINES[name], "lw": 1.8}
            both.plot(times, path.alpha(times), **look)
            both.plot(times, path.sigma(times), **look)
            ratio.plot(times[1:], path.snr(times[1:]).log(), label=name, **look)
            now = torch.tensor([t], dtype=torch.float64)
            for axes, value in ((both, path.alpha(now)), (both, path.sigma(now)), (ratio, path.snr(now).log())):
                axes.plot([t], value, "o", color=COLOURS[name], ms=6)
        if "edm" in paths:
            words = r"edm: $\alpha = 1$, and $\sigma = 80\,t$ soon leaves the page"
            both.text(0.98, 1.1, words, fontsize=9, ha="right")
        for axes in (both, ratio):
            axes.axvline(t, color=GRAY, lw=1, zorder=0)
        if paths:
            ratio.legend(loc="upper right", fontsize=9)
        if picture is not None:
            page.text(16, 290, f"the same picture and noise at t = {t:.2f}")
            for column, (name, path) in enumerate(paths.items()):
                shown, grown = _noised(picture, path, t, seed)
                words = f"ln SNR {_plain(float(path.snr(t).log()))}", name + " (shrunk)" * grown
                page.picture((shown + 1) / 2, 48 + 148 * column, 338, 88, *words, frame=COLOURS[name])
        return page.image()


@register(FIGURES)
def one_step(
    pipe: TextToImage, picture: Tensor, times: list[float], prompt: str | None = None, seed: int = 0
) -> Image.Image:
    """What the network believes to be behind a picture's noise, asked once: for each t, x_t above and x0_hat below.

    picture: (C, H, W) in [-1, 1]. times: up to seven, in [0, 1]. prompt: what the network is told, None for nothing.
    The error is the root mean square of x0_hat - x0. One time alone: beside it the error at all times.
    """
    if not 1 <= len(times) <= 7:
        raise ValueError(f"one to seven times fit on the page, got {len(times)}")
    for t in times:
        check_time(t)
    clean = pipe.fold.encode(picture[None].to(pipe.device))
    eps = torch.randn(clean.shape, generator=Generator().manual_seed(seed)).to(pipe.device)
    context = pipe.encode_negative(None, 1) if prompt is None else pipe.encode([prompt])

    @torch.no_grad()
    def ask(at: list[float]) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, x0_hat and its error, one a time."""
        t = torch.tensor(at, dtype=torch.float64)
        x = pipe.schedule.add_noise(clean.expand(len(at), -1, -1, -1), eps, t)
        parts = (pipe.net.unet, pipe.schedule, pipe.prediction, context.expand(len(at), -1, -1))
        belief = denoiser(*parts)(x, t)
        return x, belief, (belief - clean).square().mean((1, 2, 3)).sqrt().cpu()

    noisy, beliefs, errors = ask(times)
    size = min(150, (WIDTH - 80) // (len(times) + 1) - 10)
    with Page(WIDTH, 2 * size + 92) as page:
        page.picture((picture + 1) / 2, 20, 34, size, title="$x_0$")
        page.text(20, size + 60, fill("told " + ("nothing" if prompt is None else f'"{prompt}"'), size // 7))
        for column, (above, under) in enumerate(zip(pipe.decode(noisy), pipe.decode(beliefs), strict=True)):
            left = 56 + (column + 1) * (size + 10)
            first = page.picture(above, left, 34, size, title=f"t = {times[column]:.2f}")
            second = page.picture(under, left, size + 50, size, below=f"error {errors[column]:.2f}")
            if column == 0:
                first.set_ylabel("noisy, $x_t$")
                second.set_ylabel(r"belief, $\hat{x}_0$")
        if len(times) == 1:  # there is room to show how the error grows with t
            every = [k / 20 for k in range(21)]
            words = r"error: root mean square of $\hat{x}_0 - x_0$"
            axes = page.axes(446, 34, 296, 2 * size + 16, xlim=(0, 1), ylim=(0, 1), xlabel="t", title=words)
            axes.plot(every, ask(every)[2], color=BLUE)
            axes.plot(times, errors, "o", color=ORANGE, ms=8)
        return page.image()


@register(FIGURES)
def sampler(pipe: TextToImage, prompt: str, sampler: str, steps: int, seed: int, scale: float) -> Image.Image:
    """A walk from noise to a picture: what the network believed on the way, the result, and the reference.

    At most eight beliefs, evenly chosen. The reference is where 1000 steps of dpmpp_2m end from the same noise:
    all samplers without fresh noise end there. It is there for the shipped weights, seeds 0 to 4 and four scales.
    """
    walk = list(pipe.stream([prompt], steps=steps, scale=scale, sampler=sampler, seed=seed))
    asked = pipe.times(steps, sampler).tolist()  # the time at which each belief was asked for
    chosen = torch.linspace(0, steps - 1, min(steps, 8)).round().long().tolist()
    beliefs = pipe.decode(torch.cat([walk[k].x0_hat for k in chosen]))
    result, end = pipe.decode(walk[-1].x)[0], reference(pipe, prompt, seed, scale)
    with Page(WIDTH, 276) as page:
        page.text(12, 8, r"$\hat{x}_0$, what the network believed at time t")
        for k, (step, belief) in enumerate(zip(chosen, beliefs, strict=True)):
            page.picture(belief, 12 + 90 * (k % 4), 54 + 108 * (k // 4), 80, title=f"t = {asked[step]:.2f}")
        page.picture(result, 392, 54, 170, title=f"{sampler}, {steps} step{'s' * (steps > 1)}")
        words = "no reference\nfor this model,\nseed or scale"
        if end is None:
            page.text(584, 110, words, color=GRAY)
        else:
            page.picture(end, 580, 54, 170, title="dpmpp_2m, 1000 steps")
            gap = float((result.cpu() - end).square().mean().sqrt())
            fresh = "ddpm draws fresh noise on the way,\nand so ends elsewhere"
            page.text(392, 234, fresh if sampler == "ddpm" else f"root mean square difference {gap:.3f}", color=BLUE)
        return page.image()


def reference(pipe: TextToImage, prompt: str, seed: int, scale: float) -> Tensor | None:
    """Where 1000 steps of dpmpp_2m end, (1, 28, 28) in [0, 1]; None if nobody has drawn it with these weights."""
    known = _references()
    if not torch.equal(known["weights"], fingerprint(pipe)):
        return None
    where = [(known[key] == value).nonzero().flatten() for key, value in (("seeds", seed), ("scales", scale))]
    if not all(len(rows) for rows in where):
        return None
    return known["pictures"][read_digit(prompt), where[0][0], where[1][0]][None] / 255


@cache
def _references() -> dict[str, Tensor]:
    return read_tensors(asset("references.safetensors"))


def fingerprint(pipe: TextToImage) -> Tensor:
    """A few numbers by which one trained model is told from another: the last layer's bias."""
    return pipe.net.unet.conv_out.bias.detach().cpu().half()


@register(FIGURES)
def playground(cloud: str, t: float, sampler: str, steps: int, seed: int = 0) -> Image.Image:
    """Points on a page. Left: noised to time t, with the score field. Right: noise walked back in `steps` steps.

    cloud: a name in CLOUDS. The schedule is flow, the denoiser the ideal one, so nothing is trained. t: in [0, 1];
    at 0 there is no score. Arrows: the score's direction and the root of its length, to a scale of their own at each t.
    """
    check_time(t)
    choose(cloud, CLOUDS, "cloud")
    walk = choose(sampler, SAMPLERS, "sampler")
    path = flow()
    clean = points(cloud).double()
    denoise = ideal(clean, path, spread=0.03)
    generator = Generator().manual_seed(seed)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    start = torch.randn(300, 2, generator=generator, dtype=torch.float64)

    def fresh(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    ways = [start] + [step.x for step in walk(denoise, start, uniform(steps, path), path, noise=fresh)]
    square = {"xlim": (-3, 3), "ylim": (-3, 3), "aspect": "equal", "xlabel": "first coordinate"}
    square["ylabel"] = "second coordinate"
    with Page(WIDTH, 400) as page:
        left = page.axes(56, 32, 316, 316, title=f"{cloud} at t = {t:.2f}, and its score", **square)
        left.scatter(*path.add_noise(clean, noise, t).T, s=6, color=BLUE, alpha=0.6, lw=0)
        if t > 0:
            side = torch.linspace(-2.7, 2.7, 17, dtype=torch.float64)
            grid = torch.cartesian_prod(side, side)
            arrows = score(denoise, path)(grid, t)
            length = arrows.norm(dim=1, keepdim=True).clamp(min=1e-12)
            arrows = 0.32 * arrows / (length * length.max()).sqrt()  # the root, so that short ones are seen too
            look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005, "color": ORANGE}
            left.quiver(*grid.T, *arrows.T, **look)
        words = f"{sampler}, {steps} step{'s' * (steps > 1)}: from noise to points"
        right = page.axes(436, 32, 316, 316, title=words, **square)
        right.scatter(*clean.T, s=6, color=GRAY, alpha=0.35, lw=0, label="the cloud")
        for row in torch.stack(ways, 1)[:25]:  # (steps + 1, 2)
            right.plot(*row.T, color=BLUE, lw=0.8, alpha=0.7)
        right.scatter(*ways[0][:25].T, s=14, facecolor="none", edgecolor=BLUE, lw=0.8, label="25 starts", zorder=3)
        right.scatter(*ways[-1].T, s=7, color=ORANGE, lw=0, label="300 ends", zorder=4)
        right.legend(loc="upper right", fontsize=8, ncols=3, handletextpad=0.1, columnspacing=0.8, borderaxespad=0)
        return page.image()


def check_time(t: float) -> None:
    """Raises ValueError for a time outside [0, 1]."""
    if not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1], got {t}")


def _noised(picture: Tensor, path: Schedule, t: float, seed: int) -> tuple[Tensor, bool]:
    """x_t, and whether it had to be shrunk to be shown: where pictures grow with the noise, as a network sees them."""
    eps = torch.randn(picture.shape, generator=Generator().manual_seed(seed))
    x = path.add_noise(picture[None], eps[None], t)[0]
    one = torch.ones((), dtype=torch.float64)
    grown = bool(path.net_scale(one) != 1)
    return x * float(path.net_scale(t * one)), grown


def _plain(value: float) -> str:
    """A number in three figures, or whole where it is large: 0.0123, 2.25, 998001."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.0f}"
