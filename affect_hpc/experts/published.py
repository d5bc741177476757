"""Weight files as their projects publish them -> tensors by name. No code of a file is run, no class of it imported.

A file holds a state dict or a whole module that ``torch.save`` has pickled. Of a module only its tensors are taken:
blank classes stand for those that the pickle names, and torch's own restricted reader refuses whatever is left.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from affect_hpc.core.errors import UserError

MODULE_PACKAGES = ("torch.nn.", "timm.")
"""Where the classes and functions of a pickled module may come from."""
OPTIONAL = "num_batches_tracked"
"""Files from before torch 0.4.1 lack it, and only training uses it."""


class _Blank:
    """Stands for any class or function that a pickled module names: keeps its state, does nothing."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        self.state: Any = None

    def __new__(cls, *_arguments: Any, **_named: Any) -> "_Blank":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_published(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a state dict, alone or as the entry ``state_dict``, or of a whole pickled module; on the CPU.

    Raises:
        UserError: damaged, no file of torch.save, or it asks for something that weights do not need.
    """
    try:
        content = _load(path)
        if isinstance(content, _Blank):
            return dict(_tensors(content, ""))
        state = content.get("state_dict", content) if isinstance(content, Mapping) else None
        if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
            return dict(state)
    except UserError:
        raise
    except Exception as error:  # damaged bytes can make a pickle fail in any way
        raise UserError(f"{path} is damaged or no file of weights ({_reason(error)}): get it again.") from None
    raise UserError(f"{path} holds neither a state dict of tensors nor a module: give the file as it is published.")


def _load(path: Path) -> Any:
    with path.open("rb") as handle:
        is_zip = handle.read(4) == b"PK\x03\x04"
    # Of the old format, from before torch 1.6, state dicts alone are read.
    named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) if is_zip else []
    refused = [name for name in named if not name.startswith(MODULE_PACKAGES)]
    if refused:
        raise UserError(
            f"{path} asks for {refused[0]}, which no file of weights needs: it was not run, and nothing was read; get"
            " the file from its own project, or save the state dict alone."
        )
    blanks: list[Any] = [(type("Blank", (_Blank,), {}), name) for name in named]
    with torch.serialization.safe_globals(blanks):
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(module: _Blank, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """What the module's state_dict() would hold."""
    transient = module.state.get("_non_persistent_buffers_set", ())
    for name, value in {**module.state["_parameters"], **module.state["_buffers"]}.items():
        if isinstance(value, Tensor) and name not in transient:
            yield f"{prefix}{name}", value.detach()
    for name, child in module.state["_modules"].items():
        if isinstance(child, _Blank):
            yield from _tensors(child, f"{prefix}{name}.")


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, layout: str) -> None:
    """Give ``network`` the tensors ``state``, all and no others.

    Args:
        path: where they come from, for the message.
        layout: what the file should be, for the message.

    Raises:
        UserError: a tensor is absent, has another shape, or is none of the network's.
    """
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in state:
            if name.endswith(OPTIONAL):
                continue
            raise UserError(f"{path} lacks {name}: it must be {layout}.")
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{path} holds {name} of shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}: it must be"
                f" {layout}."
            )
    odd = [name for name in state if name not in own]
    if odd:
        raise UserError(f"{path} holds {odd[0]}, which the network has not: it must be {layout}.")
    network.load_state_dict(dict(state), strict=False)


def _reason(error: Exception) -> str:
    # torch's own messages go on with advice to run the file.
    said = str(error).strip().partition(". ")[0].partition("\n")[0][:120].rstrip(".: ")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
