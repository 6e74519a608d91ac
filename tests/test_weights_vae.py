"""A VAE's weights in diffusers' layout: written by diffusers itself, old names, strict, no pickle."""

import json
from pathlib import Path

import pytest
import torch

from minidiff.files import read_tensors, write_tensors
from minidiff.formats.vae import load_vae, vae_config
from minidiff.networks import VAE, VAEConfig

CONFIG = VAEConfig(in_channels=1, channels=(8, 16), layers=1, latent_channels=3, groups=4, scaling=0.7)
THEIRS = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "in_channels": 1,
    "latent_channels": 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "out_channels": 1,
    "sample_size": 512,  # and much else that is none of our business
    "scaling_factor": 0.7,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
FILE = "diffusion_pytorch_model.safetensors"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VAE(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def theirs(tmp_path, vae):
    """A folder as diffusers writes it."""
    (tmp_path / "config.json").write_text(json.dumps(THEIRS))
    write_tensors(tmp_path / FILE, vae.state_dict())
    return tmp_path


def change(folder, **tensors):
    """Other tensors under these names (__ for .); None takes one away."""
    held = read_tensors(folder / FILE) | {name.replace("__", "."): value for name, value in tensors.items()}
    write_tensors(folder / FILE, {name: value for name, value in held.items() if value is not None})


def refused(folder):
    with pytest.raises(ValueError) as problem:
        load_vae(folder)
    assert "\n" not in str(problem.value)
    return str(problem.value)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def test_what_diffusers_writes_computes_the_same(tmp_path):
    kl = pytest.importorskip("diffusers").AutoencoderKL
    torch.manual_seed(0)
    sizes = ("in_channels", "out_channels", "block_out_channels", "layers_per_block", "latent_channels")
    fields = {name: THEIRS[name] for name in (*sizes, "norm_num_groups", "down_block_types", "up_block_types")}
    written = kl(**fields, scaling_factor=0.7).eval()
    written.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", FILE}
    vae = load_vae(tmp_path)
    assert vae.config == CONFIG and not vae.training and not any(p.requires_grad for p in vae.parameters())
    x = torch.rand(2, 1, 8, 12) * 2 - 1
    mean = written.encode(x).latent_dist.mean
    torch.testing.assert_close(vae.encode(x), 0.7 * mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(vae.decode(0.7 * mean), written.decode(mean).sample, rtol=1e-5, atol=1e-5)


def test_a_folder_of_diffusers(theirs, vae):
    loaded = load_vae(str(theirs), "cpu")
    assert loaded.config == CONFIG and same(loaded, vae)


@pytest.mark.parametrize("convolutions", [False, True], ids=["matrices", "convolutions"])
def test_names_and_shapes_of_2022(theirs, vae, convolutions):
    old = {}
    for name, tensor in vae.state_dict().items():
        for new, was in OLD.items():
            if f"attentions.0.{new}." in name:
                name = name.replace(new, was)
                tensor = tensor[..., None, None] if convolutions and tensor.ndim == 2 else tensor
        old[name] = tensor
    assert (
        sum(name.split(".")[-2] in OLD.values() for name in old) == 16
        and "decoder.mid_block.attentions.0.key.bias" in old
    )
    write_tensors(theirs / FILE, old)
    assert same(load_vae(theirs), vae)


def test_half_precision_is_read_as_float32(theirs, vae):
    write_tensors(theirs / FILE, {name: value.half() for name, value in vae.state_dict().items()})
    loaded = load_vae(theirs)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32} and same(loaded, vae.half().float())


# What is refused ---------------------------------------------------------------------------


def test_tensors_that_do_not_fit_are_named(theirs):
    change(theirs, quant_conv__weight=torch.zeros(6, 6))  # only the attention may have it either way
    assert refused(theirs).endswith("quant_conv.weight has shape (6, 6), expected (6, 6, 1, 1)")
    key = "encoder.mid_block.attentions.0.to_k.weight"
    change(theirs, quant_conv__weight=torch.zeros(6, 6, 1, 1), **{key: torch.zeros(16, 16, 3, 3)})
    assert refused(theirs).endswith(f"{key} has shape (16, 16, 3, 3), expected (16, 16)")
    change(theirs, **{key: None})
    assert refused(theirs) == f"{theirs / FILE} does not fit its model: it has no {key}"
    change(theirs, **{key: torch.zeros(16, 16)}, loss__logvar=torch.zeros(1))
    assert refused(theirs).endswith("which has no loss.logvar")


def test_missing_and_damaged_files_are_named(theirs):
    path = theirs / FILE
    path.write_bytes(path.read_bytes()[:-8])
    assert f"{path} is not a whole safetensors file" in refused(theirs)
    path.unlink()
    assert refused(theirs) == f"{path} is missing"
    for damaged in ("[1", "3"):
        (theirs / "config.json").write_text(damaged)
        assert refused(theirs).startswith(f"{theirs / 'config.json'} does not describe a VAE (")
    (theirs / "config.json").unlink()
    assert refused(theirs).endswith("config.json is missing")


def test_a_pickle_is_refused(theirs):
    (theirs / FILE).rename(theirs / "diffusion_pytorch_model.bin")
    assert refused(theirs).endswith(f".bin is a pickle, which can run any program: minidiff reads {FILE} alone")


@pytest.mark.parametrize(
    "field, value, complaint",
    [
        (
            "_class_name",
            "AutoencoderTiny",
            "_class_name is AutoencoderTiny, and minidiff's VAE knows AutoencoderKL alone",
        ),
        ("act_fn", "gelu", "act_fn is gelu, and minidiff's VAE knows silu alone"),
        ("use_quant_conv", False, "use_quant_conv is False, and minidiff's VAE knows True alone"),
        ("use_post_quant_conv", False, "use_post_quant_conv is False, and minidiff's VAE knows True alone"),
        ("mid_block_add_attention", False, "mid_block_add_attention is False, and minidiff's VAE knows True alone"),
        ("shift_factor", 0.1159, "shift_factor is 0.1159, and minidiff's VAE knows None alone"),
        ("latents_mean", [0.1], "latents_mean is [0.1], and minidiff's VAE knows None alone"),
        ("latents_std", [0.1], "latents_std is [0.1], and minidiff's VAE knows None alone"),
        ("out_channels", 3, "out_channels is 3, and minidiff's VAE knows 1 alone"),
        (
            "down_block_types",
            ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
            "down_block_types is ['DownEncoderBlock2D', 'AttnDownEncoderBlock2D'], "
            "and minidiff's VAE knows ['DownEncoderBlock2D', 'DownEncoderBlock2D'] alone",
        ),
        (
            "up_block_types",
            ["UpDecoderBlock2D"],
            "up_block_types is ['UpDecoderBlock2D'], "
            "and minidiff's VAE knows ['UpDecoderBlock2D', 'UpDecoderBlock2D'] alone",
        ),
        ("norm_num_groups", 5, "8 channels cannot be split into 5 groups"),
        ("scaling_factor", 0, "scaling_factor is 0: it must lie between 0.0001 and 10000.0"),
        ("block_out_channels", 8, "block_out_channels is 8: Input should be a valid array"),
    ],
)
def test_what_our_vae_cannot_do_is_refused(field, value, complaint):
    with pytest.raises(ValueError) as problem:
        vae_config(THEIRS | {field: value}, Path("config.json"))
    assert str(problem.value) == f"config.json: {complaint}"


def test_what_a_config_leaves_out():
    """diffusers' own values; a VAE of one level."""
    assert vae_config({}, Path("config.json")) == VAEConfig(channels=(64,), layers=1)
    assert vae_config({"use_quant_conv": True, "shift_factor": None}, Path("x")).scaling == 0.18215


def test_the_real_ones_config():
    """Stable Diffusion 1.5's, as published."""
    fields = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    assert vae_config(fields, Path("config.json")) == VAEConfig()
