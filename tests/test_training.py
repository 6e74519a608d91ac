"""Training: the loss, the loop, and that stopping changes nothing."""

import itertools
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from minidiff import data
from minidiff.diffusion import EPS, FLOW, X0, V, cosine, edm, flow
from minidiff.networks import Conditional, LabelEncoder, UNet, UNetConfig
from minidiff.training import EMA, TIMES, TrainConfig, loss, train
from minidiff.training.checkpoint import RunFolder, checkpoints

TINY = UNetConfig(1, 1, channels=(8, 16), attention=(False, True), layers=1, heads=2, context_dim=8, groups=4)


def network():
    torch.manual_seed(0)
    return Conditional(UNet(TINY), LabelEncoder(10, 8)).to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def digits():
    whole = data.mnist("validation")
    small = torch.nn.functional.avg_pool2d(whole.images, 2)
    return data.Pictures(small, whole.labels, whole.captions)


def run(digits, config, folder=None, stop=None, net=None):
    net = net or network()
    batches = data.batches(digits, 16)
    steps = list(itertools.islice(train(net, flow(), FLOW, batches, config, null=10, folder=folder), stop))
    return net, steps


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_loss_by_hand():
    x0, eps, t = torch.full((2, 1, 2, 2), 0.5), torch.full((2, 1, 2, 2), -1.0), torch.tensor([0.25, 0.75])
    told = {}

    def net(x, time, condition):
        told.update(x=x, time=time)
        return torch.zeros_like(x)

    # flow's target is eps - x0 = -1.5 everywhere
    assert float(loss(net, flow(), FLOW, x0, None, t, eps)) == pytest.approx(2.25)
    torch.testing.assert_close(told["x"][:, 0, 0, 0], torch.tensor([0.75 * 0.5 - 0.25, 0.25 * 0.5 - 0.75]))
    torch.testing.assert_close(told["time"], 1000 * t)


@pytest.mark.parametrize(
    "schedule, pred, error, share",
    [  # what zeros are wrong by, and Hang et al.'s weight as a share of min(SNR, 5)
        (cosine(), EPS, lambda a, s: -1.0, lambda snr, s: 1 / snr),
        (cosine(), X0, lambda a, s: 0.5, lambda snr, s: 1.0),
        (cosine(), V, lambda a, s: -1.0 * a - 0.5 * s, lambda snr, s: 1 / (snr + 1)),
        (flow(), FLOW, lambda a, s: -1.5, lambda snr, s: s**2),  # x0_hat = x - sigma * out
    ],
    ids=["eps", "x0", "v", "flow"],
)
def test_min_snr_by_hand(schedule, pred, error, share):
    x0, eps, t = torch.full((2, 1, 2, 2), 0.5), torch.full((2, 1, 2, 2), -1.0), torch.tensor([0.25, 0.75])
    a, s = schedule.alpha(t.double()), schedule.sigma(t.double())
    snr = (a / s) ** 2
    assert snr[0] > 5 > snr[1]
    right = ((torch.tensor([5.0, float(snr[1])]) * share(snr, s)) * torch.as_tensor(error(a, s)) ** 2).mean()
    value = loss(lambda x, time, condition: torch.zeros_like(x), schedule, pred, x0, None, t, eps, "min_snr")
    assert float(value) == pytest.approx(float(right), rel=1e-5)


def test_min_snr_at_the_ends():
    """At t = 0 the ratio is infinite and counts 5; at t = 1 it is 0 and counts nothing."""
    x0, t = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0.0, 1.0])
    value = loss(lambda x, time, condition: 0 * x, flow(), X0, x0, None, t, torch.ones_like(x0), "min_snr")
    assert float(value) == pytest.approx((5 * 0.25 + 0) / 2)


@pytest.mark.parametrize("schedule, pred", [(flow(), FLOW), (cosine(), EPS), (edm(), V)], ids=["flow", "eps", "edm-v"])
def test_fifty_steps_lower_the_loss(digits, schedule, pred):
    config = TrainConfig(steps=50, warmup=5)
    steps = list(train(network(), schedule, pred, data.batches(digits, 16), config, null=10))
    losses = torch.stack([step.loss for step in steps])
    assert len(steps) == 50 and steps[-1].seen == 800
    assert losses[-10:].mean() < 0.7 * losses[:5].mean()


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(digits, tmp_path, fused):
    config = TrainConfig(steps=12, warmup=3, save_every=4, fused=fused)
    whole, steps = run(digits, config)
    stopped, first = run(digits, config, folder=tmp_path, stop=5)
    assert first[-1].step == 5 and not equal(stopped, whole)
    torch.manual_seed(99)  # whatever the new process starts with
    fresh = Conditional(UNet(TINY), LabelEncoder(10, 8)).to(memory_format=torch.channels_last)
    resumed, rest = run(digits, config, folder=tmp_path, net=fresh)
    assert [step.step for step in rest] == list(range(6, 13))
    assert equal(resumed, whole) and equal(rest[-1].net, steps[-1].net)
    assert [float(s.loss) for s in first + rest] == [float(s.loss) for s in steps]
    _, nothing_left = run(digits, config, folder=tmp_path)
    assert nothing_left == []


def test_batches_before_a_checkpoint_are_not_made(digits, tmp_path):
    made = []

    def batches():
        for number, batch in enumerate(data.batches(digits, 16)):
            yield lambda number=number, batch=batch: (made.append(number), batch)[1]

    def steps(stop):
        return list(itertools.islice(train(network(), flow(), FLOW, batches(), config, null=10, folder=tmp_path), stop))

    config = TrainConfig(steps=8, warmup=2)
    steps(5)
    made.clear()
    steps(None)
    assert made == [0, 5, 6, 7]  # the first, by which a run is told from others, and those that are left


