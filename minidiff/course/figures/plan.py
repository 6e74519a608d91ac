"""A training run on one page: what lies in a GPU's memory, and what the run takes."""

from PIL import Image

from minidiff.course.figures.page import COLOURS, FIGURES, GRAY, RED, WIDTH, Page, few
from minidiff.course.planner import FREE, GPUS, Plan, memory
from minidiff.registry import register


@register(FIGURES)
def planner(plan: Plan = Plan()) -> Image.Image:
    """The memory of one GPU, piece by piece, against its capacity; below, the run in numbers."""
    pieces, capacity = memory(plan.work, plan.at_once), GPUS[plan.gpu].memory * 1e9
    colours = [colour for colour in COLOURS if colour != RED]
    with Page(WIDTH, 300) as page:
        wide = 1.1 * max(capacity, sum(pieces.values())) / 1e9
        axes = page.axes(20, 40, WIDTH - 40, 60, xlim=(0, wide), yticks=[], xlabel="GB on one GPU")
        left = 0.0
        for k, (name, size) in enumerate(pieces.items()):
            axes.barh(0, size / 1e9, left=left, color=colours[k % len(colours)], label=f"{name}: {size / 1e9:.1f}")
            left += size / 1e9
        axes.axvline(capacity / 1e9, color=RED)
        axes.axvspan((1 - FREE) * capacity / 1e9, capacity / 1e9, color=RED, alpha=0.15, lw=0)  # kept free
        above = axes.get_xaxis_transform()
        axes.text(capacity / 1e9, 1.04, plan.gpu, color=RED, ha="center", va="bottom", fontsize=9, transform=above)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.75), ncols=3, fontsize=9, borderpad=0)
        canvas = page.canvas()
        canvas.text(20, 20, "memory", color=GRAY, va="center")
        for row, (name, value) in enumerate(_lines(plan).items()):
            canvas.text(20, 212 + 24 * row, name, color=GRAY, va="center")
            canvas.text(170, 212 + 24 * row, value, va="center")
        return page.image()


def _lines(plan: Plan) -> dict[str, str]:
    batch = f"{plan.per_gpu} image{'s' * (plan.per_gpu > 1)} a step on each GPU"
    if not plan.parts:
        batch += ": not even one fits into its memory"
    elif plan.parts > 1:
        batch += f", {plan.at_once} at a time: more do not fit"
    work = plan.work
    return {
        "network": f"{work.parameters / 1e6:,.0f} M parameters, {work.flops / 1e12:.3g} TFLOP per image and forward pass",
        "batch": batch,
        "time": f"{plan.operations:.1e} FLOP: {few(plan.hours)} hours, or {few(plan.hours / 24)} days",
        "cost": f"{plan.hours * plan.gpus:,.0f} GPU hours: {plan.money:,.0f} dollars",
    }
