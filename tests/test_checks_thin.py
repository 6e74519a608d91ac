"""Wrong answers that agree with the right one wherever somebody would look first."""

import pytest
import torch
import torch.nn.functional as F

from minidiff.course.checks import CHECKS, trial
from minidiff.course.checks.exercise import CASES, FRESH

R = {name: exercise.right for name, exercise in CHECKS.items()}


def other_sigma(alpha):
    return (1 - alpha**2).clamp(min=0).sqrt()


def per_channel(queries, train, heldout):
    def near(pool):
        return (queries[:, None] - pool[None]).square().sum((-1, -2)).sqrt().sum(-1).amin(1).mean()

    return near(train) / near(heldout)


def belief(denoise, classify, x, t, labels, alpha, sigma, w, pick):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        pull = torch.autograd.grad(pick(classify(x, t).log_softmax(1), labels).sum(), x)[0]
    return denoise(x, t).detach() + w * sigma**2 / alpha * pull


def strictly_inside(nothing, text, negative, t, w, low, high, below=torch.lt, above=torch.le):
    inside = below(torch.as_tensor(low), t) & above(t, torch.as_tensor(high))
    return negative + torch.where(inside, w, 1.0)[:, None, None, None] * (text - negative)


def near_border(real, fake, k):
    reach = torch.cdist(real, real).kthvalue(k + 1, dim=1).values
    return (torch.cdist(fake, real) < reach).any(1).double().mean()


def started(times, strength, mean, scaling, eps, kept):
    left = times[len(times) - 1 - kept(len(times) - 1, strength) :]
    return {"times": left, "x": (1 - left[0]) * scaling * mean + left[0] * eps}


def rescaled(out, text, amount, least=0.0, noise=0.0):
    axes = (1, 2, 3)
    ratio = text.std(axes, keepdim=True) / out.std(axes, keepdim=True).clamp(min=least)
    return amount * ratio * out + (1 - amount) * out


def matrix(pictures, texts, log_scale, least=0.0, most=1e9):
    pictures, texts = (z / z.norm(dim=1, keepdim=True).clamp(min=least) for z in (pictures, texts))
    return log_scale.exp().clamp(max=most) * pictures @ texts.T


