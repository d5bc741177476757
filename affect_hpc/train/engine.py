"""One optimiser step: by DeepSpeed, or by torch alone. The loop does not know which.

State is exchanged as whole named tensors, so a checkpoint of one engine, ZeRO stage or number of ranks is taken up by
any other.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from affect_hpc.config.train import EngineName, Precision, TrainConfig
from affect_hpc.core.errors import UserError
from affect_hpc.train.comm import Ranks
from affect_hpc.train.optim import adamw, moments, set_moments


class Engine(Protocol):
    """A network with its optimiser.

    ``forward`` runs the network so that gradients are tracked by the engine; ``backward`` adds one micro batch;
    ``step`` applies what ``accumulation`` micro batches have added.
    """

    module: nn.Module
    measure: bool
    """Whether the next step takes the norm of its gradient."""
    grad_norm: float
    """Norm of the last gradient that was measured, over all weights, before clipping."""

    def forward(self, *arguments: Tensor) -> Any:
        """Output of the network."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro batch; ``loss`` is its mean."""
        ...

    def step(self, lr: float) -> None:
        """Update the weights if this micro batch was the last of its step."""
        ...

    def gathered(self) -> AbstractContextManager[Any]:
        """Within it ``module`` holds whole weights to read, though ranks keep shares of them; entered by all ranks."""
        ...

    def weights_changed(self) -> None:
        """Say that weights were set from outside: master copies take them up."""
        ...

    def state(self) -> dict[str, Any]:
        """module (name -> tensor), moments (optim.Moments), scaler (of the loss); called by all ranks together.

        Tensors are the live ones where the engine holds whole ones: use them before the next step.
        """
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a state of this or any other engine; called by all ranks together."""
        ...


class PlainEngine:
    """torch alone, on one process."""

    def __init__(self, module: nn.Module, config: TrainConfig, accumulation: int) -> None:
        self.module, self.accumulation = module, accumulation
        self.measure, self.grad_norm = False, 0.0
        self._optimizer = adamw(module, config)
        self._clip = config.clip_grad_norm
        device = next(module.parameters()).device.type
        self._scaler = torch.amp.GradScaler(device, enabled=config.precision is Precision.fp16)
        self._micro = 0

    def forward(self, *arguments: Tensor) -> Any:
        """Output of the network."""
        return self.module(*arguments)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro batch."""
        self._scaler.scale(loss / self.accumulation).backward()  # type: ignore[no-untyped-call]
        self._micro += 1

    def step(self, lr: float) -> None:
        """One optimiser step; one with gradients that float16 could not hold is left out and the scale lowered."""
        if self._micro < self.accumulation:
            return
        self._scaler.unscale_(self._optimizer)
        if self._clip > 0:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
            self.grad_norm = float(norm) if self.measure else self.grad_norm
        elif self.measure:
            self.grad_norm = gradient_norm(self.module)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._micro = 0

    def gathered(self) -> AbstractContextManager[Any]:
        """Within it the module holds whole weights."""
        return contextlib.nullcontext()

    def weights_changed(self) -> None:
        """The module's weights are the only ones."""

    def state(self) -> dict[str, Any]:
        """Weights, moments, scale of the loss."""
        named = dict(self.module.named_parameters())
        return {
            "module": self.module.state_dict(),
            "moments": moments(self._optimizer, named),
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.module.load_state_dict(state["module"])
        set_moments(self._optimizer, dict(self.module.named_parameters()), state.get("moments", {}))
        if state.get("scaler"):
            self._scaler.load_state_dict(state["scaler"])


def gradient_norm(module: nn.Module) -> float:
    """Euclidean norm of the gradients that stand in ``module``."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(nn.utils.get_total_norm(gradients)) if gradients else 0.0


def micro_batch(config: TrainConfig, ranks: Ranks) -> int:
    """Samples of one forward pass on one rank."""
    return config.micro_batch(ranks.world)


def micro_batches(batch: Mapping[str, Tensor], size: int) -> Iterator[Mapping[str, Tensor]]:
    """A batch in slices of ``size`` samples."""
    for start in range(0, len(next(iter(batch.values()))), size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}


def make_engine(module: nn.Module, config: TrainConfig, ranks: Ranks) -> Engine:
    """The engine that the config names, on ``module`` as it stands on its device.

    Raises:
        UserError: the batch cannot be divided, or the engine cannot do what is asked.
    """
    micro = micro_batch(config, ranks)
    if micro < 1 or config.global_batch_size % (micro * ranks.world):
        raise UserError(
            f"train.global_batch_size={config.global_batch_size} is no multiple of micro_batch_size={micro} times "
            f"{ranks.world} ranks: choose a micro batch that divides {config.global_batch_size / ranks.world:g}."
        )
    accumulation = config.global_batch_size // (micro * ranks.world)
    if config.engine is EngineName.plain:
        if ranks.world > 1:
            raise UserError(
                f"train.engine=plain runs on one process, this job has {ranks.world}: use train.engine=deepspeed."
            )
        return PlainEngine(module, config, accumulation)
    from affect_hpc.train.deepspeed_engine import DeepSpeedEngine  # noqa: PLC0415 (slow; the plain engine does without)

    return DeepSpeedEngine(module, config, micro, accumulation)
