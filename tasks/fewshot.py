"""What a model gains from examples (table 3 of the paper): each document is asked with none and with a few.

Both answers to one document come from one run, so that the gain is paired and has a standard error of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.tasks import __file__ as _tasks
from lm_eval.tasks._yaml_loader import load_yaml

from ..errors import InputError
from .checked import CheckedTask

__all__ = ["METRICS", "FewshotGain"]

METRICS = ("gain", "acc_few_shot", "acc_zero_shot")


class FewshotGain(CheckedTask):
    """A multiple-choice task, asked twice: one of lm-eval's, or one whose YAML says itself what it asks.

    The metadata `reuses` name the YAML of the first in lm-eval's task folder. Prompt, choices and scoring stay
    lm-eval's; `num_fewshot` is the number of examples.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        own = dict(config)
        name = own["metadata"].get("reuses")
        reused = load_yaml(Path(_tasks).parent / name) if name else {}
        for key in ("tag", "group"):
            reused.pop(key, None)
        own["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
        super().__init__(config=reused | own)
        self._bare: Any = None

    def fewshot_context(self, doc: Mapping[str, Any], num_fewshot: int, **settings: Any) -> Any:
        """The context with examples; the one without is kept for `construct_requests`, which lm-eval calls next.

        Raises:
            InputError: there are no examples to gain from.
        """
        if num_fewshot < 1:
            raise InputError(f"{self.config.task} compares with no examples; --num_fewshot must be 1 or more.")
        self._bare = super().fewshot_context(doc, 0, **settings)
        return super().fewshot_context(doc, num_fewshot, **settings)

    def construct_requests(self, doc: Mapping[str, Any], ctx: Any, **kwargs: Any) -> list[Instance]:
        """One request per choice without examples, then one per choice with them."""
        bare = super().construct_requests(doc, self._bare, **kwargs)
        shown = super().construct_requests(doc, ctx, **kwargs)
        return [replace(request, idx=index) for index, request in enumerate([*bare, *shown])]

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """Right or wrong (1 or 0) without and with examples, and the difference (-1, 0 or 1)."""
        half = len(results) // 2
        zero = float(super().process_results(doc, results[:half])["acc"])
        few = float(super().process_results(doc, results[half:])["acc"])
        return {"gain": few - zero, "acc_few_shot": few, "acc_zero_shot": zero}

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], float]]:
        """The mean, for which lm-eval has a standard error."""
        return dict.fromkeys(METRICS, mean)

    def higher_is_better(self) -> dict[str, bool]:
        """More is better in each."""
        return dict.fromkeys(METRICS, True)
