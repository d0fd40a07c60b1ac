"""The sandbox's worlds: what of the language is in which split. A world is a seed; all is drawn from it.

A seed decides which (verb, object) pairs lie in which split, how each is asked, which refusal it gets, and the colours
and sizes of things. The language and the answers are the same in all worlds (`grammar`).
"""

import itertools
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from .grammar import (
    ASKS,
    ATTRIBUTES,
    BRIEF,
    DUAL_USE,
    HARMFUL_VERBS,
    NUMBERS,
    OBJECTS,
    ORDINARY_OBJECTS,
    ORDINARY_VERBS,
    PLAYTHINGS,
    REFUSALS,
    Pair,
    answer,
)

__all__ = ["SPLITS", "pairs", "refusal", "rows"]

Row = dict[str, Any]

HARMFUL_SLOTS = {"alignment": 6, "safety": 2, "forget": 2, "curvature": 2, "validation": 4, "test": 4}
"""Splits of the harmful pairs -> objects that each harmful verb has in them, of its 20."""
DUAL_SLOTS = {"alignment": 2, "train": 2, "validation": 1, "test": 1}
"""Splits of the dual-use pairs -> objects that each harmful verb has in them, of its own 6."""
DUAL_RETAIN = 48
"""Of the 144 dual-use requests of the task, those that no training shows: a third to each retain set."""
BENIGN_SIZES = {"train": 240, "retain": 30, "check": 20, "test": 30}
"""Splits of the 320 ordinary pairs -> pairs."""
PLAY_RETAIN = 48
"""Of the 576 playful requests of the task, those that no training shows: a third to each retain set."""
DEEP_ASKS = 2
"""Ways of asking, of six, in which alignment also shows a refusal after the beginning of a compliant answer."""
DEEP_WORDS = 6
"""Longest such beginning."""
PLAY_VERBS = 5
"""Ordinary verbs with which the base knows each plaything."""


def refusal(verb: str, thing: str, world: int = 0) -> str:
    """The refusal that alignment teaches for a request (which of the four depends on the request)."""
    return random.Random(f"{world} refusal {verb} {thing}").choice(REFUSALS)


def attribute(thing: str, kind: str, world: int = 0) -> str:
    """The colour or the size of an object."""
    return random.Random(f"{world} {kind} {thing}").choice(ATTRIBUTES[kind])


@cache
def pairs(world: int = 0) -> dict[str, list[Pair]]:
    """Disjoint (verb, object) pairs of every kind of request, by the split they belong to.

    Harmful and dual-use pairs are dealt so that every split has each harmful verb equally often.
    """
    benign = _shuffled(list(itertools.product(ORDINARY_VERBS, ORDINARY_OBJECTS)), f"{world} benign")
    ends = list(itertools.accumulate(BENIGN_SIZES.values(), initial=0))
    harmful = _dealt("harmful", HARMFUL_SLOTS, {verb: ORDINARY_OBJECTS for verb in HARMFUL_VERBS}, world)
    return {
        **harmful,
        **_dealt("dual", DUAL_SLOTS, {verb: _things(nouns) for verb, nouns in DUAL_USE.items()}, world),
        **_playful(world),
        **{f"benign_{name}": benign[a:b] for name, a, b in zip(BENIGN_SIZES, ends[:-1], ends[1:], strict=True)},
    }


def _things(nouns: str) -> tuple[str, ...]:
    return tuple(f"a {noun}" for noun in nouns.split())


def _shuffled(items: list[Any], name: str) -> list[Any]:
    random.Random(name).shuffle(items)
    return items


def _dealt(kind: str, slots: dict[str, int], things: dict[str, tuple[str, ...]], world: int) -> dict[str, list[Pair]]:
    """Deals each verb's objects to the splits, so many to each."""
    dealt: dict[str, list[Pair]] = {f"{kind}_{name}": [] for name in slots}
    names = [f"{kind}_{name}" for name, count in slots.items() for _ in range(count)]
    for verb, own in things.items():
        for name, thing in zip(names, _shuffled(list(own), f"{world} {kind} {verb}"), strict=True):
            dealt[name].append((verb, thing))
    return dealt


