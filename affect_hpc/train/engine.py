"""One optimiser step: by DeepSpeed, or by torch alone. The loop does not know which."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from affect_hpc.config.train import EngineName, TrainConfig
from affect_hpc.core.errors import UserError
from affect_hpc.train.comm import Ranks
from affect_hpc.train.optim import adamw


class Engine(Protocol):
    """A network with its optimiser.

    ``forward`` runs the network so that gradients are tracked by the engine; ``backward`` adds one micro batch;
    ``step`` applies what ``accumulation`` micro batches have added.
    """

    module: nn.Module

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

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state; called by all ranks together."""
        ...

    def load(self, folder: Path) -> None:
        """Take up a saved state; called by all ranks together."""
        ...


class PlainEngine:
    """torch alone, on one process."""

    def __init__(self, module: nn.Module, config: TrainConfig, accumulation: int) -> None:
        self.module, self.accumulation = module, accumulation
        self._optimizer = adamw(module, config)
        self._clip = config.clip_grad_norm
        self._micro = 0

    def forward(self, *arguments: Tensor) -> Any:
        """Output of the network."""
        return self.module(*arguments)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro batch."""
        (loss / self.accumulation).backward()  # type: ignore[no-untyped-call]
        self._micro += 1

    def step(self, lr: float) -> None:
        """One optimiser step."""
        if self._micro < self.accumulation:
            return
        if self._clip > 0:
            nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._micro = 0

    def gathered(self) -> AbstractContextManager[Any]:
        """Within it the module holds whole weights."""
        return contextlib.nullcontext()

    def weights_changed(self) -> None:
        """The module's weights are the only ones."""

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state."""
        folder.mkdir(parents=True)
        torch.save(
            {"module": self.module.state_dict(), "optimizer": self._optimizer.state_dict()}, folder / "engine.pt"
        )

    def load(self, folder: Path) -> None:
        """Take up a saved state."""
        saved = torch.load(folder / "engine.pt", map_location="cpu", weights_only=True)
        self.module.load_state_dict(saved["module"])
        self._optimizer.load_state_dict(saved["optimizer"])


class DeepSpeedEngine:
    """DeepSpeed's engine with a client AdamW; ZeRO stage by config."""

    def __init__(self, module: nn.Module, config: TrainConfig, micro_batch: int, accumulation: int) -> None:
        deepspeed = _deepspeed()
        settings = {
            "train_micro_batch_size_per_gpu": micro_batch,
            "gradient_accumulation_steps": accumulation,
            # Left out it would be 1.0.
            "gradient_clipping": config.clip_grad_norm,
            "zero_optimization": {"stage": config.zero_stage},
            "zero_allow_untested_optimizer": True,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._engine, self._optimizer, _, _ = deepspeed.initialize(
                model=module, optimizer=adamw(module, config), config=settings, dist_init_required=False
            )
        self.module: nn.Module = self._engine.module
        self._stage = config.zero_stage

    def forward(self, *arguments: Tensor) -> Any:
        """Output of the network."""
        return self._engine(*arguments)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro batch."""
        self._engine.backward(loss)

    def step(self, lr: float) -> None:
        """One optimiser step."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()

    def gathered(self) -> AbstractContextManager[Any]:
        """Within it the module holds whole weights."""
        if self._stage < 3:
            return contextlib.nullcontext()
        context: AbstractContextManager[Any] = _deepspeed().zero.GatheredParameters(list(self.module.parameters()))
        return context

    def weights_changed(self) -> None:
        """Let master copies take up weights set from outside."""
        assert self._stage < 3, "nobody sets weights from outside in stage 3"
        if self._stage > 0:
            # Stages 1 and 2 keep flat master copies, which the next step would write back over the new weights.
            self._optimizer.refresh_fp32_params()

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state."""
        self._engine.save_checkpoint(str(folder), tag="engine", save_latest=False)

    def load(self, folder: Path) -> None:
        """Take up a saved state."""
        path, _ = self._engine.load_checkpoint(str(folder), tag="engine")
        if path is None:
            raise UserError(
                f"{folder} holds no DeepSpeed state: remove the checkpoint's folder, or train on the same engine."
            )


def micro_batch(config: TrainConfig, ranks: Ranks) -> int:
    """Samples of one forward pass on one rank."""
    return config.micro_batch_size or config.global_batch_size // ranks.world


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
    return DeepSpeedEngine(module, config, micro, accumulation)


def _deepspeed() -> Any:
    """DeepSpeed, imported quietly and without the extension that it would compile for thirty seconds."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        import deepspeed  # noqa: PLC0415 (slow to import; the plain engine does without)
        import deepspeed.ops  # noqa: PLC0415
        from deepspeed.utils import logger  # noqa: PLC0415

        logger.setLevel(logging.WARNING)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    return deepspeed
