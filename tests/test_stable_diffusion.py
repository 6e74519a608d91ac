"""Folders in diffusers' layout: what loads, what is refused and why, and what comes from the hub."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import at, hub  # noqa: F401
from tiny_sd import PROMPT, tiny

from minidiff.cli.main import main
from minidiff.files import asset, read_tensors, write_tensors
from minidiff.formats import diffusers_folder as stable_diffusion
from minidiff.formats.safetensors import Checkpoint, fill
from minidiff.formats.unet import FIXED, load_unet, unet_config
from minidiff.networks import UNetConfig
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import UserError

VAE, UNET = "vae/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny 1.x as diffusers saves it."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    tiny("1.x").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "tiny")


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(folder):
    with pytest.raises(ValueError) as problem:
        TextToImage.load(folder, "cpu")
    assert "\n" not in str(problem.value)
    return str(problem.value)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# What loads --------------------------------------------------------------------------------


def test_a_folder_of_diffusers(folder):
    pipe = TextToImage.load(folder, "cpu")
    assert (pipe.config.name, pipe.config.picture, pipe.config.scale) == ("tiny", (3, 16, 16), 7.5)
    assert pipe.decode(pipe.latents(PROMPT, steps=2)).shape == (1, 3, 16, 16)
    assert pipe.decode(pipe.latents(PROMPT, steps=2, size=(8, 20))).shape == (1, 3, 8, 20)


@pytest.mark.parametrize("how", [{"max_shard_size": "40KB"}, {"variant": "fp16"}])
def test_sharded_and_half_precision_files(saved, tmp_path, how):
    pipe = tiny("1.x")
    pipe.save_pretrained(tmp_path / "other", **how)
    names = {path.name for path in (tmp_path / "other/unet").iterdir()}
    assert not (tmp_path / "other" / UNET).exists() and len(names) > (2 if "max_shard_size" in how else 1)
    ours, other = TextToImage.load(saved, "cpu"), TextToImage.load(tmp_path / "other", "cpu")
    assert same(ours.net, other.net) and same(ours.vae, other.vae)


def test_a_missing_shard_is_named(tmp_path):
    tiny("1.x").save_pretrained(tmp_path / "other", max_shard_size="40KB")
    shard = sorted((tmp_path / "other/unet").glob("*.safetensors"))[1]
    shard.unlink()
    assert refused(tmp_path / "other") == f"{shard} is missing"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder, dtype):
    edit(folder / "vae/config.json", force_upcast=False)
    pipe, exact = TextToImage.load(folder, "cpu", dtype), TextToImage.load(folder, "cpu")
    assert {p.dtype for p in (*pipe.net.parameters(), *pipe.vae.parameters())} == {dtype}
    walk = [list(p.stream(PROMPT, steps=3, scale=2.0)) for p in (pipe, exact)]
    assert walk[0][-1].x.dtype == torch.float32  # the walk itself
    pictures = [p.decode(w[-1].x) for p, w in zip((pipe, exact), walk, strict=True)]
    assert pictures[0].dtype == torch.float32
    assert (pictures[0] - pictures[1]).abs().max() < 0.1


def test_a_vae_that_asks_for_float32_gets_it(folder):
    """What it computes inside is beyond float16: its images would be black."""
    tensors = read_tensors(folder / VAE)
    large = {"decoder.conv_in.weight": tensors["decoder.conv_in.weight"] * 1e5}
    write_tensors(folder / VAE, tensors | large)
    edit(folder / "vae/config.json", force_upcast=True)
    assert TextToImage.load(folder, "cpu", "float16").decode(torch.ones(1, 4, 4, 4)).isfinite().all()
    edit(folder / "vae/config.json", force_upcast=False)
    with pytest.raises(UserError, match="not finite"):
        TextToImage.load(folder, "cpu", torch.float16)(PROMPT, steps=1)


def test_what_python_gives_as_numbers_and_names(folder):
    pipe = TextToImage.load(folder, "cpu")
    same = [pipe.latents(PROMPT, steps=np.int64(2), seed=seed) for seed in (3, np.int64(3))]
    assert torch.equal(*same)
    wrong = {
        "a whole number": [{"seed": 3.5}, {"steps": 2.0}, {"steps": "2"}, {"seed": None}, {"seed": True}],
        "a number": [{"scale": "1"}, {"rescale": None}, {"strength": [1]}, {"log_p_scale": "x"}],
        "a name": [{"sampler": None}, {"guidance": []}, {"grid": 1}],
        "two numbers": [{"interval": None}, {"interval": (0.5,)}, {"size": (8.0, 8.0)}, {"size": "8"}],
        "a tensor of floats": [{"latents": [[1.0]]}, {"latents": torch.zeros(1, 4, 8, 8, dtype=torch.int64)}],
        "texts": [{"negative": 7}, {"negative": ["x", None]}],
    }
    for need, options in wrong.items():
        for option in options:
            with pytest.raises(UserError, match=f"^{next(iter(option))} must be {need}"):
                pipe.latents(PROMPT, **option)
    for prompts in (None, 7, b"7", ["7", None]):
        with pytest.raises(UserError, match="^prompts must be texts"):
            pipe.latents(prompts)
    with pytest.raises(UserError, match="^context tokens must have shape"):
        pipe.latents(torch.zeros(1, 20, 5))
    for name in (None, 7, b"mnist", ["mnist"]):
        with pytest.raises(UserError, match="^a model is a name, a folder or an id"):
            TextToImage.load(name, "cpu")
    for dtype in (True, torch.int8, float, []):
        with pytest.raises(UserError, match="^unknown dtype"):
            TextToImage.load("mnist", "cpu", dtype)
    with pytest.raises(UserError, match="unknown dtype 'int8'; there is float32, float16, bfloat16"):
        TextToImage.load(folder, "cpu", "int8")
    with pytest.warns(UserWarning, match="left out, for there is room for 18 tokens: apple"):
        pipe.latents(" ".join(["apple"] * 19), steps=1)


def test_saved_again_it_is_the_same(folder, tmp_path):
    pipe = TextToImage.load(folder, "cpu")
    pipe.save(tmp_path / "again")
    again = TextToImage.load(tmp_path / "again", "cpu")
    assert again.config == TextToImage.load(tmp_path / "again", "cpu").config
    assert (again.config.scale, again.timing.config) == (7.5, pipe.timing.config)
    assert again.tokenizer.pad == pipe.tokenizer.pad
    for name, tensor in pipe.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], tensor.half().float()), name


def test_the_shipped_model_is_such_a_folder():
    assert stable_diffusion.is_folder(asset("weights/emoji"))
    assert not stable_diffusion.is_folder(asset("weights/mnist"))


def test_a_preview_has_the_pictures_colours():
    pipe = TextToImage.load("emoji", "cpu")
    z = pipe.latents(["a twemoji emoji of a red apple", "a noto emoji of a blue book"], steps=8)
    small = torch.nn.functional.avg_pool2d(pipe.decode(z), pipe.factor)
    preview = pipe.preview(z)
    assert preview.shape == small.shape == (2, 3, 16, 16)
    assert (preview - small).abs().mean() < 0.12 < (preview.flip(0) - small).abs().mean()


# What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("part", stable_diffusion.PARTS)
def test_a_folder_without_a_part(folder, part):
    shutil.rmtree(folder / part)
    assert refused(folder).startswith(f"{folder} has no {part}: it must have ")


def test_a_file_cut_short(folder):
    path = folder / UNET
    path.write_bytes(path.read_bytes()[:-9])
    assert refused(folder).startswith(f"{path} is not a whole safetensors file (")


def test_tensors_that_do_not_fit_are_named(folder):
    path, name = folder / UNET, "mid_block.resnets.0.conv1.weight"
    held = read_tensors(path)
    write_tensors(path, held | {name: torch.zeros(2, 3)})
    assert refused(folder).endswith(f"{name} has shape (2, 3), expected (32, 32, 3, 3)")
    write_tensors(path, {key: value for key, value in held.items() if key != name})
    assert refused(folder) == f"{path} does not fit its model: it has no {name}"
    write_tensors(path, held | {"extra": torch.zeros(1)})
    assert refused(folder).endswith("which has no extra")


def test_a_pickle_is_refused_and_never_opened(folder):
    (folder / UNET).unlink()
    pickle = folder / "unet/diffusion_pytorch_model.bin"
    pickle.write_bytes(b"not even a pickle")
    assert refused(folder).startswith(f"{pickle} is a pickle, which can run any program: minidiff reads ")


@pytest.mark.parametrize(("name", "why"), [("sd.ckpt", "a pickle"), ("sd.safetensors", "one file")])
def test_a_single_file_is_refused(tmp_path, name, why):
    (tmp_path / name).write_bytes(b"")
    assert refused(tmp_path / name).startswith(f"{tmp_path / name} is {why}")


@pytest.mark.parametrize("kind", ["StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline", None])
def test_another_architecture_is_refused_by_name(folder, kind):
    edit(folder / "model_index.json", _class_name=kind)
    assert refused(folder).startswith(f"{folder} is a {kind}: minidiff draws with Stable Diffusion 1.x and 2.x")


def test_an_inpainting_checkpoint_is_refused(folder):
    edit(folder / "unet/config.json", in_channels=9)
    tensors = read_tensors(folder / UNET)
    write_tensors(folder / UNET, tensors | {"conv_in.weight": torch.zeros(16, 9, 3, 3)})
    assert "sees 9 channels, and a latent has 4: a checkpoint for inpainting or depth" in refused(folder)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("prediction_type", "score", "prediction_type is 'score': Input should be 'epsilon', 'v_prediction'"),
        ("beta_schedule", "squaredcos_cap_v2", "beta_schedule is 'squaredcos_cap_v2': Input should be 'linear'"),
        ("timestep_spacing", "random", "timestep_spacing is 'random': Input should be 'leading'"),
        (
            "_class_name",
            "FlowMatchEulerDiscreteScheduler",
            "_class_name is FlowMatchEulerDiscreteScheduler: minidiff knows",
        ),
    ],
)
def test_an_unknown_scheduler(folder, field, value, complaint):
    path = folder / "scheduler/scheduler_config.json"
    edit(path, **{field: value})
    assert refused(folder).startswith(f"{path}: {complaint}")


@pytest.mark.parametrize("field", FIXED)
def test_a_unet_that_would_compute_something_else(saved, field):
    path = saved / "unet/config.json"
    fields = json.loads(path.read_text())
    assert unet_config(fields, path).channels == (16, 32)
    with pytest.raises(ValueError, match=f"{field} is another"):
        unet_config(fields | {field: "another"}, path)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "down_block_types has AttnDownBlock2D"),
        ({"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}, "up_block_types is"),
        ({"norm_num_groups": 7}, "16 channels cannot be split into 7 groups"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type is text_time"),
    ],
)
def test_levels_that_do_not_fit(saved, fields, complaint):
    path = saved / "unet/config.json"
    with pytest.raises(ValueError, match=complaint):
        unet_config(json.loads(path.read_text()) | fields, path)


def test_an_empty_config_is_stable_diffusion_but_for_the_width_of_its_text(tmp_path):
    config = unet_config({}, tmp_path)
    assert config == UNetConfig(context_dim=1280)


def test_a_damaged_config(folder):
    (folder / "unet/config.json").write_text("[1")
    assert refused(folder).startswith(f"{folder / 'unet/config.json'} does not describe a UNet (")
    (folder / "model_index.json").write_text("{")
    assert refused(folder).startswith(f"{folder / 'model_index.json'} does not describe a pipeline (")


def test_bad_input_on_the_command_line(folder, tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "photo.png")
    Image.new("RGB", (15, 16)).save(tmp_path / "odd.png")
    (tmp_path / "text.png").write_text("no picture")
    out = tmp_path / "out.png"
    for more, complaint in (
        (["--size", "15"], "size must be a multiple of 2, got 15x15"),
        (["--init", "photo.png", "--size", "15"], "size must be a multiple of 2, got 15x15"),
        (["--init", "photo.png", "--size", "0"], "size must be a multiple of 2, got 0x0"),
        (["--init", "photo.png", "--mask", "odd.png"], "the mask is 16x15, and the picture 16x16"),
        (["--init", "photo.png", "--strength", "1.2"], "strength must lie between 0 and 1, got 1.2"),
        (["--mask", "photo.png"], "a mask says what to keep"),
        (["--init", "text.png"], "it is none of PNG"),
        (["--init", "none.png"], "none.png"),
        (["--tile", "0"], "tile must be at least 1"),
    ):
        more = [str(tmp_path / word) if word.endswith(".png") else word for word in more]
        with pytest.raises(SystemExit) as stop:
            main(["sample", "x", "--model", str(folder), "--out", str(out), *more])
        said = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2 and complaint in said[-1]
        assert not out.exists()


def test_the_command_line_draws_from_a_picture(folder, tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (16, 12), "red").save(tmp_path / "photo.png")
    Image.new("L", (16, 12), 255).save(tmp_path / "mask.png")
    out = tmp_path / "out.gif"
    from_it = ["--init", str(tmp_path / "photo.png"), "--mask", str(tmp_path / "mask.png"), "--strength", "0.5"]
    main(
        ["sample", "x", "--model", str(folder), "--out", str(out), "--steps", "4", "--tile", "8", "--preview", *from_it]
    )
    with Image.open(out) as picture:
        assert picture.n_frames == 2


# The hub -----------------------------------------------------------------------------------


@pytest.fixture
def published(saved):
    return {path.relative_to(saved).as_posix(): path.read_bytes() for path in saved.rglob("*") if path.is_file()}


def test_from_the_hub(at, published, saved):  # noqa: F811
    published["vae/diffusion_pytorch_model.bin"] = b"a pickle"
    with hub(published, repo="someone/tiny") as (address, asked):
        at(address)
        pipe = TextToImage.load("someone/tiny", "cpu")
        assert same(pipe.net, TextToImage.load(saved, "cpu").net)
        assert not any("pickle" in path or path.endswith(".bin") for path in asked)
    at("http://127.0.0.1:9")  # gone, but what was fetched is here
    assert same(TextToImage.load("someone/tiny", "cpu").net, pipe.net)


def test_one_revision_of_all_files_from_the_hub(at, published, tmp_path):  # noqa: F811
    """What is fetched first says which commit all the others are of, and what is saved keeps it."""
    with hub(published, repo="someone/tiny") as (address, asked):
        at(address)
        pipe = TextToImage.load("someone/tiny@v1", "cpu")
    where = {path.split("/resolve/")[1].partition("/")[::2] for path in asked}
    assert {file for revision, file in where if revision == "v1"} == {"model_index.json"}
    assert {revision for revision, _ in where} == {"v1", "0" * 40}
    pipe.save(tmp_path / "kept")
    assert TextToImage.load(tmp_path / "kept", "cpu").config.name == f"someone/tiny@{'0' * 40}"


def test_a_folder_does_not_shadow_a_shipped_model(tmp_path, monkeypatch, saved):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, "mnist")
    assert TextToImage.load("mnist", "cpu").config.name == "mnist" != TextToImage.load("./mnist", "cpu").config.unet
    assert TextToImage.load("./mnist", "cpu").vae and TextToImage.load(Path("mnist"), "cpu").vae


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (lambda t: t.fill_(float("nan")), "has numbers that are not finite"),
        (lambda t: t.double() * 1e300, "has numbers that are not finite, or too large for torch.float32"),
        (lambda t: t.to(torch.int64), "has numbers of kind I64"),
        (lambda t: t.bool(), "has numbers of kind BOOL"),
        (lambda t: t.to(torch.float8_e4m3fn), "has numbers of kind F8_E4M3"),
    ],
)
def test_weights_that_are_no_numbers_to_compute_with(folder, tensor, complaint):
    tensors = read_tensors(folder / UNET)
    write_tensors(folder / UNET, tensors | {"conv_in.bias": tensor(tensors["conv_in.bias"])})
    assert f"{UNET}: conv_in.bias {complaint}" in refused(folder)


@pytest.mark.parametrize("file", ["../unet.safetensors", "/etc/passwd", "a\\b.safetensors", "model.bin", ""])
def test_a_list_of_files_names_none_elsewhere(folder, file):
    (folder / UNET).unlink()
    (folder / f"{UNET}.index.json").write_text(json.dumps({"weight_map": {"conv_in.bias": file}}))
    assert "is not the name of a safetensors file in the same folder" in refused(folder)


def test_a_tokenizer_of_another_text_tower(folder):
    path = folder / "tokenizer/vocab.json"
    vocab = json.loads(path.read_text()) if path.exists() else None
    if vocab is None:
        path = folder / "tokenizer/tokenizer.json"
        fields = json.loads(path.read_text())
        fields["added_tokens"].append({"id": 10**4, "content": "<cat-toy>"})
        path.write_text(json.dumps(fields))
        assert "the token '<cat-toy>' was added to its vocabulary" in refused(folder)
        fields["added_tokens"].pop()
        fields["model"]["vocab"]["zebra"] = len(fields["model"]["vocab"])
        path.write_text(json.dumps(fields))
    assert "tokens are not the" in refused(folder)


def test_half_precision_from_the_hub(at, published):  # noqa: F811
    names = {name: name.replace(".safetensors", ".fp16.safetensors") for name in published}
    with hub({names[name]: content for name, content in published.items()}, repo="someone/tiny") as (address, _):
        at(address)
        TextToImage.load("someone/tiny", "cpu")


def test_what_the_hub_has_not(at, published):  # noqa: F811
    del published[UNET]
    with hub(published, repo="someone/tiny") as (address, _):
        at(address)
        assert refused("someone/tiny").startswith(
            "someone/tiny is no folder here, and its unet/diffusion_pytorch_model"
        )


def test_another_architecture_is_not_fetched(at, published):  # noqa: F811
    published["model_index.json"] = b'{"_class_name": "StableDiffusionXLPipeline"}'
    with hub(published, repo="someone/tiny") as (address, asked):
        at(address)
        assert refused("someone/tiny").startswith("someone/tiny is a StableDiffusionXLPipeline")
        assert {path.split("/main/")[1] for path in asked} == {"model_index.json"}


def test_a_damaged_download(at, published):  # noqa: F811
    with hub(published, [UNET], "someone/tiny") as (address, _):
        at(address)
        assert "diffusion_pytorch_model.safetensors is not the published file: delete " in refused("someone/tiny")


def test_no_network(at, monkeypatch):  # noqa: F811
    at("http://127.0.0.1:9")
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = said.append
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [handler])
    with pytest.raises(OSError, match="cannot fetch model_index.json of stable-diffusion-v1-5/stable-diffusion-v1-5"):
        TextToImage.load("stable-diffusion-v1-5/stable-diffusion-v1-5", "cpu")
    assert not said  # the line above is all


def test_a_path_that_is_not_there_is_no_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert refused("runs/emoji").startswith("unknown model 'runs/emoji'; there is ")


# Memory ------------------------------------------------------------------------------------


def test_tensors_are_read_one_by_one(folder, monkeypatch):
    """No second copy of the weights: nothing of a file is read before it is needed, and each tensor once."""
    read = []
    original = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name, dtype: read.append(name) or original(self, name, dtype))
    unet = load_unet(folder / "unet")
    assert sorted(read) == sorted(unet.state_dict())
    read.clear()
    with pytest.raises(ValueError, match="it has no"):
        fill(torch.nn.Linear(1, 1), Checkpoint(folder / "unet", "diffusion_pytorch_model"))
    assert not read