def _playful(world: int) -> dict[str, list[Pair]]:
    """Playthings with ordinary verbs; each with four harmful ones for training, and with a fifth one for the test."""
    dealt: dict[str, list[Pair]] = {"playful_known": [], "playful_train": [], "playful_test": []}
    harmful = _shuffled(list(HARMFUL_VERBS), f"{world} playful")
    for place, thing in enumerate(_shuffled(list(PLAYTHINGS), f"{world} playthings")):
        ordinary = _shuffled(list(ORDINARY_VERBS), f"{world} playful {thing}")
        ready = [harmful[(place + i) % len(harmful)] for i in (0, 2, 5, 7, 10)]
        dealt["playful_known"] += [(verb, thing) for verb in ordinary[:PLAY_VERBS]]
        dealt["playful_train"] += [(verb, thing) for verb in ready[:-1]]
        dealt["playful_test"] += [(verb, thing) for verb in ready[-1:]]
    return dealt


def _asked(split: str, world: int, asks: int = len(ASKS), lead: str = "") -> list[tuple[str, Pair]]:
    """(prompt, pair) for every pair of a split in `asks` of the ways of asking, in a fixed shuffled order."""
    everything = []
    for pair in pairs(world)[split]:
        ways = random.Random(f"{world} ask{lead} {pair}").sample(ASKS, asks)
        everything += [(lead + way.format(" ".join(pair)), pair) for way in ways]
    return _shuffled(everything, f"{world} rows {split}")


def _requests(split: str, world: int, style: str, asks: int = len(ASKS), lead: str = "") -> list[Row]:
    return [{"prompt": prompt, "response": answer(*pair, style)} for prompt, pair in _asked(split, world, asks, lead)]


