"""What a run config may hold: frozen models, checked for types and ranges as they are read."""

import datetime
import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_serializer,
    model_validator,
)

from ...restore.models.chat import DATE
from ...tasks.sandbox.location import in_world, is_sandbox, width_of, world_of
from .alignment import AlignConfig
from .frozen import Frozen, Schedule, Share, Text, UserPath
from .naming import row_labels
from .parallel import ParallelConfig
from .published import PublishedConfig
from .relapse import RelapseConfig
from .resources import ExecutorName, ResourcesConfig, SlurmConfig

if TYPE_CHECKING:
    from ...restore.config.training import TrainingConfig

__all__ = [
    "BASE",
    "NOT_MEASURED",
    "SANDBOX_SETS",
    "DataConfig",
    "FinetuneConfig",
    "MethodSpec",
    "ModelSpec",
    "RunConfig",
    "TaskLists",
]

BASE = "base"
"""The row of the model as it is; no method."""
SANDBOX_SETS = ("sandbox_task", "sandbox_entangled")
"""Data sets to fine-tune on that are in the words of the sandbox."""
NOT_MEASURED = {"name", "processes", "executor", "resources", "slurm", "parallel", "published"}
"""Keys that decide nothing of what is measured."""

Percent = Annotated[float, Field(gt=0, lt=100)]


class ModelSpec(Frozen):
    """An aligned model to start from: `sandbox`, a hub id or a folder; or a mapping with these keys."""

    id: UserPath
    """`sandbox`, `sandbox:N` or `sandbox:N/base-256`, a preset, a hub id, a folder or a .gguf file."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    unaligned: UserPath | None = None
    """The same model before its alignment, for the methods that compare the two (Safe LoRA)."""
    target_hrr: Percent | None = None
    """How far this model shall drift, in place of `finetune.target_hrr`."""
    align: AlignConfig | None = None
    """Aligns the model first: the result is the base, and the model as given its `unaligned`, unless that is named."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        spec = {"id": given} if isinstance(given, str) else given
        if isinstance(spec, dict) and isinstance(spec.get("id"), str) and is_sandbox(spec["id"]):
            size = f"-{width}" if (width := width_of(spec["id"])) else ""
            return {"unaligned": in_world(f"sandbox/unaligned{size}", world_of(spec["id"]))} | spec
        return spec


