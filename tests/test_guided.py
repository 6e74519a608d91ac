"""What a walk can be made to follow: both log p, and digits that a classifier has asked for."""

import pytest
import torch
import torch.nn.functional as F

from minidiff import TextToImage, data
from minidiff.diffusion import flow, guide
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier
from minidiff.networks import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidiff.pipeline.classifier_guidance import classifier_log_p, clip_log_p

PATH = flow()
LABELS = torch.tensor([2, 0, 1])
X = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WEIGHTS = torch.randn(16, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def classifier(x, time):
    return x.flatten(1) @ WEIGHTS * (1 + time[:, None] / 1000)


@pytest.mark.parametrize("t", [0.3, torch.tensor(0.3), torch.tensor([0.3, 0.5, 0.9])])
def test_the_classifiers_log_p_is_that_of_each_pictures_label_at_its_time(t):
    found = classifier_log_p(classifier, LABELS, PATH.net_time)(X, t, None)
    times = torch.as_tensor(t, dtype=torch.float64).expand(3)
    for k in range(3):
        p = torch.softmax(X[k].flatten() @ WEIGHTS * (1 + times[k]), 0)
        torch.testing.assert_close(found[k], p[LABELS[k]].log())


def test_its_gradient_moves_x0_hat_by_hand():
    def denoise(x, t):
        return torch.tanh(x)

    t, w = 0.4, 3.0
    moved = guide(denoise, classifier_log_p(classifier, LABELS, PATH.net_time), PATH, w)(X, t)
    p = torch.softmax(X.flatten(1) @ WEIGHTS * (1 + t), 1)
    by_hand = ((F.one_hot(LABELS, 5) - p) @ (WEIGHTS * (1 + t)).T).reshape(X.shape)
    torch.testing.assert_close(moved, torch.tanh(X) + w * t**2 / (1 - t) * by_hand)


def test_clips_log_p_looks_at_x0_hat_and_climbs_its_cosine():
    torch.manual_seed(0)
    clip = CLIP(
        CLIPConfig(
            CLIPTextConfig(vocab=20, length=6, width=16, layers=1, heads=2, end=2),
            CLIPVisionConfig(size=8, patch=4, width=16, layers=1, heads=2),
            dim=12,
        )
    ).requires_grad_(False)
    ids, x = torch.tensor([[1, 5, 2], [1, 7, 2]]), torch.randn(2, 3, 8, 8)
    log_p = clip_log_p(clip, ids, lambda z: z / 2)
    torch.testing.assert_close(log_p(None, 0.5, x), clip(ids, x / 2).diagonal())
    moved = guide(lambda x, t: 0.9 * x, log_p, PATH, 0.1)(x, 0.5)
    assert (log_p(None, 0.5, moved) > log_p(None, 0.5, 0.9 * x)).all()


def test_a_classifier_draws_what_it_is_asked_for_with_a_denoiser_that_is_told_nothing():
    pipe, labels = TextToImage.load("mnist", "cpu"), data.mnist("validation").labels[:40]
    log_p = classifier_log_p(load_classifier("noisy_classifier"), labels, pipe.schedule.net_time)
    right = {}
    for scale in (0.0, 4.0):
        z = pipe.latents(["0"] * 40, scale=0, log_p=log_p, log_p_scale=scale, steps=8)
        right[scale] = (judged(load_classifier("judge"), pipe.decode(z) * 2 - 1)[1] == labels).double().mean()
    assert right[0.0] < 0.4 and right[4.0] > 0.8  # the judge has guided nobody
