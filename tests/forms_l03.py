"""Correct answers to lesson 03's exercises, each written differently from the course's own."""

import math

import numpy as np
import torch


def ancestral_by_precision(x, x0_hat, noise, alpha, sigma, alpha_to, sigma_to):
    """Two Gaussians multiplied: what x0_hat says of the next picture, and what x says of it."""
    if sigma_to == 0:
        return x0_hat.clone()
    kept = alpha / alpha_to
    forward = sigma**2 - kept**2 * sigma_to**2
    precision = 1 / sigma_to**2 + kept**2 / forward
    mean = (alpha_to * x0_hat / sigma_to**2 + kept * x / forward) / precision
    return mean + noise / torch.sqrt(precision)


def ancestral_by_noise(x, x0_hat, noise, alpha, sigma, alpha_to, sigma_to):
    """DDIM at eta = 1, with plain numbers and float32."""
    alpha, sigma, alpha_to, sigma_to = (float(value) for value in (alpha, sigma, alpha_to, sigma_to))
    x, x0_hat, noise = x.float(), x0_hat.float(), noise.float()
    fresh = sigma_to / sigma * math.sqrt(sigma**2 - (alpha / alpha_to * sigma_to) ** 2)
    eps_hat = (x - alpha * x0_hat) / sigma
    x = alpha_to * x0_hat + math.sqrt(sigma_to**2 - fresh**2) * eps_hat
    return x + fresh * noise if sigma_to > 0 else x


def ddim_as_euler(x, x0_hat, alpha, sigma, alpha_to, sigma_to):
    eps_hat = (x - alpha * x0_hat) / sigma
    return x + (alpha_to - alpha) * x0_hat + (sigma_to - sigma) * eps_hat


def ddim_by_shrinking(x, x0_hat, alpha, sigma, alpha_to, sigma_to):
    """As DPM-Solver writes it: x shrinks with the noise, and the belief fills up. In float32."""
    shrink = float(sigma_to / sigma)
    return shrink * x.float() + (alpha_to - shrink * alpha).float() * x0_hat.float()


def walk_by_index(denoise, step, x, times):
    for i in range(len(times) - 1):
        belief = denoise(x, times[i])
        x = step(x, belief, times[i], times[i + 1])
    return x


def walk_by_recursion(denoise, step, x, times):
    if len(times) == 1:
        return x
    return walk_by_recursion(denoise, step, step(x, denoise(x, times[0]), *times[:2]), times[1:])


def heun_by_correction(slope, x, t, t_to):
    """Euler, then half of what the slope has changed."""
    here = slope(x, t)
    ahead = x + (t_to - t) * here
    return ahead + (t_to - t) / 2 * (slope(ahead, t_to) - here)


def heun_by_two_eulers(slope, x, t, t_to):
    """Two Euler steps of full length, one after the other, go twice too far: take half way."""
    length, x = t_to - t, x.float()
    forward = x + length * slope(x, t)
    return 0.5 * x + 0.5 * (forward + length * slope(forward, t_to))


def order_by_polyfit(steps, errors):
    return -np.polyfit(np.log(steps.numpy()), np.log(errors.numpy()), 1)[0]


def order_by_least_squares(steps, errors):
    rows = torch.stack([steps.log2(), torch.ones_like(steps)], dim=1)
    return -torch.linalg.lstsq(rows, errors.log2()[:, None]).solution[0, 0]


FORMS = {
    "l03_ancestral_step": [ancestral_by_precision, ancestral_by_noise],
    "l03_ddim_step": [ddim_as_euler, ddim_by_shrinking],
    "l03_walk": [walk_by_index, walk_by_recursion],
    "l03_heun_step": [heun_by_correction, heun_by_two_eulers],
    "l03_order": [order_by_polyfit, order_by_least_squares],
}
