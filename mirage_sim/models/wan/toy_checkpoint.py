"""The Wan2.2 classes at toy size with random weights, in the layout of the published folder.

With it, the path from files to frames can be tested without the weights and without a GPU. The frames are noise.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from mirage_sim.io import atomic_folder
from mirage_sim.models.pretrained import require
from mirage_sim.models.wan.codec import published_config
from mirage_sim.models.wan.download import faults
from mirage_sim.paths import user_cache

CHANNELS, TEXT = 8, 16
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": TEXT,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 4,
}
VAE: dict[str, Any] = published_config() | {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "z_dim": CHANNELS,
    "num_res_blocks": 1,
    "latents_mean": [0.0] * CHANNELS,
    "latents_std": [1.0] * CHANNELS,
}
ENCODER: dict[str, Any] = {
    "vocab_size": 384,  # 256 bytes and special tokens
    "d_model": TEXT,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
}
DEPTH: dict[str, Any] = {
    "reassemble_hidden_size": 16,
    "reassemble_factors": [2, 1],
    "neck_hidden_sizes": [8, 8],
    "fusion_hidden_size": 8,
    "head_hidden_size": 8,
    "depth_estimation_type": "metric",
    "max_depth": 5,  # metres
}
DEPTH_ENCODER: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_features": ["stage1", "stage2"],
    "reshape_hidden_states": False,
}


def toy_folder(folder: str | Path | None = None) -> str:
    """Write a folder like that of ``mirage download wan5b``, plus a depth model in ``depth``, if it is missing.

    Args:
        folder: the folder, written atomically; None for one in the user's cache.

    Returns:
        The folder.

    Raises:
        ImportError: if transformers is not installed.
    """
    if folder is None:
        kind = hashlib.sha256(json.dumps([TRANSFORMER, VAE, ENCODER, DEPTH, DEPTH_ENCODER]).encode()).hexdigest()[:12]
        folder = user_cache(f"wan5b-toy-{kind}")
    folder = Path(folder)
    if faults(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as partial:
            _write(partial)
            shutil.rmtree(folder, ignore_errors=True)
    return str(folder)


def _write(folder: Path) -> None:
    transformers = require("transformers", "'mirage_sim[wan]'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        WanTransformer3DModel(**TRANSFORMER).save_pretrained(folder / "transformer")
        AutoencoderKLWan(**VAE).save_pretrained(folder / "vae")
        transformers.UMT5EncoderModel(transformers.UMT5Config(**ENCODER)).save_pretrained(folder / "text_encoder")
        encoder = transformers.Dinov2Config(**DEPTH_ENCODER)
        depth = transformers.DepthAnythingConfig(backbone_config=encoder, **DEPTH)
        transformers.DepthAnythingForDepthEstimation(depth).save_pretrained(folder / "depth")
    transformers.ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    side = {"height": 28, "width": 28}
    images = transformers.DPTImageProcessorPil(size=side, keep_aspect_ratio=True, ensure_multiple_of=14)
    images.save_pretrained(folder / "depth")