THIN = {
    "l01_add_noise": [lambda x0, eps, alpha, sigma: R["l01_add_noise"](x0, eps, alpha, other_sigma(alpha))],
    "l02_loss": [lambda net, x0, eps, t, alpha, sigma: R["l02_loss"](net, x0, eps, t, alpha, other_sigma(alpha)),
                 lambda net, x0, eps, t, alpha, sigma: R["l02_loss"](net, x0, eps, t, 1 - t[:, None, None, None], t[:, None, None, None]),
                 lambda net, x0, eps, t, alpha, sigma: R["l02_loss"](net, x0, eps, t[:1], alpha, sigma),
                 lambda net, x0, eps, t, alpha, sigma: (net((alpha * x0 + sigma * eps).clamp(-1, 1), t) - eps).square().mean()],
    "l02_x0_from_eps": [lambda x, eps, alpha, sigma: R["l02_x0_from_eps"](x, eps, alpha, other_sigma(alpha)),
                        lambda x, eps, alpha, sigma: R["l02_x0_from_eps"](x, eps, alpha, sigma).clamp(-1, 1),
                        lambda x, eps, alpha, sigma: R["l02_x0_from_eps"](x, eps, alpha[:1], sigma[:1])],
    "l07_belief": [lambda d, c, x, t, labels, alpha, sigma, w: R["l07_belief"](d, c, x, t, labels, 1 - t, t, w),
                   lambda d, c, x, t, labels, alpha, sigma, w: R["l07_belief"](d, c, x, 0.5, labels, alpha, sigma, w),
                   lambda *args: belief(*args, pick=lambda logs, labels: logs[labels % len(logs), torch.arange(len(labels)) % logs.shape[1]]),
                   lambda *args: belief(*args, pick=lambda logs, labels: logs.diagonal()),
                   lambda *args: belief(*args, pick=lambda logs, labels: logs[torch.arange(len(labels)), torch.arange(len(labels)) % 3])],
    "l01_one_step": [lambda x, eps, beta: R["l01_one_step"](x, eps[0], beta), lambda x, eps, beta: R["l01_one_step"](x, eps[:, :1], beta),
                     lambda x, eps, beta: R["l01_one_step"](x.clamp(-1, 1), eps, beta), lambda x, eps, beta: R["l01_one_step"](x, eps, min(beta, 0.99))],
    "l07_gradient": [lambda log_p, x: R["l07_gradient"](log_p, x).mean(1, keepdim=True).expand_as(x)],
    "l04_memorisation": [per_channel],
    "l03_ddim_step": [lambda x, x0_hat, *at: R["l03_ddim_step"](x, x0_hat.clamp(-1, 1), *at),
                      lambda x, x0_hat, a, s, a_to, s_to: R["l03_ddim_step"](x, x0_hat, a, other_sigma(a), a_to, other_sigma(a_to))],
    "l03_ancestral_step": [lambda x, x0_hat, noise, *at: R["l03_ancestral_step"](x, x0_hat.clamp(-1, 1), noise, *at)],
    "l04_precision": [near_border],
    "l09_away": [strictly_inside, lambda *args: strictly_inside(*args, below=torch.le, above=torch.lt)],
    "l09_drop": [lambda context, null, u, p: torch.where((u <= p)[:, None, None], null, context)],
    "l11_start": [lambda *args: started(*args, kept=lambda n, s: max(int(n * s), 1)), lambda *args: started(*args, kept=lambda n, s: min(int(n * s), n - 1)),
                  lambda *args: started(*args, kept=lambda n, s: round(n * s)), lambda *args: started(*args, kept=lambda n, s: -int(-n * s // 1))],
    "l12_operations": [lambda b, c, d, n, k, s, p: 2 * b * d * (-(-(n + 2 * p - k) // s) + 1) ** 2 * c * k**2,
                       lambda b, c, d, n, k, s, p: 2 * b * d * -(-(n + 2 * p) // s) ** 2 * c * k**2],
    "l06_days": [lambda *args: max(R["l06_days"](*args), 0.05), lambda *args: min(R["l06_days"](*args), 50.0), lambda *args: round(R["l06_days"](*args), 1)],
    "l09_rescale": [lambda *args: rescaled(*args, least=0.1), lambda out, text, amount: rescaled(out, text, min(max(amount, 0.05), 0.95)),
                    lambda out, text, amount: rescaled(out, text, amount).clamp(-4, 4)],
    "l08_matrix": [lambda *args: matrix(*args, least=1.0), lambda *args: matrix(*args, most=100.0)],
    "l08_read": [lambda scores, v, ids, end: R["l08_read"](scores, v, torch.where(ids == ids.max(), end, 0), end)],
    "l07_log_p": [lambda logits, labels: logits.float().exp().div(logits.float().exp().sum(1, keepdim=True)).log()[torch.arange(len(labels)), labels]],
    "l04_accuracy": [lambda answers, wanted, classes: torch.stack([(answers[wanted == d] == d).double().mean() for d in wanted.unique()])[wanted.unique().argsort(descending=True)]],
    "l08_contrastive": [lambda logits: -(logits.softmax(1).log() + logits.softmax(0).log()).diagonal().clamp(min=-20).mean() / 2],
    "l12_visits": [lambda shuffled, seed, epoch, batch, rank, world: R["l12_visits"](shuffled, seed, min(epoch, 1), batch, rank, world)],
    "l05_group_norm": [lambda x, groups, weight, bias, eps: F.group_norm(x, groups, weight, bias, 1e-5)],
    "l10_slerp": [lambda a, b, amount: R["l10_slerp"](a, b, min(max(amount, 0.02), 0.98))],
}  # fmt: skip


@pytest.mark.parametrize("name, k", [(name, k) for name, wrong in THIN.items() for k in range(len(wrong))])
def test_what_is_wrong_only_at_a_thin_place_is_refused(name, k):
    numbers = [*range(CASES), *range(1000, 1000 + FRESH)]
    found = trial.outcome(CHECKS[name], THIN[name][k], numbers) | {"numbers": numbers}
    assert CHECKS[name].verdict(found) is not None
