import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.toy_backbone import randn, toy_backbone, toy_branch, toy_codec, toy_conditioning
from torch import Tensor

from mirage_sim.models import save_model
from mirage_sim.models.wan import published
from mirage_sim.models.wan.branch import MemoryBranch
from mirage_sim.models.wan.checkpoints import diffusers_name, load_backbone, load_branch, load_denoiser, merge_lora

INDEX = "diffusion_pytorch_model.safetensors.index.json"
BRANCH_PREFIXES = ("", "module.", "model.", "pipe.vace.", "vace.", "module.model.", "generator.vace.", "state_dict.")
LORA_PREFIXES = ("", "module.", "model.", "pipe.dit.", "dit.", "base_model.model.", "base_model.", "transformer.")
# the authors' names of a block's parts by diffusers' names; independent of the renaming under test
AUTHORS = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "proj_in": "before_proj",
    "proj_out": "after_proj",
    "scale_shift_table": "modulation",
}


def authors_name(name: str) -> str:
    """The authors' name of a tensor of a block; other names are identical."""
    if not re.match(r"\w+\.\d+\.", name):
        return name
    blocks, number, part = name.split(".", 2)
    (theirs,) = (part.replace(ours, other) for ours, other in AUTHORS.items() if part.startswith(ours))
    return f"{blocks}.{number}.{theirs}"


def shapes_of(module: torch.nn.Module) -> published.Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def refused(message: str, path: Path, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and len(text) < 1000


class TestPublishedNames:
    @pytest.fixture
    def backbone(self) -> WanTransformer3DModel:
        with torch.device("meta"):
            return WanTransformer3DModel(**published.config())

    def test_backbone_names_equal_diffusers(self, backbone: WanTransformer3DModel) -> None:
        assert published.shapes("backbone") == shapes_of(backbone)
        assert len(published.shapes("backbone")) == 825

    def test_branch_names_map_to_diffusers(self, backbone: WanTransformer3DModel) -> None:
        theirs = published.shapes("branch")
        renamed = {diffusers_name(name): shape for name, shape in theirs.items()}
        assert len(theirs) == len(renamed) == 439
        assert renamed == shapes_of(MemoryBranch.beside(backbone))
        assert set(theirs) == {authors_name(name) for name in renamed}

    def test_adapter_names_map_to_layers(self, backbone: WanTransformer3DModel) -> None:
        layers = published.shapes("lora")
        ours = shapes_of(backbone)
        renamed = {diffusers_name(f"{name}.weight"): shape for name, shape in layers.items()}
        assert len(layers) == len(renamed) == 300
        assert renamed.items() <= ours.items()

    @given(part=st.sampled_from(["branch", "lora"]), prefix=st.sampled_from(BRANCH_PREFIXES + LORA_PREFIXES))
    def test_renaming_strips_wrappers_and_is_idempotent(self, part: str, prefix: str) -> None:
        for name in published.shapes(part):
            name = f"{name}.lora_A.weight" if part == "lora" else name
            renamed = diffusers_name(prefix + name)
            assert renamed == diffusers_name(name) == diffusers_name(renamed)
            assert diffusers_name(name.replace("lora_A", "lora_A.default")) == renamed


class TestBackbone:
    @pytest.fixture
    def original(self) -> WanTransformer3DModel:
        return toy_backbone()

    @pytest.fixture
    def folder(self, original: WanTransformer3DModel, tmp_path: Path) -> Path:
        folder = tmp_path / "transformer"
        original.save_pretrained(folder, max_shard_size="60KB")
        assert len(list(folder.glob("*.safetensors"))) > 2 and (folder / INDEX).exists()
        return folder

    def test_loads_shards_and_single_file(self, original: WanTransformer3DModel, folder: Path, tmp_path: Path) -> None:
        original.save_pretrained(tmp_path / "whole")
        for stored in (folder, tmp_path / "whole"):
            loaded = load_backbone(stored, torch.float32)
            state = loaded.state_dict()
            assert shapes_of(loaded) == shapes_of(original)
            assert all(torch.equal(state[name], tensor) for name, tensor in original.state_dict().items())
            assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())

    def test_half_precision(self, folder: Path) -> None:
        loaded = load_backbone(folder)
        assert loaded.patch_embedding.weight.dtype == torch.bfloat16
        assert loaded.blocks[0].scale_shift_table.dtype == torch.float32

    def test_incomplete_backbone_is_rejected(self, folder: Path) -> None:
        def load() -> object:
            return load_backbone(folder, torch.float32)

        shard = sorted(folder.glob("*.safetensors"))[1]
        content = shard.read_bytes()
        shard.write_bytes(content[:-100])
        refused("expected a folder that holds a whole WanTransformer3DModel", folder, load)
        shard.unlink()
        refused(f"expected a folder that holds a whole .*{shard.name}", folder, load)
        shard.write_bytes(content)
        config = json.loads((folder / "config.json").read_text())
        for change, message in (
            ({"num_layers": 3}, r"unexpected blocks\.3"),
            ({"num_layers": 5}, r"missing blocks\.4"),
            ({"ffn_dim": 40}, "ffn"),
            ({"num_layers": "many"}, "expected a folder that holds a whole"),
        ):
            (folder / "config.json").write_text(json.dumps(config | change))
            refused(message, folder, load)
        (folder / "config.json").write_text("{")
        refused("expected a folder", folder, load)
        refused("expected a folder", folder / "nowhere", lambda: load_backbone(folder / "nowhere"))


