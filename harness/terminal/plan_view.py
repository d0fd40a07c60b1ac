"""The plan as a tree in the terminal: what is trained, what is shared, what is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    from ..plan import BuildStep, Plan, Row

__all__ = ["plan_table"]


def plan_table(plan: Plan) -> Group:
    """One tree per model: builds under the builds that they start from, with the rows that they become; then totals."""
    return Group(*(_model_tree(plan, model.id) for model in plan.config.models), Text(), *_totals(plan))


def _model_tree(plan: Plan, model: str) -> Tree:
    tree = Tree(Text(model, style="bold"))
    for row in plan.rows:
        if row.model == model and row.build is None:
            tree.add(_line(row.label, "as it is, nothing is trained"))
    for seed in plan.config.seeds:
        steps = [step for step in plan.builds if step.model == model and step.seed == seed]
        if steps:
            branch = tree.add(Text(f"seed {seed}"))
            _add_steps(branch, steps, plan.rows, None)
    return tree


def _add_steps(branch: Tree, steps: Sequence[BuildStep], rows: Sequence[Row], parent: str | None) -> None:
    for step in steps:
        if step.parent != parent:
            continue
        labels = [row.label for row in rows if row.build == step.id]
        starts = sum(other.parent == step.id for other in steps)
        facts = [step.stage, step.id]
        if starts:
            facts.append(f"{starts} start{'s' if starts == 1 else ''} from it")
        if not labels:
            facts.append("not evaluated")
        _add_steps(branch.add(_line(" = ".join(labels) or step.label, " · ".join(facts))), steps, rows, step.id)


def _totals(plan: Plan) -> list[Text]:
    rows, tasks = len(plan.rows), plan.config.tasks
    names = [f"{kind}: {', '.join(chosen)}" for kind in ("safety", "utility") if (chosen := getattr(tasks, kind))]
    trained = f"{_count(len(plan.builds), 'adapter')} to build"
    grid = f"{_count(rows, 'row')} x {_count(len(plan.cells) // rows, 'task')}"
    measured = f"{_count(len(plan.cells), 'cell')} to evaluate ({grid})"
    again = f", {_count(plan.attacks, 'checkpoint')} to fine-tune again" if plan.relapses else ""
    return [Text(" · ".join(names)), Text(f"{trained}, {measured}{again}", style="bold")]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _line(name: str, facts: str) -> Text:
    return Text.assemble((name, "cyan"), "  ", (facts, "dim"))
