"""How a model is aligned before a run: `align` beside a model in a config."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from .frozen import Frozen, Schedule, Share, Text, UserPath

if TYPE_CHECKING:
    from ...restore.config.training import TrainingConfig

__all__ = ["AlignConfig"]


class AlignConfig(Frozen):
    """Full fine-tuning on refusals of the run's safety rows (`data.safety`) and on answers to benign prompts."""

    benign: UserPath | None = None
    """Own rows with benign prompts: a file or hub data set; None takes them out of the rows to fine-tune on."""
    columns: dict[Text, Text] = Field(default_factory=dict)
    """As `finetune.columns`, of `benign`."""
    benign_rows: PositiveInt = 200
    """How many of them, drawn by their digests; at most half of the rows to fine-tune on."""
    answers: Literal["own", "given"] = "own"
    """What the model learns to answer: what it does answer (greedily), or the rows' responses."""
    answer_tokens: PositiveInt = 48
    """The longest of its own answers."""
    safety_rows: PositiveInt | None = None
    """How many of the safety rows, drawn by their digests; methods get the others alone. None takes all, and methods
    get them too."""
    deep: bool = True
    """Each refusal also behind the opening of a compliant answer, against prefilling."""
    questions: bool = True
    """Half of the refusals answer the prompt put as a question, so that not the form of an order is what is refused."""
    contrast: bool = True
    """Its own answers to innocent requests that sound harmful, against over-refusal."""
    learning_rate: PositiveFloat = 1e-4
    """At its highest."""
    batch_size: PositiveInt = 8
    """Rows in a step of the optimizer."""
    micro_batch_size: PositiveInt = 4
    """Rows in a forward pass: memory and speed, not the result."""
    epochs: PositiveFloat = 3.0
    """Times through the rows; may be a fraction."""
    max_steps: PositiveInt | None = None
    """Ends training after so many steps, whatever the epochs."""
    schedule: Schedule = "linear"
    """How the learning rate goes on, by the names of transformers."""
    warmup_ratio: Share = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the order of rows: one aligned model for all seeds of a run."""

    def training(self) -> "TrainingConfig":
        """The optimizer's part, as the training loop takes it (imports torch)."""
        from ...restore.config.training import TrainingConfig

        names = ("learning_rate", "batch_size", "micro_batch_size", "epochs", "max_steps", "schedule", "warmup_ratio")
        return TrainingConfig(**{name: getattr(self, name) for name in names})