def test_fused_is_asked_for_and_computes_nearly_the_same(digits, monkeypatch):
    told, whole = [], torch.optim.AdamW

    def spy(*args, **options):
        told.append(options["fused"])
        return whole(*args, **options)

    monkeypatch.setattr(torch.optim, "AdamW", spy)
    (plain, _), (fused, _) = (run(digits, TrainConfig(steps=3, warmup=1, fused=fused)) for fused in (False, True))
    assert told == [None, True]  # False would turn off what is PyTorch's own choice on a GPU
    for a, b in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fused, where", [(None, "cpu"), (True, "meta")])
def test_fused_adamw_counts_where_its_parameters_are(digits, tmp_path, fused, where):
    """The meta device stands for a GPU."""
    net, steps = run(digits, TrainConfig(steps=2), folder=tmp_path)
    far = [parameter.to("meta") for parameter in net.parameters()]
    optimizer = SimpleNamespace(param_groups=[{"params": far, "fused": fused}], state=defaultdict(dict))
    run_folder = RunFolder(tmp_path, torch.nn.ModuleDict({"net": net, "ema": steps[-1].net}), optimizer, {})
    assert run_folder.begin() == (2, 0)
    assert {state["step"].device.type for state in optimizer.state.values()} == {where}
    assert {state["exp_avg"].device.type for state in optimizer.state.values()} == {"meta"}


def test_a_batch_has_no_more_parts_than_images(digits):
    with pytest.raises(ValueError, match="^accumulate must be at most the batch, 16, got 17$"):
        run(digits, TrainConfig(accumulate=17))


def test_graphs_need_compile_and_a_batch_in_one_part():
    with pytest.raises(ValueError, match="^graphs needs compile"):
        TrainConfig(graphs=True)
    with pytest.raises(ValueError, match="^graphs needs a batch in one part, got accumulate 2$"):
        TrainConfig(compile=True, graphs=True, accumulate=2)


@pytest.mark.parametrize("graphs, mode", [(False, None), (True, "reduce-overhead")])
def test_graphs_are_a_mode_of_compile(digits, monkeypatch, graphs, mode):
    told = []
    monkeypatch.setattr(torch, "compile", lambda net, mode: told.append(mode) or net)
    run(digits, TrainConfig(steps=1, compile=True, graphs=graphs))
    assert told == [mode]


def test_a_run_folder_that_does_not_fit(digits, tmp_path):
    config = TrainConfig(steps=2)
    run(digits, config, folder=tmp_path)
    torch.manual_seed(0)
    other = Conditional(UNet(TINY), LabelEncoder(3, 8))
    with pytest.raises(ValueError, match="holds another network"):
        run(digits, config, folder=tmp_path, net=other)
    path = checkpoints(tmp_path)[-1]
    whole = path.read_bytes()
    for broken in (whole[:5000], b"\x80\x04 not tensors at all"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            run(digits, config, folder=tmp_path)
        assert path.read_bytes() == broken  # nothing lost


def test_conditions_are_dropped_picture_by_picture(digits):
    seen = []

    class Spy(Conditional):
        def forward(self, x, time, condition):
            seen.append(condition)
            return super().forward(x, time, condition)

    net = Spy(UNet(TINY), LabelEncoder(10, 8))
    config = TrainConfig(steps=60, drop=0.25)
    batches = data.batches(digits, 16)
    list(train(net, flow(), FLOW, batches, config, null=10))
    labels = [y for _, y in itertools.islice(data.batches(digits, 16), 60)]
    dropped = torch.stack(seen) == 10
    assert (torch.stack(seen)[~dropped] == torch.stack(labels)[~dropped]).all()
    assert 0.19 < dropped.float().mean() < 0.31
    assert dropped.any(1).float().mean() > 0.8 and not dropped.all(1).any()


def test_the_seed_decides(digits):
    config = TrainConfig(steps=3)
    assert equal(run(digits, config)[0], run(digits, config)[0])
    assert not equal(run(digits, config)[0], run(digits, TrainConfig(steps=3, seed=1))[0])


def test_the_average_follows_slowly_and_is_a_copy():
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, 1.0)
    ema = EMA(net, decay=0.9)
    torch.nn.init.constant_(net.weight, 2.0)
    assert float(ema.net.weight) == 1.0
    ema.update(net, step=10_000)
    assert float(ema.net.weight) == pytest.approx(1.1)
    ema.update(net, step=0)  # at first it follows fast: decay 1/10
    assert float(ema.net.weight) == pytest.approx(0.1 * 1.1 + 0.9 * 2.0)
    assert not ema.net.training and not ema.net.weight.requires_grad


def test_the_learning_rate_warms_up_and_ends_at_zero(digits):
    net, rates = network(), []
    before = [p.detach().clone() for p in net.parameters()]
    for _ in train(net, flow(), FLOW, data.batches(digits, 16), TrainConfig(steps=40, warmup=10, weight_decay=0.0)):
        moved = max(float((p.detach() - q).abs().max()) for p, q in zip(net.parameters(), before, strict=True))
        before = [p.detach().clone() for p in net.parameters()]
        rates.append(moved)
    assert rates[0] < 0.2 * max(rates) and rates[-1] < 0.05 * max(rates)


@pytest.mark.parametrize("name", TIMES)
def test_training_times_lie_within_reach(name):
    t = TIMES[name](20_000, torch.Generator().manual_seed(0))
    assert t.dtype == torch.float64 and t.min() >= 0 and t.max() <= 1
    mean, std = {"uniform": (0.5, 12**-0.5), "logit_normal": (0.5, 0.2083), "noisier": (0.5765, 0.2307)}[name]
    assert float(t.mean()) == pytest.approx(mean, abs=0.01)
    assert float(t.std()) == pytest.approx(std, abs=0.005)
