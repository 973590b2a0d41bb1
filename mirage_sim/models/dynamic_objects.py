"""Exclusion of objects that could move: a vision-language model names them, a segmenter finds them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.models.pretrained import load_pretrained, load_processor, require, to_arrays
from mirage_sim.protocols import MemoryView

Segmenter = Callable[[Tensor, Sequence[str]], Tensor]  # images [N, 3, H, W] in [0, 1] and names to bool [N, H, W]
Namer = Callable[[Tensor], list[str]]  # images [N, 3, H, W] in [0, 1] to names of objects

INSTALL = "'mirage_sim[wan]' torchvision"
MAX_NAMES = 20  # per answer of a namer


class DynamicObjectFilter:
    """Excludes objects by name. Implements :class:`mirage_sim.protocols.StaticFilter`.

    Args:
        segment: segmenter that finds objects by name, such as :class:`Sam3`.
        names: names of objects that are always excluded, such as ``("person", "sky")``.
        namer: returns further names for each chunk from its first and its last frame, such as :class:`Qwen3VL`.

    Raises:
        ValueError: if there are neither names nor a namer.
    """

    def __init__(self, segment: Segmenter, names: Sequence[str] = (), namer: Namer | None = None):
        if isinstance(names, str) or not (names or namer):
            raise ValueError(f"names: expected a list of names where there is no namer, got {names!r}")
        self.segment = segment
        self.names = tuple(names)
        self.namer = namer

    @torch.no_grad()
    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        static = torch.zeros_like(depth, dtype=torch.bool)
        for world, video in enumerate(frames):
            images = (video.transpose(0, 1).float() + 1) / 2
            first_and_last = images if len(images) < 3 else images[[0, -1]]
            named = self.namer(first_and_last) if self.namer else []
            names = list(dict.fromkeys([*self.names, *named]))
            dynamic = self.segment(images, names) if names else torch.zeros_like(static[world])
            static[world] = ~dynamic.to(static.device)
        return static


class Sam3:
    """SAM 3 of transformers, a segmenter that finds all objects of a name.

    Args:
        name: a folder, or a name on the hub.
        threshold: least confidence of a detection, in (0, 1). The default is low because a missed object stays in the
            memory.
        device: device of the model.

    Raises:
        ImportError: if transformers or torchvision is not installed.
        ValueError: if the model's files are incomplete.
    """

    def __init__(self, name: str = "facebook/sam3", threshold: float = 0.3, device: str = "cpu"):
        transformers = _transformers()
        self.threshold = threshold
        self.device = torch.device(device)
        self.model = load_pretrained(transformers.Sam3Model, name).to(self.device)
        self.processor = load_processor(transformers.Sam3Processor, name, "a processor beside the model")

    @torch.no_grad()
    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Segment objects of these names in images ``[N, 3, H, W]`` in [0, 1]: bool ``[N, H, W]``."""
        prompts = [self.processor(text=name, return_tensors="pt").to(self.device) for name in names]
        mask = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool, device=self.device)
        for n, image in enumerate(_pil_images(images)):
            pixels = self.processor(images=image, return_tensors="pt").to(self.device).pixel_values
            features = self.model.get_vision_features(pixels)
            for prompt in prompts:
                outputs = self.model(vision_embeds=features, **prompt)
                (objects,) = self.processor.post_process_instance_segmentation(
                    outputs, threshold=self.threshold, target_sizes=[tuple(images.shape[-2:])]
                )
                if len(objects["masks"]):  # empty masks have another size
                    mask[n] |= objects["masks"].bool().any(0)
        return mask


class Qwen3VL:
    """Qwen3-VL of transformers, a namer of objects that could move. It runs in bfloat16.

    Args:
        name: a folder, or a name on the hub.
        device: device of the model.

    Raises:
        ImportError: if transformers or torchvision is not installed.
        ValueError: if the model's files are incomplete.
    """

    QUESTION = (
        "Which things in these pictures move, or could move by themselves or be moved while one looks away: people, "
        "animals, vehicles and the like? Answer with short singular nouns, separated by commas, and nothing else; "
        "with 'none' if there are none."
    )

    def __init__(self, name: str = "Qwen/Qwen3-VL-4B-Instruct", device: str = "cpu"):
        transformers = _transformers()
        self.device = torch.device(device)
        model = transformers.Qwen3VLForConditionalGeneration
        self.model = load_pretrained(model, name, dtype=torch.bfloat16).to(self.device)
        self.processor = load_processor(transformers.AutoProcessor, name, "a processor beside the model")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[str]:
        """Name objects that could move in images ``[N, 3, H, W]`` in [0, 1], at most ``MAX_NAMES``."""
        content = [{"type": "image", "image": image} for image in _pil_images(images)]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": self.QUESTION}]}]
        inputs = self.processor.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self.device)
        tokens = self.model.generate(**inputs, max_new_tokens=128, do_sample=False)
        answer = tokens[:, inputs["input_ids"].shape[1] :]
        return parse_names(self.processor.batch_decode(answer, skip_special_tokens=True)[0])


def parse_names(answer: str) -> list[str]:
    """Parse an answer such as ``"Person, dog."`` into distinct names in lower case, at most ``MAX_NAMES``.

    The answer ``"none"`` gives no names. Parts of more than four words are sentences and ignored.
    """
    parts = (re.sub(r"^[\W\d_]+|[\W_]+$", "", part).lower() for part in re.split(r"[,;\n]", answer))
    names = dict.fromkeys(part for part in parts if part and part != "none" and len(part.split()) <= 4)
    return list(names)[:MAX_NAMES]


def _transformers() -> Any:
    require("torchvision", INSTALL)  # the image processors need it
    return require("transformers", INSTALL)


def _pil_images(images: Tensor) -> list[Any]:
    from PIL import Image

    return [Image.fromarray(array) for array in to_arrays(images)]