class TestBranch:
    @pytest.fixture
    def backbone(self) -> WanTransformer3DModel:
        return toy_backbone()

    @pytest.fixture
    def branch(self, backbone: WanTransformer3DModel) -> MemoryBranch:
        return toy_branch(backbone)

    @pytest.fixture
    def release(self, branch: MemoryBranch, tmp_path: Path) -> Path:
        path = tmp_path / "vace.safetensors"
        save_file({authors_name(name): tensor for name, tensor in branch.state_dict().items()}, path)
        return path

    def same(self, loaded: MemoryBranch, branch: MemoryBranch) -> bool:
        state = loaded.state_dict()
        return state.keys() == branch.state_dict().keys() and all(
            torch.equal(state[name], tensor) for name, tensor in branch.state_dict().items()
        )

    @pytest.mark.parametrize("prefix", BRANCH_PREFIXES)
    def test_authors_layout_loads(
        self, prefix: str, release: Path, branch: MemoryBranch, backbone: WanTransformer3DModel
    ) -> None:
        save_file({prefix + name: tensor for name, tensor in load_file(release).items()}, release)
        loaded = load_branch(release, backbone)
        assert self.same(loaded, branch) and loaded.config == branch.config
        assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())

    @pytest.mark.parametrize("every", [1, 2])
    def test_saved_branch_loads(self, every: int, backbone: WanTransformer3DModel, tmp_path: Path) -> None:
        branch = MemoryBranch.beside(backbone, every)
        save_model(branch, tmp_path / "branch.safetensors", torch.float32)
        loaded = load_branch(tmp_path / "branch.safetensors", backbone)
        assert self.same(loaded, branch) and loaded.config == branch.config

    def test_branch_gets_precision_of_backbone(self, release: Path) -> None:
        loaded = load_branch(release, toy_backbone().to(torch.bfloat16))
        assert loaded.vace_patch_embedding.weight.dtype == torch.bfloat16
        assert loaded.vace_blocks[1].norm2.weight.dtype == torch.float32

    def test_misfit_is_rejected(self, release: Path, backbone: WanTransformer3DModel, tmp_path: Path) -> None:
        state = load_file(release)

        def rewritten(change: dict[str, Tensor | None]) -> Callable[[], object]:
            kept = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
            save_file(kept, release)
            return lambda: load_branch(release, backbone)

        name = "vace_blocks.1.ffn.0.weight"
        refused(r"missing vace_blocks\.1\.ffn\.net\.0\.proj\.weight \(1 in all\)", release, rewritten({name: None}))
        refused("unexpected stranger", release, rewritten({"stranger": torch.zeros(2)}))
        refused("of another shape vace_blocks.1.ffn", release, rewritten({name: torch.zeros(2, 2)}))
        refused("expected each tensor once", release, rewritten({f"vace.{name}": state[name].clone()}))
        rewritten({})
        refused("missing", release, lambda: load_branch(release, toy_backbone(num_layers=6)))
        refused("of another shape", release, lambda: load_branch(release, toy_backbone(ffn_dim=64)))
        release.write_bytes(release.read_bytes()[:-10])
        refused("expected a whole safetensors file", release, lambda: load_branch(release, backbone))
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_branch(tmp_path / "nowhere.safetensors", backbone)

    @pytest.mark.parametrize("config", ["{", "[]", "{}", '{"every": "two"}', '{"every": 0}', '{"every": 2}'])
    def test_misfit_config_is_rejected(self, config: str, backbone: WanTransformer3DModel, release: Path) -> None:
        save_file(load_file(release), release, {"class": "MemoryBranch", "config": config})
        refused("expected", release, lambda: load_branch(release, backbone))

    def test_saved_branch_of_other_backbone_is_rejected(self, backbone: WanTransformer3DModel, tmp_path: Path) -> None:
        path = tmp_path / "branch.safetensors"
        save_model(MemoryBranch.beside(toy_backbone(ffn_dim=64)), path)
        refused("expected a side branch for this backbone, .*'ffn_dim': 48", path, lambda: load_branch(path, backbone))


LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "ffn.net.0.proj")


class TestLora:
    def adapter(self, backbone: WanTransformer3DModel, rank: int = 3) -> dict[str, Tensor]:
        """With the authors' names."""
        state = {}
        for number, layer in ((number, layer) for number in range(4) for layer in LAYERS):
            out, into = backbone.get_submodule(f"blocks.{number}.{layer}").weight.shape
            name = authors_name(f"blocks.{number}.{layer}.weight").removesuffix(".weight")
            state[f"{name}.lora_A.weight"] = 0.1 * randn(rank, into, seed=number)
            state[f"{name}.lora_B.weight"] = 0.1 * randn(out, rank, seed=number + 10)
        return state

    @pytest.mark.parametrize("prefix", LORA_PREFIXES)
    @pytest.mark.parametrize("form", ["lora_{}", "lora_{}.default"])
    def test_merge_adds_product_of_adapters(self, prefix: str, form: str, tmp_path: Path) -> None:
        backbone, before = toy_backbone(), toy_backbone().state_dict()
        adapter = self.adapter(backbone)
        stored = {prefix + name: tensor for name, tensor in adapter.items()}
        for part in "AB":
            stored = {name.replace(f"lora_{part}", form.format(part)): tensor for name, tensor in stored.items()}
        save_file(stored, tmp_path / "lora.safetensors")
        merge_lora(backbone, tmp_path / "lora.safetensors", scale=0.5)
        merged = {f"blocks.{number}.{layer}.weight" for number in range(4) for layer in LAYERS}
        for name, tensor in backbone.state_dict().items():
            if name in merged:
                theirs = authors_name(name).removesuffix(".weight")
                change = adapter[f"{theirs}.lora_B.weight"] @ adapter[f"{theirs}.lora_A.weight"]
                torch.testing.assert_close(tensor, before[name] + 0.5 * change)
                assert not torch.equal(tensor, before[name])
            else:
                assert torch.equal(tensor, before[name]), name

    def test_merge_rounds_half_precision_once(self, tmp_path: Path) -> None:
        backbone = toy_backbone().to(torch.bfloat16)
        name = "blocks.1.attn2.to_q"
        before = backbone.get_submodule(name).weight.clone()
        adapter = self.adapter(backbone)
        save_file(adapter, tmp_path / "lora.safetensors")
        merge_lora(backbone, tmp_path / "lora.safetensors")
        change = adapter["blocks.1.cross_attn.q.lora_B.weight"] @ adapter["blocks.1.cross_attn.q.lora_A.weight"]
        assert torch.equal(backbone.get_submodule(name).weight, (before.float() + change).to(torch.bfloat16))

    def test_misfit_adapter_is_rejected_and_nothing_merged(self, tmp_path: Path) -> None:
        backbone, before = toy_backbone(), toy_backbone().state_dict()
        path, state = tmp_path / "lora.safetensors", self.adapter(backbone)

        def rewritten(change: dict[str, Tensor | None], base: dict[str, Tensor] = state) -> Callable[[], object]:
            save_file({name: tensor for name, tensor in (base | change).items() if tensor is not None}, path)
            return lambda: merge_lora(backbone, path)

        a, b = (f"blocks.3.self_attn.q.lora_{part}.weight" for part in "AB")
        refused("of one rank for blocks.3.attn1.to_q", path, rewritten({b: None}))
        refused(r"alone, got also blocks.3.attn1.to_q.lora_B.weight \(1 in all\)", path, rewritten({a: None}))
        refused("of one rank", path, rewritten({a: torch.zeros(2, 32)}))
        refused(r"\[32, 32\], got one for \[32, 31\]", path, rewritten({a: torch.zeros(3, 31)}))
        refused("expected pairs .* got also alpha", path, rewritten({"alpha": torch.zeros(1)}))
        refused("expected pairs .* got none", path, rewritten({}, {}))
        deeper = {name.replace("blocks.3", "blocks.4"): tensor for name, tensor in state.items()}
        refused(r"got one for blocks\.4\..*, which it lacks", path, rewritten({}, deeper))
        rewritten(state)
        for name, tensor in backbone.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        path.write_bytes(path.read_bytes()[:-10])
        refused("expected a whole safetensors file", path, lambda: merge_lora(backbone, path))


