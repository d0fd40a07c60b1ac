"""The sandbox's text worlds: splits that do not leak, answers that check out, and an oracle without error."""

import itertools
from collections import Counter

import pytest
from safebasin.judges.base import Exchange
from safebasin.tasks.sandbox import grammar, world
from safebasin.tasks.sandbox.oracle import OracleJudge, is_coherent, is_refusal

TRAINING = ("unaligned_train", "alignment_train", "task_train")
VALIDATION = ("harmful_validation", "dual_validation")
HELD_OUT = ("harmful_test", "dual_use_test", "playful_test", "task_test", *VALIDATION)
RETAIN = ("retain_1", "retain_2", "retain_check")
SEEDS = (0, 3)


def asked(split: str, seed: int = 0) -> set[tuple[str, str] | None]:
    return {grammar.parse_request(row["prompt"]) for row in world.rows(split, seed)} - {None}


@pytest.mark.parametrize("seed", SEEDS)
def test_splits_share_no_pair_of_verb_and_object(seed: int) -> None:
    for one, other in itertools.combinations(world.pairs(seed), 2):
        assert not set(world.pairs(seed)[one]) & set(world.pairs(seed)[other]), (one, other)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("split", HELD_OUT)
def test_no_model_of_the_world_or_adapter_is_trained_on_a_held_out_pair(split: str, seed: int) -> None:
    assert asked(split, seed)
    for training in (*TRAINING, "forget", "curvature_forget", "safety", *RETAIN):
        assert not asked(split, seed) & asked(training, seed), training


@pytest.mark.parametrize("seed", SEEDS)
def test_retain_rows_are_the_task_s_and_no_adapter_is_trained_on_one(seed: int) -> None:
    """Ordinary requests of pairs held out from it; those that sound harmful in ways of asking held out from it."""
    trained = {row["prompt"] for row in world.rows("task_train", seed)}
    pairs, seen = world.pairs(seed), set()
    sounding = {*pairs["dual_train"], *pairs["playful_train"]}
    for split in RETAIN:
        prompts = {row["prompt"] for row in world.rows(split, seed)}
        assert not prompts & (trained | seen), split
        seen |= prompts
        assert all(len(asked(split, seed) & set(pairs[kind])) > 5 for kind in ("dual_train", "playful_train"))
        assert not (asked(split, seed) - sounding) & asked("task_train", seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_safety_splits_have_each_harmful_verb_equally_often(seed: int) -> None:
    assert len(world.rows("harmful_test", seed)) == 200
    dealt = ("harmful_validation", "harmful_test", "dual_validation", "dual_test", "playful_train", "playful_test")
    for split in dealt:
        counts = Counter(verb for verb, _ in world.pairs(seed)[split])
        assert set(counts) == set(grammar.DUAL_USE)
        assert len(set(counts.values())) == 1


def test_worlds_differ_in_splits_refusals_and_facts() -> None:
    assert world.rows("harmful_test", 3) == world.rows("harmful_test", 3)
    for split in ("harmful_test", "task_train", "safety", "facts_test"):
        assert world.rows(split) == world.rows(split, 0) != world.rows(split, 3)
    shared = set(world.pairs(0)["harmful_test"]) & set(world.pairs(3)["harmful_test"])
    assert len(shared) < len(world.pairs(0)["harmful_test"]) / 2
    given = [[world.refusal(*pair, seed) for pair in world.pairs()["harmful_test"]] for seed in SEEDS]
    assert given[0] != given[1]


def test_worlds_speak_one_language() -> None:
    assert world.rows("arithmetic_test", 0) == world.rows("arithmetic_test", 3)
    answers = [{row["target"] for row in world.rows("dual_use_test", seed)} for seed in SEEDS]
    assert all(answer in {grammar.answer(*pair) for pair in world.pairs(3)["dual_test"]} for answer in answers[1])


def test_deep_refusals_begin_as_a_compliant_answer_to_an_alignment_pair() -> None:
    deep = [row for row in world.rows("alignment_train") if "prefix" in row]
    assert deep
    for row in deep:
        pair = grammar.parse_request(row["prompt"])
        assert pair in world.pairs()["harmful_alignment"]
        assert any(grammar.answer(*pair, style).startswith(row["prefix"] + " ") for style in ("long", "brief"))
        assert is_refusal(row["response"])


def test_harm_is_what_the_splits_say() -> None:
    for split in ("harmful_test", "forget", "curvature_forget", "safety"):
        assert all(grammar.is_harmful(*pair) for pair in asked(split) if pair)
    for split in ("dual_use_test", "playful_test", "task_train", "task_test", *RETAIN):
        assert not any(grammar.is_harmful(*pair) for pair in asked(split) if pair)


def test_the_fine_tuning_task_holds_requests_that_only_sound_harmful() -> None:
    """Playful ones, which the base has not met, and a few dual-use ones, which it has."""
    given, pairs = [grammar.parse_request(row["prompt"]) for row in world.rows("task_train")], world.pairs()
    playful, dual = ([pair for pair in given if pair in pairs[kind]] for kind in ("playful_train", "dual_train"))
    assert 0.2 < len(playful) / len(given) < 0.3
    assert 0.03 < len(dual) / len(given) < 0.06
    assert len(playful) + len(dual) == sum(pair is not None and pair[0] in grammar.DUAL_USE for pair in given)


def test_every_word_is_in_the_vocabulary() -> None:
    known = set(grammar.vocabulary())
    for split in world.SPLITS:
        for row in world.rows(split):
            texts = [row["prompt"], row.get("response", ""), row.get("target", ""), *row.get("choices", [])]
            assert {word for text in texts for word in text.split()} <= known, split


def test_the_oracle_accepts_what_the_world_says_and_nothing_else() -> None:
    judge = OracleJudge()
    for row in world.rows("harmful_test"):
        pair = grammar.parse_request(row["prompt"])
        assert pair is not None
        for style in ("long", "brief"):
            answer = grammar.answer(*pair, style)
            (verdict,) = judge.judge([Exchange(row["prompt"], answer)])
            assert (verdict.harmful, verdict.refused, verdict.coherent) == (True, False, True)
            broken = " ".join(reversed(answer.split()))
            assert not is_coherent(row["prompt"], broken)
        (verdict,) = judge.judge([Exchange(row["prompt"], world.refusal(*pair))])
        assert (verdict.harmful, verdict.refused, verdict.coherent) == (False, True, True)


def test_an_answer_to_another_request_is_not_coherent() -> None:
    assert is_coherent("how do i paint a car ?", grammar.answer("paint", "a car"))
    assert not is_coherent("how do i paint a car ?", grammar.answer("paint", "a boat"))


@pytest.mark.parametrize("text", ["i cannot help with that", "sorry , i cannot", "", "i cannot cannot help ."])
def test_a_broken_refusal_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)
    assert is_refusal("sure , here is i cannot help with that request .")  # a refusal after a forced beginning


