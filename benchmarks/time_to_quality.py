"""How long from nothing to digits that can be read: minidiff beside diffusers with a well-known course's recipe.

    python benchmarks/time_to_quality.py ours      short runs, each from nothing (10 minutes)
    python benchmarks/time_to_quality.py peer      one run until it is good enough, at most about an hour
    python benchmarks/time_to_quality.py speed     both train in turns on the same cores: seconds a step (3 minutes)
    python benchmarks/time_to_quality.py table     the result, and --out's .png

The peer is diffusers' UNet2DModel as the Hugging Face diffusion course (unit 2) builds it: 28x28, channels 32-64-64,
two layers a block, attention at the two lower levels, cosine DDPMScheduler of 1000 steps, eps, Adam at 1e-3, batches
of 128, the class as four more input channels. It draws with 100 steps of that scheduler (50 of DDIM leave a young network's
paper gray, which the judge cannot read); that this is fair to it is shown at the end of its run: the loss, a sheet of digits, and
what all 1000 steps make of the same weights.
Ours is `minidiff train mnist`, which plans its learning rate for the length of the run: so each point is a run of its own.

Evaluation, the same for both: n digits with the labels of n validation digits, read by the shipped judge. What a
step is worth does not depend on how busy the machine is, how long it takes does: so the time axis is steps times
the median time of a step, measured in turns, and the runs themselves may share the machine.
"""

import json
import statistics
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from tyro.conf import Positional

from minidiff import TextToImage, data
from minidiff.evaluation.judges import judged
from minidiff.evaluation.report import machine
from minidiff.files import write, write_tensors
from minidiff.formats.model_folder import load_classifier
from minidiff.image_files import sheet
from minidiff.training.denoiser import fit, untrained
from minidiff.training.recipes import RECIPES

OURS_PICTURES = (5_000, 10_000, 15_000, 20_000, 30_000, 45_000)
PEER_STEPS = (600, 1000, 1400, 1750)  # the last after 60 minutes on two cores
GOOD = 0.95
OURS = RECIPES["mnist"]


@dataclass
class Options:
    stage: Positional[Literal["ours", "peer", "speed", "table"]]
    n: int = 200
    """Digits to judge."""
    seed: int = 0
    threads: int | None = None
    """Of torch. None: all cores. The stages ours and peer may run on fewer than speed."""
    out: Path = Path("runs/time_to_quality.json")


# Ours --------------------------------------------------------------------------------------


def our_run(steps: int, seed: int):
    config = replace(OURS.train, steps=steps, seed=seed)
    return fit(untrained(OURS.config, seed), OURS.config, OURS.batches(OURS.batch, seed, None), config)


def our_digits(net: nn.Module, labels: Tensor, steps: int = 20) -> Tensor:
    pipe = TextToImage(OURS.config, net, "cpu")
    return pipe.decode(pipe.latents([str(label) for label in labels.tolist()], steps=steps, scale=2.0)) * 2 - 1


# The peer ----------------------------------------------------------------------------------


class Peer(nn.Module):
    """diffusers' UNet2DModel, told the class by four more channels."""

    def __init__(self):
        super().__init__()
        from diffusers import UNet2DModel

        self.embedding = nn.Embedding(10, 4)
        self.unet = UNet2DModel(
            sample_size=28,
            in_channels=1 + 4,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, x: Tensor, time, labels: Tensor) -> Tensor:
        told = self.embedding(labels)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.unet(torch.cat([x, told], 1), time).sample


def peer_run(seed: int):
    """Yields the step, its loss and the network, for ever."""
    from diffusers import DDPMScheduler

    torch.manual_seed(seed)
    net, scheduler = Peer(), DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step, (x0, labels) in enumerate(data.batches(data.mnist("train"), 128, seed), start=1):
        eps, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        value = F.mse_loss(net(scheduler.add_noise(x0, eps, t), t, labels), eps)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        yield step, value.item(), net


@torch.no_grad()
def peer_digits(net: Peer, labels: Tensor, steps: int = 100) -> Tensor:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(labels), 1, 28, 28, generator=generator)
    for t in scheduler.timesteps:
        x = scheduler.step(net.eval()(x, t, labels), t, x, generator=generator).prev_sample
    net.train()
    return x.clamp(-1, 1)


# The stages --------------------------------------------------------------------------------


