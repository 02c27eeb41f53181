"""Tokenizers and text encoders with a vocabulary of characters, small enough to be made in a moment."""

import json
from pathlib import Path

import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LENGTH = 12


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Each letter is a token, at the end of a word another one."""
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH)


def clip_config(width: int = 16, projection: int = 16) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=projection,
        bos_token_id=2 * len(LETTERS),
        eos_token_id=2 * len(LETTERS) + 1,
        pad_token_id=2 * len(LETTERS) + 1,
    )


def clip(width: int = 16) -> CLIPTextModel:
    torch.manual_seed(1)
    return CLIPTextModel(clip_config(width)).eval()


def clip_with_projection(width: int = 16, projection: int = 16) -> CLIPTextModelWithProjection:
    torch.manual_seed(2)
    return CLIPTextModelWithProjection(clip_config(width, projection)).eval()


def t5_pieces() -> list[tuple[str, float]]:
    """The vocabulary as T5 has it: padding, end and unknown, then a letter or the start of a word each, all alike."""
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -1.0) for piece in ("▁", *LETTERS))]


def t5_tokenizer(length: int = LENGTH) -> T5Tokenizer:
    return T5Tokenizer(vocab=t5_pieces(), extra_ids=0, model_max_length=length)


def t5(width: int = 16) -> T5EncoderModel:
    """Version 1.1, as the published pipelines have it."""
    torch.manual_seed(5)
    config = T5Config(
        vocab_size=len(t5_pieces()),
        d_model=width,
        d_kv=width // 2,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config).eval()
