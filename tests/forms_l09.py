"""Right answers to the exercises of lesson 09, each written in another way: all of them must pass."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce


def drop_in_a_loop(context, null, u, p):
    return torch.stack([null if u[k] < p else context[k] for k in range(len(u))])


def drop_with_an_index(context, null, u, p):
    context = context.float().clone()
    context[u < p] = null.float()
    return context


def drop_by_arithmetic(context, null, u, p):
    keep = rearrange((u >= p).to(context.dtype), "b -> b 1 1")
    return keep * context + (1 - keep) * null


def guided_text_first(net, x, t, text, null, w):
    both = net(x.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([text, null]))
    with_text, without = both.split(len(x))
    return torch.lerp(without, with_text, w)


def guided_as_the_paper_has_it(net, x, t, text, null, w):
    x, t, text, null = (z.float() for z in (x, t, text, null))
    theirs = w - 1
    with_text, without = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([text, null])).chunk(2)
    return (1 + theirs) * with_text - theirs * without


def away_in_a_loop(nothing, text, negative, t, w, low, high):
    out = []
    for k, time in enumerate(t.tolist()):
        scale = w if low <= time <= high else 1
        out.append(scale * text[k] + (1 - scale) * negative[k])
    return torch.stack(out)


def away_by_choosing(nothing, text, negative, t, w, low, high):
    guided = text + (w - 1) * (text - negative)
    on = torch.logical_not((t < low).logical_or(t > high)).reshape(-1, 1, 1, 1)
    return torch.where(on, guided, text).float()


def rescale_one_factor(out, text, amount):
    ratio = reduce(text.var((1, 2, 3)) / out.var((1, 2, 3)), "b -> b 1 1 1", "sum").sqrt()
    return out * (1 + amount * (ratio - 1))


def rescale_in_a_loop(out, text, amount):
    pairs = zip(out.float(), text.float(), strict=True)
    return torch.stack([torch.lerp(o, o * (s.std() / o.std()), amount) for o, s in pairs])


def rescale_with_the_other_n(out, text, amount):
    spread, wanted = (o.flatten(1).std(1, correction=0) for o in (out, text))
    return einsum(amount * wanted / spread + 1 - amount, out, "b, b c h w -> b c h w")


def maps_by_pytorch(q, k, height):
    words = torch.eye(k.shape[1], dtype=q.dtype).expand(len(k), -1, -1)  # values that say who they are
    shares = F.scaled_dot_product_attention(q, k, words)
    return reduce(shares, "heads (h w) l -> l h w", "mean", h=height)


def maps_by_einsum(q, k, height):
    q, k = q.float(), k.float()
    scores = torch.einsum("hnd,hld->hnl", q / q.shape[2] ** 0.5, k).exp()
    shares = (scores / scores.sum(2, keepdim=True)).mean(0)
    return shares.reshape(height, -1, k.shape[1]).permute(2, 0, 1)


def maps_in_loops(q, k, height):
    heads, pixels, d = q.shape
    out = torch.zeros(k.shape[1], height, pixels // height, dtype=q.dtype)
    for head in range(heads):
        for pixel in range(pixels):
            row, column = divmod(pixel, pixels // height)
            out[:, row, column] += torch.softmax(k[head] @ q[head, pixel] / d**0.5, dim=0) / heads
    return out


FORMS = {
    "l09_drop": [drop_in_a_loop, drop_with_an_index, drop_by_arithmetic],
    "l09_guided": [
        guided_text_first,
        guided_as_the_paper_has_it,
    ],
    "l09_away": [away_in_a_loop, away_by_choosing],
    "l09_rescale": [rescale_one_factor, rescale_in_a_loop, rescale_with_the_other_n],
    "l09_maps": [maps_by_pytorch, maps_by_einsum, maps_in_loops],
}
