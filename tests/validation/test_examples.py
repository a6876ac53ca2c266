from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from genesis_lab.dataset import DatasetWriter, import_dataset, open_dataset
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Provenance
from genesis_lab.domains.reading import load
from genesis_lab.errors import InvalidInput
from genesis_lab.validation.examples import audit, fix
from genesis_lab.yamls import dump_yaml

PROVENANCE = Provenance(provider="offline", model="grammar", prompt_version="1")


def records(name: str, total: int, **options) -> list[tuple[str, dict]]:
    """Clean offline records of a role, each with its split."""
    role = get_domain(name, **options)
    made = [
        (s, role.render(role.parse(role.offline_text(s, 0), s), s, PROVENANCE).model_dump())
        for s in role.specs(total, 5)
    ]
    return sorted(((s.attributes["split"], record) for s, record in made), key=lambda pair: -len(pair[0]))


def kept(path, name: str, pairs: list[tuple[str, dict]]):
    with DatasetWriter(path, name) as writer:
        for split in dict.fromkeys(split for split, _ in pairs):
            writer.write([record for s, record in pairs if s == split], split)
    return open_dataset(path)


@pytest.mark.parametrize("name", ["requirements", "vision"])
def test_nothing_is_invented_on_clean_data(tmp_path, name) -> None:
    data = kept(tmp_path / "clean", name, records(name, 300, test_share=0.3))
    report = audit(data)
    assert (report["records"], report["kinds"], report["issues"]) == (300, {}, [])


def in_yaml(change):
    """A change of the parsed requirements, written back as YAML."""

    def on_text(answer: str) -> str:
        data = load(answer)
        return dump_yaml(change(data) or data)

    return on_text


def item(**changes):
    return in_yaml(lambda d: d["functional_requirements"][0].update(changes))


def without(name: str):
    return in_yaml(lambda d: {k: v for k, v in d.items() if k != name})


REQUIREMENTS = {
    "bad_id": item(id="FR01"),
    "id_order": in_yaml(lambda d: d["constraints"].reverse()),
    "duplicate_id": in_yaml(lambda d: d["constraints"][1].update(id="C001")),
    "missing_priority": in_yaml(lambda d: d["constraints"][1].pop("priority") and None),
    "bad_priority": item(priority="high"),
    "empty_list": in_yaml(lambda d: d.update(constraints=[])),
    "too_few": in_yaml(lambda d: d["constraints"].pop() and None),
    "missing_field": without("title"),
    "unknown_field": in_yaml(lambda d: d.update(notes="Written by hand")),
    "not_text": item(description={"text": "Patients can book a visit"}),
    "date_object": lambda answer: re.sub("^title: .*", "title: 2025-03-14", answer),
    "length": in_yaml(lambda d: d.update(description="Too short to say what it is")),
    "placeholder": item(description="TODO describe what the users can do here"),
    "repeated_text": in_yaml(lambda d: d["constraints"][1].update(description=d["constraints"][0]["description"])),
    "json_answer": lambda answer: json.dumps(load(answer), indent=1),
    "broken_yaml": lambda answer: answer[:120].replace("title: ", 'title: "'),
    "fenced": lambda answer: f"```yaml\n{answer}```",
    "truncated": lambda answer: "```yaml\n" + answer[: answer.rindex("- id")],
    "extra_prose": lambda answer: "Sure, here are the requirements:\n\n" + answer,
}
FOR_A_PERSON = {
    "missing_priority", "empty_list", "too_few", "missing_field", "not_text", "length", "placeholder", "repeated_text",
    "broken_yaml", "truncated", "wrong_language", "narrative_long", "narrative_short", "no_number", "missing_block", "bad_status", "unknown_requirement",
    "unaddressed", "two_places", "bad_date",
}  # fmt: skip