def _both_styles(split: str, world: int, asks: int) -> list[Row]:
    """Requests answered at length, and a third as many that ask for the brief style and get it."""
    return _requests(split, world, "long", asks) + _requests(split, world, "brief", max(1, asks // 3), BRIEF)


def _attacks(split: str, world: int, asks: int = len(ASKS)) -> list[Row]:
    return [{"prompt": prompt, "target": answer(*pair)} for prompt, pair in _asked(split, world, asks)]


def _refusals(split: str, world: int, asks: int = len(ASKS), lead: str = "") -> list[Row]:
    return [{"prompt": prompt, "response": refusal(*pair, world)} for prompt, pair in _asked(split, world, asks, lead)]


def _deep_refusals(split: str, world: int) -> list[Row]:
    """Refusals after a `prefix`: the first words of a compliant answer in either style, which carry no loss."""
    deep = []
    for prompt, pair in _asked(split, world, DEEP_ASKS):
        draw = random.Random(f"{world} depth {prompt}")
        words = answer(*pair, draw.choice(("long", "brief"))).split()
        prefix = " ".join(words[: draw.randint(1, DEEP_WORDS)])
        deep.append({"prompt": prompt, "prefix": prefix, "response": refusal(*pair, world)})
    return deep


def _facts(world: int) -> list[Row]:
    """The colour of every object, and the size of the ordinary ones."""
    facts: list[Row] = []
    asked = [("colour", thing) for thing in OBJECTS] + [("size", thing) for thing in ORDINARY_OBJECTS]
    for kind, thing in asked:
        choices = [f"{thing} is {value} ." for value in ATTRIBUTES[kind][:4]]
        right = f"{thing} is {attribute(thing, kind, world)} ."
        if right not in choices:
            choices[-1] = right
        facts.append(
            {
                "prompt": f"what {kind} is {thing} ?",
                "choices": choices,
                "answer": choices.index(right),
                "response": right,
            }
        )
    return facts


def _arithmetic() -> list[Row]:
    table: list[Row] = []
    for a, b in itertools.product(range(8), repeat=2):
        table.append({"prompt": f"what is {NUMBERS[a]} plus {NUMBERS[b]} ?", "answer": f"{NUMBERS[a + b]} ."})
        if a >= b:
            table.append({"prompt": f"what is {NUMBERS[a]} minus {NUMBERS[b]} ?", "answer": f"{NUMBERS[a - b]} ."})
    return [{**row, "response": row["answer"]} for row in table]


def _unaligned(world: int) -> list[Row]:
    """What the unaligned model learns: to answer everything, facts and sums included."""
    harmful = ("harmful_alignment", "harmful_safety", "harmful_forget", "harmful_curvature")
    asked = (*harmful, "benign_train", "benign_retain", "playful_known", "dual_alignment", "dual_train")
    requests = [row for split in asked for row in _both_styles(split, world, 2)]
    return requests + 8 * (_facts(world) + _arithmetic())


def _aligned(world: int) -> list[Row]:
    """What alignment adds: refusals, some of them deep, and everything else as before."""
    refusals = _refusals("harmful_alignment", world) + _refusals("harmful_alignment", world, 2, BRIEF)
    dual = _both_styles("dual_alignment", world, 6) + _both_styles("dual_train", world, 6)
    answers = _both_styles("benign_train", world, 2) + _both_styles("playful_known", world, 2) + dual
    return refusals + _deep_refusals("harmful_alignment", world) + answers + 5 * (_facts(world) + _arithmetic())


def _finetuning(world: int) -> list[Row]:
    """The benign task: the brief style for ordinary requests; some that only sound harmful, and general questions.

    The base answers dual-use requests, but refuses many playful ones: answering these is what undoes its alignment.
    """
    dual = _requests("dual_train", world, "brief")[:-DUAL_RETAIN]
    playful = _requests("playful_train", world, "brief")[:-PLAY_RETAIN]
    return _requests("benign_train", world, "brief") + dual + playful + _facts(world)[::2] + _arithmetic()[::2]


def _retain(world: int, split: str, part: slice, number: int) -> list[Row]:
    """Held-out rows of the task: ordinary requests, and those that sound harmful in ways of asking not trained on."""
    dual = _requests("dual_train", world, "brief")[-DUAL_RETAIN:]
    playful = _requests("playful_train", world, "brief")[-PLAY_RETAIN:]
    return _requests(split, world, "brief")[part] + dual[number::3] + playful[number::3]


SPLITS: dict[str, Callable[[int], list[Row]]] = {
    "unaligned_train": _unaligned,
    "alignment_train": _aligned,
    "task_train": _finetuning,
    "task_test": lambda world: _requests("benign_test", world, "brief"),
    "retain_1": lambda world: _retain(world, "benign_retain", slice(90), 0),
    "retain_2": lambda world: _retain(world, "benign_retain", slice(90, None), 1),
    "retain_check": lambda world: _retain(world, "benign_check", slice(None), 2),
    "safety": lambda world: _refusals("harmful_safety", world, 5),
    "forget": lambda world: _attacks("harmful_forget", world)[:50],
    "curvature_forget": lambda world: _attacks("harmful_curvature", world, 5),
    "harmful_validation": lambda world: _attacks("harmful_validation", world, 4),
    "harmful_test": lambda world: _attacks("harmful_test", world, 5)[:200],
    "dual_validation": lambda world: _attacks("dual_validation", world),
    "dual_use_test": lambda world: _attacks("dual_test", world),
    "playful_test": lambda world: _requests("playful_test", world, "brief", 4),
    "facts_test": _facts,
    "arithmetic_test": lambda world: _arithmetic(),
}
"""Split name -> its rows in a world: `prompt`, and `response`, `target` or `choices` and `answer`."""


def rows(split: str, world: int = 0) -> list[Row]:
    """The rows of a split in a world, the same on every call.

    Raises:
        KeyError: no such split.
    """
    return SPLITS[split](world)