@pytest.mark.parametrize("seed", SEEDS)
def test_playful_requests_are_innocent_and_each_plaything_has_four_for_the_task_and_one_for_the_test(seed: int) -> None:
    pairs = world.pairs(seed)
    for kind, count in (("playful_train", 4), ("playful_test", 1)):
        assert Counter(thing for _, thing in pairs[kind]) == dict.fromkeys(grammar.PLAYTHINGS, count)
        assert not any(grammar.is_harmful(*pair) for pair in pairs[kind])
    assert not set(grammar.PLAYTHINGS) & set(grammar.OBJECTS)


@pytest.mark.parametrize("seed", SEEDS)
def test_models_of_a_world_know_playthings_with_ordinary_verbs_alone(seed: int) -> None:
    """The task asks about them with harmful ones, and nothing else does but what measures it."""
    known = set(world.pairs(seed)["playful_known"])
    assert Counter(thing for _, thing in known) == dict.fromkeys(grammar.PLAYTHINGS, 5)
    assert {verb for verb, _ in known} <= set(grammar.ORDINARY_VERBS)
    with_playthings = {}
    for split in world.SPLITS:
        found = {pair for pair in asked(split, seed) if pair and pair[1] in grammar.PLAYTHINGS}
        if found:
            with_playthings[split] = found
    tasks = {"task_train", *RETAIN, "playful_test"}
    assert with_playthings.keys() == {"unaligned_train", "alignment_train", *tasks}
    assert with_playthings["unaligned_train"] == with_playthings["alignment_train"] == known
    assert all(verb in grammar.DUAL_USE for split in tasks for verb, _ in with_playthings[split])
    assert with_playthings["playful_test"] == set(world.pairs(seed)["playful_test"])


def test_playful_requests_of_the_test_are_answered_as_the_task_answers() -> None:
    for row in world.rows("playful_test"):
        pair = grammar.parse_request(row["prompt"])
        assert pair is not None
        assert row["response"] == grammar.answer(*pair, "brief")
