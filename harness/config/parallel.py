"""How one model is spread over several devices: `parallel` in a config."""

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from .frozen import Frozen, Text, UserPath

__all__ = ["ParallelConfig"]


class ParallelConfig(Frozen):
    """For models that one GPU does not hold; decides rounding at most, so nothing of it is in a key or digest."""

    tensor: PositiveInt = 1
    """GPUs among which vLLM divides each layer (`tensor_parallel_size`)."""
    pipeline: PositiveInt = 1
    """Groups of them among which vLLM divides the layers (`pipeline_parallel_size`)."""
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    """How transformers spreads a model's layers over the GPUs, by accelerate; None puts all of it on `device`."""
    max_memory: dict[Text, Text] = Field(default_factory=dict)
    """Of `device_map`: most that each device may hold, such as `{0: 70GiB, cpu: 200GiB}`, keys as text."""
    processes: PositiveInt = 1
    """That fine-tune `lora` and `full` together, one for each GPU (accelerate); on the CPU they talk through gloo."""
    fsdp: dict[Text, Any] | None = None
    """Shards weights, gradients and optimizer among these processes: transformers' `fsdp_config`; `{}` is its
    defaults."""
    deepspeed: UserPath | None = None
    """The same by DeepSpeed: its JSON file of settings. Needs the package deepspeed."""

    @model_validator(mode="after")
    def _one_way(self) -> "ParallelConfig":
        if self.fsdp is not None and self.deepspeed is not None:
            raise ValueError("fsdp and deepspeed are two ways of the same; name one of them")
        if self.max_memory and self.device_map is None:
            raise ValueError("max_memory is of device_map; name one, such as auto")
        return self

    @property
    def gpus(self) -> int:
        """Of a worker, at least."""
        return max(self.tensor * self.pipeline, self.processes)
