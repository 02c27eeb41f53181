"""What a teacher's folder says of itself, found in JSON files and safetensors headers; nothing of it is run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service import mistaken
from service.families import (
    BETA_SCHEDULERS,
    EDM_PIPELINE,
    EDM_PREDICTIONS,
    EDM_SCHEDULERS,
    FLOW_PREDICTION,
    FLOW_SCHEDULERS,
    FLOW_SOLVERS,
    LEGACY_CLASS,
    PIPELINES,
    PREDICTION_TYPES,
    UNET2D,
    Family,
)
from service.folder import Folder, Shapes, refuse, sizes
from service.footprint import Footprint, pipeline_footprint, unet2d_footprint
from service.noise_schedule import NO_SIGNAL, last_alpha

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
SAVE = "save the whole teacher with pipeline.save_pretrained(folder)"
SAVED_AS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""What each library calls its weights."""
SAFETY_CHECKER = ["stable_diffusion", "StableDiffusionSafetyChecker"]
"""A model of diffusers that is not known by its library's name; it is saved as one of transformers."""
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",), ("tokenizer.model",))
"""Files of which a tokenizer has at least one set."""
CLIP_TOKENS = 77
BUFFERS = ("pos_embed.pos_embed",)
"""Saved among the weights, though nothing of them is learned."""
EDM_NUMBERS = {"sigma_max": 1.0, "sigma_data": 0.01}
"""Of an EDM scheduler's config, with the least that makes sense: images have a spread, and noise is to cover them."""


@dataclass(frozen=True)
class Facts:
    """What a teacher's folder says of itself.

    Attributes:
        image_size: [C, H, W] in pixels.
        parameters: of the network that denoises.
        sha256: of all weights.
        text: whether it is asked for images by prompts.
        footprint: what one image costs its network; None only of what was not inspected.
    """

    pipeline: str
    scheduler: str
    prediction_type: str
    image_size: list[int]
    num_classes: int | None
    parameters: int
    sha256: str
    family: str = UNET2D
    text: bool = False
    footprint: Footprint | None = None


def inspect(folder: Folder) -> Facts:
    """Read a diffusers folder's JSON files and weight headers. TeacherInvalid names the file and the fix.

    Of weights in the store, all is read once, for their hash; nothing is loaded or run.
    """
    if INDEX not in folder.files:
        mistaken.refuse_other_things(folder)
    index = folder.json(INDEX, SAVE)
    pipeline = index.get("_class_name")
    modules = _modules(index)
    if isinstance(pipeline, str) and pipeline in PIPELINES:
        return _pipeline(folder, pipeline, PIPELINES[pipeline], modules)
    return _unet2d(folder, pipeline, modules)


