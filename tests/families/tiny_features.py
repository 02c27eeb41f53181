"""Tiny random models that give features, saved as transformers saves them."""

from pathlib import Path

import torch
from tiny_text import clip_config, clip_tokenizer
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

SIDE = 16


def save_clip(folder: Path) -> Path:
    torch.manual_seed(6)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=4,
        projection_dim=12,
    )
    config = CLIPConfig(
        text_config=clip_config(projection=12).to_dict(), vision_config=vision.to_dict(), projection_dim=12
    )
    model = CLIPModel(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:  # larger than at the start of training, where all images and prompts are nearly alike
            torch.nn.init.normal_(weight, std=2 * weight[0].numel() ** -0.5)
    model.save_pretrained(folder, safe_serialization=True)
    clip_tokenizer(folder).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return folder


def save_dino(folder: Path) -> Path:
    torch.manual_seed(7)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=4)
    Dinov2Model(config).eval().save_pretrained(folder, safe_serialization=True)
    BitImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
