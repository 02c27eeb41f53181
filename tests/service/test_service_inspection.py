"""What is read of a teacher's folder: the facts of every family, and a sentence for everything that is wrong."""

import inspect as reflection
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from tiny_all import TINY

from service.errors import TeacherInvalid
from service.families import BETA_SCHEDULERS, EDM_PIPELINE, EDM_SCHEDULERS, FLOWS, PIPELINES
from service.inspection import Facts, inspect
from service.storage import Storage
from service.stored_folder import StoredFolder
from workers.families.registry import FAMILIES, family_of

SD = "StableDiffusionPipeline"
SCHEDULER = "scheduler/scheduler_config.json"
MADE = [name for name in TINY if TINY[name].family.__name__ != "EDM"]
NOT_DDIMS = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
"""Diffusers' schedulers whose betas are changed once more."""


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline, made once."""
    root = tmp_path_factory.mktemp("pipelines")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            TINY[name].make().save_pretrained(root / name)
        return root / name

    return folder


@pytest.fixture
def folder(pipelines: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of it, to be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(pipelines(name), tmp_path / "store" / "teacher", dirs_exist_ok=True))

    return copy


def facts(folder: Path) -> Facts:
    return inspect(StoredFolder(Storage(folder.parent.as_uri()), folder.name))


def refusal(folder: Path) -> str:
    with pytest.raises(TeacherInvalid) as found:
        facts(folder)
    (error,) = found.value.pointers
    assert (error.pointer, error.detail) == ("/source", found.value.detail)
    return found.value.detail


def change(file: Path, **values: Any) -> None:
    """Of a JSON file; None removes."""
    content = {name: value for name, value in {**json.loads(file.read_text()), **values}.items() if value is not None}
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("name", MADE)
def test_the_facts_of_every_family(name: str, pipelines: Callable[[str], Path]) -> None:
    pipe = TINY[name].make()
    denoiser = TINY[name].family.of(pipe, ["a"])
    found = facts(pipelines(name))
    assert (found.pipeline, found.scheduler) == (type(pipe).__name__, type(pipe.scheduler).__name__)
    assert found.family == PIPELINES[found.pipeline].name
    assert found.family in (name, name.rsplit("-", 1)[0], name.split(".")[0])
    assert found.text is (denoiser.conditions is not None)
    assert found.num_classes == (None if found.text else denoiser.num_classes)
    assert found.parameters == sum(parameter.numel() for parameter in denoiser.network.parameters())
    factor = getattr(pipe, "vae_scale_factor", 2)
    assert found.image_size == [3, *(factor * side for side in denoiser.shape[1:])]
    assert (found.prediction_type == "flow_prediction") is (found.family in FLOWS)
    assert found.prediction_type == {"stable-diffusion-2": "v_prediction"}.get(name, found.prediction_type)


def test_the_families_are_those_that_the_workers_open(tmp_path: Path) -> None:
    assert FAMILIES.keys() == PIPELINES.keys()
    for pipeline, known in PIPELINES.items():
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        adapter = family_of(tmp_path)
        assert adapter is not None
        assert adapter.pipeline.__name__ == pipeline
        assert adapter.part == known.network


def test_schedulers_with_betas_are_those_of_diffusers() -> None:
    found = set()
    for name in dir(diffusers.schedulers):
        one = getattr(diffusers.schedulers, name, None)
        if reflection.isclass(one) and "beta_start" in reflection.signature(one.__init__).parameters:
            found.add(name)
    assert found - {*NOT_DDIMS} == set(BETA_SCHEDULERS)


def test_every_weight_counts_in_the_hash(folder: Callable[[str], Path]) -> None:
    before = facts(folder("sdxl"))
    file = folder("sdxl") / "text_encoder_2/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert facts(file.parents[1]).sha256 != before.sha256


def test_what_published_folders_have_beside_it(folder: Callable[[str], Path]) -> None:
    """A safety checker, files of another precision, shards, and another sampler of the same noise."""
    here = folder("stable-diffusion-1")
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    change(here / "model_index.json", safety_checker=checker, feature_extractor=["transformers", "CLIPImageProcessor"])
    shutil.copytree(here / "text_encoder", here / "safety_checker")
    (here / "feature_extractor").mkdir()
    (here / "feature_extractor/preprocessor_config.json").write_text("{}")
    change(here / SCHEDULER, _class_name="EulerDiscreteScheduler")
    weights = here / "unet/diffusion_pytorch_model.safetensors"
    parameters = facts(here).parameters
    shutil.copy(weights, here / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert facts(here).parameters == parameters
    weights.rename(here / "unet/diffusion_pytorch_model-00001-of-00001.safetensors")
    index = here / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "diffusion_pytorch_model-00001-of-00001.safetensors"}}))
    assert facts(here).parameters == parameters
    index.write_text(json.dumps({"weight_map": {"x": "diffusion_pytorch_model-00002-of-00002.safetensors"}}))
    assert "names diffusion_pytorch_model-00002-of-00002.safetensors, which is not in unet/" in refusal(here)


def test_first_names_of_networks(folder: Callable[[str], Path]) -> None:
    here = folder("dit")
    change(here / "model_index.json", transformer=["diffusers", "Transformer2DModel"], id2label={"0": "tench"})
    change(here / "transformer/config.json", _class_name="Transformer2DModel", norm_type="ada_norm_zero")
    assert facts(here).num_classes == 1000
    change(here / "transformer/config.json", norm_type="layer_norm")
    assert "is of class 'Transformer2DModel', where that of a DiTPipeline is of class DiTTransf" in refusal(here)


def test_an_encoder_that_may_be_left_out(folder: Callable[[str], Path]) -> None:
    here = folder("sd3")
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(here / part)
    assert "text_encoder_3/config.json is missing" in refusal(here)
    change(here / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    assert facts(here).text


def test_a_solver_of_flows(folder: Callable[[str], Path]) -> None:
    here = folder("sana")
    solver = {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction", "flow_shift": 3.0}
    (here / SCHEDULER).write_text(json.dumps(solver))
    change(here / "model_index.json", scheduler=["diffusers", "DPMSolverMultistepScheduler"])
    assert facts(here).prediction_type == "flow_prediction"
    change(here / SCHEDULER, prediction_type="epsilon")
    assert "this teacher's network is a flow" in refusal(here)


@pytest.mark.parametrize("scheduler", EDM_SCHEDULERS)
def test_networks_with_edms_preconditioning(folder: Callable[[str], Path], scheduler: str) -> None:
    here = folder("edm-v")
    change(here / SCHEDULER, _class_name=scheduler)
    change(here / "model_index.json", scheduler=["diffusers", scheduler])
    found = facts(here)
    assert (found.family, found.scheduler, found.prediction_type) == ("unet2d", scheduler, "v_prediction")
    assert (found.pipeline, found.image_size, found.num_classes) == (EDM_PIPELINE, [3, 8, 8], 3)
    assert found.footprint is not None
    (here / SCHEDULER).write_text("{}")
    assert facts(here).prediction_type == "epsilon", "what diffusers takes where nothing is said"


EDM_WRONG: list[tuple[str, dict[str, Any], str]] = [
    (SCHEDULER, {"_class_name": "DDIMScheduler"}, "DDIMScheduler, where model_index.json names an EDMEulerScheduler"),
    (SCHEDULER, {"prediction_type": "sample"}, "'sample'; an EDMEulerScheduler knows epsilon, v_prediction"),
    (SCHEDULER, {"sigma_max": 0.5}, "has sigma_max 0.5, where a number of at least 1 must be"),
    (SCHEDULER, {"sigma_data": "0.5"}, "has sigma_data '0.5', where a number of at least 0.01 must be"),
    ("model_index.json", {"_class_name": "DDPMPipeline"}, "'DDPMPipeline', which cannot run a network with EDM's"),
    ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "EDMEulerScheduler, which has no noise sch"),
    ("unet/config.json", {"time_embedding_type": "fourier"}, "that of EDM is a logarithm already"),
]


@pytest.mark.parametrize(("file", "changes", "sentence"), EDM_WRONG)
def test_edm_networks_that_nothing_can_run(
    folder: Callable[[str], Path], file: str, changes: dict[str, Any], sentence: str
) -> None:
    here = folder("edm")
    change(here / file, **changes)
    assert sentence in refusal(here)


REMOVED = [
    ("model_index.json", "model_index.json is missing"),
    (SCHEDULER, f"{SCHEDULER} is missing: save the teacher's noise schedule"),
    ("vae/config.json", "vae/config.json is missing: model_index.json names it, of class AutoencoderKL"),
    ("vae", "vae/config.json is missing"),
    ("unet", "unet/config.json is missing"),
    ("text_encoder/model.safetensors", "text_encoder/model.safetensors is missing: save the weights with safe_ser"),
    ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors is missing"),
    ("tokenizer/tokenizer_config.json", "tokenizer/tokenizer_config.json is missing"),
    ("tokenizer/tokenizer.json", "tokenizer/ holds no vocabulary"),
]


@pytest.mark.parametrize(("path", "sentence"), REMOVED)
def test_a_folder_with_something_missing(folder: Callable[[str], Path], path: str, sentence: str) -> None:
    here = folder("stable-diffusion-1")
    if (here / path).is_dir():
        shutil.rmtree(here / path)
    else:
        (here / path).unlink()
    assert sentence in refusal(here)


WRITTEN = [
    ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.bin is a pickle"),
    ("text_encoder/pytorch_model.BIN", "text_encoder/pytorch_model.BIN is a pickle"),
    ("v1-5.ckpt", "v1-5.ckpt is a pickle"),
    ("pipeline.py", "pipeline.py is code, which a teacher may not bring"),
    ("vae/x.so", "vae/x.so is code"),
    ("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors is not a safetensors file"),
]


@pytest.mark.parametrize(("path", "sentence"), WRITTEN)
def test_a_folder_with_something_it_must_not_have(folder: Callable[[str], Path], path: str, sentence: str) -> None:
    here = folder("stable-diffusion-1")
    (here / path).write_bytes(b"\x80\x04pickled")
    assert sentence in refusal(here)


CHANGED: list[tuple[str, str, dict[str, Any], str]] = [
    ("stable-diffusion-1", SCHEDULER, {"prediction_type": "flow"}, "known are epsilon, v_prediction, sample"),
    ("stable-diffusion-1", SCHEDULER, {"use_flow_sigmas": True}, "has prediction_type 'flow_prediction'; known are"),
    ("stable-diffusion-1", SCHEDULER, {"rescale_betas_zero_snr": True}, "its last timestep is pure noise"),
    ("stable-diffusion-1", SCHEDULER, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no noise schedule of betas"),
    ("stable-diffusion-1", "model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]}, ""),
    ("sd3", SCHEDULER, {"_class_name": "DDIMScheduler"}, "this teacher's network is a flow"),
    ("sd3", "model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "this teacher's network is a flow"),
    ("stable-diffusion-1", "model_index.json", {"vae": None}, f"names no vae, which a {SD} cannot do without"),
    ("stable-diffusion-1", "model_index.json", {"vae": [None, None]}, f"names no vae, which a {SD} cannot do without"),
    ("stable-diffusion-1", "model_index.json", {"_class_name": "KandinskyPipeline"}, ", ".join(PIPELINES)),
    ("sd3", "model_index.json", {"_class_name": "LuminaPipeline"}, ", ".join(PIPELINES)),
    ("stable-diffusion-1", "model_index.json", {"_class_name": ["pipeline", SD]}, ", ".join(PIPELINES)),
    ("sdxl", "model_index.json", {"_class_name": "StableDiffusion3Pipeline"}, "names no transformer"),
    ("stable-diffusion-1", "model_index.json", {"unet": ["my.module", "UNet2DConditionModel"]}, "it may bring no code"),
    ("stable-diffusion-1", "model_index.json", {"unet": ["mine", "UNet2DConditionModel"]}, "it may bring no code"),
    ("stable-diffusion-1", "model_index.json", {"vae": ["diffusers", "models.AutoencoderKL"]}, "it may bring no code"),
    ("stable-diffusion-1", "model_index.json", {"../vae": ["diffusers", "AutoencoderKL"]}, "it may bring no code"),
    ("stable-diffusion-1", "model_index.json", {"vae": ["diffusers"]}, "written [library, class]"),
    (
        "stable-diffusion-1",
        "model_index.json",
        {"unet": ["diffusers", "UNet2DModel"]},
        "is of class UNet2DConditionModel",
    ),
    ("sd3", "transformer/config.json", {"_class_name": "FluxTransformer2DModel"}, "is of class SD3Transformer2DModel"),
    ("sd3", "text_encoder/config.json", {"auto_map": {"AutoModel": "x.Y"}}, "has an auto_map, which names code"),
    ("sd3", "transformer/config.json", {"sample_size": None}, "transformer/config.json has no sample_size"),
    ("flux-dev", "vae/config.json", {"sample_size": None}, "vae/config.json has no sample_size"),
    ("flux-dev", "vae/config.json", {"sample_size": 3}, "sample_size below 4"),
    ("sana", "vae/config.json", {"encoder_block_out_channels": None}, "has no block_out_channels"),
    ("flux-dev", "vae/config.json", {"latent_channels": 16}, "takes 4 times as many as the VAE gives"),
    ("sdxl", "unet/config.json", {"in_channels": 9}, "has in_channels 9 and vae/config.json latent_channels 4"),
    ("dit", "transformer/config.json", {"num_embeds_ada_norm": None}, "has no num_embeds_ada_norm"),
]


@pytest.mark.parametrize(("name", "file", "values", "sentence"), CHANGED)
def test_a_folder_with_something_wrong(
    folder: Callable[[str], Path], name: str, file: str, values: dict[str, Any], sentence: str
) -> None:
    here = folder(name)
    change(here / file, **values)
    if sentence:
        assert sentence in refusal(here)
    else:  # another sampler of the same noise is none
        assert facts(here)


def test_weights_of_another_network(folder: Callable[[str], Path]) -> None:
    here = folder("flux-dev")
    shutil.copy(here / "vae/diffusion_pytorch_model.safetensors", here / "transformer")
    assert "The weights do not fit transformer/config.json: x_embedder.weight has shape none" in refusal(here)


def test_a_unet_on_latents_is_not_taken_for_one_on_pixels(folder: Callable[[str], Path]) -> None:
    here = folder("edm")
    change(here / SCHEDULER, _class_name="DDIMScheduler")
    change(here / "model_index.json", _class_name="LDMPipeline", scheduler=["diffusers", "DDIMScheduler"])
    assert facts(here).family == "unet2d"
    change(here / "model_index.json", vqvae=["diffusers", "VQModel"])
    assert "names vqvae beside a UNet2DModel" in refusal(here)
