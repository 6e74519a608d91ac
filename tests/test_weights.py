"""CLIP's weights: both dialects, strict, no pickle; the hub is a server on this machine."""

import json
from pathlib import Path

import pytest
import torch
from hub import at, hub  # noqa: F401

from minidiff.files import read_tensors, write_tensors
from minidiff.formats import clip as weights
from minidiff.formats.clip import clip_config, load_clip, load_clip_text, save_clip
from minidiff.formats.tokenizer_files import save_tokenizer
from minidiff.networks import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidiff.tokenizer import END, Tokenizer

TOKENIZER = Tokenizer.train(["a red seven", "a green three"], merges=100, length=12)
TEXT = CLIPTextConfig(
    vocab=len(TOKENIZER.vocab), length=12, width=8, layers=2, heads=2, activation="gelu", end=TOKENIZER.vocab[END]
)
VISION = CLIPVisionConfig(size=8, patch=4, width=12, layers=1, heads=3)
CONFIG = CLIPConfig(TEXT, VISION, dim=6)

THEIR_TEXT = {
    "vocab_size": TEXT.vocab,
    "max_position_embeddings": 12,
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "eos_token_id": TEXT.end,
    "torch_dtype": "float32",  # and much else that is none of our business
}
THEIR_VISION = {
    "image_size": 8,
    "patch_size": 4,
    "hidden_size": 12,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "hidden_act": "quick_gelu",
}
THEIRS = {"architectures": ["CLIPModel"], "projection_dim": 6, "text_config": THEIR_TEXT, "vision_config": THEIR_VISION}


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return CLIP(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def theirs(tmp_path, clip):
    """A folder as transformers writes it: a config in its words, float32, position_ids as in files from 2022."""
    folder = tmp_path / "theirs"
    save_tokenizer(TOKENIZER, folder)
    (folder / "config.json").write_text(json.dumps(THEIRS))
    positions = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    positions["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    write_tensors(folder / "model.safetensors", clip.state_dict() | positions)
    return folder


@pytest.fixture
def tower(tmp_path, clip):
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["CLIPTextModel"], **THEIR_TEXT}))
    write_tensors(folder / "model.safetensors", clip.text_model.state_dict())
    return folder


def change(folder, **tensors):
    """Other tensors in the folder's file; None takes one out. Dots in names are written __."""
    tensors = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    old = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {k: v for k, v in (old | tensors).items() if v is not None})


def refused(name, kind=ValueError, load=load_clip):
    with pytest.raises(kind) as problem:
        load(name)
    assert "\n" not in str(problem.value)
    return str(problem.value)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Folders -----------------------------------------------------------------------------------


