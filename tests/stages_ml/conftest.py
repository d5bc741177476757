import os

import pytest
import torch
from ml_world import Chain, train_chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    return train_chain(tmp_path_factory.mktemp("chain"))
