"""Prompt embeddings for Wan 2.2: computed once by UMT5, which is then released, and cached on disk."""

import gc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.io import atomic_write, read_tensors
from mirage_sim.models.pretrained import load_pretrained, load_processor, require
from mirage_sim.paths import user_cache

LENGTH = 512  # tokens of the backbone's text input
INSTALL = "'mirage_sim[wan]'"


class PromptEncoder:
    """Embeds prompts and caches the embeddings.

    The encoder (11 GB in bfloat16) is in memory only while :meth:`embed` computes embeddings of new prompts.

    Args:
        folder: folder of the published model, with ``text_encoder/`` and ``tokenizer/``.
        cache: folder of the embeddings, one ``HASH.safetensors`` each; None for ``mirage_sim/prompts`` in the user's
            cache.
        length: tokens of an embedding. Shorter prompts are padded with zeros, longer ones rejected.
        device: device of the encoder.
        dtype: type of the encoder's weights and of the embeddings.
    """

    def __init__(
        self,
        folder: str | Path,
        cache: str | Path | None = None,
        length: int = LENGTH,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ):
        self.folder = Path(folder)
        self.cache = user_cache("prompts") if cache is None else Path(cache)
        self.length = length
        self.device = device
        self.dtype = dtype

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Embed B prompts: ``[B, length, D]`` on the CPU, zeros after the last token of each.

        Runs of white space are equivalent to one blank, and white space around a prompt is ignored.

        Raises:
            FileNotFoundError: if the folder has no text encoder.
            ValueError: if a prompt is too long or no text, or the encoder's files are incomplete.
            ImportError: if the encoder is needed and transformers is not installed.
        """
        if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"prompts: expected a list of texts, got {prompts!r}")
        wanted = [" ".join(prompt.split()) for prompt in prompts]
        known = {prompt: self._cached(prompt) for prompt in wanted}
        unknown = [prompt for prompt, embedding in known.items() if embedding is None]
        if unknown:
            known |= self._compute(unknown)
        found = [embedding for prompt in wanted if (embedding := known[prompt]) is not None]
        return torch.stack([torch.nn.functional.pad(rows, (0, 0, 0, self.length - len(rows))) for rows in found])

    def _path(self, prompt: str) -> Path:
        """Cache file of a prompt. Its name depends on the prompt, the encoder and the settings."""
        config = self.folder / "text_encoder" / "config.json"
        if not config.is_file():
            raise FileNotFoundError(f"{config}: expected the text encoder of Wan 2.2 (mirage download wan5b)")
        weights = {path.name: path.stat().st_size for path in sorted(config.parent.glob("*.safetensors"))}
        identity = json.dumps([prompt, self.length, str(self.dtype), config.read_text(encoding="utf-8"), weights])
        return self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"

    def _cached(self, prompt: str) -> Tensor | None:
        """Read the embedding ``[tokens, D]`` of a prompt from the cache; None if it is missing or unreadable."""
        path = self._path(prompt)
        try:
            return read_tensors(path)[0]["embedding"] if path.exists() else None
        except (ValueError, KeyError):
            return None

    def _compute(self, prompts: list[str]) -> dict[str, Tensor]:
        transformers = require("transformers", INSTALL)
        tokenizer = load_processor(
            transformers.AutoTokenizer, str(self.folder / "tokenizer"), "a tokenizer", local_files_only=True
        )
        tokens = {prompt: tokenizer(prompt).input_ids for prompt in prompts}
        for prompt, ids in tokens.items():
            if len(ids) > self.length:
                short = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
                raise ValueError(f"prompt: expected at most {self.length} tokens, got {len(ids)}: {short!r}")
        encoder = load_pretrained(
            transformers.UMT5EncoderModel, str(self.folder / "text_encoder"), dtype=self.dtype, local_files_only=True
        ).to(self.device)
        embeddings = {}
        with torch.no_grad():
            for prompt, ids in tokens.items():
                rows = encoder(torch.tensor([ids], device=self.device)).last_hidden_state[0]
                embeddings[prompt] = rows.to("cpu", self.dtype).clone()
        del encoder
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for prompt, rows in embeddings.items():
            self._store(prompt, rows)
        return embeddings

    def _store(self, prompt: str, rows: Tensor) -> None:
        path = self._path(prompt)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            save_file({"embedding": rows.contiguous()}, partial, {"prompt": prompt})
