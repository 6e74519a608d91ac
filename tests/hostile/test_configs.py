"""Every JSON file that describes a model, and every file of weights, with what does not belong there."""

import json
import os
import shutil
import struct

import pytest
import torch
from hostile.harness import damaged, nasty_json, nasty_texts, safetensors
from hypothesis import given, strategies as st
from tiny_sd import tiny
from tiny_words import tiny_clip, tiny_pipe, tiny_tokenizer

from minidiff.files import write
from minidiff.formats import diffusers_folder
from minidiff.formats.clip import load_clip, load_clip_text, save_clip
from minidiff.formats.model_folder import read
from minidiff.formats.tokenizer_files import load_tokenizer
from minidiff.formats.unet import load_unet
from minidiff.formats.vae import load_vae

CPU = torch.device("cpu")


def model(folder):
    return read(folder, CPU)[0]


READERS = {  # file: what reads it, and what it should still be if a strange value is taken
    "sd/model_index.json": lambda path: diffusers_folder.read(path.parent, CPU, torch.float32)[0],
    "sd/scheduler/scheduler_config.json": lambda path: timing(path),
    "sd/unet/config.json": lambda path: load_unet(path.parent).config,
    "sd/vae/config.json": lambda path: load_vae(path.parent).config,
    "sd/text_encoder/config.json": lambda path: load_clip_text(path.parent).config,
    "sd/tokenizer/tokenizer_config.json": lambda path: load_tokenizer(path.parent).pad,
    "ours/model.json": lambda path: model(path.parent),
    "clip/clip.json": lambda path: load_clip(path.parent)[0].config,
}
WEIGHTS = {
    "sd/unet/diffusion_pytorch_model.safetensors": lambda path: load_unet(path.parent),
    "ours/model.safetensors": lambda path: model(path.parent),
    "clip/model.safetensors": lambda path: load_clip(path.parent),
}
TOKENS = ("ours/vocab.json", "ours/merges.txt", "clip/vocab.json", "sd/tokenizer/tokenizer.json")
# keys that are passed over, or whose value names nothing that is computed: tests/parity/test_configs.py says why
FREE = {
    "scale", "_guidance_scale", "labels",    "_name_or_path", "_diffusers_version", "_draws", "sample_size", "steps_offset", "skip_prk_steps", "force_upcast",
    "clip_sample", "feature_extractor", "image_encoder", "safety_checker", "requires_safety_checker", "scheduler",
    "text_encoder", "tokenizer", "unet", "vae", "name", "architectures", "model_type", "attention_dropout", "dtype",
    "initializer_factor", "initializer_range", "pad_token_id", "bos_token_id", "projection_dim", "transformers_version",
    "upcast_attention", "up_block_types", "addition_embed_type_num_heads", "tokenizer_class", "model_max_length",
    "bos_token", "eos_token", "unk_token",
}  # fmt: skip
SAYS = {"_class_name": ["models/sd is a "], "pad_token": ["is not in the vocabulary"]}  # where the line names no field


def timing(path):
    from minidiff.formats.json_files import read_json
    from minidiff.formats.scheduler_config import timing_of
    from minidiff.registry import of_the_user

    with of_the_user(path):
        made = timing_of(read_json(path, "a scheduler"))
    t = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    return made.prediction, made.times(10, "ddim").tolist(), made.schedule.alpha(t).tolist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny("1.x").save_pretrained(folder / "sd")
    tokenizer = tiny_tokenizer()
    tiny_pipe(tokenizer).save(folder / "ours")
    save_clip(tiny_clip(tokenizer), tokenizer, folder / "clip")
    return folder


@pytest.fixture
def models(whole, trial):
    """A copy that may be spoilt. Kept beside the folder that is watched."""
    copied = trial.folder.parent / f"{trial.folder.name} models"
    return shutil.copytree(whole, copied)


