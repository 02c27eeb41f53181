"""What people take for a teacher's folder that is none: said with the way to one."""

from service.folder import CONVERT, Folder, refuse

LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_config.json", "adapter_model.safetensors")
LORA_KEYS = ("lora", "hada_w", "lokr_w")
"""Of which the names of low-rank weights have one: LoRA, LoHa, LoKr."""
FUSE = (
    "open the pipeline that it was made for, call load_lora_weights() with it, then fuse_lora() and "
    "unload_lora_weights(), and save the whole with save_pretrained(folder)"
)


def refuse_other_things(folder: Folder) -> None:
    """Of a folder without a model_index.json. TeacherInvalid, where it is known what it is instead."""
    top = sorted(file for file in folder.beside if "/" not in file)
    weights = [file for file in top if file.endswith(".safetensors")]
    adapters = [file for file in top if file in LORA_FILES]
    if not adapters and weights:
        names = folder.shapes(weights[0])
        adapters = weights[:1] if any(key in name.lower() for name in names for key in LORA_KEYS) else []
    if adapters:
        refuse(f"This is a LoRA ({adapters[0]}), which is a change of a teacher and not one itself: {FUSE}.")
    if "config.json" in top and weights:
        refuse(
            f"This is one model ({weights[0]} and config.json), where a teacher is a whole pipeline: save that with "
            "pipeline.save_pretrained(folder)."
        )
    if weights:
        refuse(f"This is a checkpoint in one file ({weights[0]}), where a teacher is a pipeline's folder: {CONVERT}.")
