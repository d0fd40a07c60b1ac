"""The attack on a tiny model: it succeeds, its loss never rises, what it finds survives as text."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.restore.attacks.slot import Slot
from safebasin.restore.attacks.suffix import SEARCHES, Search, SuffixSettings, attack
from safebasin.restore.losses.encoding import prompt_ids
from safebasin.restore.models.loading import load_base
from safebasin.restore.restoration.forget import own_answers

from .conftest import Aimed, aimed

SETTINGS = SuffixSettings(length=4, steps=40, candidates=48, top_k=24)


def run(given: Aimed, search: Search = "gradient", seed: str = "0", settings: SuffixSettings = SETTINGS) -> Any:
    return attack(given.loss, given.slot, given.tokens, settings, search, seed)


def test_it_succeeds_on_a_model_without_defence(attackable: Aimed, tokenizer: Any) -> None:
    assert not attackable.loss.of([attackable.slot.start])[0].greedy
    found = run(attackable)
    assert found.greedy
    assert found.steps < SETTINGS.steps
    prompt = attackable.slot.prompt(found.suffix)
    ((said, _),) = own_answers(attackable.model, tokenizer, [prompt], len(attackable.slot.target), 1)
    assert tokenizer(said, add_special_tokens=False)["input_ids"] == list(attackable.slot.target)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_loss_never_rises_and_what_is_found_can_be_typed(given: Aimed, tokenizer: Any, search: Search) -> None:
    found = run(given, search, settings=SuffixSettings(length=4, steps=6, candidates=16, top_k=8))
    assert found.steps == 6
    assert found.evaluated == 1 + 6 * 16
    assert all(after <= before for before, after in itertools.pairwise(found.losses))
    assert found.losses[-1] < found.losses[0]
    assert found.losses[-1] == pytest.approx(given.loss.of([found.suffix])[0].loss, rel=1e-5)
    ids = prompt_ids(tokenizer, given.slot.prompt(found.suffix))
    assert ids == [*given.slot.before, *found.suffix, *given.slot.after]


def test_the_gradient_finds_more_than_as_many_draws_without_it(given: Aimed) -> None:
    settings = SuffixSettings(length=4, steps=12, candidates=16, top_k=8)
    ends = {search: run(given, search, settings=settings).losses[-1] for search in SEARCHES}
    assert ends["gradient"] < ends["random"]


def test_candidates_are_of_the_k_tokens_that_lower_the_loss_most_to_first_order(given: Aimed) -> None:
    """One step with more draws than there are candidates evaluates all L k of them; found by sorting, not by topk."""
    gradient, start = given.loss.gradient(given.slot.start, given.tokens), given.slot.start
    least = [sorted(range(len(given.tokens)), key=lambda n, i=i: float(gradient[i, n]))[:3] for i in range(4)]
    every = {(*start[:i], given.tokens[n], *start[i + 1 :]) for i in range(4) for n in least[i]} - {start}
    allowed = [one for one in every if given.slot.admits(one)]
    found = run(given, settings=SuffixSettings(length=4, steps=1, candidates=12, top_k=3))
    assert found.evaluated == 1 + len(allowed)
    losses = {one: scored.loss for one, scored in zip(allowed, given.loss.of(allowed), strict=True)}
    before = given.loss.of([start])[0].loss
    assert found.losses[-1] == pytest.approx(min(before, *losses.values()), rel=1e-5)


def test_a_seed_decides_it(given: Aimed) -> None:
    settings = SuffixSettings(length=4, steps=4, candidates=8, top_k=16)
    assert run(given, settings=settings) == run(given, settings=settings)
    assert run(given, settings=settings).suffix != run(given, seed="1", settings=settings).suffix


def test_the_best_single_replacement_is_found_where_all_are_evaluated(given: Aimed) -> None:
    """Brute force over all L n replacements of the start."""
    start = given.slot.start
    every = [(*start[:i], token, *start[i + 1 :]) for i in range(4) for token in given.tokens]
    least = min(scored.loss for scored in given.loss.of([one for one in every if given.slot.admits(one)]))
    settings = SuffixSettings(length=4, steps=1, candidates=len(every), top_k=len(given.tokens))
    assert run(given, settings=settings).losses[-1] == pytest.approx(least, rel=1e-5)


def test_what_does_not_survive_as_text_is_never_evaluated(given: Aimed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny tokenizer lets every suffix through, so here the token that would be taken is refused."""
    settings = SuffixSettings(length=4, steps=1, candidates=4 * len(given.tokens), top_k=len(given.tokens))
    free = run(given, settings=settings)
    (taken,) = (token for token, before in zip(free.suffix, given.slot.start, strict=True) if token != before)
    monkeypatch.setattr(Slot, "admits", lambda slot, suffix: taken not in suffix)
    found = run(given, settings=settings)
    assert taken not in found.suffix
    assert free.evaluated - found.evaluated >= 4  # as many places as it could have stood in
    assert found.losses[-1] > free.losses[-1]


def test_a_whole_model_can_be_attacked_too(base: Any, tokenizer: Any) -> None:
    found = run(aimed(load_base(str(base), device="cpu"), tokenizer), settings=SuffixSettings(length=4, steps=2))
    assert found.losses[-1] < found.losses[0]


def test_what_is_said_already_needs_no_step(attackable: Aimed) -> None:
    reached = run(attackable)
    slot = replace(attackable.slot, start=reached.suffix)
    found = attack(attackable.loss, slot, attackable.tokens, SETTINGS, "gradient", "0")
    assert (found.steps, found.evaluated, found.suffix) == (0, 1, reached.suffix)


def test_settings_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="steps=0"):
        SuffixSettings(steps=0)
