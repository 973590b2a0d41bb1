"""Prompts for Wan 2.2: embedded once by UMT5, which is then let go, and kept on disk."""

import gc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.io import atomic_write, read_tensors
from mirage_sim.models.pretrained import load_pretrained, require
from mirage_sim.paths import user_cache

LENGTH = 512  # tokens that the backbone looks at
INSTALL = "'mirage_sim[wan]'"


class PromptEncoder:
    """Embeddings of prompts, from the cache where it has them.

    The encoder (11 GB in bfloat16) is in memory only while :meth:`embed` meets prompts for the first time.

    Args:
        folder: of the model as published, with ``text_encoder/`` and ``tokenizer/``.
        cache: folder for the embeddings, ``HASH.safetensors`` each; None for
            ``mirage_sim/prompts`` among the user's cached files.
        length: tokens of an embedding; longer prompts are refused, shorter ones padded with zeros.
        device: where the encoder runs.
        dtype: that it runs in and that embeddings are kept in.
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
        """Embeddings ``[B, length, D]`` of B prompts, on the CPU; zeros after the last token of each.

        White space counts as one blank, and not at all around a prompt.

        Raises:
            FileNotFoundError: if the folder has no text encoder.
            ValueError: if a prompt is too long or no text, or the encoder's files are not whole.
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
        """The file of a prompt: it depends on the encoder and on how it is asked."""
        config = self.folder / "text_encoder" / "config.json"
        if not config.is_file():
            raise FileNotFoundError(f"{config}: expected the text encoder of Wan 2.2 (mirage download wan5b)")
        weights = {path.name: path.stat().st_size for path in sorted(config.parent.glob("*.safetensors"))}
        identity = json.dumps([prompt, self.length, str(self.dtype), config.read_text(encoding="utf-8"), weights])
        return self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"

    def _cached(self, prompt: str) -> Tensor | None:
        """Rows ``[tokens, D]`` of a prompt that was embedded before; a file that cannot be read counts as none."""
        path = self._path(prompt)
        try:
            return read_tensors(path)[0]["embedding"] if path.exists() else None
        except (ValueError, KeyError):
            return None

    def _compute(self, prompts: list[str]) -> dict[str, Tensor]:
        transformers = require("transformers", INSTALL)
        tokenizer = self.folder / "tokenizer"
        try:
            tokenize = transformers.AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
        except Exception as error:  # whatever foreign files do to a foreign loader
            raise ValueError(f"{tokenizer}: expected a tokenizer: {' '.join(str(error).split())[:300]}") from error
        tokens = {prompt: tokenize(prompt).input_ids for prompt in prompts}
        for prompt, ids in tokens.items():
            if len(ids) > self.length:
                short = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
                raise ValueError(f"prompt: expected at most {self.length} tokens, got {len(ids)}: {short!r}")
        encoder = load_pretrained(
            transformers.UMT5EncoderModel, str(self.folder / "text_encoder"), dtype=self.dtype, local_files_only=True
        ).to(self.device)
        made = {}
        with torch.no_grad():
            for prompt, ids in tokens.items():
                rows = encoder(torch.tensor([ids], device=self.device)).last_hidden_state[0]
                made[prompt] = rows.to("cpu", self.dtype).clone()
        del encoder
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for prompt, rows in made.items():
            self._keep(prompt, rows)
        return made

    def _keep(self, prompt: str, rows: Tensor) -> None:
        path = self._path(prompt)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            save_file({"embedding": rows.contiguous()}, partial, {"prompt": prompt})
