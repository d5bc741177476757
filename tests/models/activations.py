"""What passes through networks keep in memory, measured."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def own_storages(network: nn.Module) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}


def saved_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Bytes that autograd still holds after a forward pass, each storage once, weights left out."""

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Held:
        one = Held(tensor)
        held.add(one)
        return one

    with saved_tensors_hooks(pack, lambda one: one.tensor):
        output = network(*inputs)
    storages = {one.tensor.untyped_storage()._cdata: one.tensor.untyped_storage().nbytes() for one in held}
    del output
    return sum(size for key, size in storages.items() if key not in own_storages(network))


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are freed."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known, self.now, self.most = known, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.known:
                self._born(tensor.untyped_storage())
        return result

    def _born(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.now -= size
        self.known.discard(key)


class FusedAttention(torch.autograd.Function):
    """What the GPU's fused kernels keep: queries, keys, values and the result, no matrix."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result)
        return result


@contextlib.contextmanager
def autocast_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CUDA's rules of bfloat16 autocast on tensors without content: no GPU is needed to follow them."""

    def attention(*qkv: Tensor, **_: Any) -> Tensor:
        result: Tensor = FusedAttention.apply(*(tensor.to(torch.bfloat16) for tensor in qkv))
        return result

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])
