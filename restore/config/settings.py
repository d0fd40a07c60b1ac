"""Every setting of the curvature-aware restoration, with its default and why."""

from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from ...errors import InputError
from .checks import wrong_settings
from .presets import preset_settings

__all__ = ["RestoreConfig"]


@dataclass(frozen=True, kw_only=True)
class RestoreConfig:
    """Settings of `restore`. The defaults are those that did best here; `from_preset("paper")` has the paper's.

    Where the paper contradicts itself, the field says which reading it stands for. Numbers such as A-8 are those of
    the list of such contradictions in the documentation.
    """

    iterations: int = 10
    """Influence updates, at most; the paper's three (appendix C.2) are a rule where nothing else ends it."""
    epsilon: float | None = None
    """How much the loss on the retain check set may rise in all, in nats per token (equation 2). The paper never
    enforces it; here every update is halved until it holds, against the loss before the first update (A-6, A-7).
    None leaves it to `epsilon_share`."""
    epsilon_share: float | None = 0.05
    """The same as a share of what fine-tuning gained: of the base model's loss on the retain check set less the tuned
    model's. Used where `epsilon` is None; where both are, the bound is not enforced."""
    halvings: int = 8
    """Times an update is halved before it is given up (A-6)."""
    adaptive: bool = True
    """Whether the gain of each update (actual over predicted fall of the loss that is descended) decides the damping,
    or the trust radius, of the next. An update without gain is undone and tried again, shorter."""
    stop: Literal["none", "base_loss", "refused"] = "refused"
    """Ends at the smallest sufficient change: `base_loss` once the forget answers are as improbable as under the base
    model, `refused` once as many held-out harmful prompts are refused as the base model refuses. Asked at the start
    and after each update."""
    held_out: int = 64
    """Held-out harmful prompts that `stop=refused` asks, at most."""

    ascend: float = 0.0
    """Weight of the forget loss, which is raised (equations 2 and 5; A-1)."""
    refusals: float = 1.0
    """Weight of the KL divergence from the base model on its own refusals of the forget prompts, which is lowered. It
    says where to go, and ends there; ascent only says what to leave, and has no end."""
    retain: float | None = None
    """Weight of the loss on retain rows, which is lowered along with the others. None is, in each iteration, what the
    others amount to divided by what is left of epsilon: the gradient is then that of log(others) - log(what is left),
    whose descent follows the centres of the feasible region (Huard 1967) and never presses against the bound."""
    retain_rows: int = 64
    """Retain rows of that loss, drawn anew in each iteration."""
    retain_target: Literal["rows", "tuned"] = "rows"
    """What the retain loss is taken on: `rows` goes on training on their responses; `tuned` is the KL divergence from
    the tuned model's predictions on them, which keeps what it says and asks for nothing else."""
    forget_target: Literal["self", "affirmative", "prompt", "refusal"] = "self"
    """What the forget loss is taken on: the model's own answer, the row's `target`, the prompt, or the base model's
    refusal, whose loss is lowered, not raised (A-3)."""
    shrink: float = 0.0
    """Share of the parameters taken off in each update, the lambda of Algorithm 2: a pull to the base model (A-5)."""
    shrink_anneal: float = 0.95
    """`shrink` is multiplied by this after each iteration (appendix C.2)."""
    project: int = 0
    """Gradients of that many retain batches whose span is taken out of the update's gradient."""

    estimator: Literal["lbfgs", "fisher", "gauss_newton"] = "gauss_newton"
    """The curvature: pairs of steps and gradient changes (the paper's), the squared gradients of single rows, or exact
    Gauss-Newton products and conjugate gradients."""
    sources: Literal["mixed", "retain", "forget"] = "mixed"
    """Data sets of the curvature. `mixed` is the paper's; with pairs it is not that of the retain loss (A-12)."""
    fresh_curvature: bool = True
    """Whether each iteration estimates the curvature anew, on batches drawn anew (A-20), or the first one for all."""
    curvature_rows: int = 48
    """Rows that products and single gradients of the curvature are taken on, drawn anew with each estimate, each loss
    by its share of rows (not with pairs)."""
    damping: float = 1.0
    """Curvature assumed in all directions, as a share of that along the gradient (not with pairs); with `adaptive`,
    at the start."""
    products: int = 3
    """Gauss-Newton products for one update, at most."""
    product_tolerance: float = 0.01
    """Or until a product adds less than this share to the fall that the quadratic model predicts."""

    scale: Literal["newton", "trust", "euclid"] = "newton"
    """Length of an update: `newton` takes it as it is; `trust` is the solution of equation 4; `euclid` gives it the
    length `max_update`, as Algorithm 2 (A-2)."""
    trust_radius: float = 0.1
    """Length of an update in the metric of the curvature, the delta of equation 4 (A-8); with `adaptive`, of the
    first."""
    max_update: float | None = None
    """Euclidean length that an update may not exceed; with `scale=euclid`, the length that it has (A-2)."""
    layer_radius: float | None = None
    """No adapted module may move by more than this share of its norm in one update."""

    pairs: int = 10
    """Curvature pairs per iteration (appendix C.1)."""
    max_attempts: int = 30
    """Probe steps per iteration, at most; rejected ones leave no pair (A-17)."""
    min_pairs: int = 6
    """A warning is given below this many pairs (A-17)."""
    probe_rates: tuple[float, ...] = (0.001, 0.002, 0.005)
    """Probe step = -rate * gradient; the rate changes from round to round of the data sets (A-9)."""
    probe_radius: float = 0.05
    """Initial bound on the Euclidean length of probe steps, the delta of Algorithm 1 (A-8)."""
    probe_radius_max: float = 1.0
    """Algorithm 1 lets the bound grow by half after almost every step; it stops here (A-10)."""
    probe_radius_min: float = 1e-4
    """And it shrinks no further than this (A-10)."""
    walk: bool = False
    """Whether probing walks on from each step whose reduction was near enough to the predicted one, as Algorithm 1, or
    starts every pair from the model (A-11)."""
    normalize: Literal["joint", "separate"] = "joint"
    """`separate` makes s and y unit vectors each, as Algorithm 1 says, which loses the relative curvature (A-13)."""
    curv_tol: float = 1e-6
    """A pair needs <s,y> above this share of |s||y| (A-14)."""
    curv_test: Literal["relative", "absolute"] = "relative"
    """`absolute` compares <s,y> itself with `curv_tol`, as Algorithm 1; what it means changes with |s| (A-14)."""
    powell: bool = True
    """Powell damping of low and negative curvature, before the filter (A-15)."""
    gamma: Literal["median", "newest"] = "median"
    """Scale of the first matrix: the median over the pairs of the retain sets, or the newest pair's (A-21)."""

    batch_size: int = 64
    """Rows per probe batch; smaller where a set would give fewer than 4 batches (A-17)."""
    micro_batch_size: int = 8
    """Rows per forward pass. Decides memory and speed, not the result."""
    max_length: int = 1024
    """Longest row, in tokens."""
    forget_size: int = 50
    """Forget rows that the update works on; the others probe curvature (A-18)."""
    check_size: int = 200
    """Retain rows held out to enforce epsilon, at most a quarter of all (A-29)."""
    max_new_tokens: int = 64
    """Length of the model's own answers."""
    seed: int = 0
    """Decides all splits and the order of batches."""

    def __post_init__(self) -> None:
        rates: Any = self.probe_rates
        object.__setattr__(self, "probe_rates", tuple(rates) if isinstance(rates, list | tuple) else (rates,))
        problems = wrong_settings({field.name: getattr(self, field.name) for field in fields(self)})
        if problems:
            raise InputError("Bad restoration settings: " + "; ".join(problems) + ".")

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Self:
        """The settings of a preset, some of them changed.

        Args:
            name: `default`; `paper`, the published method with its contradictions resolved; or `paper_literal`, its
                two algorithms to the letter but for the sign.
            changes: settings to put in place of the preset's.

        Raises:
            InputError: no such preset, or bad settings.
        """
        return cls(**{**preset_settings(name), **changes})