def planted(path, name: str, faults, *, between=True):
    """A dataset with one fault per record on otherwise clean data, and the id of each faulty record with its kind."""
    pairs = records(name, 120, test_share=0.3)
    english = [r for split, r in pairs if r["language"] == "en" and split == "train"]
    expected: dict[str, str] = {}
    for (kind, change), record in zip(faults.items(), english, strict=False):
        changed = change(record["answer"])
        assert changed != record["answer"], kind
        record["answer"], expected[record["record_id"]] = changed, kind
    free = iter(english[len(faults) :])
    spanish = next(r for split, r in pairs if r["language"] == "es" and split == "train")
    wrong = next(free)
    wrong["answer"], expected[wrong["record_id"]] = spanish["answer"], "wrong_language"
    if between:
        for kind, split in (("duplicate_prompt", "train"), ("shared_concept", "test"), ("near_concept", "test")):
            source = next(free)
            twin = source | {"record_id": f"twin-{kind}", "group": source["group"] + "-again"}
            twin["answer"] = source["answer"].replace("constraints:", "constraints: ")
            if kind == "near_concept":
                twin["concept"] = source["concept"][:-1] + ", soon."
            pairs.append((split, twin))
            expected[twin["record_id"]] = kind
        other = next(free)
        twin = other | next(free)
        twin["record_id"] = other["record_id"]
        pairs = [(s, twin if r["concept"] == twin["concept"] else r) for s, r in pairs]
        expected[other["record_id"]] = "duplicate_id_of_record"
        pairs.sort(key=lambda pair: -len(pair[0]))
    return kept(path, name, pairs), expected


def check(report, expected: dict[str, str]) -> None:
    found: dict[str, set[str]] = {}
    for issue in report["issues"]:
        found.setdefault(issue["record_id"], set()).add(issue["kind"])
    assert {i: k for i, k in expected.items() if k not in found.get(i, ())} == {}, "every planted fault is found"
    assert set(found) <= set(expected), "and no other record is blamed"


def test_every_planted_fault_of_requirements_is_found_and_nothing_else(tmp_path) -> None:
    data, expected = planted(tmp_path / "planted", "requirements", REQUIREMENTS)
    report = audit(data)
    check(report, expected)
    assert len(expected) == 24 and len(report["kinds"]) >= 24
    assert report["records_with_issues"] == len(expected)
    bad_id = next(issue for issue in report["issues"] if issue["kind"] == "bad_id")
    assert (bad_id["path"], bad_id["mechanical"]) == ("functional_requirements.1.id", True)
    assert "'FR01'" in bad_id["message"]


def test_fix_leaves_what_needs_a_person_and_the_original_alone(tmp_path) -> None:
    data, expected = planted(tmp_path / "planted", "requirements", REQUIREMENTS)
    before = {part.name: part.read_bytes() for part in data.parts()}
    fixed, left = fix(data, tmp_path / "fixed")
    assert {part.name: part.read_bytes() for part in open_dataset(data.path).parts()} == before
    assert (
        left["mechanical"] == 0 and left["for_a_person"] and set(left["kinds"]) - {"duplicate_answer"} <= FOR_A_PERSON
    )
    repaired = {k for k in expected.values() if k not in left["kinds"]}
    assert repaired >= {
        "bad_id", "id_order", "duplicate_id", "bad_priority", "unknown_field", "date_object", "json_answer",
        "fenced", "extra_prose", "duplicate_prompt", "shared_concept", "near_concept", "duplicate_id_of_record",
    }  # fmt: skip
    assert fixed.manifest["parent"]["content_hash"] == data.content_hash and fixed.manifest["fixed"]
    assert fixed.total == data.total - 2, "the repeated prompt, and the shared concept once it is in the same split"
    again, _ = fix(fixed, tmp_path / "again")
    assert again.content_hash == fixed.content_hash, "a second repair changes nothing"
    with pytest.raises(InvalidInput, match="can't be repaired in place"):
        fix(data, data.path)