def test_the_shipped_one():
    clip, tokenizer = load_clip()
    texts = clip.embed_text(tokenizer(["a red seven on a blue background", "a green three on a white background"]))
    assert texts.shape == (2, clip.config.dim) and tokenizer.length == clip.config.text.length
    assert not clip.training and not any(p.requires_grad for p in clip.parameters())
    folder = weights.asset("weights/clip")
    assert {path.name for path in folder.iterdir()} == {"clip.json", "merges.txt", "model.safetensors", "vocab.json"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2**20


def test_saved_and_loaded(tmp_path, clip):
    save_clip(clip, TOKENIZER, tmp_path / "new")
    loaded, tokenizer = load_clip(tmp_path / "new")
    assert loaded.config == CONFIG and tokenizer.vocab == TOKENIZER.vocab and tokenizer.length == 12
    assert same(loaded, clip.half().float())


def test_a_folder_of_transformers(theirs, clip):
    loaded, tokenizer = load_clip(theirs)
    assert loaded.config == CONFIG and tokenizer.merges == TOKENIZER.merges and tokenizer.length == 12
    assert same(loaded, clip)


def test_half_precision_is_read_as_float32(theirs, clip):
    change(theirs, **{name.replace(".", "__"): value.half() for name, value in clip.state_dict().items()})
    assert {p.dtype for p in load_clip(theirs)[0].parameters()} == {torch.float32}


def test_a_text_network_without_the_prefix(tower, clip):
    assert same(load_clip_text(tower), clip.text_model)


def test_a_text_network_with_the_prefix(tower, clip):
    tensors = {f"text_model.{name}": value for name, value in clip.text_model.state_dict().items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    write_tensors(tower / "model.safetensors", tensors)
    net = load_clip_text(tower)
    assert same(net, clip.text_model)
    ids = TOKENIZER("a red seven")
    torch.testing.assert_close(net(ids), clip.text_model(ids))


def test_a_wrong_file_is_refused_by_the_first_missing_tensor(theirs):
    change(theirs, text_model__encoder__layers__0__self_attn__v_proj__weight=None, logit_scale=None)
    complaint = refused(theirs)
    assert complaint.endswith("it has no logit_scale")  # the first in the model's own order
    change(theirs, logit_scale=torch.tensor(1.0))
    assert refused(theirs).endswith("it has no text_model.encoder.layers.0.self_attn.v_proj.weight")


def test_another_network_is_refused_by_the_first_missing_tensor(tower):
    write_tensors(tower / "model.safetensors", {"conv_in.weight": torch.zeros(3)})
    assert refused(tower, load=load_clip_text).endswith("it has no embeddings.token_embedding.weight")


def test_a_whole_clip_is_no_text_network(theirs, tower):
    (tower / "model.safetensors").write_bytes((theirs / "model.safetensors").read_bytes())
    assert refused(tower, load=load_clip_text).endswith("which has no logit_scale")


def test_a_tensor_too_many_is_refused(theirs):
    change(theirs, text_model__encoder__layers__2__mlp__fc1__bias=torch.zeros(32))
    assert refused(theirs).endswith("which has no text_model.encoder.layers.2.mlp.fc1.bias")


def test_another_shape_is_refused(theirs):
    change(theirs, text_projection__weight=torch.zeros(6, 9))
    assert refused(theirs).endswith("text_projection.weight has shape (6, 9), expected (6, 8)")


def test_a_pickle_is_refused(theirs):
    (theirs / "model.safetensors").rename(theirs / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle" in refused(theirs)


def test_missing_and_damaged_files_are_named(theirs):
    path = theirs / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert f"{path} is not a whole safetensors file" in refused(theirs)
    path.unlink()
    assert f"{path} is missing" in refused(theirs)
    (theirs / "config.json").write_text("[1")
    assert f"{theirs / 'config.json'} does not describe a CLIP" in refused(theirs)
    (theirs / "config.json").unlink()
    assert f"{theirs / 'config.json'} is missing" in refused(theirs)


def test_a_damaged_clip_json(tmp_path, clip):
    save_clip(clip, TOKENIZER, tmp_path)
    (tmp_path / "clip.json").write_text('{"text": {"length": 5.5}, "dim": 3}')
    assert refused(tmp_path) == f"{tmp_path / 'clip.json'}: text.length is 5.5: Input should be a valid integer"


@pytest.mark.parametrize("name", ["clap", "/no/such/folder", "./runs/clip", "a/b/c", ""])
def test_an_unknown_name_is_refused(name):
    assert f"unknown CLIP {name!r}; there is clip" in refused(name)


# Configs -----------------------------------------------------------------------------------


def test_what_a_config_leaves_out():
    """transformers' own values: those of ViT-B/32."""
    config = clip_config({}, Path("config.json"))
    assert config == CLIPConfig(
        CLIPTextConfig(width=512, heads=8), CLIPVisionConfig(patch=32, width=768, layers=12, heads=12), dim=512
    )


def test_an_old_config_says_things_twice():
    old = {"text_config": THEIR_TEXT, "text_config_dict": {"num_hidden_layers": 7}, "vision_config_dict": None}
    config = clip_config(old, Path("config.json"))
    assert config.text.layers == 7 and config.text.width == 8 and config.vision.width == 768


def test_the_end_of_old_configs_is_the_highest_number():
    assert clip_config({"text_config": THEIR_TEXT | {"eos_token_id": 2}}, Path("config.json")).text.end is None


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("intermediate_size", 33, "config.json: intermediate_size is 33, and minidiff's CLIP knows 32 alone"),
        ("layer_norm_eps", 1e-6, "config.json: layer_norm_eps is 1e-06, and minidiff's CLIP knows 1e-05 alone"),
        ("hidden_act", "relu", "config.json: unknown activation 'relu'; there is quick_gelu, gelu"),
        ("num_attention_heads", 3, "config.json: width 8 cannot be split into 3 heads"),
    ],
)
def test_what_our_networks_cannot_do_is_refused(field, value, complaint):
    with pytest.raises(ValueError, match="^" + complaint.replace("(", r"\(")):
        clip_config({"text_config": THEIR_TEXT | {field: value}}, Path("config.json"))


# The hub -----------------------------------------------------------------------------------


@pytest.fixture
def published(theirs):
    return {path.name: path.read_bytes() for path in theirs.iterdir()}


def test_a_clip_from_the_hub(at, published, clip):  # noqa: F811
    with hub(published) as (address, asked):
        at(address)
        loaded, tokenizer = load_clip("someone/clip")
        assert same(loaded, clip) and tokenizer.vocab == TOKENIZER.vocab
        assert sorted((a for a in asked if a.startswith("GET")), key=lambda a: a.split("/")[-1]) == [
            f"GET /someone/clip/resolve/{'main' if file == 'config.json' else '0' * 40}/{file}"
            for file in ("config.json", "merges.txt", "model.safetensors", "vocab.json")
        ]
    at("http://127.0.0.1:9")  # gone, but what was fetched is here
    assert same(load_clip("someone/clip")[0], clip)


def test_a_download_that_is_not_the_published_file(at, published):  # noqa: F811
    with hub(published, damaged=["model.safetensors"]) as (address, _):
        at(address)
        assert "model.safetensors is not the published file: delete " in refused("someone/clip")


def test_no_network(at):  # noqa: F811
    at("http://127.0.0.1:9")
    complaint = refused("openai/clip-vit-large-patch14", OSError)
    assert complaint.startswith("cannot fetch config.json of openai/clip-vit-large-patch14 (no network")


@pytest.mark.parametrize("repo", ["someone/clap", "someone/clip"])
def test_what_the_hub_has_not(at, repo, published):  # noqa: F811
    del published["model.safetensors"]
    published["pytorch_model.bin"] = b"a pickle"
    with hub(published) as (address, asked):
        at(address)
        file = "model.safetensors" if repo == "someone/clip" else "config.json"
        assert (
            refused(repo) == f"{repo} is no folder here, and its {file} on huggingface.co is not there, or not public"
        )
        assert not any("bin" in a for a in asked)


def test_a_name_that_cannot_be_an_id(at):  # noqa: F811
    at("http://127.0.0.1:9")
    assert "neither a folder nor an id" in refused("some one/clip!")
