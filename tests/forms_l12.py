"""Right answers to the exercises of lesson 12, each written in another way: all of them must pass."""

import torch
import torch.nn.functional as F


def operations_by_shapes(batch, before, after, side, kernel, stride, padding):
    places = len(range(0, side + 2 * padding - kernel + 1, stride))
    numbers = batch * after * places**2
    return numbers * (before * kernel**2) * 2


def memory_by_real_tensors(parameters, kept, batch, ema):
    weight = torch.zeros(parameters, requires_grad=True)
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    held = [weight, weight.grad, *(value for value in optimizer.state[weight].values() if value.ndim)]
    held += [weight.detach().clone()] if ema else []
    return sum(tensor.nbytes for tensor in held) + kept * batch


def memory_line_by_line(parameters, kept, batch, ema):
    weights = gradients = first = second = 4 * parameters
    average = 4 * parameters if ema else 0
    return torch.tensor(weights + gradients + first + second + average + batch * kept)


def gradient_by_shares(gradients, pictures):
    shares = pictures / pictures.sum()
    return shares.to(gradients) @ gradients


def gradient_in_a_loop(gradients, pictures):
    total = torch.zeros(gradients.shape[1])
    for row, count in zip(gradients.float(), pictures.tolist(), strict=True):
        total = total + count * row
    return total / int(pictures.sum())


def gradient_picture_by_picture(gradients, pictures):
    return gradients.repeat_interleave(pictures, dim=0).mean(0)


def visits_in_a_loop(shuffled, seed, epoch, batch, rank, world):
    order, size = shuffled(seed + epoch).tolist(), batch // world
    starts = range(rank * size, len(order) - batch + rank * size + 1, batch)
    return [order[start : start + size] for start in starts]


def visits_by_split(shuffled, seed, epoch, batch, rank, world):
    whole = [part for part in shuffled(epoch + seed).split(batch) if len(part) == batch]
    return torch.stack([part.chunk(world)[rank] for part in whole])


def visits_by_axes(shuffled, seed, epoch, batch, rank, world):
    order = shuffled(seed + epoch)
    steps = order.numel() // batch
    return order[: steps * batch].view(steps, world, batch // world)[:, rank].numpy()


def step_with_an_optimizer(weight, x, target, lr):
    layer = torch.nn.Linear(x.shape[1], len(weight), bias=False)
    layer.load_state_dict({"weight": weight})
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    ((out.float() - target) ** 2).mean().backward()
    optimizer.step()
    return layer.weight


def step_with_the_loss_inside(weight, x, target, lr):
    learned = torch.nn.Parameter(weight.clone())
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.mse_loss(x @ learned.T, target)  # which autocast computes in float32
    (slope,) = torch.autograd.grad(loss, learned)
    return weight - lr * slope


def step_by_hand(weight, x, target, lr):
    out = (x.bfloat16() @ weight.bfloat16().T).float()
    error = 2 / target.numel() * (out - target)
    return weight - lr * error.T @ x


FORMS = {
    "l12_operations": [operations_by_shapes],
    "l12_memory": [memory_by_real_tensors, memory_line_by_line],
    "l12_gradient": [gradient_by_shares, gradient_in_a_loop, gradient_picture_by_picture],
    "l12_visits": [visits_in_a_loop, visits_by_split, visits_by_axes],
    "l12_step": [step_with_an_optimizer, step_with_the_loss_inside, step_by_hand],
}