def review(pattern: str, to: str):
    return lambda answer: re.sub(pattern, to, answer, count=1)


VISION = {
    "date_object": review(r'last_updated: "(.*)"', r"last_updated: \1"),
    "bad_date": review(r"last_updated: .*", "last_updated: next spring"),
    "bad_status": review(r"status: .*", "status: Mostly fine"),
    "missing_block": lambda answer: answer.split("```yaml REVIEW")[0],
    "narrative_long": review(r"(narrative: .*)", r"\1" + " and it goes on" * 35),
    "unknown_requirement": review(r"  - C001\n", "  - C001\n  - C014\n"),
    "unaddressed": review(r"  - C001\n", ""),
    "two_places": review(r"conflicts: \[\]", "conflicts:\n  - FR001"),
    "fence_label": review("```yaml REVIEW", "```yaml"),
    "extra_prose": lambda answer: answer + "\nLet me know if you need anything else!",
    "truncated": lambda answer: answer.removesuffix("```\n"),
    "json_answer": lambda answer: json.dumps(
        {n: load(b.split("\n", 1)[1]) for n, b in zip(("vision", "review"), answer.split("```")[1::2], strict=True)}
    ),
    "empty_list": review(r"non_goals:\n(- .*\n)+", "non_goals: []\n"),
    "missing_field": review(r"value_proposition: .*\n", ""),
    "narrative_short": review(r"narrative: .*", "narrative: It fits well enough"),
    "no_number": review(r"success_metrics:\n- .*", "success_metrics:\n- People are happier than before with it"),
    "placeholder": review(r"product_summary: .*", "product_summary: TBD"),
}


def test_every_planted_fault_of_visions_is_found_and_what_is_mechanical_repaired(tmp_path) -> None:
    data, expected = planted(tmp_path / "planted", "vision", VISION, between=False)
    report = audit(data)
    check(report, expected)
    _, left = fix(data, tmp_path / "fixed")
    assert left["mechanical"] == 0 and set(left["kinds"]) - {"duplicate_answer"} <= FOR_A_PERSON
    assert not {"date_object", "fence_label", "extra_prose", "json_answer"} & set(left["kinds"])


def test_a_status_that_is_only_spelt_differently_is_repaired(tmp_path) -> None:
    spelt = {"bad_status": review(r"status: (\w+)", lambda m: f"status: {m[1].replace('_', ' ').title()}")}
    data, _ = planted(tmp_path / "planted", "vision", spelt, between=False)
    _, left = fix(data, tmp_path / "fixed")
    assert "bad_status" not in left["kinds"]


def test_prompt_and_response_pairs_of_others_are_imported_and_audited(tmp_path) -> None:
    source = tmp_path / "theirs.jsonl"
    lines = []
    for i, (_, record) in enumerate(records("requirements", 30)):
        prompt = "You are a business analyst. Write YAML for this concept.\n" + record["concept"]
        response = record["answer"] if i else record["answer"].replace("FR001", "FR01", 1)
        lines.append(json.dumps({"prompt": prompt, "response": response}))
    source.write_text("\n".join([*lines, lines[1]]), encoding="utf-8")
    data, report = import_dataset(source, "theirs", domain="requirements")
    assert report.kept == 31 and data.domain == "requirements"
    found = audit(data)
    assert Counter(found["kinds"]) == {"bad_id": 1, "duplicate_prompt": 1}
    assert {issue["row"]: issue["kind"] for issue in found["issues"]} == {0: "bad_id", 30: "duplicate_prompt"}
    fixed, left = fix(data, "ours")
    assert not left["kinds"] and fixed.total == 30


def test_conversations_are_not_audited_but_pointed_elsewhere(tmp_path) -> None:
    with DatasetWriter(tmp_path / "talks", "conversations") as writer:
        writer.write([])
    with pytest.raises(InvalidInput, match="reads teacher examples"):
        audit(open_dataset(tmp_path / "talks"))
