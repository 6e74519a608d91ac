"""The judge, and the shipped model measured with it."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from minidiff import TextToImage, data
from minidiff.cli.main import main
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.evaluation import evaluations, fitting, load
from minidiff.evaluation.judges import inception, judged
from minidiff.evaluation.labelled import evaluate
from minidiff.evaluation.report import fraction
from minidiff.files import asset
from minidiff.formats.clip import SHIPPED
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.model_folder import load_classifier, models
from minidiff.networks import CLASSIFIERS, CLIPTextConfig, UNetConfig
from minidiff.registry import UserError


@pytest.fixture(scope="module")
def real():
    """Features, answers and pictures of the validation digits."""
    digits = data.mnist("validation")
    return *judged(load_classifier("judge"), digits.images), digits


def test_the_judge_reads_unseen_digits():
    digits = data.mnist("test")
    assert fraction(judged(load_classifier("judge"), digits.images)[1] == digits.labels) >= 0.995


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Inception's architecture with random weights, in the real format."""
    from safetensors.torch import save_file
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:  # its constructor downloads and loads: let it do neither
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = FeatureExtractorInceptionV3("inception", ["2048"])
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(net.state_dict(), path)
    return path


def test_features_of_inception(inception_file):
    """Any pictures: gray or RGB, the same features alone and in a batch, and different for different pictures."""
    features = inception(inception_file)
    gray = data.mnist("validation").images[:2]
    found = features(gray)
    assert found.shape == (2, 2048) and found.isfinite().all() and not torch.equal(found[0], found[1])
    torch.testing.assert_close(features(gray[:1].repeat(1, 3, 1, 1)), found[:1], rtol=1e-3, atol=1e-4)


def test_other_features_measure_another_distance():
    pipe = TextToImage.load("mnist", device="cpu")
    plain = evaluate(pipe, 65, split="validation", steps=1)
    pixels = evaluate(pipe, 65, split="validation", steps=1, features=lambda x: x[..., ::4, ::4].flatten(1).double())
    assert pixels.frechet != plain.frechet and pixels.recall != plain.recall
    assert pixels.accuracy == plain.accuracy and pixels.memorisation == plain.memorisation


def test_photographs_are_measured_without_the_judge(monkeypatch):
    shape = ModelConfig("tiny", UNetConfig(3, 3, (8,), (True,), 1, 1, 8, 4), (3, 32, 32), fold=1, labels="cifar10")
    pipe = TextToImage(shape, shape.build(), "cpu")
    with pytest.raises(ValueError, match="the judge reads digits, not cifar10"):
        evaluate(pipe, 100)

    def random_pictures(split="train", folder=None):
        pixels = torch.rand(400, 3, 32, 32, generator=torch.Generator().manual_seed(len(split)))
        return data.Pictures(2 * pixels - 1, torch.arange(400) % 10, ["a photo of something"] * 400)

    monkeypatch.setitem(data.DATASETS, "cifar10", dataclasses.replace(data.DATASETS["cifar10"], load=random_pictures))
    report = evaluate(pipe, 100, steps=2, features=lambda x: x[..., ::8, ::8].flatten(1).double())
    assert report.accuracy is None and "digit accuracy" not in str(report) and "Frechet" in str(report)
    assert json.loads(report.json())["calibration"] is None and 0 < report.frechet < 100


@pytest.mark.parametrize("content", [None, b"nonsense", "the judge's"])
def test_a_file_that_is_not_inception(content, tmp_path):
    path = tmp_path / "inception.safetensors"
    if content == "the judge's":
        path = asset("weights/judge/model.safetensors")
    elif content:
        path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match="safetensors"):
        inception(path)


def test_the_judge_gives_the_same_answers_whatever_the_batch(real):
    features, _, digits = real
    torch.testing.assert_close(
        judged(load_classifier("judge"), digits.images[7:9])[0], features[7:9], rtol=1e-4, atol=1e-4
    )


def test_the_shipped_model_draws_what_it_is_asked_for():
    pipe = TextToImage.load("mnist", device="cpu")
    report = evaluate(pipe, 200, split="validation", seed=1)
    assert report.accuracy >= 0.97 and report.accuracy_real >= 0.99
    assert 0.5 * report.frechet_floor < report.frechet < 4 * report.frechet_floor
    assert report.diversity > 0.8 and min(report.precision, report.recall) > 0.7
    assert report.memorisation == pytest.approx(report.memorisation_real, rel=0.05)
    assert report.calibration < 0.1 and report.calibration_real < 0.1
    words = (
        "digit accuracy",
        "recall",
        "n = 200",
        "seed 1",
        "scale 1.5",
        f"20 steps of {DEFAULT_SAMPLER}",
        "torch",
        "the judge's",
    )
    assert all(word in str(report) for word in words)
    assert json.loads(report.json())["memorisation"] == report.memorisation
    ignoring = evaluate(pipe, 100, split="validation", scale=0.0, steps=8)
    assert ignoring.accuracy < 0.4  # no prompt, no digit


