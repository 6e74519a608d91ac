"""Right answers to the exercises of lesson 08, each written in another way: all of them must pass."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange


def matrix_by_pytorch(pictures, texts, log_scale):
    return F.cosine_similarity(pictures[:, None], texts[None], dim=-1) * torch.exp(log_scale)


def matrix_by_normalize(pictures, texts, log_scale):
    pictures, texts = F.normalize(pictures.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    return einsum(pictures, texts, "p d, t d -> p t") * torch.exp(log_scale)


def matrix_entry_by_entry(pictures, texts, log_scale):
    out = torch.empty(len(pictures), len(texts))
    for i, p in enumerate(pictures):
        for j, t in enumerate(texts):
            out[i, j] = 2.718281828459045**log_scale * (p @ t) / ((p @ p) * (t @ t)) ** 0.5
    return out


def contrastive_by_cross_entropy(logits):
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def contrastive_by_logsumexp(logits):
    n = len(logits)
    return (logits.logsumexp(0).sum() + logits.logsumexp(1).sum() - 2 * logits.trace()) / (2 * n)


def contrastive_in_loops(logits):
    total = 0.0
    for square in (logits, logits.T):
        for i, row in enumerate(square):
            total -= torch.log(row[i].exp() / row.exp().sum())
    return total / (2 * len(logits))


def tokens_by_einops(x, kernel, start, places):
    p = kernel.shape[-1]
    patches = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p) @ rearrange(kernel, "d c p q -> (c p q) d")
    first = (start + places[0]).expand(len(x), 1, -1)
    return torch.cat([first, patches + places[1:]], dim=1)


def tokens_patch_by_patch(x, kernel, start, places):
    p, rows = kernel.shape[-1], [start.repeat(len(x), 1)]
    for i in range(0, x.shape[2], p):
        for j in range(0, x.shape[3], p):
            rows.append(torch.einsum("bchw,dchw->bd", x[:, :, i : i + p, j : j + p], kernel))
    return torch.stack(rows, dim=1) + places


def tokens_by_unfold(x, kernel, start, places):
    p = kernel.shape[-1]
    patches = F.unfold(x, p, stride=p).transpose(1, 2) @ kernel.reshape(len(kernel), -1).T
    return F.pad(patches, (0, 0, 1, 0)) + places + F.pad(start[None], (0, 0, 0, patches.shape[1]))


def read_by_library(scores, v, ids, end):
    length = ids.shape[1]
    causal = torch.full((length, length), float("-inf")).triu(1)
    states = (scores + causal).softmax(-1) @ v
    return torch.stack([state[row.tolist().index(end)] for state, row in zip(states, ids, strict=True)])


def read_only_what_is_needed(scores, v, ids, end):
    out = []
    for b in range(len(ids)):
        stop = int((ids[b] == end).nonzero()[0])
        shares = scores[b, stop, : stop + 1].exp()
        out.append((shares / shares.sum()) @ v[b, : stop + 1])
    return torch.stack(out)


def read_by_gather(scores, v, ids, end):
    places = torch.arange(ids.shape[1])
    scores = torch.where(places[:, None] >= places, scores, torch.finfo(scores.dtype).min)
    first = torch.where(ids == end, places, len(places)).amin(1)
    return (scores.softmax(2) @ v).gather(1, first[:, None, None].expand(-1, 1, v.shape[2]))[:, 0]


def merge_one_rank_after_another(letters, merges):
    word = list(letters)
    word[-1] += 256
    for rank, pair in enumerate(merges):
        i = 0
        while i < len(word) - 1:
            if (word[i], word[i + 1]) == pair:
                word[i : i + 2] = [512 + rank]
            i += 1
    return word


def merge_one_place_after_another(letters, merges):
    word = [*letters[:-1], letters[-1] + 256]
    while True:
        ranked = [(merges.index(pair), i) for i, pair in enumerate(zip(word, word[1:], strict=False)) if pair in merges]
        if not ranked:
            return torch.tensor(word)
        rank, i = min(ranked)
        word = word[:i] + [512 + rank] + word[i + 2 :]


def merge_by_recursion(letters, merges):
    def joined(word):
        ranks = [merges.index((a, b)) for a, b in zip(word, word[1:], strict=False) if (a, b) in merges]
        if not ranks:
            return word
        a, b = merges[min(ranks)]
        i = next(i for i in range(len(word)) if word[i : i + 2] == [a, b])
        return joined([*word[:i], 512 + min(ranks), *word[i + 2 :]])

    return joined([*letters[:-1], 256 + letters[-1]])


FORMS = {
    "l08_matrix": [matrix_by_pytorch, matrix_by_normalize, matrix_entry_by_entry],
    "l08_contrastive": [contrastive_by_cross_entropy, contrastive_by_logsumexp, contrastive_in_loops],
    "l08_tokens": [tokens_by_einops, tokens_patch_by_patch, tokens_by_unfold],
    "l08_read": [read_by_library, read_only_what_is_needed, read_by_gather],
    "l08_merge": [merge_one_rank_after_another, merge_one_place_after_another, merge_by_recursion],
}
