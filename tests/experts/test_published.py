"""Reading weight files of others: tensors of all published forms, and never their code."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from affect_hpc.core.errors import UserError
from affect_hpc.experts.published import fill, read_published


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.PReLU(4), nn.Linear(2, 2)))
    made.register_buffer("kept", torch.arange(3.0))
    made.register_buffer("dropped", torch.arange(3.0), persistent=False)
    return made


def assert_same(found: dict[str, torch.Tensor]) -> None:
    wanted = network().state_dict()
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], tensor) and not found[name].requires_grad for name, tensor in wanted.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_state_dict(tmp_path: Path, zipped: bool, nested: bool) -> None:
    path = tmp_path / "net.pth"
    state = network().state_dict()
    torch.save({"state_dict": state} if nested else state, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_published(path))


def test_a_whole_module_gives_what_its_state_dict_holds(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "net.pt")
    before = set(torch.serialization.get_safe_globals())
    assert_same(read_published(tmp_path / "net.pt"))
    assert set(torch.serialization.get_safe_globals()) == before


class Touch:
    """Makes a file when it is unpickled as pickle would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_file_is_run(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / "net.pt"
    module = network()
    module.extra = Touch(mark)  # type: ignore[assignment]
    for content in (module, {"a": torch.ones(1), "b": Touch(mark)}):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            UserError, match=r"posix.system, which no file of weights needs" if zipped else "no file of"
        ):
            read_published(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


class Call:
    """Calls a function of torch.nn when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


def test_functions_of_the_module_packages_are_not_called_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = network()
    module.extra = Call(torch.nn.init.zeros_, torch.ones(2))  # type: ignore[assignment]
    torch.save(module, tmp_path / "net.pt")
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.init, "zeros_", lambda _: pytest.fail("it was called"))
        found = read_published(tmp_path / "net.pt")
    assert_same(found)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04 no zip", b"\x80\x02 no pickle", pickle.dumps([1, 2], 2), pickle.dumps(None, 2)],
)
def test_what_is_no_file_of_weights_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"net.pt is damaged or no file of weights") as told:
        read_published(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_off(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "net.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"damaged"):
        read_published(path)


@pytest.mark.parametrize("content", [{}, [torch.ones(1)], {"a": 3}, {"state_dict": 1}, torch.ones(2)])
def test_a_file_of_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"neither a state dict of tensors nor a module"):
        read_published(tmp_path / "net.pt")


def test_a_wrong_state_dict_names_the_first_tensor_that_does_not_fit() -> None:
    own, path = network(), Path("/weights/net.pt")
    state = OrderedDict(network().state_dict())
    halved = OrderedDict((name, tensor.half()) for name, tensor in state.items() if "num_batches" not in name)
    fill(own, halved, path, "a net")
    assert own.state_dict()["0.weight"].dtype == torch.float32
    with pytest.raises(UserError, match=r"/weights/net.pt lacks kept: it must be a net"):
        fill(own, {"1.bias": torch.ones(4)}, path, "a net")
    with pytest.raises(UserError, match=r"holds 1.bias of shape \(5,\) instead of \(4,\): it must be a net"):
        fill(own, state | {"1.bias": torch.ones(5)}, path, "a net")
    with pytest.raises(UserError, match=r"holds more, which the network has not: it must be a net"):
        fill(own, state | {"more": torch.ones(1)}, path, "a net")
