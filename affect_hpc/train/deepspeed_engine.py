"""DeepSpeed's engine behind ours (the only file that imports deepspeed)."""

import contextlib
import logging
import os
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from affect_hpc.config.train import Precision, TrainConfig
from affect_hpc.train.engine import gradient_norm
from affect_hpc.train.optim import FIRST, SECOND, STEP, adamw, moments, set_moments

BUCKET = 50_000_000
"""Numbers sent at once; ``hpc.estimates`` counts with the same."""
SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's own loss scaler remembers."""


class DeepSpeedEngine:
    """DeepSpeed with a client AdamW; ZeRO stage by config (Rajbhandari et al. 2020).

    Stage 0 keeps whole weights and moments on every rank; 1 divides the moments and 2 the gradients too, both with a
    flat master copy of the rank's share of the weights; 3 divides the weights themselves. Divided weights take a step
    even where no gradient reached them, which matters to those that the loss leaves out for a while.
    """

    def __init__(self, module: nn.Module, config: TrainConfig, micro_batch: int, accumulation: int) -> None:
        self._deepspeed = imported()
        with contextlib.redirect_stdout(None):
            self._deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
        self.measure, self.grad_norm = False, 0.0
        settings = {
            "train_micro_batch_size_per_gpu": micro_batch,
            "gradient_accumulation_steps": accumulation,
            # Left out it would be 1.0.
            "gradient_clipping": config.clip_grad_norm,
            # DeepSpeed's own buckets hold 500 million numbers, three times the weights of our largest network.
            "zero_optimization": {
                "stage": config.zero_stage,
                "reduce_bucket_size": BUCKET,
                "allgather_bucket_size": BUCKET,
            },
            "zero_allow_untested_optimizer": True,
            # The autocast of forward passes is ours; this one brings the scaling of the loss, gradients stay float32.
            "torch_autocast": {
                "enabled": config.precision is Precision.fp16,
                "dtype": "float16",
                "lower_precision_safe_modules": [],
            },
        }
        # DeepSpeed keeps this one for the whole process: an engine before may have had another precision.
        self._deepspeed.runtime.torch_autocast.TORCH_AUTOCAST_INITIALIZED = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._engine, self._optimizer, _, _ = self._deepspeed.initialize(
                model=module, optimizer=adamw(module, config), config=settings, dist_init_required=False
            )
        self.module: nn.Module = self._engine.module
        self._stage = config.zero_stage
        if self._stage == 0 and torch.distributed.get_world_size() == 1:
            # Nobody to reduce with: DeepSpeed would still copy all gradients there and back.
            self._engine.enable_backward_allreduce = False

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
        last = self._engine.is_gradient_accumulation_boundary()
        if self.measure and last and self._stage == 0:
            # The gradients of stage 0 stand in the module, scaled as the loss was; other stages keep the norm.
            scaler = self._engine.torch_autocast_z0_gradscaler
            self.grad_norm = gradient_norm(self.module) / (scaler.get_scale() if scaler else 1.0)
        self._engine.step()
        if self.measure and last and self._stage > 0:
            self.grad_norm = float(self._engine.get_global_grad_norm() or 0.0)

    def gathered(self) -> AbstractContextManager[Any]:
        """Within it the module holds whole weights."""
        if self._stage < 3:
            return contextlib.nullcontext()
        context: AbstractContextManager[Any] = self._deepspeed.zero.GatheredParameters(list(self.module.parameters()))
        return context

    def weights_changed(self) -> None:
        """Let master copies take up weights set from outside."""
        assert self._stage < 3, "nobody sets weights from outside in stage 3"
        if self._stage > 0:
            # Stages 1 and 2 keep flat master copies, which the next step would write back over the new weights.
            self._optimizer.refresh_fp32_params()

    def state(self) -> dict[str, Any]:
        """Weights, moments, scale of the loss: whole, though ranks keep shares of them."""
        with self.gathered():
            weights = self.module.state_dict()
            if self._stage == 3:
                weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        if self._stage == 0:
            return {
                "module": weights,
                "moments": moments(self._optimizer, self._named()),
                "scaler": self._z0_scaler().state_dict() if self._z0_scaler() else {},
            }
        base = self._optimizer.optimizer
        steps = [float(state[STEP]) for state in base.state.values() if STEP in state]
        found: dict[str, dict[str, Tensor]] = {}
        if steps:
            full = self._deepspeed.utils.safe_get_full_optimizer_state
            for key in (FIRST, SECOND):
                found[key] = {name: full(weight, key).cpu() for name, weight in self._named().items()}
            found[STEP] = {name: torch.tensor(steps[0]) for name in self._named()}
        scaler = self._optimizer.loss_scaler
        return {
            "module": weights,
            "moments": found,
            "scaler": {name: getattr(scaler, name) for name in SCALE if hasattr(scaler, name)},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        if self._stage == 0:
            self.module.load_state_dict(state["module"])
            set_moments(self._optimizer, self._named(), state.get("moments", {}))
            if state.get("scaler") and self._z0_scaler():
                self._z0_scaler().load_state_dict(state["scaler"])
            return
        if self._stage == 3:
            with self._deepspeed.zero.GatheredParameters(list(self.module.parameters()), modifier_rank=0):
                self.module.load_state_dict(state["module"])
            for name, weight in self._named().items():
                self._set_share(weight, state["module"][name], None)
        else:
            self.module.load_state_dict(state["module"])
            self._optimizer.refresh_fp32_params()
        self._load_moments(state.get("moments", {}))
        for name, value in state.get("scaler", {}).items():
            if hasattr(self._optimizer.loss_scaler, name):
                setattr(self._optimizer.loss_scaler, name, value)

    def _load_moments(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        if not saved:
            return
        base = self._optimizer.optimizer
        flat = self._optimizer.fp32_partitioned_groups_flat if self._stage == 3 else None
        for share in flat if flat is not None else self._optimizer.single_partition_of_fp32_groups:
            steps = max(float(value) for value in saved[STEP].values())
            base.state[share] = {
                STEP: torch.tensor(steps, device=share.device),
                FIRST: torch.zeros_like(share),
                SECOND: torch.zeros_like(share),
            }
        if self._stage < 3:
            self._optimizer._lazy_init_hp_params_optimizer_state()
        for key in (FIRST, SECOND):
            for name, weight in self._named().items():
                # A weight that an undivided optimiser never moved has no moments: they are zero.
                if name not in saved[key]:
                    continue
                if self._stage == 3:
                    self._set_share(weight, saved[key][name], key)
                else:
                    value = saved[key][name].to(weight.device)
                    self._deepspeed.utils.safe_set_full_optimizer_state(weight, value, key)

    def _set_share(self, weight: Any, value: Tensor, key: str | None) -> None:
        """Stage 3: this rank's share of a weight (``key`` None) or of a moment; the last share may be padded."""
        size, rank = weight.ds_tensor.ds_numel, torch.distributed.get_rank()
        flat = torch.zeros(size * torch.distributed.get_world_size(), device=weight.device)
        flat[: value.numel()] = value.flatten().to(flat)
        share = flat[rank * size : (rank + 1) * size]
        if key is None:
            self._deepspeed.utils.safe_set_local_fp32_param(weight, share)
        else:
            self._deepspeed.utils.safe_set_local_optimizer_state(weight, share, key)

    def _named(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.module.named_parameters() if weight.requires_grad}

    def _z0_scaler(self) -> Any:
        return self._engine.torch_autocast_z0_gradscaler


def imported() -> Any:
    """DeepSpeed, imported quietly and without the extension that it would compile for thirty seconds."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        import deepspeed  # noqa: PLC0415 (it looks for a compiler when it is imported)
        import deepspeed.ops  # noqa: PLC0415
        import deepspeed.runtime.torch_autocast  # noqa: PLC0415
        import deepspeed.utils  # noqa: PLC0415
        from deepspeed.utils import logger  # noqa: PLC0415

        logger.setLevel(logging.WARNING)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
