"""Right answers to the exercises of lesson 11, each written in another way: all of them must pass."""

import torch


def start_by_counting(times, strength, mean, scaling, eps):
    n = len(times) - 1
    kept = int(n * strength)
    left = times[-(kept + 1) :]
    t = left[0]
    return {"x": t * eps + (1 - t) * mean * scaling, "times": left}


def start_skipping(times, strength, mean, scaling, eps):
    steps = list(zip(times[:-1], times[1:], strict=True))
    left = steps[len(steps) - int(len(steps) * strength) :]
    t = left[0][0] if left else times[-1]
    z = scaling * mean
    return {"times": torch.stack([t, *[s for _, s in left]]), "x": z + t * (eps - z)}


def start_with_lists(times, strength, mean, scaling, eps):
    steps = len(times) - 1
    left = times.tolist()[steps - int(strength * steps) :]
    return {"times": left, "x": ((1 - left[0]) * scaling * mean + left[0] * eps).tolist()}


def keep_by_where(x, known, mask, noises, t, k):
    noised = torch.lerp(known, noises[0], t)
    return noised + mask * (x - noised)


def keep_in_float32(x, known, mask, noises, t, k):
    sigma = float(t)
    return x.float() * mask.float() + ((1 - sigma) * known.float() + sigma * noises[0].float()) * (1 - mask.float())


def clean_in_a_loop(x, out, betas, index, says_v):
    kept = 1.0
    for beta in betas[: index + 1].tolist():
        kept = kept * (1 - beta)
    alpha, sigma = kept**0.5, (1 - kept) ** 0.5
    if says_v:
        eps = sigma * x + alpha * out
        return (x - sigma * eps) / alpha
    return x / alpha - sigma / alpha * out


def clean_by_logarithms(x, out, betas, index, says_v):
    kept = torch.log1p(-betas).cumsum(0)[index].exp()
    if says_v:
        return kept.sqrt() * x - (1 - kept).sqrt() * out
    return (x - (1 - kept).sqrt() * out) / kept.sqrt()


def report_as_a_list(needed, found):
    found = {name.removeprefix("text_model."): shape for name, shape in found.items()}
    missing = [name for name in needed if name not in found]
    unexpected = [name for name in found if name not in needed]
    other = [name for name in needed if name in found and needed[name] != found[name]]
    return [len(missing), len(unexpected), len(other)]


def report_by_popping(needed, found):
    left = {name[11:] if name.startswith("text_model.") else name: shape for name, shape in found.items()}
    missing = other = 0
    for name, shape in needed.items():
        there = left.pop(name, None)
        if there is None:
            missing += 1
        elif there != shape:
            other += 1
    return torch.tensor([missing, len(left), other], dtype=torch.float32)


FORMS = {
    "l11_start": [start_by_counting, start_skipping, start_with_lists],
    "l11_keep": [keep_by_where, keep_in_float32],
    "l11_clean": [clean_in_a_loop, clean_by_logarithms],
    "l11_report": [report_as_a_list, report_by_popping],
}
