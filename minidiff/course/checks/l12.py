"""Exercises of lesson 12, scaling up: operations and memory. Those about several processes are in l12_processes.py."""

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# Operations of a convolution ----------------------------------------------------------------


def operations(batch: int, before: int, after: int, side: int, kernel: int, stride: int, padding: int) -> int:
    out = _out(side, kernel, stride, padding)
    return 2 * batch * after * out * out * before * kernel * kernel


def _out(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


def _at(batch, before, after, kernel, high: int, wide: int) -> int:
    """The operations where the output is taken to be `high` by `wide`."""
    return 2 * batch * after * high * wide * before * kernel**2


def _operations_given(d: Draw):
    kernel, stride = d.choose("kernel", [1, 3, 5]), d.choose("stride", {"stride 1": 1, "stride 2": 2, "stride 3": 3})
    batch, before, after = (d.random.randint(1, 8) for _ in range(3))
    return batch, before, after, d.random.randint(kernel, 16), kernel, stride, d.random.randint(0, 2)


exercise(
    "l12_operations",
    operations,
    _operations_given,
    (
        Bug(
            lambda b, c, d, n, k, s, p: _at(b, c, d, k, (n + 2 * p - k) // s, (n + 2 * p - k) // s),
            "an output that is one too small: the first position of the kernel is not counted.",
            "the size of the output: from 0 to the last position there is one more than the last number.",
            "there is hardly any effect for large images; small ones seem cheaper than they are.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: _at(b, c, d, k, (n + 2 * p - k + 1) // s, (n + 2 * p - k + 1) // s),
            "an output whose 1 was added before the division by the stride.",
            "the size of the output: divide first, then add 1 for the first position.",
            "there is no visible effect at stride 1; with a stride, an output that is sometimes one too small.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: _at(b, c, d, k, -(-(n + 2 * p - k) // s) + 1, -(-(n + 2 * p - k) // s) + 1),
            "an output rounded up: where the stride does not fit any more, there is no further position.",
            "the division in the size of the output: round down.",
            "there is hardly any effect: some operations too many at odd sizes.",
        ),
        Bug(
            lambda *a: operations(*a) // 2,
            "multiplications and additions counted together, as one. Here each counts: two operations for every weight.",
            "the factor in front. Both conventions are in use, so whoever gives a number must say which one it is.",
            "there is no visible effect, but you plan half the time.",
            "https://github.com/facebookresearch/shumai/pull/139",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: operations(b, c, d, n, k, s, p) // k**2,
            "a kernel that looks at one pixel: its area is missing.",
            "how many values go into one value of the output: every channel, at kernel times kernel positions.",
            "there is no visible effect, but you plan a ninth of the time, for 3 x 3.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: operations(b, c, d, n, k, s, p) // k,
            "a kernel that is a line: its side is counted once.",
            "how many values go into one value of the output: every channel, at kernel times kernel positions.",
            "there is no visible effect, but you plan a third of the time, for 3 x 3.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: operations(b, c, d, n, k, 1, p),
            "a stride that was forgotten: the output is smaller than the input where the kernel moves by more than one.",
            "the size of the output.",
            "there is no visible effect, but layers that halve a picture seem to cost four times what they do.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: _at(b, c, d, k, _out(n, k, s, p), _out(n, k, 1, p)),
            "a stride along one side only.",
            "both sides of the output.",
            "there is no visible effect, but layers that halve a picture seem to cost twice what they do.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: _at(b, c, d, k, _out(n, k, s, p) // s, _out(n, k, s, p) // s),
            "a stride that is divided by twice: the size of the output has it in it already.",
            "what you do with the size of the output after you have it.",
            "there is no visible effect, but layers that halve a picture seem to cost a quarter of what they do.",
            "https://github.com/Lyken17/pytorch-OpCounter/issues/8",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: _at(b, c, d, k, n // s, n // s),
            "the input's size divided by the stride; the kernel and the padding have a say in it too.",
            "the size of the output: as many as the kernel has positions in the padded picture.",
            "there is no visible effect; the result is right for the usual 3 x 3 with a padding of 1, and wrong for the rest.",
            "https://github.com/ckyrkou/Keras_FLOP_Estimator/issues/4",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: operations(b, c, d, n, k, s, 0),
            "a padding that was forgotten.",
            "the size of the output: the padding is on both sides of the picture.",
            "there is no visible effect, but you plan a little too little time, and for small pictures far too little.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: operations(b, c, d, n, k, s, p) // c,
            "one channel: those of the input are missing.",
            "how many values go into one value of the output: every channel, at kernel times kernel positions.",
            "there is no visible effect, but the inner layers cost hundreds of times more than you plan.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: operations(b, c, d, n, k, s, p) // d,
            "one kernel: there is one for each channel of the output.",
            "how many numbers the output has.",
            "there is no visible effect, but the inner layers cost hundreds of times more than you plan.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: operations(1, c, d, n, k, s, p),
            "a single picture: the batch is missing.",
            "how many numbers the output has.",
            "there is no visible effect, but the cost of a step seems not to depend on its batch.",
        ),
        Bug(
            lambda b, c, d, n, k, s, p: 2 * b * d * c * k**2,
            "a kernel that is applied once; it is applied at every pixel of the output.",
            "how many numbers the output has.",
            "there is no visible effect, but a large picture seems to cost what a small one does.",
        ),
    ),
    returns="one number",
    forbids=("conv2d",),
)


# Memory of a training -----------------------------------------------------------------------


def memory(parameters: int, kept: int, batch: int, ema: bool) -> int:
    return _memory(parameters, kept, batch, ema)


def _memory(parameters, kept, batch, ema, copies: int = 4, size: int = 4) -> int:
    """copies: of the parameters, without the average; size: bytes of a number."""
    return size * parameters * (copies + ema) + batch * kept


exercise(
    "l12_memory",
    memory,
    lambda d: (
        d.random.randint(1, 2000),
        d.random.randint(1, 5000),
        d.random.randint(1, 64),
        d.choose("ema", {"with a moving average": True, "without one": False}),
    ),
    (
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, batch, ema, copies=2),
            "an optimizer without memory: AdamW keeps two moments for every parameter.",
            "the list: weights, gradients, two moments, and the average if there is one.",
            "you never get to see one: the first step runs out of memory at its very end, when the moments are created.",
            "https://github.com/caomaolufei/AIInfraGuide/issues/24",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, batch, ema, copies=3),
            "one copy of the parameters too few: the gradients, or one of the two moments.",
            "the list: weights, gradients, two moments, and the average if there is one.",
            "you never get to see one: the run is out of memory.",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, batch, ema, copies=1),
            "a network that only draws: weights alone, without what training adds to them.",
            "the list: weights, gradients, two moments, and the average if there is one.",
            "there is no visible effect: a network that generates well on this GPU cannot be trained on it.",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, batch, False),
            "a moving average that was forgotten: it is one more copy of all weights.",
            "the argument `ema`: it is not used.",
            "the run is out of memory; or, if you then leave the average out, pictures get worse.",
            "https://github.com/mosaicml/composer/pull/1941",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, batch, True),
            "a moving average where there is none.",
            "the argument `ema`: it is not used.",
            "there is no visible effect, but you rent a larger GPU than you need.",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, batch, ema, size=1),
            "numbers, not bytes: a float32 has four.",
            "the unit.",
            "you never get to see one: the run is out of memory at once.",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, batch, ema, size=2),
            "numbers of two bytes. Autocast computes in bfloat16, but weights, gradients, moments and average stay float32.",
            "the size of a number.",
            "the run is out of memory; or, if you then keep the weights in bfloat16, they stop learning.",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, kept, 1, ema),
            "one picture: activations are kept for each picture of the batch, for the backward pass.",
            "the argument `batch`: it is not used.",
            "you never get to see one: the run is out of memory as soon as the batch is a real one.",
        ),
        Bug(
            lambda p, kept, batch, ema: _memory(p, 4 * kept, batch, ema),
            "bytes taken for numbers: `kept` is given in bytes already.",
            "what you multiply by four.",
            "there is no visible effect, but batches are smaller than they could be.",
        ),
        Bug(
            lambda p, kept, batch, ema: batch * (_memory(p, 0, 0, ema) + kept),
            "weights for every picture; the whole batch uses the same ones.",
            "what you multiply by the batch.",
            "there is no visible effect, but batches are far smaller than they could be.",
        ),
    ),
    returns="one number",
)
