"""Claims about the encoder artifact: rows depend on their text alone, and its folder is one that others can open."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sigma_core.grounding import text_backbone as tb
from sigma_core.grounding.encoder import Adapter, GroundedEncoder
from tests.grounding.tiny_bert import WORDS, write_tiny_bert

TEXTS = [" ".join(WORDS[start : start + length]) for start in range(20) for length in range(1, 15)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert"))


def make_encoder(folder: Path) -> GroundedEncoder:
    weight = np.random.default_rng(1).normal(size=(6, 32))
    return GroundedEncoder(
        tb.load_model(folder),
        tb.read_tokenizer_files(folder),
        weight,
        np.zeros(6),
        pad_buckets=(4, 8, 12),
        adapter=Adapter({"target_modules": ["query"]}, {}),
        figures={"texts": 3},
    )


@pytest.fixture(scope="module")
def encoder(folder: Path) -> GroundedEncoder:
    return make_encoder(folder)


def test_rows_are_finite_unit_and_in_the_order_of_the_texts(encoder: GroundedEncoder) -> None:
    got = encoder.encode(["milk", "soda cola", "milk"])
    assert got.dtype == np.float32
    assert got.shape == (3, 6)
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    assert (got[0] == got[2]).all()
    assert not np.allclose(got[0], got[1])
    assert encoder.encode([]).shape == (0, 6)


@pytest.mark.parametrize("seed", range(5))
def test_a_row_is_the_same_bit_by_bit_in_any_company(encoder: GroundedEncoder, seed: int) -> None:
    whole = dict(zip(TEXTS, encoder.encode(TEXTS), strict=True))
    rng = np.random.default_rng(seed)
    some = [TEXTS[row] for row in rng.permutation(len(TEXTS))[: rng.integers(1, 90)]]
    assert (encoder.encode(some) == np.stack([whole[text] for text in some])).all()


def test_a_few_texts_in_a_small_batch_are_the_same_but_for_rounding(encoder: GroundedEncoder) -> None:
    for some in (TEXTS[:1], TEXTS[3:20]):
        assert np.allclose(encoder.encode(some, few=True), encoder.encode(some), atol=1e-6)
    assert encoder.encode([], few=True).shape == (0, encoder.text_dim)


def test_threads_change_no_bit(encoder: GroundedEncoder) -> None:
    before = torch.get_num_threads()
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rows.append(encoder.encode(TEXTS))
    torch.set_num_threads(before)
    assert (rows[0] == rows[1]).all()


def test_layers_run_one_by_one_equal_the_model_run_whole(encoder: GroundedEncoder) -> None:
    batch = tb.token_batches(["soda cola", "ice cream vanilla premium milk"], encoder._tokenizer, [8])[0]
    with torch.inference_mode():
        states = encoder.model.embeddings(input_ids=batch.ids)
        ours = tb.run_layers(list(encoder.model.encoder.layer), states, batch.mask)
        theirs = encoder.model(input_ids=batch.ids, attention_mask=batch.mask.long()).last_hidden_state
    assert torch.allclose(ours[batch.mask], theirs[batch.mask], atol=1e-6)


def test_batches_have_fixed_shapes_and_hold_every_text_once(encoder: GroundedEncoder) -> None:
    batches = tb.token_batches(TEXTS, encoder._tokenizer, (12, 4, 8))
    assert {batch.ids.shape for batch in batches} == {(32, 4), (32, 8), (32, 12)}
    assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == list(range(len(TEXTS)))
    assert all(batch.mask.any(dim=1).all() for batch in batches)


def test_a_long_text_is_cut_at_the_largest_bucket(encoder: GroundedEncoder) -> None:
    long = " ".join(WORDS[:30])
    assert (encoder.encode([long]) == encoder.encode([long + " candy"])).all()


def test_what_was_saved_is_loaded_without_a_word(
    encoder: GroundedEncoder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder.save(tmp_path)
    capfd.readouterr()
    again = GroundedEncoder.load(tmp_path)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert again.digest() == encoder.digest()
    assert again.summary() == encoder.summary() == {"text_dim": 6, "pad_buckets": [4, 8, 12], "texts": 3}
    assert (again.encode(TEXTS[:9]) == encoder.encode(TEXTS[:9])).all()


def test_the_model_folder_opens_with_transformers_and_agrees(
    encoder: GroundedEncoder, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    encoder.save(tmp_path)
    model = AutoModel.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "ice cream vanilla"
    tokens = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        states = model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).last_hidden_state
        pooled = tb.mean_pool(states, tokens["attention_mask"].bool())
        row = torch.nn.functional.normalize(pooled @ torch.from_numpy(encoder.weight).T, dim=1)
    assert np.allclose(row.numpy(), encoder.encode([text]), atol=1e-5)


def test_every_file_is_reproduced_byte_by_byte(encoder: GroundedEncoder, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        encoder.save(tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_a_changed_weight_changes_the_digest(folder: Path, encoder: GroundedEncoder) -> None:
    other = make_encoder(folder)
    assert other.digest() == encoder.digest()
    moved = make_encoder(folder)
    with torch.no_grad():
        moved.model.encoder.layer[0].output.dense.bias[0] += 1e-4
    assert moved.digest() != encoder.digest()


def test_a_missing_backbone_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(tb.BackboneError, match="hf download nobody/nothing"):
        tb.open_backbone("nobody/nothing")
    with pytest.raises(tb.BackboneError, match=r"lacks config\.json"):
        tb.load_model(tmp_path)


def test_another_family_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    with pytest.raises(tb.BackboneError, match="BERT-family models only"):
        tb.load_model(tmp_path)


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    values = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 2}))
    with pytest.raises(tb.BackboneError, match="unexpected"):
        tb.load_model(tmp_path)
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "config.json").unlink()


def test_minilm_knows_that_a_soda_is_no_paper() -> None:
    opened = tb.open_backbone("minilm")
    minilm = GroundedEncoder(
        opened.model,
        opened.files,
        np.eye(384),
        np.zeros(384),
        pad_buckets=(16,),
        adapter=Adapter({}, {}),
    )
    soda, cans, paper = minilm.encode(["soda", "soda cans 12 pack, soft drinks", "toilet paper, grocery"])
    assert soda @ cans > soda @ paper + 0.2