@pytest.mark.parametrize("file", READERS)
def test_a_field_that_is_something_else(models, trial, file):
    """Refused in a line that names the file, or taken for what it was before."""
    path, reader = models / file, READERS[file]
    before, fields = reader(path), json.loads(path.read_text())
    found = []
    for done, text in list(nasty_json(fields))[:: {"ours/model.json": 1, "sd/model_index.json": 12}.get(file, 3)]:
        path.write_text(text)
        line = trial.held(lambda: found.append(reader(path)))
        name, taken = done.split(" = ")[0], found.pop() if line is None else before
        if not any(part in FREE for part in name.split(".")) and not done.endswith("= gone"):
            none = name.endswith(("eos_token_id", "end")) and done.endswith("= None")  # pooling takes the highest id
            assert taken == before or none, f"{file} with {done} was taken for something else"
        assert line is None or any(
            word in line for word in (file, "does not fit its model", name.split(".")[0], *SAYS.get(name, []))
        ), f"{done}: {line}"


@pytest.mark.parametrize("file", [*READERS, "ours/vocab.json", "sd/tokenizer/tokenizer.json"])
def test_what_is_no_json_file(models, trial, file):
    path = models / file
    reader = READERS.get(file, lambda path: load_tokenizer(path.parent))
    for done, content in nasty_texts(path.read_text()):
        path.write_bytes(content)
        if not (done == "half a character" and "tokenizer_config" in file):  # a strange field that nobody reads
            trial.refuses(lambda: reader(path), what=f"{file}: {done}")
    for make in (lambda: path.mkdir(), lambda: path.symlink_to("/dev/zero"), lambda: os.mkfifo(path)):
        path.unlink() if not path.is_dir() else path.rmdir()
        make()
        if "tokenizer_config" not in file:  # it need not be there
            trial.refuses(lambda: reader(path), what=file)
    path.unlink()
    with path.open("wb") as opened:
        opened.truncate(2**40)  # sparse: a terabyte of zeros that needs no room
    trial.refuses(lambda: reader(path), says="bytes: it is something else")


@pytest.mark.parametrize("file", WEIGHTS)
def test_weights_that_are_none(models, trial, file):
    path, reader = models / file, WEIGHTS[file]
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = next(name for name in header if name != "__metadata__")
    entry = header[name]

    def tensor(**changes):
        return safetensors(header | {name: entry | changes}, data)

    bad = {
        "a header of 2**60 bytes": safetensors(header, data, 2**60),
        "a header of -1 bytes": b"\xff" * 8 + content[8:],
        "an empty header": safetensors({}, data),
        "a header that is no JSON": safetensors(b"{" * 1000, data),
        "a header 100,000 deep": safetensors(b'{"a":' * 100_000, data),
        "whole numbers": tensor(dtype="I32" if entry["dtype"] == "F32" else "I16"),
        "complex numbers": tensor(dtype="C64"),
        "another shape": tensor(shape=[*entry["shape"], 1]),
        "a shape of 2**62": tensor(shape=[2**62, 4]),
        "a negative shape": tensor(shape=[-1]),
        "offsets beyond the file": tensor(data_offsets=[0, 2**40]),
        "offsets that are swapped": tensor(data_offsets=entry["data_offsets"][::-1]),
        "one tensor missing": safetensors({n: e for n, e in header.items() if n != name}, data),
        "one tensor more": content[:8] and safetensors(header | {"more": entry}, data),
        "nothing": b"",
        "half": content[: len(content) // 2],
        "a byte more": content + b"\0",
        "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x06touch x\x85R.",
    }
    kind = {"F32": "<f", "F16": "<e"}[entry["dtype"]]
    for number in (float("nan"), float("inf"), -float("inf")):
        packed, start = struct.pack(kind, number), entry["data_offsets"][1]
        bad[f"{number} in its last number"] = safetensors(header, data[: start - len(packed)] + packed + data[start:])
    for done, content in bad.items():
        path.write_bytes(content)
        trial.refuses(lambda: reader(path), what=f"{file}: {done}")


@pytest.mark.parametrize("file", [*WEIGHTS, *TOKENS, "ours/model.json", "sd/unet/config.json"])
def test_mutated(models, trial, file):
    path = models / file
    content, reader = (
        path.read_bytes(),
        READERS.get(file) or WEIGHTS.get(file) or (lambda path: load_tokenizer(path.parent)),
    )

    @given(
        damaged(content)
        if len(content) < 1 << 16
        else st.tuples(damaged(content[:4096]), st.just(content[4096:])).map(b"".join)
    )
    def mutate(mutated):
        write(path, mutated)
        trial.held(lambda: reader(path))

    mutate()
