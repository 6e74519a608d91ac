"""The planner counts what is really there, and its arithmetic is the one that it states."""

import pytest
import torch

from minidiff.course.figures import plan as figures_planner
from minidiff.course.figures.page import WIDTH, few
from minidiff.course.planner import FREE, GPUS, Plan, Work, bytes_kept, hours, memory, work
from minidiff.networks import UNet, UNetConfig, flops

SMALL = UNetConfig(4, 4, (32, 64), attention=(False, True), layers=1, heads=4, context_dim=64, groups=8)


def asked(batch=1):
    return torch.zeros(batch, 4, 14, 14), torch.zeros(batch), torch.zeros(batch, 2, 64)


def test_counted_without_content_is_what_real_tensors_have():
    net = UNet(SMALL)
    counted = work(SMALL, 14, 2, bf16=False)
    assert counted.parameters == sum(p.numel() for p in net.parameters())
    assert counted.flops == sum(flops(net, *asked()).values())
    assert counted.copies == 0
    assert [bytes_kept(net, *asked(batch)) for batch in (1, 3)] == [counted.kept, 3 * counted.kept]


def test_of_a_linear_layer_its_input_is_kept():
    layer, x = torch.nn.Linear(5, 7), torch.zeros(3, 5)
    assert bytes_kept(layer, x) == 4 * 3 * 5
    assert bytes_kept(layer, x, bf16=True) == 2 * 3 * 5  # no gradient of x is needed
    assert bytes_kept(layer, x.requires_grad_(), bf16=True) == 2 * (3 * 5 + 7 * 5)  # now the rounded weights are needed


def test_half_precision_keeps_less():
    full, half = work(SMALL, 14, 2, bf16=False), work(SMALL, 14, 2)
    assert 0.5 < half.kept / full.kept < 0.9 and 0 < half.copies <= 2 * half.parameters


def test_norms_stay_in_float32_as_on_a_gpu():
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GroupNorm(2, 8))
    x = torch.zeros(3, 8)
    grown = bytes_kept(net, x.repeat(2, 1), bf16=True) - bytes_kept(net, x, bf16=True)
    assert grown == 3 * (2 * 8 + 4 * 8 + 2 * 2 * 4)  # the layer's input, the norm's, and mean and width of two groups
    assert not any(part._forward_pre_hooks for part in net)


def test_stable_diffusion():
    counted = Plan().work
    assert counted.parameters == 859_520_964
    assert counted.flops == 803_273_441_280


def test_memory_by_hand():
    pieces = memory(Work(parameters=10, flops=0, kept=7, copies=20), batch=3)
    assert list(pieces.values()) == [40, 40, 80, 40, 20, 21]
    assert memory(Work(10, 0, 7, 20), 3, ema=False)["moving average"] == 0


def test_adamw_keeps_two_values_for_each_parameter():
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    held = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert sum(value.nbytes for value in held) == memory(Work(8, 0, 0, 0), 1)["AdamW's two moments"]


def test_hours_by_hand():
    assert hours(3600 * 65e12, GPUS["T4"], 1) == pytest.approx(1)
    assert hours(3600 * 65e12, GPUS["T4"], 0.25, gpus=8) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="mfu must be"):
        hours(1, GPUS["T4"], 30)


def test_a_plan():
    plan, twice = Plan(), Plan(gpus=16)
    assert plan.operations == 3 * 803_273_441_280 * 250e6
    assert twice.hours == pytest.approx(plan.hours / 2) and twice.money == pytest.approx(plan.money)
    assert plan.money == pytest.approx(8 * plan.hours * plan.price)


def test_parts_until_it_fits():
    def left(plan, batch):
        return (1 - FREE) * GPUS[plan.gpu].memory * 1e9 - sum(memory(plan.work, batch).values())

    plan = Plan(gpu="A100 40 GB")  # 32 pictures on each
    assert plan.parts > 1 and left(plan, -(-32 // plan.parts)) >= 0 > left(plan, -(-32 // (plan.parts - 1)))
    assert Plan(gpu="H200").parts == 1 and Plan(gpu="T4").parts == 0


@pytest.mark.parametrize("gpu", ["T4", "A100 40 GB", "H200"])
def test_the_figure_says_what_does_not_fit(gpu):
    plan = Plan(gpu=gpu)
    assert figures_planner.planner(plan).size == (WIDTH, 300)
    line = figures_planner._lines(plan)["batch"]
    assert ("not even one" in line, "at a time" in line) == (gpu == "T4", gpu == "A100 40 GB")


def test_numbers_without_exponents():
    assert [few(n) for n in (0.01234, 9.314, 3381.2, -1234.5)] == ["0.0123", "9.31", "3,381", "-1,234"]
