"""A training run on one page: what lies in a GPU's memory, and what the run takes."""

from PIL import Image

from minidiff.course.figures.page import BLUE, FIGURES, GRAY, GREEN, ORANGE, PURPLE, RED, SKY, WIDTH, Page
from minidiff.course.planner import GPUS, Plan, memory
from minidiff.registry import register


@register(FIGURES)
def planner(plan: Plan = Plan()) -> Image.Image:
    """The memory of one GPU, piece by piece, beside what there is; below, the run in numbers."""
    mine = -(-plan.batch // plan.gpus)
    at_once = -(-mine // (plan.parts or mine))
    pieces, room = memory(plan.work, at_once), GPUS[plan.gpu].memory * 1e9
    with Page(WIDTH, 300) as page:
        wide = 1.1 * max(room, sum(pieces.values())) / 1e9
        axes = page.axes(20, 40, WIDTH - 40, 60, xlim=(0, wide), yticks=[], xlabel="GB on one GPU")
        left = 0.0
        for (name, size), colour in zip(pieces.items(), (BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY), strict=True):
            axes.barh(0, size / 1e9, left=left, color=colour, label=f"{name}: {size / 1e9:.1f}")
            left += size / 1e9
        axes.axvline(room / 1e9, color=RED)
        above = axes.get_xaxis_transform()
        axes.text(room / 1e9, 1.04, plan.gpu, color=RED, ha="center", va="bottom", fontsize=9, transform=above)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.75), ncols=3, fontsize=9, borderpad=0)
        canvas = page.canvas()
        for (name, value), row in zip(_lines(plan, mine, at_once).items(), range(4), strict=True):
            canvas.text(20, 212 + 24 * row, name, color=GRAY, va="center")
            canvas.text(170, 212 + 24 * row, value, va="center")
        canvas.text(20, 20, "memory", color=GRAY, va="center")
        return page.image()


def _lines(plan: Plan, mine: int, at_once: int) -> dict[str, str]:
    asked = plan.work
    in_parts = f"{mine} picture{'s' * (mine > 1)} a step on each GPU"
    if not plan.parts:
        in_parts += ": not even one picture has room"
    elif plan.parts > 1:
        in_parts += f", {at_once} at a time: the others have no room"
    return {
        "network": f"{asked.parameters / 1e6:,.0f} M parameters, {asked.flops / 1e12:.3g} TFLOP for one picture, once",
        "batch": in_parts,
        "time": f"{plan.operations:.1e} FLOP: {_few(plan.hours)} hours, or {_few(plan.hours / 24)} days",
        "money": f"{plan.hours * plan.gpus:,.0f} GPU hours: {plan.money:,.0f} dollars",
    }


def _few(number: float) -> str:
    """Three digits, and never an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