def test_a_model_that_draws_noise_is_seen_through():
    pipe = TextToImage.load("mnist", device="cpu")
    for parameter in pipe.net.unet.conv_out.parameters():
        parameter.zero_()
    report = evaluate(pipe, 100, split="validation", steps=2)
    assert report.accuracy < 0.4 and report.frechet > 10 * report.frechet_floor and report.precision < 0.1


@pytest.mark.parametrize("n", [0, 64, 5000])
def test_too_few_or_too_many(n):
    with pytest.raises(ValueError, match="n must lie between 65"):
        evaluate(TextToImage.load("mnist", device="cpu"), n, split="validation")


# Which evaluation? -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*models(), *SHIPPED])
def test_every_shipped_model_has_an_evaluation(name):
    assert fitting(load(name, "cpu"), name if name in SHIPPED else None) is evaluations()[name]


def test_a_shipped_clip_is_measured_on_its_own_captions(capsys):
    main(["evaluate", "clip_scenes", "-n", "3", "--split", "validation", "--json"])
    assert json.loads(capsys.readouterr().out)["rows"][0]["first"] == "its own, trained kinds"


def model_of(name, picture, labels="mnist", text=None):
    pipe = object.__new__(TextToImage)
    pipe.config = SimpleNamespace(name=name, picture=picture, labels=labels, text=text)
    return (pipe,)


def test_labels_find_their_evaluation_and_a_name_of_ones_own_does_no_harm():
    known = evaluations()
    assert fitting(model_of("my digits", (1, 28, 28))) is known["mnist"]
    assert fitting(model_of("photos", (3, 32, 32), "cifar10")) is known["cifar10"]
    assert fitting(model_of("pets", (3, 64, 64), text=CLIPTextConfig()), "emoji") is known["emoji"]


def test_a_data_set_registered_at_run_time_has_an_evaluation(monkeypatch):
    shape = ModelConfig("mine", UNetConfig(3, 3, (8,), (True,), 1, 1, 8, 4), (3, 8, 8), fold=1, labels="squares")
    pixels = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    squares = data.Pictures(2 * pixels - 1, torch.arange(200) % 10, ["a square"] * 200)
    classes = tuple("abcdefghij")
    dataset = data.Dataset(lambda split, folder=None: squares, lambda: "squares", (3, 8, 8), classes, classes.index)
    monkeypatch.setitem(data.DATASETS, "squares", dataset)
    pipe = TextToImage(shape, shape.build(), "cpu")
    evaluation = fitting((pipe,))
    assert evaluation is evaluations()["squares"] and evaluation.dataset == "squares"
    report = evaluation.measure(pipe, 65, steps=1, features=lambda x: x[..., ::4, ::4].flatten(1).double())
    assert report.model == "mine" and report.accuracy is None and report.frechet > 0


@pytest.mark.parametrize(
    ("model", "name", "problem"),
    [
        (
            model_of("sd", (3, 512, 512), text=CLIPTextConfig()),
            None,
            "evaluation for 3x512x512 images 'sd'; there is none",
        ),
        (model_of("sd", (3, 512, 512), text=CLIPTextConfig()), "emoji", "evaluation for 3x512x512 images 'emoji'"),
        (
            model_of("pets", (3, 64, 64), text=CLIPTextConfig()),
            None,
            "'pets'; there is emoji, scenes: choose one with --evaluation",
        ),
        (model_of("photos", (3, 32, 32), "cifar10"), "mnist", "'mnist'; there is .*cifar10"),
        (model_of("photos", (3, 32, 32), "cifar10"), "clip", "'clip'; there is"),
    ],
)
def test_a_model_that_no_evaluation_fits(model, name, problem):
    with pytest.raises(UserError, match=problem):
        fitting(model, name)


def test_every_classifier_that_is_shipped_loads_and_another_does_not():
    assert all(not load_classifier(name).training for name in CLASSIFIERS)
    with pytest.raises(UserError, match="unknown classifier 'nobody'; there is judge"):
        load_classifier("nobody")


def test_an_option_that_an_evaluation_does_not_take(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "clip", "--scale", "2"])
    assert "does not take --scale; it takes --split, --seed" in capsys.readouterr().err
