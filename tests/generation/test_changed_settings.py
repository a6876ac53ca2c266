"""Whatever shapes the records and was changed since is named: never ignored, never mixed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from genesis_lab.dataset import DatasetWriter, open_dataset
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Domain
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.generation import config_for
from genesis_lab.generation import generate as make
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.offline import OfflineProvider

TAXONOMY = """
name: shop
title: {en: A shop, es: Una tienda}
intents:
  - name: where_is_it
    category: orders
    description: {en: Where an order is, es: Dónde está un pedido}
    examples:
      en: ["Where is my [order|parcel|box], please?", "I wait for my [parcel|order] and [wonder|ask] where it is"]
      es: ["¿Dónde está mi [pedido|paquete], por favor?", "Espero mi [paquete|pedido] y [quiero|debo] saber dónde está"]
"""


def run(target: Path, domain: str = "conversations", stop: bool = False, total: int = 12, **options: Any) -> Any:
    made: Domain = get_domain(domain, **options)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    plan = make_plan(made, total, 42)
    return generate(plan, made, OfflineProvider(), target, on_progress=interrupt if stop else None)


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tone": "formal"}, "tone was 'neobank', now 'formal'"),
        ({"few_shot": 0}, "few_shot was 2, now 0"),
        ({"max_turns": 11}, "max_turns was 12, now 11"),
        ({"seed": 43}, "seed was None, now 43"),
    ],
)
def test_another_option_is_named(tmp_path: Path, unfinished: bool, options: dict[str, Any], said: str) -> None:
    start = {"categories": ("refunds",)}
    if unfinished:
        with pytest.raises(GenesisError, match="Interrupted"):
            run(tmp_path / "d", stop=True, **start)
    else:
        run(tmp_path / "d", **start)
    with pytest.raises(InvalidInput, match=said):
        run(tmp_path / "d", **start, **options)
    assert run(tmp_path / "d", **start).total == 12


def test_another_option_of_a_role_is_named(tmp_path: Path) -> None:
    run(tmp_path / "d", "requirements", total=10)
    with pytest.raises(InvalidInput, match=r"min_score was 0\.8, now 0\.5"):
        run(tmp_path / "d", "requirements", total=10, min_score=0.5)


@pytest.mark.parametrize("unfinished", [False, True])
def test_an_edited_taxonomy_is_noticed_in_the_same_session_and_named(tmp_path: Path, unfinished: bool) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(TAXONOMY)
    with pytest.raises(GenesisError) if unfinished else nullcontext():
        run(tmp_path / "d", taxonomy=str(file), stop=unfinished)
    file.write_text(TAXONOMY.replace("parcel", "basket"))
    with pytest.raises(InvalidInput, match=r"\(taxonomy was edited\)"):
        run(tmp_path / "d", taxonomy=str(file))
    assert "basket" in str(run(tmp_path / "other", taxonomy=str(file)).frame()["turns"].tolist())


def test_a_taxonomy_that_only_moved_is_the_same_and_its_folder_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TAXONOMY)
    made = run(tmp_path / "d", taxonomy=str(tmp_path / "a.yaml"))
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    assert run(tmp_path / "d", taxonomy=str(tmp_path / "b.yaml")).content_hash == made.content_hash
    assert str(tmp_path) not in str(made.manifest)


def test_a_prompt_of_another_version_of_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "d", categories=("refunds",))
    domain = type(get_domain())
    before = domain.knowledge
    monkeypatch.setattr(domain, "knowledge", lambda self: before(self) | {"prompt.yaml": "0" * 16})
    with pytest.raises(InvalidInput, match=r"\(prompt\.yaml was edited\)"):
        run(tmp_path / "d", categories=("refunds",))


def test_other_requirements_to_answer_are_named(tmp_path: Path) -> None:
    from genesis_lab.generation.generate import chosen_domain

    def vision(industries: tuple[str, ...], name: str) -> Domain:
        run(tmp_path / name, "requirements", total=10, industries=industries)
        return chosen_domain("vision", requirements=str(tmp_path / name))

    first, second = vision((), "r1"), vision(("retail",), "r2")
    generate(make_plan(first, 10, 42), first, OfflineProvider(), tmp_path / "v")
    with pytest.raises(InvalidInput, match="requirements was edited"):
        generate(make_plan(second, 10, 42), second, OfflineProvider(), tmp_path / "v")


def test_a_dataset_that_was_not_generated_is_not_taken_for_it(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", "conversations") as writer:
        writer.write([])
    with pytest.raises(InvalidInput, match="not recorded in full"):
        run(tmp_path / "d", categories=("refunds",))
    assert open_dataset(tmp_path / "d").total == 0


def test_other_settings_are_found_before_anything_runs_and_nothing_is_touched(own_output_root: Path) -> None:
    config = config_for()(dataset="mine", total=10, intents=("card_arrival",))
    config.check_room()
    assert not (own_output_root / "datasets").exists()
    make(config)
    config.check_room()
    other = config_for()(**config.model_dump() | {"total": 12})
    with pytest.raises(
        InvalidInput, match="already holds a dataset made with other settings \\(total was 10, now 12\\)"
    ):
        other.check_room()
    other.model_copy(update={"dataset": "another"}).check_room()
    other.model_copy(update={"replace": True}).check_room()
