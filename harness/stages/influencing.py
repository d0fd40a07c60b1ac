"""`geometry influence`: which examples drive a restoration's first update, and which retain rows pay for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...results.export import write_table
from ...tasks.sandbox.location import cache_folder
from ..store.files import make_folder
from ..terminal.progress import Bars
from .geometry_restoring import Case, Given, case_of, config_of
from .manifest import write_manifest

if TYPE_CHECKING:
    import pandas as pd

    from ...restore.losses.encoding import Encoded
    from ...restore.losses.of_model import Losses

__all__ = ["COSTS", "EXAMPLES", "Influences", "influence"]

EXAMPLES, COSTS = "examples.csv", "costs.csv"
_TOLD = ("gain", "predicted_fall", "step_norm", "moved_norm", "parameter_norm", "step_factor", "tightness", "trials",
         "retain_loss_before", "retain_loss")  # fmt: skip
"""Of the update's row of the trace."""


@dataclass(frozen=True)
class Influences:
    """What came of it."""

    examples: "pd.DataFrame"
    """rank, term (of the loss that is descended), set, row (its place in it), tokens, loss, share, turn (degrees),
    gradient_norm, prompt."""
    costs: "pd.DataFrame"
    """rank, row, tokens, before, after, cost, first_order, prompt."""


def influence(given: Given, preset: str, changes: Mapping[str, Any], output: Path, shown: Bars) -> Influences:
    """Takes the first update apart, and writes examples.csv, costs.csv, manifest.json and influence.html.

    Args:
        given: what is looked at.
        preset: of the restoration's settings.
        changes: settings in place of the preset's.
        output: folder.
        shown: progress.

    Raises:
        InputError: models or rows cannot be had or do not fit, or the restoration takes no first update.
    """
    import pandas as pd

    from ...restore.geometry.influence import costs, first_update, shares
    from ...restore.restoration.problem import posed
    from ...results.geometry.influence import influence_page

    make_folder(output)
    config = config_of(given, preset, changes)
    case = case_of(given, config, shown)
    with posed(case.model, case.tokenizer, case.data, config, on_progress=shown.update) as found:
        update = first_update(found.losses, config)
        driving = shares(update, found.losses, partial(shown.update, "examples that drive the update"))
        check = found.losses.rows["retain_check"]
        paying = costs(update, found.losses, check, partial(shown.update, "rows that pay for it"))
        places = _Places(case, found.losses, found.tokenizer)
    examples = pd.DataFrame(
        [
            {
                **{"rank": rank, "term": each.term, **places.of(each.row)},
                **{"tokens": each.row.targets, "loss": each.loss, "share": each.share, "turn": each.turn},
                **{"gradient_norm": each.gradient_norm, "prompt": places.prompt(each.row)},
            }
            for rank, each in enumerate(driving, start=1)
        ]
    )
    prompts = [str(row["prompt"]) for row in case.data.retain_check]
    table = pd.DataFrame(
        [
            {"rank": rank, "row": own.pop("place"), **own, "prompt": prompts[each.place]}
            for rank, each in enumerate(paying, start=1)
            for own in [each.to_dict()]
        ]
    )
    result = Influences(examples, table)
    write_table(result.examples, output / EXAMPLES)
    write_table(result.costs, output / COSTS)
    settings = {**asdict(given), "tuned": str(given.tuned or ""), "preset": preset, "restoration": asdict(config)}
    told = {name: update.told[name] for name in _TOLD if name in update.told}
    facts = {"command": "geometry influence", "settings": settings, **case.facts, "update": told}
    write_manifest(output / "manifest.json", facts)
    influence_page(result.examples, result.costs, facts, output, cache_folder())
    return result


class _Places:
    """Where the rows of losses stand in what was given."""

    def __init__(self, case: Case, losses: "Losses", tokenizer: Any) -> None:
        from ...restore.losses.encoding import asked, prompt_ids

        forget, retain = case.data.forget, [*case.data.retain_1, *case.data.retain_2]
        self._prompts = {"forget": [str(row["prompt"]) for row in forget]}
        self._prompts["retain"] = [str(row["prompt"]) for row in retain]
        self._retain: dict[Encoded, int] = {}
        for place, row in enumerate(losses.rows["retain"]):
            self._retain.setdefault(row, place)
        self._forget: dict[tuple[int, ...], int] = {}
        for place, given in enumerate(forget):
            self._forget.setdefault(tuple(prompt_ids(tokenizer, asked(given))), place)

    def of(self, row: "Encoded") -> dict[str, Any]:
        """Set and place in it; a loss on prompts alone has its first token before them."""
        if row in self._retain:
            return {"set": "retain", "row": self._retain[row]}
        return {"set": "forget", "row": self._forget[row.ids if row.start == 1 else row.ids[: row.start]]}

    def prompt(self, row: "Encoded") -> str:
        """The prompt of a row."""
        where = self.of(row)
        found: str = self._prompts[where["set"]][where["row"]]
        return found
