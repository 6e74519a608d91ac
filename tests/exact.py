"""Denoisers whose answer is known exactly, to hold the samplers against."""

import torch


class Mixture:
    """Data that is a mixture of K Gaussians of one width; knows E[x0 | x_t] in closed form.

    means (K, D), weights (K,), width: a number. Everything in float64.
    """

    def __init__(self, means, weights, width):
        self.means, self.width = torch.tensor(means, dtype=torch.float64), width
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def log_shares(self, x, alpha, sigma):
        """log p(component, x_t) up to a constant that is the same for all components, (B, K)."""
        variance = alpha**2 * self.width**2 + sigma**2
        distance = (x[:, None] - alpha * self.means).square().sum(-1)
        return self.weights.log() - distance / (2 * variance)

    def posterior_means(self, x, alpha, sigma):
        """E[x0 | x_t, component], (B, K, D)."""
        gain = alpha * self.width**2 / (alpha**2 * self.width**2 + sigma**2)
        return self.means + gain * (x[:, None] - alpha * self.means)

    def denoiser(self, schedule, component=None):
        def denoise(x, t):
            alpha, sigma = schedule.at(t, x)
            if x.ndim == 2 and alpha.ndim == 2:  # one time a row: (B, 1) against (B, K, D)
                alpha, sigma = alpha[:, None], sigma[:, None]
            means = self.posterior_means(x, alpha, sigma)
            if component is not None:
                return means[:, component]
            return (self.log_shares(x, alpha, sigma).softmax(-1)[..., None] * means).sum(1)

        return denoise


TWO_MOONS = Mixture([[1.5, 0.0], [-1.0, 0.8], [-0.4, -1.2]], [0.5, 0.3, 0.2], 0.3)
