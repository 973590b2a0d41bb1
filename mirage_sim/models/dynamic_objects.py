"""Things that could move: a language model that sees names them, a segmenter finds them, no memory keeps them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.models.pretrained import load_pretrained, require
from mirage_sim.protocols import MemoryView

Segmenter = Callable[[Tensor, Sequence[str]], Tensor]  # images [N, 3, H, W] in [0, 1] and names to bool [N, H, W]
Namer = Callable[[Tensor], list[str]]  # images [N, 3, H, W] in [0, 1] to names of things

INSTALL = "'mirage_sim[wan]' torchvision"
MOST = 20  # names that are looked for


class DynamicObjectFilter:
    """Remembers all but things of certain names. Fulfils :class:`mirage_sim.protocols.StaticFilter`.

    Args:
        segment: finds things of given names in images, such as :class:`Sam3`.
        names: always left out, such as ``("person", "sky")``.
        namer: names more for each chunk, seeing its first and its last frame, such as :class:`Qwen3VL`.

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
            ends = images if len(images) < 3 else images[[0, -1]]
            named = self.namer(ends) if self.namer else []
            names = list(dict.fromkeys([*self.names, *named]))
            found = self.segment(images, names) if names else torch.zeros_like(static[world])
            static[world] = ~found.to(static.device)
        return static


class Sam3:
    """SAM 3 of transformers: finds everything that a name fits.

    Args:
        name: a folder, or a name on the hub.
        threshold: in (0, 1); how sure a find must be. Low, because what is wrongly remembered stays.
        device: where it runs.

    Raises:
        ImportError: if transformers or torchvision is not installed.
        ValueError: if the model cannot be loaded whole.
    """

    def __init__(self, name: str = "facebook/sam3", threshold: float = 0.3, device: str = "cpu"):
        transformers = _transformers()
        self.threshold = threshold
        self.device = torch.device(device)
        self.model = load_pretrained(transformers.Sam3Model, name).to(self.device)
        self.processor: Any = transformers.Sam3Processor.from_pretrained(name)

    @torch.no_grad()
    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Where anything of these names is, bool ``[N, H, W]``, in images ``[N, 3, H, W]`` in [0, 1]."""
        words = [self.processor(text=name, return_tensors="pt").to(self.device) for name in names]
        found = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool, device=self.device)
        for n, picture in enumerate(_pictures(images)):
            pixels = self.processor(images=picture, return_tensors="pt").to(self.device).pixel_values
            seen = self.model.get_vision_features(pixels)
            for word in words:
                outputs = self.model(vision_embeds=seen, **word)
                (things,) = self.processor.post_process_instance_segmentation(
                    outputs, threshold=self.threshold, target_sizes=[tuple(images.shape[-2:])]
                )
                if len(things["masks"]):  # of none, the masks are of another size
                    found[n] |= things["masks"].bool().any(0)
        return found


class Qwen3VL:
    """Qwen3-VL of transformers: names what could move in pictures.

    Args:
        name: a folder, or a name on the hub.
        device: where it runs, in bfloat16.

    Raises:
        ImportError: if transformers or torchvision is not installed.
        ValueError: if the model cannot be loaded whole.
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
        self.processor: Any = transformers.AutoProcessor.from_pretrained(name)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[str]:
        """Names of movable things in images ``[N, 3, H, W]`` in [0, 1], at most 20."""
        content = [{"type": "image", "image": picture} for picture in _pictures(images)]
        asked = [{"role": "user", "content": [*content, {"type": "text", "text": self.QUESTION}]}]
        given = self.processor.apply_chat_template(
            asked, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self.device)
        made = self.model.generate(**given, max_new_tokens=128, do_sample=False)
        answer = made[:, given["input_ids"].shape[1] :]
        return parse_names(self.processor.batch_decode(answer, skip_special_tokens=True)[0])


def parse_names(answer: str) -> list[str]:
    """The names in an answer such as ``"Person, dog."``: lower case, each once, at most 20; none of ``"none"``."""
    words = (re.sub(r"^[\W\d_]+|[\W_]+$", "", part).lower() for part in re.split(r"[,;\n]", answer))
    # a whole sentence is no name
    return list(dict.fromkeys(word for word in words if word and word != "none" and len(word.split()) <= 4))[:MOST]


def _transformers() -> Any:
    require("torchvision", INSTALL)  # of the picture processors
    return require("transformers", INSTALL)


def _pictures(images: Tensor) -> list[Any]:
    from PIL import Image

    arrays = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]