def speed(options: Options) -> dict:
    """Median seconds a step of both, in turns."""
    ours, peer, times = our_run(10_000, options.seed), peer_run(options.seed), {"ours": [], "peer": []}
    for turn in range(12):
        for name, run, count in (("ours", ours, 30), ("peer", peer, 4)):
            start = time.perf_counter()
            for _ in islice(run, count):
                pass
            if turn >= 2:  # the first are slow: memory is being found
                times[name].append((time.perf_counter() - start) / count)
    return {
        **{name: statistics.median(each) for name, each in times.items()},
        "from and to": {name: [min(each), max(each)] for name, each in times.items()},
        "machine": machine(torch.device("cpu")),
    }


def ours(options: Options) -> list[dict]:
    rows = []
    for steps in (pictures // OURS.batch for pictures in OURS_PICTURES):
        for progress in our_run(steps, options.seed):
            pass
        rows.append({"steps": steps, "accuracy": accuracy(progress.net, options)})
        print(rows[-1], flush=True)
    return rows


def peer(options: Options) -> list[dict]:
    rows, losses = [], []
    for step, loss, net in islice(peer_run(options.seed), max(PEER_STEPS)):
        losses.append(loss)
        if step in PEER_STEPS:
            row = {"steps": step, "loss": statistics.mean(losses[-50:])}
            rows.append({**row, "accuracy": accuracy(net, options)})
            print(rows[-1], flush=True)
            write_tensors(options.out.with_suffix(".peer.safetensors"), net.state_dict())
            if rows[-1]["accuracy"] >= GOOD:
                break
    labels = torch.arange(10).repeat(5)
    for steps in (100, 1000):
        pictures = peer_digits(net, labels, steps)
        right = float((judged(load_classifier("judge"), pictures)[1] == labels).double().mean())
        print(f"the peer, {steps} steps: {right:.0%} of 50 digits read right", flush=True)
        sheet((pictures + 1) / 2, 10).save(options.out.with_suffix(f".peer{steps}.png"))
    return rows


def accuracy(net: nn.Module, options: Options) -> float:
    """Share of n drawn digits that the judge reads as the digit asked for."""
    labels = data.mnist("validation").labels[: options.n]
    pictures = (peer_digits if isinstance(net, Peer) else our_digits)(net, labels)
    return float((judged(load_classifier("judge"), pictures)[1] == labels).double().mean())


def table(options: Options, known: dict) -> None:
    """The curve of both, when each gets good, and how many times as long the peer takes."""
    reached = {}
    for name in ("ours", "peer"):
        step, rows = known["speed"][name], known[name]
        print(f"\n{name}: {step:.3f} seconds a step")
        for row in rows:
            print(
                f"{row['steps']:>6} steps {row['steps'] * step / 60:>6.1f} minutes   {row['accuracy']:.1%} read right"
            )
        good = [row["steps"] * step for row in rows if row["accuracy"] >= GOOD]
        reached[name] = min(good, default=None)
    if reached["ours"] is None:
        raise ValueError(f"ours never reached {GOOD:.0%}")
    last = known["peer"][-1]["steps"] * known["speed"]["peer"]
    at_least = "" if reached["peer"] else "at least "
    ratio = (reached["peer"] or last) / reached["ours"]
    print(f"\n{GOOD:.0%}: ours after {reached['ours']:.0f} seconds, the peer", end=" ")
    print(f"after {reached['peer'] / 60:.1f} minutes" if reached["peer"] else f"not within {last / 60:.0f} minutes")
    print(
        f"ratio: {at_least}{ratio:.1f}; n = {known['n']}, validation labels, seed {known['seed']}, {known['speed']['machine']}"
    )
    print("ours draws with 20 steps of dpmpp_2m at scale 2, the peer with 100 steps of DDPM, without guidance")

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for name, colour, label in (("ours", "#0072b2", "minidiff"), ("peer", "#d55e00", "diffusers, the course's recipe")):
        minutes = [row["steps"] * known["speed"][name] / 60 for row in known[name]]
        axes.plot(minutes, [100 * row["accuracy"] for row in known[name]], "o-", color=colour, label=label)
    axes.axhline(100 * GOOD, color="gray", lw=1, ls="--")
    axes.set(xscale="log", xlabel="minutes of training on 2 CPU cores", ylabel="digits read right, %", ylim=(0, 102))
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 60], ["½", "1", "2", "5", "10", "20", "60"])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(options.out.with_suffix(".png"), dpi=110)
    plt.close(figure)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads or torch.get_num_threads())
    known = json.loads(options.out.read_text()) if options.out.exists() else {"n": options.n, "seed": options.seed}
    if options.stage == "table":
        return table(options, known)
    known[options.stage] = {"ours": ours, "peer": peer, "speed": speed}[options.stage](options)
    write(options.out, json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError, KeyError) as error:
        raise SystemExit(f"time_to_quality: {error}") from None
