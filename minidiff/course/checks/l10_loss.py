"""The exercise of lesson 10 about the loss of a VAE."""

from collections.abc import Callable

from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise
from minidiff.course.checks.l10 import decoder


def loss(
    x: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor, decode: Callable[[Tensor], Tensor], weight: float
) -> Tensor:
    return _distance(x, decode(_sample(mean, log_variance, noise))) + weight * _kl(mean, log_variance).mean()


def _distance(x: Tensor, decoded: Tensor) -> Tensor:
    return (decoded - x).abs().mean()


def _sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    return mean + (log_variance / 2).exp() * noise


def _kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    return (mean**2 + log_variance.exp() - 1 - log_variance) / 2


def _priced(how: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """The distance as it should be, and another KL term: (mean, log_variance) -> a scalar."""

    def wrong(x, mean, log_variance, noise, decode, weight):
        return _distance(x, decode(_sample(mean, log_variance, noise))) + weight * how(mean, log_variance)

    return wrong


def _drawn(how: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """The KL term as it should be, and another latent: (mean, log_variance, noise) -> z."""

    def wrong(x, mean, log_variance, noise, decode, weight):
        return _distance(x, decode(how(mean, log_variance, noise))) + weight * _kl(mean, log_variance).mean()

    return wrong


def _compared(how: Callable[[Tensor], Tensor]) -> Callable:
    """Both parts as they should be, but the difference of the pictures is made a number in another way."""

    def wrong(x, mean, log_variance, noise, decode, weight):
        difference = decode(_sample(mean, log_variance, noise)) - x
        return how(difference) + weight * _kl(mean, log_variance).mean()

    return wrong


def _weight_on_pictures(x, mean, log_variance, noise, decode, weight):
    return weight * _distance(x, decode(_sample(mean, log_variance, noise))) + _kl(mean, log_variance).mean()


def _of_the_sample(x, mean, log_variance, noise, decode, weight):
    z = _sample(mean, log_variance, noise)
    return _distance(x, decode(z)) + weight * _kl(z, log_variance).mean()


def _given(d: Draw):
    mean, log_variance, eps = d.images(3)
    x = d.normal(*mean.shape[:2], *(2 * side for side in mean.shape[2:]))
    return x, mean, log_variance, eps, decoder, d.number_in("weight", 0, 1)


exercise(
    "l10_loss",
    loss,
    _given,
    (
        Bug(
            _priced(lambda mean, log_variance: -_kl(mean, log_variance).mean()),
            "the KL divergence with a minus: the farther the latents are from noise, the smaller this loss.",
            "the sign between the two parts.",
            "there is no visible effect for a while; then the latents grow without end, and you get NaN.",
            "https://github.com/AntixK/PyTorch-VAE/issues/68",
        ),
        Bug(
            _priced(lambda mean, log_variance: (mean**2 + log_variance.exp() - 1 + log_variance).mean() / 2),
            "a plus before the last log-variance.",
            "where the smallest value lies: a mean of 0 and a log-variance of 0 should cost nothing, and anything else more.",
            "variances that shrink to nothing, because that is made cheap: no smoothness, as without a KL term.",
            "https://github.com/FluxML/model-zoo/pull/147",
        ),
        Bug(
            _priced(lambda mean, log_variance: 2 * _kl(mean, log_variance).mean()),
            "a missing half in the KL divergence.",
            "the factor in front of it.",
            "there is no visible effect; it is the same as twice the weight.",
        ),
        Bug(
            _priced(lambda mean, log_variance: (_kl(mean, log_variance) + 0.5).mean()),
            "a missing -1 in the KL divergence.",
            "what a mean of 0 and a variance of 1 cost: nothing.",
            "there is no visible effect, since the gradient is the same; but the value is not a divergence.",
        ),
        Bug(
            _priced(lambda mean, log_variance: _kl(mean, log_variance).sum()),
            "a sum over the KL divergences, next to a mean over the pixels.",
            "what becomes of the KL divergences in the end: their mean.",
            "fog: the KL term is thousands of times too large, and every latent is decoded to the average picture.",
        ),
        Bug(
            _priced(lambda mean, log_variance: _kl(mean, log_variance).flatten(1).sum(1).mean()),
            "KL divergences that were summed over each picture, next to a mean over the pixels.",
            "what becomes of the KL divergences in the end: the mean of all of them.",
            "fog: the KL term is a thousand times too large. It would be right if the pixels were summed as well.",
        ),
        Bug(
            _priced(lambda mean, log_variance: _kl(mean, 2 * log_variance).mean()),
            "log-variances that were taken for logarithms of standard deviations, in the KL divergence.",
            "the exponential: of a log-variance it is the variance.",
            "less noise in the latents than the KL term accounts for.",
            "https://github.com/AntixK/PyTorch-VAE/issues/69",
        ),
        Bug(
            _priced(lambda mean, log_variance: _kl(mean, log_variance.log()).mean()),
            "log-variances that were taken for variances, in the KL divergence.",
            "where an exponential and where a logarithm belongs: what comes in is the logarithm.",
            "NaN at the first negative one.",
        ),
        Bug(
            _priced(lambda mean, log_variance: (mean + log_variance.exp() - 1 - log_variance).mean() / 2),
            "means that were not squared.",
            "what a mean of -1 costs: as much as one of 1.",
            "latents that run off to one side, since the loss rewards it.",
        ),
        Bug(
            _priced(lambda mean, log_variance: mean.square().mean() / 2),
            "a KL term for the means alone.",
            "what a variance far from 1 costs.",
            "variances that shrink to nothing: an autoencoder without noise.",
        ),
        Bug(
            _of_the_sample,
            "the KL term of the sample, where that of the distribution belongs: z squared holds the noise already.",
            "whose square is taken: the mean's.",
            "there is hardly any effect; the noise is penalised twice, so there is less of it.",
        ),
        Bug(
            _drawn(lambda mean, log_variance, noise: mean + log_variance.exp() * noise),
            "a variance where the standard deviation belongs: noise is multiplied by the root of the variance.",
            "the exponential in front of the noise: half of the logarithm makes the root.",
            "there is no visible effect: the encoder learns other log-variances, and the KL term is for noise that is never added.",
            "https://github.com/alecGraves/BVAE-tf/issues/7",
        ),
        Bug(
            _drawn(lambda mean, log_variance, noise: mean + log_variance * noise),
            "a log-variance that was taken for a standard deviation.",
            "what stands in front of the noise: something that cannot be negative.",
            "grain in what is decoded, at first; later the encoder has learned another meaning.",
        ),
        Bug(
            _drawn(lambda mean, log_variance, noise: mean + log_variance.sqrt() * noise),
            "a log-variance that was taken for a variance.",
            "what stands in front of the noise: the exponential comes first.",
            "NaN at the first negative one.",
        ),
        Bug(
            _drawn(lambda mean, log_variance, noise: mean),
            "a latent without noise: the mean was decoded.",
            "the argument `noise`: it is not used.",
            "sharp pictures, and a decoder that has never seen a latent beside the right one.",
        ),
        Bug(
            _drawn(lambda mean, log_variance, noise: mean + noise),
            "noise of size 1, whatever the encoder says.",
            "what stands in front of the noise.",
            "fog: most of each latent is lost before it is decoded.",
        ),
        Bug(
            _compared(lambda difference: difference.square().mean()),
            "squared differences, where the task asks for absolute ones.",
            "what you do with decoded - x.",
            "softer edges: a square forgives many small errors.",
        ),
        Bug(
            _compared(lambda difference: difference.abs().sum()),
            "a sum over the pixels, next to a mean over the latents.",
            "what becomes of the differences in the end: their mean.",
            "sharp pictures and wild latents, since next to such a sum no KL divergence counts.",
        ),
        Bug(
            _weight_on_pictures,
            "the weight on the wrong part.",
            "what `weight` is multiplied with.",
            "fog: the KL divergence alone counts.",
        ),
        Bug(
            lambda x, mean, log_variance, noise, decode, weight: loss(x, mean, log_variance, noise, decode, 1.0),
            "a weight that is not used.",
            "the argument `weight`.",
            "fog: to be near noise is made as important as the picture.",
        ),
    ),
    returns="one number, as a tensor",
    points=2,
    gradient=("mean", "log_variance"),
    forbids=("minidiff.networks.", "minidiff.training."),
)