def _modules(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of each part that a pipeline has; none but diffusers' and transformers' own classes."""
    found = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        known = len(value) == 2 and all(isinstance(one, str) and one.isidentifier() for one in (name, *value))
        if not known or (value[0] not in SAVED_AS and value != SAFETY_CHECKER):
            refuse(
                f"{INDEX} has {name!r} of {value}: a teacher is made of classes of diffusers and transformers alone, "
                "written [library, class]; it may bring no code."
            )
        found[name] = ("transformers" if value == SAFETY_CHECKER else value[0], value[1])
    return found


def _unet2d(folder: Folder, pipeline: Any, modules: Mapping[str, tuple[str, str]]) -> Facts:
    file = "unet/config.json"
    unet = folder.json(file, "save it with unet.save_pretrained(folder/unet)") if file in folder.files else {}
    if not isinstance(pipeline, str | None) or unet.get("_class_name") != "UNet2DModel":
        refuse(
            f"{INDEX} names the pipeline {pipeline!r}, and {file} the network {unet.get('_class_name')!r}: only "
            f"UNet2DModel teachers are supported, and those of these pipelines: {', '.join(PIPELINES)}."
        )
    if more := sorted(modules.keys() - {"unet", "scheduler"}):
        refuse(f"{INDEX} names {', '.join(more)} beside a UNet2DModel, which must be on pixels and by itself.")
    if modules.get("scheduler", ("", ""))[1] in EDM_SCHEDULERS:
        scheduler, prediction_type = _edm(folder, modules, pipeline, unet)
    else:
        scheduler, prediction_type = _scheduler(folder, modules, flow=False)
    shapes = folder.weights("unet", SAVED_AS["diffusers"])
    image_size, num_classes = _unet2d_size(unet), _unet2d_classes(unet, shapes)
    return Facts(
        pipeline=pipeline or "",
        scheduler=scheduler,
        prediction_type=prediction_type,
        image_size=image_size,
        num_classes=num_classes,
        parameters=_parameters(shapes),
        sha256=folder.digest.hexdigest(),
        footprint=unet2d_footprint(shapes, image_size),
    )


def _edm(
    folder: Folder, modules: Mapping[str, tuple[str, str]], pipeline: Any, unet: dict[str, Any]
) -> tuple[str, str]:
    """Class and prediction type of the scheduler of a UNet2DModel with EDM's preconditioning."""
    config, (_, scheduler) = folder.json(SCHEDULER, "save it with the pipeline"), modules["scheduler"]
    if config.get("_class_name", scheduler) not in EDM_SCHEDULERS:
        refuse(f"{SCHEDULER} is of class {config['_class_name']}, where {INDEX} names an {scheduler}: {SAVE}.")
    if pipeline != EDM_PIPELINE:
        refuse(
            f"{INDEX} names the pipeline {pipeline!r}, which cannot run a network with EDM's preconditioning: save it "
            f"with {EDM_PIPELINE}(unet, scheduler).save_pretrained(folder)."
        )
    if unet.get("time_embedding_type") == "fourier":
        refuse(
            "unet/config.json has time_embedding_type 'fourier', with which a UNet2DModel takes the logarithm of its "
            "time; that of EDM is a logarithm already, and may be negative. Use a network with positional embeddings."
        )
    prediction_type = config.get("prediction_type", EDM_PREDICTIONS[0])
    if prediction_type not in EDM_PREDICTIONS:
        refuse(
            f"{SCHEDULER} has prediction_type {prediction_type!r}; an {scheduler} knows {', '.join(EDM_PREDICTIONS)}."
        )
    for name, least in EDM_NUMBERS.items():
        value = config.get(name, least)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < math.inf:
            refuse(f"{SCHEDULER} has {name} {value!r}, where a number of at least {least:g} must be: {SAVE}.")
    return scheduler, prediction_type


def _unet2d_size(unet: dict[str, Any]) -> list[int]:
    """[channels, height, width]"""
    channels = unet.get("in_channels")
    if not all(sizes(channels)) or channels != unet.get("out_channels"):
        refuse("unet/config.json must have in_channels equal to out_channels: the image's channels.")
    return [int(channels or 0), *_sides("unet/config.json", unet)]


def _unet2d_classes(unet: dict[str, Any], shapes: Shapes) -> int | None:
    """From num_class_embeds, whose last embedding stands for "no class"; the weights' shapes must agree."""
    embeddings = unet.get("num_class_embeds")
    expected = {"conv_in.weight": (1, unet["in_channels"]), "conv_out.weight": (0, unet["out_channels"])}
    if embeddings is not None:
        if not all(sizes(embeddings)) or embeddings < 2:
            refuse("unet/config.json needs num_class_embeds of at least 2: the classes, and one for 'no class'.")
        expected["class_embedding.weight"] = (0, embeddings)
    for name, (axis, length) in expected.items():
        _check_shape("unet/config.json", shapes, name, axis, length)
    return None if embeddings is None else embeddings - 1


def _pipeline(folder: Folder, pipeline: str, family: Family, modules: Mapping[str, tuple[str, str]]) -> Facts:
    for name in family.needed:
        if name not in modules:
            refuse(f"{INDEX} names no {name}, which a {pipeline} cannot do without: {SAVE}.")
    configs = {name: _config(folder, name, *modules[name]) for name in modules if name != "scheduler"}
    network, vae, file = configs[family.network], configs["vae"], f"{family.network}/config.json"
    for said in (modules[family.network][1], network.get("_class_name")):
        legacy = said == LEGACY_CLASS and family.legacy_norm is not None
        if said != family.network_class and not (legacy and network.get("norm_type") == family.legacy_norm):
            refuse(f"{file} is of class {said!r}, where that of a {pipeline} is of class {family.network_class}.")
    scheduler, prediction_type = _scheduler(folder, modules, family.flow)
    channels, latents = network.get("in_channels"), vae.get("latent_channels")
    if not all(sizes(channels, latents)) or channels != family.packed * (latents or 0):
        refuse(
            f"{file} has in_channels {channels} and vae/config.json latent_channels {latents}: the network of a "
            f"{pipeline} takes {f'{family.packed} times ' if family.packed > 1 else ''}as many as the VAE gives."
        )
    image_size = _pipeline_size(family, file, network, vae)
    num_classes = None if family.text else _pipeline_classes(file, network)
    models = sorted(name for name in configs if _is_model(modules[name][1]))
    shapes = {name: folder.weights(name, SAVED_AS[modules[name][0]]) for name in models}
    _check_shape(file, shapes[family.network], family.first, 1, family.patch * (channels or 0))
    return Facts(
        pipeline=pipeline,
        scheduler=scheduler,
        prediction_type=prediction_type,
        image_size=image_size,
        num_classes=num_classes,
        parameters=_parameters(shapes[family.network]),
        sha256=folder.digest.hexdigest(),
        footprint=pipeline_footprint(family, shapes, image_size, _factor(vae), _clip_tokens(configs)),
        family=family.name,
        text=family.text,
    )


def _is_model(name: str) -> bool:
    return "Tokenizer" not in name and "Processor" not in name and "FeatureExtractor" not in name


def _config(folder: Folder, part: str, library: str, name: str) -> dict[str, Any]:
    """Of one of a pipeline's parts, whose files must be there."""
    fix = f"{INDEX} names it, of class {name}; {SAVE}"
    if "Tokenizer" in name:
        if not any(folder.files.issuperset(f"{part}/{file}" for file in files) for files in VOCABULARIES):
            refuse(f"{part}/ holds no vocabulary, such as {part}/tokenizer.json: {fix}.")
        return folder.json(f"{part}/tokenizer_config.json", fix)
    return folder.json(f"{part}/{'config' if _is_model(name) else 'preprocessor_config'}.json", fix)


def _pipeline_size(family: Family, file: str, network: dict[str, Any], vae: dict[str, Any]) -> list[int]:
    """[3, height, width] in pixels."""
    factor = _factor(vae)
    if not family.sized_by_vae:
        return [3, *(factor * side for side in _sides(file, network))]
    step = 2 * factor  # its network takes latents two by two
    height, width = (step * (side // step) for side in _sides("vae/config.json", vae))
    if not height or not width:
        refuse(f"vae/config.json has a sample_size below {step}, which is what two of its latents stand for.")
    return [3, height, width]


def _factor(vae: dict[str, Any]) -> int:
    """Pixels to a latent, along a side."""
    blocks = vae.get("block_out_channels", vae.get("encoder_block_out_channels"))
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 10:
        refuse(f"vae/config.json has no block_out_channels, by which its latents' size is known: {SAVE}.")
    return int(2 ** (len(blocks) - 1))


def _clip_tokens(configs: Mapping[str, dict[str, Any]]) -> int:
    """Of a prompt, as the first tokenizer has them."""
    length = configs.get("tokenizer", {}).get("model_max_length")
    return length if isinstance(length, int) and 1 <= length <= CLIP_TOKENS else CLIP_TOKENS


def _pipeline_classes(file: str, network: dict[str, Any]) -> int:
    classes = network.get("num_embeds_ada_norm")
    if not all(sizes(classes)):
        refuse(f"{file} has no num_embeds_ada_norm, the number of its classes: {SAVE}.")
    return int(classes or 0)


def _sides(file: str, config: dict[str, Any]) -> list[int]:
    """[height, width]"""
    size = config.get("sample_size")
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(sizes(*sides)):
        refuse(f"{file} has no sample_size: set it to the image's height, or to [height, width].")
    return list(map(int, sides))


def _check_shape(file: str, shapes: Shapes, name: str, axis: int, length: int) -> None:
    shape = shapes.get(name)
    if shape is None or len(shape) <= axis or shape[axis] != length:
        refuse(
            f"The weights do not fit {file}: {name} has shape {shape or 'none'}, and its axis {axis} "
            f"must be {length}; save config and weights together with save_pretrained()."
        )


def _parameters(shapes: Shapes) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if name not in BUFFERS)


def _scheduler(folder: Folder, modules: Mapping[str, tuple[str, str]], flow: bool) -> tuple[str, str]:
    """Class and prediction type of a scheduler whose noise schedule is known."""
    config = folder.json(SCHEDULER, "save the teacher's noise schedule beside its network")
    said = [name for name in (config.get("_class_name"), modules.get("scheduler", ("", None))[1]) if name is not None]
    asked = config.get("prediction_type")
    for name in map(str, said):
        if flow and not (name in FLOW_SCHEDULERS or (name in FLOW_SOLVERS and asked == FLOW_PREDICTION)):
            refuse(
                f"{SCHEDULER} is of class {name}, where this teacher's network is a flow: its scheduler is one of "
                f"{', '.join(FLOW_SCHEDULERS)}, or {FLOW_SOLVERS[0]} with prediction_type {FLOW_PREDICTION}."
            )
        if not flow and name not in BETA_SCHEDULERS:
            refuse(
                f"{SCHEDULER} is of class {name}, which has no noise schedule of betas that is known here: save the "
                "teacher with the scheduler that it was trained with, such as a DDPMScheduler or DDIMScheduler."
            )
    scheduler = str(said[0]) if said else ""
    if flow:
        return scheduler, FLOW_PREDICTION
    prediction_type = "epsilon" if asked is None else asked
    if prediction_type not in PREDICTION_TYPES or config.get("use_flow_sigmas"):
        shown = FLOW_PREDICTION if config.get("use_flow_sigmas") else prediction_type
        refuse(f"{SCHEDULER} has prediction_type {shown!r}; known are {', '.join(PREDICTION_TYPES)}.")
    if prediction_type == "epsilon":
        _refuse_without_signal(config)
    return scheduler, prediction_type


def _refuse_without_signal(scheduler: dict[str, Any]) -> None:
    try:
        left = last_alpha(scheduler)
    except (TypeError, ValueError, ArithmeticError):
        refuse(f"{SCHEDULER} has a noise schedule of values that are no numbers: save it with save_pretrained().")
    if left is not None and left < NO_SIGNAL:
        refuse(
            f"The teacher predicts epsilon, and by {SCHEDULER} its last timestep is pure noise, from where epsilon "
            "says nothing of the image: no few-step student can start there. Use a teacher that predicts v_prediction "
            "or sample, or one with a noise schedule that leaves some signal, such as linear or scaled_linear."
        )
