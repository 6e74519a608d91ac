"""Exercises of lesson 08, CLIP: what the two towers read."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# A picture as tokens ------------------------------------------------------------------------


def tokens(x: Tensor, kernel: Tensor, start: Tensor, places: Tensor) -> Tensor:
    return _with_start(_patches(x, kernel), start) + places


def _patches(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(x, kernel, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)  # (B, N, D)


def _with_start(patches: Tensor, start: Tensor) -> Tensor:
    return torch.cat([start.expand(len(patches), 1, -1), patches], dim=1)


def _of_patches(change: Callable) -> Callable[..., Tensor]:
    """The tokens, from patches that went wrong: change(x, kernel) -> (B, N, D)."""
    return lambda x, kernel, start, places: _with_start(change(x, kernel), start) + places


def _far_pixels(x, kernel):
    """Patches of pixels that lie far apart: the axes of the picture were split the wrong way round."""
    p = kernel.shape[-1]
    b, c, h, w = x.shape
    cut = x.reshape(b, c, p, h // p, p, w // p).permute(0, 3, 5, 1, 2, 4)  # (B, rows, columns, C, p, p)
    return cut.flatten(3).flatten(1, 2) @ kernel.flatten(1).T


def _tokens_given(d: Draw):
    b, c, h, w, p, size = d.sizes("B C H W P D", H=(1, 3), W=(1, 3), P=(1, 3))
    return d.normal(b, c, h * p, w * p), d.normal(size, c, p, p), d.normal(size), d.normal(1 + h * w, size)


# fmt: skip


exercise(
    "l08_tokens",
    tokens,
    _tokens_given,
    (
        Bug(
            lambda x, kernel, start, places: _patches(x, kernel) + places[1:],
            "patches only: the class token is forgotten.",
            "what stands in front of the patches: `start`, once for each picture.",
            "there is no visible effect yet; but the network reads its answer from token 0, which is now the upper left corner.",
            "https://github.com/Project-MONAI/MONAI/issues/2677",
        ),
        Bug(
            lambda x, kernel, start, places: torch.cat([_patches(x, kernel), start.expand(len(x), 1, -1)], 1) + places,
            "a class token behind the patches: it belongs in front.",
            "the order in `torch.cat`.",
            "in trained weights, a picture whose patches have all moved by one position.",
        ),
        Bug(
            lambda x, kernel, start, places: _with_start(_patches(x, kernel), start),
            "tokens without position embeddings.",
            "`places`: one row is added to each token.",
            "a picture and the same picture in shuffled pieces are one: attention has no order of its own.",
        ),
        Bug(
            lambda x, kernel, start, places: _with_start(_patches(x, kernel) + places[1:], start),
            "position embeddings added before the class token was there: it has none.",
            "the order: first put `start` in front, then add all N + 1 rows of `places`.",
            "there is no visible effect in a network trained this way; trained weights expect the first row too.",
            "https://github.com/labmlai/annotated_deep_learning_paper_implementations/pull/221",
        ),
        Bug(
            lambda x, kernel, start, places: _with_start(_patches(x, kernel) + places[:-1], start) + 0,
            "positions off by one: the first patch has got the row of the class token.",
            "the order: first put `start` in front, then add `places`.",
            "in trained weights, a picture whose patches have all moved by one position.",
        ),
        Bug(
            lambda x, kernel, start, places: tokens(x, kernel, torch.zeros_like(start), places),
            "a class token of zeros.",
            "`start`: it is learned, and the same for every picture.",
            "there is no visible effect in a network trained this way; in trained weights the answer is read from a token that is not itself.",
        ),
        Bug(
            lambda x, kernel, start, places: _with_start(_patches(x, kernel), _patches(x, kernel).mean(1, True)) + places,
            "the mean of the patches in place of the class token.",
            "`start`: it is learned, and the same for every picture.",
            "a network that may learn as well, but it is no longer the one of the weights.",
        ),
        Bug(
            _of_patches(lambda x, kernel: F.conv2d(x, kernel, stride=kernel.shape[-1]).flatten(2).reshape(len(x), -1, len(kernel))),
            "a reshape where a transpose belongs: features and patches get mixed.",
            "how (B, D, N) becomes (B, N, D): swap the last two axes.",
            "every token is made of pieces of all. All shapes are right, so there is no error.",
        ),
        Bug(
            _of_patches(lambda x, kernel: F.conv2d(x, kernel, stride=kernel.shape[-1]).transpose(2, 3).flatten(2).mT),
            "patches column by column: they are counted along the rows, as one reads.",
            "how the grid of patches becomes a line: the upper row first, from left to right.",
            "a picture mirrored along its diagonal, as far as `places` says.",
        ),
        Bug(
            _of_patches(lambda x, kernel: x.reshape(len(x), -1, kernel[0].numel()) @ kernel.flatten(1).T),
            "a reshape of the whole picture: it cuts rows into runs of numbers, and no squares.",
            "the cut: height and width are split first, into patches and pixels, and then the axes are put in order.",
            "a patch is a piece of a row of one colour, and not a piece of the picture.",
            "https://github.com/duoan/TorchCode/issues/21",
        ),
        Bug(
            _of_patches(_far_pixels),
            "patches of pixels that lie far apart: height was split into (pixel, patch), not into (patch, pixel).",
            "the order in which an axis is split: the patch comes first, the pixel within it second.",
            "every patch is a tiny copy of the whole picture, in coarse steps.",
        ),
        Bug(
            _of_patches(lambda x, kernel: _patches(x, kernel.flip(2, 3))),
            "patches upside down: the kernel was flipped.",
            "the sum over a patch: pixel (i, j) meets kernel entry (i, j). PyTorch's conv2d does not flip.",
            "every patch turned by 180 degrees, each in its own position.",
        ),
    ),
    returns="a tensor (B, 1 + N, D)",
    points=2,
)  # fmt: skip


# What the end token has read ----------------------------------------------------------------


def read(scores: Tensor, v: Tensor, ids: Tensor, end: int) -> Tensor:
    return _at(_first(ids == end), _masked(scores).softmax(-1) @ v)


def _masked(scores: Tensor, diagonal: int = 1, value: float = float("-inf")) -> Tensor:
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal)  # True: key j comes after question i
    return scores.masked_fill(later, value)


def _first(true: Tensor) -> Tensor:
    return true.int().argmax(1)


def _at(place: Tensor, states: Tensor) -> Tensor:
    return states[torch.arange(len(states)), place]


def _attending(shares: Callable) -> Callable[..., Tensor]:
    """`read` with other shares than those of causal attention."""
    return lambda scores, v, ids, end: _at(_first(ids == end), shares(scores) @ v)


def _pooling(place: Callable) -> Callable[..., Tensor]:
    """`read`, read off at another place: place(ids, end) -> (B,)."""
    return lambda scores, v, ids, end: _at(place(ids, end), _masked(scores).softmax(-1) @ v)


def _averaged(scores, v, ids, end):
    states, end = _masked(scores).softmax(-1) @ v, _first(ids == end)[:, None]
    kept = (torch.arange(ids.shape[1]) <= end).to(states)
    return (kept[:, :, None] * states).sum(1) / kept.sum(1, keepdim=True)


def _read_given(d: Draw):
    b, length, size = d.sizes("B L D", L=(2, 6))
    end = d.choose("end", [9, 5, 1])
    words = torch.tensor([word for word in range(2, 12) if word != end])
    ids = words[d.labels(b, len(words), length)]
    padding = d.choose("padding", {"padded with the end token": end, "padded with 0": 0, "no padding": None})
    for row in ids:
        place = d.random.randrange(length)
        row[place] = end
        row[place + 1 :] = row[place + 1 :] if padding is None else padding
    return 2 * d.normal(b, length, length), d.normal(b, length, size), ids, end


exercise(
    "l08_read",
    read,
    _read_given,
    (
        Bug(
            _attending(lambda scores: scores.softmax(-1)),
            "a causal mask that was forgotten: the end token looks at the padding behind it.",
            "the scores before the softmax: where a key comes after its query, put minus infinity.",
            "with the shipped CLIP, about half of the pictures no longer find their caption among 100.",
            "https://github.com/sgl-project/sglang/pull/14364",
        ),
        Bug(
            _attending(lambda scores: _masked(scores.mT).mT.softmax(-1)),
            "a causal mask that is transposed: every word sees only itself and what comes later.",
            "the triangle: row i is the query, column j the key, and j > i is hidden.",
            "the end token attends only to padding: all captions mean the same.",
            "https://github.com/pytorch/pytorch/issues/29546",
        ),
        Bug(
            _attending(lambda scores: _masked(scores, diagonal=0).softmax(-1)),
            "a causal mask with its diagonal hidden too: no word sees itself.",
            "the triangle: start one above the diagonal, `triu(1)`.",
            "NaN in every text: the first token attends to nothing, and its softmax divides 0 by 0.",
            "https://github.com/mlfoundations/open_clip/pull/550",
        ),
        Bug(
            _attending(lambda scores: _masked(scores, value=0.0).softmax(-1)),
            "zeros in the hidden entries: the softmax turns a score of 0 into a weight like any other.",
            "the value of the hidden entries: minus infinity, for which the weight is 0.",
            "a caption means something else when it is padded to another length.",
            "https://github.com/georg-wolflein/good-features/pull/1",
        ),
        Bug(
            _attending(lambda scores: scores.softmax(-1).tril()),
            "a mask after the softmax: the weights no longer add up to 1.",
            "the order: mask the scores first, then take the softmax.",
            "the more padding there is, the less the words count.",
            "https://github.com/lucidrains/memory-compressed-attention/issues/2",
        ),
        Bug(
            _attending(lambda scores: _masked(scores).softmax(-2)),
            "a softmax over the queries: the weights should add up to 1 over the keys.",
            "the axis of the softmax: the last one.",
            "the words of a caption drown: how much a word contributes depends on the other queries.",
        ),
        Bug(
            _pooling(lambda ids, end: torch.full_like(ids[:, 0], -1)),
            "reading at the last position, which is padding.",
            "the position you read: the first end token of each text.",
            "the padding has its own say: padded to another length, the same caption is another one.",
            "https://github.com/huggingface/transformers/issues/39269",
        ),
        Bug(
            _pooling(lambda ids, end: ids.shape[1] - 1 - _first((ids == end).flip(1))),
            "reading at the last end token, not at the first.",
            "the position you read: where the padding is made of end tokens too, the first one counts.",
            "the padding has its own say: padded to another length, the same caption is another one.",
        ),
        Bug(
            _pooling(lambda ids, end: ids.argmax(1)),
            "reading at the largest id.",
            "the position you read: compare with `end`. The largest id is the end token in CLIP's own vocabulary, but not in every other.",
            "there is no visible effect with CLIP's vocabulary; with another, every caption is read at some word in its middle.",
            "https://github.com/huggingface/transformers/issues/24650",
        ),
        Bug(
            _pooling(lambda ids, end: _first(ids == end) - 1),
            "reading one position too early: at the last word.",
            "the position you read: at the end token itself.",
            "there is no visible effect in a network trained this way; in trained weights, an embedding that leans toward the last word.",
        ),
        Bug(
            _pooling(lambda ids, end: torch.zeros_like(ids[:, 0])),
            "reading at the start token, as BERT does.",
            "the position you read: under a causal mask the first token attends only to itself.",
            "all captions have the very same embedding.",
            "https://github.com/mlfoundations/open_clip/issues/1151",
        ),
        Bug(
            _averaged,
            "a mean over all words up to the end.",
            "the last step: one state is read, that of the end token.",
            "in trained weights, embeddings in which the first words count most, for everyone has seen them.",
            "https://github.com/openai/CLIP/issues/217",
        ),
    ),
    returns="a tensor (B, D)",
    points=2,
)
