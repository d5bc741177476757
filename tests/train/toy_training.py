"""A training of a second on one core, that uses everything the loop offers."""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affect_hpc.config.train import EngineName, LrSchedule, Precision, TrainConfig
from affect_hpc.core.stop import STOP
from affect_hpc.data.batches import TrainingData
from affect_hpc.train import comm
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import Engine, make_engine, micro_batches
from affect_hpc.train.loop import fit, seed_everything
from affect_hpc.train.precision import autocast

ALONE = comm.Ranks()
CONFIG = TrainConfig(
    global_batch_size=8,
    samples_total=48,
    lr=0.05,
    lr_schedule=LrSchedule.cosine,
    clip_grad_norm=1.0,
    precision=Precision.fp32,
    engine=EngineName.plain,
    log_every=1,
    save_every=2,
    keep_checkpoints=3,
)


class Waves:
    """Twenty samples of four numbers."""

    def __len__(self) -> int:
        return 20

    def sample(self, index: int) -> Mapping[str, Any]:
        return {"x": np.sin(np.arange(4) * (index + 1.0)).astype(np.float32), "index": index}


class ToyTask:
    """Regression with dropout (so that the random state matters) and an average of the weights."""

    def __init__(self, config: TrainConfig, ranks: comm.Ranks = ALONE) -> None:
        seed_everything(config.seed)
        self.device = comm.device_of(ranks)
        net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 1)).to(self.device)
        self.ema = Ema(net, 0.9)
        self.engine = make_engine(net, config, ranks)
        self.micro = config.micro_batch_size or config.global_batch_size // ranks.world
        self.precision = config.precision
        self.losses: list[float] = []
        self.stop_at = self.poison_at = -1
        self.dropout = True
        self.seen: list[int] = []

    def engines(self) -> Mapping[str, Engine]:
        return {"net": self.engine}

    def flops_per_sample(self) -> float:
        return 2e6

    def averages(self) -> Mapping[str, Ema]:
        return {"net": self.ema}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        assert state == {}

    def measures(self, step: int) -> Mapping[str, float]:
        return {}

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        return {}

    def step(self, batch: Mapping[str, Tensor], step: int, lr: float) -> Mapping[str, Tensor]:
        self.engine.module.train(self.dropout)
        self.seen += batch["index"].tolist()
        losses = []
        for micro in micro_batches(batch, self.micro):
            x = micro["x"].to(self.device)
            with autocast(self.precision, self.device):
                predicted = self.engine.forward(x)
            loss = ((predicted.float() - x.sum(dim=1, keepdim=True)) ** 2).mean()
            if step == self.poison_at:
                loss = loss * float("nan")
            self.engine.backward(loss)
            self.engine.step(lr)
            losses.append(loss.detach())
        with self.engine.gathered():
            self.ema.update(self.engine.module)
        if step == self.stop_at:
            STOP.received = signal.SIGUSR2
        self.losses.append(float(torch.stack(losses).mean()))
        return {"loss": torch.stack(losses).mean()}

    def weights(self) -> dict[str, Tensor]:
        with self.engine.gathered():
            return {name: value.detach().cpu().clone() for name, value in self.engine.module.state_dict().items()}


def train(keep: Path, task: ToyTask, config: TrainConfig = CONFIG, ranks: comm.Ranks = ALONE) -> bool:
    data = TrainingData(Waves(), np.zeros(20, np.int64), config, ranks.rank, ranks.world, keep)
    return fit("toy", task, data, config, ranks, keep)


def deepspeed_config(stage: int, **changes: Any) -> TrainConfig:
    return replace(CONFIG, engine=EngineName.deepspeed, zero_stage=stage, **changes)
