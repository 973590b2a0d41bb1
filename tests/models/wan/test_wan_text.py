import shutil
from pathlib import Path

import pytest
import torch

from mirage_sim.models.wan.prompt_encoder import PromptEncoder

transformers = pytest.importorskip("transformers")
WORDS = "a room with red walls and chair".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer and encoder of the real classes, at toy size, in the layout of the published model."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), ("▁", -4.0)]
    vocabulary += [(f"▁{word}", -3.0) for word in WORDS] + [(letter, -5.0) for letter in LETTERS]
    transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder / "tokenizer")
    config = transformers.UMT5Config(vocab_size=len(vocabulary), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture
def prompts(published: Path, tmp_path: Path) -> PromptEncoder:
    return PromptEncoder(published, tmp_path / "cache", length=12, dtype=torch.float32)


def test_embeddings_equal_the_encoders_then_zeros(prompts: PromptEncoder, published: Path) -> None:
    made = prompts.embed(["a red room", ""])
    assert made.shape == (2, 12, 16) and made.dtype == torch.float32 and not made.requires_grad
    encoder = transformers.UMT5EncoderModel.from_pretrained(published / "text_encoder").eval()
    ids = torch.tensor([[4, 7, 5, 1]])  # vocabulary indices of the words, then the end token
    with torch.no_grad():
        torch.testing.assert_close(made[:1, :4], encoder(ids).last_hidden_state)
        padded = torch.nn.functional.pad(ids, (0, 8))
        masked = encoder(padded, attention_mask=(padded > 0).long()).last_hidden_state  # as in diffusers' pipeline
        torch.testing.assert_close(made[:1, :4], masked[:, :4])
    assert not made[0, 4:].any() and not made[1, 1:].any() and made[1, 0].any()


def test_prompt_is_embedded_once(prompts: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prompts.embed(["a red room", "a chair"])
    files = sorted(path.name for path in prompts.cache.iterdir())
    assert len(files) == 2 and all(name.endswith(".safetensors") for name in files)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the encoder was loaded again")

    monkeypatch.setattr(transformers.UMT5EncoderModel, "from_pretrained", refuse)
    again = prompts.embed(["a  chair ", "a\nred room", "a chair"])
    assert torch.equal(again, first[[1, 0, 1]])
    with pytest.raises(ValueError, match="loaded again"):
        prompts.embed(["a red chair"])


def test_cache_key_depends_on_encoder_and_settings(prompts: PromptEncoder, published: Path, tmp_path: Path) -> None:
    prompts.embed(["a room"])
    assert prompts.embed(["a room"]).shape[1] == 12
    longer = PromptEncoder(published, prompts.cache, length=20, dtype=torch.float32)
    half = PromptEncoder(published, prompts.cache, length=12, dtype=torch.bfloat16)
    assert longer.embed(["a room"]).shape[1] == 20
    assert half.embed(["a room"]).dtype == torch.bfloat16
    other = tmp_path / "other"
    shutil.copytree(published, other)
    config = transformers.UMT5Config.from_pretrained(other / "text_encoder", layer_norm_epsilon=1e-3)
    config.save_pretrained(other / "text_encoder")
    PromptEncoder(other, prompts.cache, length=12, dtype=torch.float32).embed(["a room"])
    assert len(list(prompts.cache.iterdir())) == 4


def test_damaged_cache_file_is_replaced(prompts: PromptEncoder) -> None:
    first = prompts.embed(["a room"])
    (path,) = prompts.cache.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:40])
    assert torch.equal(prompts.embed(["a room"]), first)
    assert path.read_bytes() == content


def test_encoder_is_released(prompts: PromptEncoder) -> None:
    import gc

    prompts.embed(["a red chair"])
    assert not [found for found in gc.get_objects() if type(found) is transformers.UMT5EncoderModel]


def test_long_prompt_is_rejected_before_caching(prompts: PromptEncoder) -> None:
    with pytest.raises(ValueError, match="prompt: expected at most 12 tokens, got 13: 'a a a a"):
        prompts.embed(["a room", "a " * 12])
    assert not prompts.cache.exists()
    assert prompts.embed(["a " * 11]).shape == (1, 12, 16)


@pytest.mark.parametrize("prompts_given", ["a room", [3], [None]])
def test_prompts_other_than_list_of_texts_are_rejected(prompts: PromptEncoder, prompts_given: object) -> None:
    with pytest.raises(ValueError, match="prompts: expected a list of texts"):
        prompts.embed(prompts_given)  # type: ignore[arg-type]


def test_missing_and_broken_files_are_rejected(published: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected the text encoder .*mirage download wan5b"):
        PromptEncoder(tmp_path / "nowhere", tmp_path / "cache").embed(["a room"])
    folder = tmp_path / "model"
    shutil.copytree(published, folder)
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    broken = PromptEncoder(folder, tmp_path / "cache")
    with pytest.raises(
        ValueError, match=r"text_encoder: expected a folder that holds a whole UMT5EncoderModel"
    ) as caught:
        broken.embed(["a room"])
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer: expected a tokenizer") as caught:
        broken.embed(["a room"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert PromptEncoder("somewhere").cache == tmp_path / "mirage_sim" / "prompts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert PromptEncoder("somewhere").cache.is_relative_to(Path.home())