class MethodSpec(Frozen):
    """One row of the leaderboard: a method's name, or `{name: {setting: value}}`, with perhaps `label` and `start`."""

    name: Text
    """Is written as the key: a method (`safebasin list methods`), or `base`, the model as it is."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Stand beside `label` and `start`: the method's own, as its page has them."""
    label: Annotated[str, StringConstraints(min_length=1, pattern=r"^\S(.*\S)?$")] | None = None
    """What the row is called; None is the name, with the settings in which rows of that name differ."""
    start: Text | None = None
    """What a post-hoc method starts from: a fine-tuning method, or the label of its row; None is `lora`."""

    @model_validator(mode="before")
    @classmethod
    def _from_config(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if not isinstance(given, dict) or len(given) != 1:
            wanted = "a method's name or one {name: {setting: value}}, settings indented below the name"
            raise ValueError(f"must be {wanted}; got {given!r}")
        name, settings = next(iter(given.items()))
        if settings is not None and not isinstance(settings, dict):
            raise ValueError(f"the settings of '{name}' must be {{setting: value}}, got {settings!r}")
        settings = dict(settings or {})
        own = {key: settings.pop(key, None) for key in ("label", "start")}
        return {"name": name, "settings": settings, **own}

    @model_serializer
    def _to_config(self) -> dict[str, dict[str, Any]]:
        return {self.name: self.told | ({"label": self.label} if self.label else {})}

    @property
    def told(self) -> dict[str, Any]:
        """The settings, and the start where one is named: what tells two rows of a method apart."""
        return self.settings | ({"start": self.start} if self.start else {})


class FinetuneConfig(Frozen):
    """The fine-tuning that every method goes through; the defaults are the paper's for models of 7-8B (section 4.1)."""

    dataset: UserPath = "dolly"
    """`sandbox_task`, `sandbox_entangled`, `dolly`, `alpaca`, or the user's own rows: a file, or `owner/name:split` on
    the hub."""
    columns: dict[Text, Text] = Field(default_factory=dict)
    """Of own rows: what their columns are where their names do not tell, such as `{prompt: question}`."""
    rank: PositiveInt = 32
    """Of the LoRA adapter."""
    alpha: PositiveFloat | None = None
    """None stands for the rank, so that the adapter's scale is 1."""
    dropout: Share = 0.0
    """In the adapter."""
    target_modules: Annotated[tuple[Text, ...], Field(min_length=1)] = ("q_proj", "v_proj")
    """Names of modules; `all-linear` stands for all linear layers but the head."""
    learning_rate: PositiveFloat = 2e-4
    """At its highest."""
    batch_size: PositiveInt = 128
    """Rows in a step of the optimizer."""
    micro_batch_size: PositiveInt = 16
    """Rows in a forward pass: memory and speed, not the result."""
    epochs: PositiveFloat = 1.0
    """Times through the rows; may be a fraction."""
    max_steps: PositiveInt | None = None
    """Ends training after so many steps, whatever the epochs."""
    target_hrr: Percent | None = None
    """Percent. Fine-tuning is as long as plain LoRA takes to come nearest to this harmful response rate on validation
    requests, within `max_steps` or `epochs` (`harness/stages/dose.py`). The sandbox alone has such requests."""
    schedule: Schedule = "linear"
    """How the learning rate goes on, by the names of transformers."""
    warmup_ratio: Share = 0.0
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of the optimizer, AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """To which longer gradients are cut."""
    bf16: bool = False
    """Mixed precision, in bfloat16."""
    gradient_checkpointing: bool = False
    """Computes activations twice: less memory, more time."""

    def training(self) -> "TrainingConfig":
        """The optimizer's part, as the training loop takes it (imports torch)."""
        from ...restore.config.training import TrainingConfig

        other = {"dataset", "columns", "rank", "alpha", "dropout", "target_modules", "target_hrr"}
        return TrainingConfig(**self.model_dump(exclude=other))

    def lora(self) -> dict[str, Any]:
        """The adapter's part: rank, alpha, dropout and target_modules."""
        alpha = float(self.rank) if self.alpha is None else self.alpha
        modules = list(self.target_modules)
        return {"rank": self.rank, "alpha": alpha, "dropout": self.dropout, "target_modules": modules}


class DataConfig(Frozen):
    """Where the rows for the safety methods come from, and local copies of public data sets."""

    safety: UserPath = "auto"
    """`sandbox`, `advbench` or own harmful prompts; `auto` is the sandbox's when that is what is fine-tuned on."""
    safety_columns: dict[Text, Text] = Field(default_factory=dict)
    """As `finetune.columns`, of `safety`."""
    validation: UserPath | None = None
    """Own harmful prompts to choose settings on (`tuned`); None is the sandbox's, and there are no others."""
    validation_columns: dict[Text, Text] = Field(default_factory=dict)
    """As `finetune.columns`, of `validation`."""
    retain: UserPath | None = None
    """Own task rows for the retain sets; None holds them out of the fine-tuning data."""
    retain_columns: dict[Text, Text] = Field(default_factory=dict)
    """As `finetune.columns`, of `retain`."""
    relapse: UserPath | None = None
    """Own harmful rows, prompt and response, that `tasks.relapse` fine-tunes on; None is the sandbox's placeholders."""
    relapse_columns: dict[Text, Text] = Field(default_factory=dict)
    """As `finetune.columns`, of `relapse`."""
    advbench_csv: UserPath | None = None
    """AdvBench's harmful_behaviors.csv; without it the (gated) data set on the hub."""
    dolly_jsonl: UserPath | None = None
    """Dolly's databricks-dolly-15k.jsonl."""
    alpaca_json: UserPath | None = None
    """Alpaca's alpaca_data.json."""
    xstest_csv: UserPath | None = None
    """XSTest's xstest_prompts.csv."""
    eval_rows: UserPath | None = None
    """Own rows, a file, on which the task `rows_eval_loss` takes the loss."""
    eval_columns: dict[Text, Text] = Field(default_factory=dict)
    """As `finetune.columns`, of `eval_rows`."""
    hex_phi_dir: UserPath | None = None
    """Folder with HEx-PHI's category_1.csv … category_11.csv."""
    harmbench_csv: UserPath | None = None
    """HarmBench's harmbench_behaviors_text_all.csv."""
    jbb_dir: UserPath | None = None
    """Folder with JailbreakBench's harmful-behaviors.csv and benign-behaviors.csv."""
    strongreject_csv: UserPath | None = None
    """StrongREJECT's strongreject_dataset.csv."""
    or_bench_csv: UserPath | None = None
    """OR-Bench's or-bench-hard-1k.csv."""
    sorry_bench_jsonl: UserPath | None = None
    """SORRY-Bench's question.jsonl."""
    advbench_overlap: Literal["leave_out", "keep"] | None = None
    """What tasks on other sets do with requests that are AdvBench's safety rows; None is what their YAML says."""
    benchmarks_dir: UserPath | None = None
    """Folder with `<task>/<split>.parquet` or `.jsonl` of lm-eval's tasks, for those that we ask with examples."""

    @property
    def files(self) -> dict[str, str]:
        """The local copies that were given, by the metadata key under which tasks look for them."""
        own = ("safety", "validation", "retain", "relapse")
        given = self.model_dump(exclude={*own, *(f"{name}_columns" for name in (*own, "eval")), "advbench_overlap"})
        return {key: path for key, path in given.items() if path}

    @property
    def settings(self) -> dict[str, str]:
        """What tasks are told besides `files`, by metadata key; the columns of own rows as JSON."""
        columns = {"eval_columns": json.dumps(self.eval_columns)} if self.eval_columns else {}
        return columns | ({"advbench_overlap": self.advbench_overlap} if self.advbench_overlap else {})

    @property
    def metadata(self) -> dict[str, str]:
        """All that tasks are told of the data."""
        return self.files | self.settings


class TaskLists(Frozen):
    """Names of tasks: ours, lm-eval's (utility only), and those in the YAML folders of `include`."""

    safety: tuple[Text, ...] = ()
    """Judged: harm, prefilling, over-refusal, VISAGE."""
    utility: tuple[Text, ...] = ()
    """Computed: losses, accuracies."""
    include: tuple[UserPath, ...] = ()
    """Folders of the user's own tasks, as lm-eval's YAML."""
    relapse: RelapseConfig | None = None
    """Fine-tunes every row's checkpoint again; None does not."""


def _judge(given: Any) -> Any:
    """`name` and `{name: null}` as `{name: {}}`; anything else as it is."""
    spec = {given: None} if isinstance(given, str) else given
    if isinstance(spec, dict):
        return {name: {} if arguments is None else arguments for name, arguments in spec.items()}
    return spec


class RunConfig(Frozen):
    """A whole run. `load_config` reads one from a file and checks the names in it too."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the run, and of its folder below `runs/`."""
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    """The aligned models, each compared with its own fine-tunings."""
    methods: Annotated[tuple[MethodSpec, ...], Field(min_length=1)]
    """The rows of the leaderboard."""
    finetune: FinetuneConfig = FinetuneConfig()
    """What `lora` is, and every post-hoc method starts from."""
    data: DataConfig = DataConfig()
    """The rows that methods and tasks take."""
    tasks: TaskLists
    """What is asked and computed."""
    judges: tuple[Annotated[dict[str, dict[str, Any]], BeforeValidator(_judge)], ...] = ()
    """Names, or `{name: {setting: value}}`. For each facet the first judge that decides it counts; so the first one
    decides the headline."""
    engine: Literal["auto", "hf", "vllm"] = "auto"
    """What generates; `auto` is vLLM on a CUDA device where it is installed, else transformers."""
    frontier: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Epsilons: a method that takes one, and is given none, gets a row for each of these."""
    published: dict[UserPath, PublishedConfig] = Field(default_factory=dict)
    """Numbers that others printed, by table, to stand beside the measured ones. Decides nothing of what is measured."""
    executor: ExecutorName = "local"
    """Where checkpoints are built, answer and are judged: in this process, on a Ray cluster, or as jobs of Slurm."""
    resources: ResourcesConfig = ResourcesConfig()
    """Of each worker of `ray` and `slurm`."""
    slurm: SlurmConfig = SlurmConfig()
    """Of `executor: slurm`."""
    parallel: ParallelConfig = ParallelConfig()
    """How one model is spread over several devices."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """One fine-tuning of each method for each; a ranking takes three or more."""
    limit: PositiveInt | None = None
    """Documents per task; None is all."""
    batch_size: PositiveInt = 16
    """Prompts generated at once."""
    processes: PositiveInt | None = None
    """That answer and judge side by side on a CPU; None: as many as there would be threads if the model is tiny."""
    max_gen_toks: PositiveInt | None = None
    """Replaces the tasks' own limits on the length of a response."""
    date: datetime.date = DATE
    """What chat templates that write today's date are told, so that all prompts of all days are the same."""
    think_end_token: Text | None = None
    """Ends the block of thinking that every answer begins with, for models whose chat template does not tell."""
    device: Annotated[str, StringConstraints(pattern=r"^(cpu|cuda|mps|xpu)(:\d+)?$")] | None = None
    """`cpu`, `cuda`, `mps` or `xpu`, with a number as in `cuda:1`; None is CUDA where there is any, else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; `auto` is float32 on the CPU and the checkpoint's own elsewhere."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The leaderboard's name of each method, in order."""
        return row_labels([(spec.name, spec.told, spec.label) for spec in self.methods])

    def target_hrr(self, model: str) -> float | None:
        """How far fine-tuning shall take a model, in percent; None where the steps are given instead."""
        own = next(spec.target_hrr for spec in self.models if spec.id == model)
        return self.finetune.target_hrr if own is None else own

    @property
    def safety_source(self) -> str:
        """`data.safety` with `auto` resolved: `sandbox`, `advbench` or a file."""
        auto = "sandbox" if self.finetune.dataset in SANDBOX_SETS else "advbench"
        return auto if self.data.safety == "auto" else self.data.safety

    @property
    def digest(self) -> str:
        """16 hex digits over all but names (of the run, of labels) and where and in how many processes it ran."""
        content = self.model_dump(mode="json", exclude=NOT_MEASURED)
        content["methods"] = [{spec.name: spec.told} for spec in self.methods]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
