"""What people really register by mistake, and the sentence that each gets: what is wrong, and how to mend it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_sd3
import torch
from safetensors.torch import save_file
from tiny_stable_diffusion import TINY

from service.errors import TeacherInvalid
from service.inspection import Facts, inspect
from service.storage import Storage
from service.stored_folder import StoredFolder
from workers.artifact import load_student
from workers.pipeline_model import PipelineModel

UNET = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
PICKLE = b"\x80\x04pickled"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3438167536\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "teacher"
    TINY["stable-diffusion-1"].make().save_pretrained(folder)
    return folder


def facts(folder: Path) -> Facts:
    return inspect(StoredFolder(Storage(folder.parent.as_uri()), folder.name))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def no_scheduler(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")


def misspelt_prediction_type(folder: Path) -> None:
    change(folder / SCHEDULER, prediction_type="v-prediction")


def only_pickles(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(PICKLE)


def code(folder: Path) -> None:
    (folder / "unet/my_unet.py").write_text("import os")


def names_code(folder: Path) -> None:
    change(folder / "text_encoder/config.json", auto_map={"AutoModel": "mine.Encoder"})


def truncated(folder: Path) -> None:
    content = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(content[: len(content) // 2])


def truncated_header(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:100])


def another_vae(folder: Path) -> None:
    change(folder / "vae/config.json", latent_channels=16)


def pointer_for_weights(folder: Path) -> None:
    (folder / UNET).write_bytes(POINTER)


def pointer_for_json(folder: Path) -> None:
    (folder / "unet/config.json").write_bytes(POINTER)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def one_file(folder: Path) -> None:
    emptied(folder)
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, folder / "v1-5-pruned.safetensors")


def one_model(folder: Path) -> None:
    unet = folder / "unet"
    for file in list(folder.iterdir()):
        if file != unet:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for file in list(unet.iterdir()):
        file.rename(folder / file.name)
    unet.rmdir()


def lora(folder: Path) -> None:
    emptied(folder)
    save_file({"unet.mid_block.to_q.lora_A.weight": torch.zeros(1)}, folder / "pytorch_lora_weights.safetensors")


def lora_of_other_tools(folder: Path) -> None:
    emptied(folder)
    save_file({"lora_unet_mid_block_to_q.lora_down.weight": torch.zeros(1)}, folder / "my_style.safetensors")


def variant(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")


def variant_in_shards(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors")


def nothing(folder: Path) -> None:
    shutil.rmtree(folder)


BAD: list[tuple[Callable[[Path], None], str, str]] = [
    (no_scheduler, f"{SCHEDULER} is missing", "save the teacher's noise schedule beside its network"),
    (misspelt_prediction_type, "has prediction_type 'v-prediction'", "known are epsilon, v_prediction, sample"),
    (only_pickles, "unet/diffusion_pytorch_model.bin is a pickle", "convert it to safetensors"),
    (code, "unet/my_unet.py is code", "remove it"),
    (names_code, "has an auto_map, which names code", "use a model of the libraries' own classes"),
    (truncated, f"{UNET} is damaged", "copy it again"),
    (truncated_header, f"{UNET} is not a safetensors file", "safe_serialization=True"),
    (another_vae, "in_channels 4 and vae/config.json latent_channels 16", "takes as many as the VAE gives"),
    (pointer_for_weights, f"{UNET} is a pointer of git-lfs", "git lfs pull"),
    (pointer_for_json, "unet/config.json is a pointer of git-lfs", "git lfs pull"),
    (one_file, "is a checkpoint in one file (v1-5-pruned.safetensors)", "from_single_file()"),
    (one_model, "This is one model (diffusion_pytorch_model.safetensors", "pipeline.save_pretrained(folder)"),
    (lora, "This is a LoRA (pytorch_lora_weights.safetensors)", "fuse_lora()"),
    (lora_of_other_tools, "This is a LoRA (my_style.safetensors)", "fuse_lora()"),
    (variant, "there is unet/diffusion_pytorch_model.fp16.safetensors alone, a variant", "with variant='fp16'"),
    (variant_in_shards, "fp16-00001-of-00002.safetensors alone, a variant", "with variant='fp16'"),
    (emptied, "model_index.json is missing", "save the whole teacher with pipeline.save_pretrained(folder)"),
    (nothing, "is not a folder in the store", "put the teacher there"),
]


@pytest.mark.parametrize(("spoil", "wrong", "fix"), BAD, ids=[spoil.__name__ for spoil, _, _ in BAD])
def test_a_bad_teacher_gets_a_sentence_that_helps(
    spoil: Callable[[Path], None], wrong: str, fix: str, good: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "teacher"))
    assert facts(folder).family == "stable-diffusion"
    spoil(folder)
    with pytest.raises(TeacherInvalid) as found:
        facts(folder)
    assert wrong in found.value.detail
    assert fix in found.value.detail
    assert [pointer.pointer for pointer in found.value.pointers] == ["/source"]


def test_a_file_where_a_folder_is_meant(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "sdxl.safetensors")
    with pytest.raises(TeacherInvalid, match=r"one file is no pipeline: .*from_single_file\(\)"):
        facts(tmp_path / "sdxl.safetensors")


def test_sd3_works_without_its_third_encoder(tmp_path: Path) -> None:
    pipe = tiny_sd3.sd3()
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    folder = tmp_path / "teacher"
    pipe.save_pretrained(folder)
    assert not (folder / "text_encoder_3").exists()
    assert (facts(folder).family, facts(folder).text) == ("sd3", True)
    model = load_student(folder, ["a cat", "two dogs"])
    assert isinstance(model, PipelineModel)
    rows = model.family.encode(model.pipe, ["a cat"])
    assert rows["prompt"].isfinite().all()
    images = model.generate(["a cat", "two dogs"], [0, 0], 2)
    assert images.isfinite().all()
    assert not torch.equal(images[0], images[1])
