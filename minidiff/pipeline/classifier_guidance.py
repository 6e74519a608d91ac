"""Classifier guidance: two log p for `minidiff.diffusion.guide` to follow, of a noisy classifier and of CLIP.

from minidiff.formats.model_folder import load_classifier
from minidiff.pipeline.classifier_guidance import classifier_log_p

sevens = classifier_log_p(load_classifier("noisy_classifier"), torch.full((8,), 7), pipe.schedule.net_time)
pipe.latents(["7"] * 8, scale=0, log_p=sevens, log_p_scale=4.0)  # scale=0: the denoiser itself is unconditional
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.diffusion.schedules import as_time
from minidiff.networks import CLIP

LogP = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, t, x0_hat) -> (B,)


def classifier_log_p(classifier: Callable, labels: Tensor, net_time: Callable[[Tensor], Tensor]) -> LogP:
    """log p(label | x_t), by a classifier of noisy images. Dhariwal and Nichol 2021, section 4.

    classifier: (x (B, ...), time (B,)) -> logits (B, K). labels: (B,), one an image. net_time: the schedule's.
    """

    def log_p(x: Tensor, t: Tensor | float, x0_hat: Tensor) -> Tensor:
        time = net_time(as_time(t)).to(x.dtype).to(x.device).expand(len(x))
        return -F.cross_entropy(classifier(x, time), labels.to(x.device), reduction="none")  # (B,)

    return log_p


def clip_log_p(clip: CLIP, text: Tensor, decode: Callable[[Tensor], Tensor]) -> LogP:
    """How well x0_hat fits its text, by a CLIP of clean images: exp(logit_scale) times the cosine.

    text: ids (B, L), one text an image. decode: x0_hat -> images (B, 3, H, W) in [-1, 1], with gradients. But for a
    constant of each image it is CLIP's log p(text | image). That x0_hat, a mean of many images, stands in for all of
    them is the approximation of Chung et al. 2022 (DPS); the gradient flows back through the denoiser.
    """
    with torch.no_grad():
        wanted = clip.logit_scale.exp() * clip.embed_text(text)  # (B, E)

    def log_p(x: Tensor, t: Tensor | float, x0_hat: Tensor) -> Tensor:
        return (wanted * clip.embed_images(decode(x0_hat))).sum(1)  # (B,)

    return log_p
