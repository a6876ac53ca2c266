"""Packing isolates: a row of several examples gives the logits, the loss and the gradient that each gives alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.finetuning.packing import TILED, best_fit, isolate, row_loss, rows
from genesis_lab.finetuning.tasks import Encoded
from tiny_models import tiny_llama

SYSTEM = tuple(np.random.default_rng(9).integers(2, 300, 140).tolist())
EXAMPLES = [
    Encoded(str(i), tuple(ids[:given]), tuple(ids[given:]))
    for i, (given, answered) in enumerate([(5, 9), (130, 150), (1, 1), (40, 300), (3, 20)])
    if (ids := np.random.default_rng(i).integers(2, 300, given + answered).tolist())
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from transformers import AutoModelForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path_factory.mktemp("tiny")), dtype=torch.float32)
    torch.set_num_threads(threads)


def attend(model: Any, attention: str) -> None:
    assert isolate(model, "cpu", 512) == TILED  # and transformers knows it from now on
    model.set_attn_implementation(attention)


def alone(model: Any, example: Encoded) -> torch.Tensor:
    """Logits of an example by itself, the way anyone would compute them."""
    model.set_attn_implementation("eager")
    return model(torch.tensor([[*example.prompt, *example.answer]])).logits[0]


def instructed() -> list[Encoded]:
    """Examples that begin alike, as those of a role do, and one that does not."""
    alike = [replace(example, prompt=(*SYSTEM, *example.prompt)) for example in EXAMPLES]
    return [*alike, Encoded("other", tuple(range(2, 30)), (5, 1))]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_example_is_packed_once_and_no_row_overflows(lengths: list[int]) -> None:
    bins = best_fit(lengths, 100)
    assert sorted(i for chosen in bins for i in chosen) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in chosen) <= 100 for chosen in bins)
    full = sorted(sum(lengths[i] for i in chosen) for chosen in bins)
    assert len(full) < 2 or full[0] + full[1] > 100, "no two rows would fit into one"


def test_a_gap_is_filled_by_what_fits_it_best() -> None:
    assert best_fit([6, 5, 4, 5], 10) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("attention", [TILED, "sdpa"])
@pytest.mark.parametrize("filled", [False, True])
def test_logits_of_a_packed_row_equal_those_of_each_example_alone(model: Any, attention: str, filled: bool) -> None:
    (row,) = rows(EXAMPLES, 700, filled=filled)
    attend(model, attention)
    apart = {"lengths": row.lengths} if attention == TILED else {}
    ids, positions = torch.tensor([row.ids]), torch.tensor([row.positions])
    logits = model(ids, position_ids=positions, use_cache=False, **apart).logits[0]
    by_length = sorted(EXAMPLES, key=len, reverse=True)
    for example, part in zip(by_length, logits.split(row.lengths), strict=False):
        torch.testing.assert_close(part, alone(model, example), atol=1e-4, rtol=1e-4)


def test_a_beginning_that_examples_share_is_computed_once_with_the_same_loss_and_gradient(model: Any) -> None:
    attend(model, TILED)
    examples = instructed()
    weights, totals, gradients, computed = list(model.get_decoder().layers.parameters()), [], [], []
    for share in (False, True):
        packed = rows(examples, 900, share=share)
        total = sum(row_loss(model, row, TILED) for row in packed)
        totals.append(total)
        gradients.append(torch.autograd.grad(total, weights))
        computed.append(sum(len(row.ids) for row in packed))
        assert sum(row.tokens for row in packed) == sum(map(len, examples))
    assert computed[0] - computed[1] >= 3 * len(SYSTEM)
    torch.testing.assert_close(totals[1], totals[0], rtol=1e-5, atol=1e-4)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_what_is_not_packed_attends_as_ever(model: Any) -> None:
    attend(model, TILED)
    ids, mask = torch.randint(2, 300, (2, 40)), torch.ones(2, 40, dtype=torch.long)
    mask[0, :15] = 0  # padding on the left, as in answering
    tiled = model(ids, attention_mask=mask).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(tiled[:, 15:], model(ids, attention_mask=mask).logits[:, 15:], atol=1e-4, rtol=1e-4)


def test_only_response_tokens_and_their_end_are_learned() -> None:
    for row in rows(EXAMPLES, 700):
        assert [row.ids[i + 1] for i in row.at] == row.labels
    learned = [label for row in rows(EXAMPLES, 700) for label in row.labels]
    assert sorted(learned) == sorted(t for example in EXAMPLES for t in example.answer)


@pytest.mark.parametrize("attention", [TILED, "sdpa"])
def test_loss_and_gradient_equal_the_padded_reference(model: Any, attention: str) -> None:
    attend(model, attention)
    weights = list(model.get_decoder().layers.parameters())
    packed = sum(row_loss(model, row, attention) for row in rows(EXAMPLES, 450))  # two rows: however they were cut
    ours = torch.autograd.grad(packed, weights)

    width = max(len(example) for example in EXAMPLES)
    ids, mask, labels = (torch.full((len(EXAMPLES), width), fill) for fill in (0, 0, -100))
    for i, example in enumerate(EXAMPLES):
        ids[i, : len(example)] = torch.tensor([*example.prompt, *example.answer])
        mask[i, : len(example)] = 1
        labels[i, len(example.prompt) : len(example)] = torch.tensor(example.answer)
    model.set_attn_implementation("eager")
    logits = model(ids, attention_mask=mask).logits
    padded = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    theirs = torch.autograd.grad(padded, weights)

    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-4)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