def test_denoiser_loads_with_branch_and_adapter(tmp_path: Path) -> None:
    """A published folder and the authors' files together generate a chunk."""
    backbone = toy_backbone()
    branch = toy_branch(backbone)
    backbone.save_pretrained(tmp_path / "transformer")
    save_file({authors_name(n): t for n, t in branch.state_dict().items()}, tmp_path / "vace.safetensors")
    save_file(TestLora().adapter(backbone), tmp_path / "lora.safetensors")
    files = {"branch": tmp_path / "vace.safetensors", "lora": tmp_path / "lora.safetensors"}
    denoiser = load_denoiser(tmp_path / "transformer", toy_codec(), **files, dtype="float32")
    merge_lora(backbone, tmp_path / "lora.safetensors")
    state = denoiser.state_dict()
    assert all(torch.equal(state[f"backbone.{name}"], tensor) for name, tensor in backbone.state_dict().items())
    assert all(torch.equal(state[f"branch.{name}"], tensor) for name, tensor in branch.state_dict().items())
    alone = load_denoiser(tmp_path / "transformer", dtype="float32")
    x, sigma = randn(2, 8, 3, 4, 6), torch.full((2, 3), 0.5)
    with torch.inference_mode():
        made, plain = (net.velocity(x, sigma, net.condition(toy_conditioning())) for net in (denoiser, alone))
    assert made.shape == x.shape and (made - plain).abs().max() > 1e-2
    with pytest.raises(ValueError, match="dtype: expected one of .* got 'int8'"):
        load_denoiser(tmp_path / "transformer", dtype="int8")


class TestFittingTheMachine:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        toy_backbone().save_pretrained(tmp_path / "transformer")
        return tmp_path / "transformer"

    def velocity(self, folder: Path, **options: bool) -> Tensor:
        denoiser = load_denoiser(folder, dtype="float32", **options)
        x = randn(2, 8, 3, 4, 6, seed=30)
        with torch.inference_mode():
            condition = denoiser.condition(toy_conditioning(references=1, preceding=1, first=True))
            return denoiser.velocity(x, torch.full((2, 3), 0.5), condition)

    def test_offloading_keeps_results_bit_identical(self, folder: Path) -> None:
        assert torch.equal(self.velocity(folder, offload=True), self.velocity(folder))

    def test_quantized_result_is_close(self, folder: Path) -> None:
        pytest.importorskip("torchao")
        plain, quantized = self.velocity(folder), self.velocity(folder, quantize=True)
        assert 0 < (quantized - plain).abs().max() < 0.1 * plain.abs().mean()

    def test_quantize_needs_torchao_and_rejects_adapters(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchao.quantization", None)
        with pytest.raises(ImportError, match="torchao: expected it to be installed .pip install torchao."):
            load_denoiser(folder, quantize=True)
        with pytest.raises(ValueError, match="lora: expected none for weights that are quantized, got a.safetensors"):
            load_denoiser(folder, lora="a.safetensors", quantize=True)
