"""A device that is not there: it computes as the processor does, refuses to mix with its tensors, and counts who waits for it.

Tensors of the device called `meta` get numbers here, which torch's own have not. What PyTorch would do on a GPU, where the
processor only says what is to be computed, can so be tested without one.
"""

import traceback
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
ANSWERS = {  # operations that need the answer before anything goes on: the size of what they return depends on it
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::bincount", "aten::equal", "torchvision::nms"}


class Pretended(torch.Tensor):
    "A tensor on the device; `inner` holds its numbers."

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=DEVICE,
                                                   storage_offset=inner.storage_offset(), requires_grad=inner.requires_grad)

    def __init__(self, inner):
        self.inner = inner

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of the pretended device")


def numbers(value):
    "What the processor has of `value`."
    return value.inner if isinstance(value, Pretended) else value


def waits_for(func, args, kwargs) -> bool:
    "Would the processor wait for the answer of `func` on a GPU?"
    name = func._schema.name
    if name in ("aten::index", "aten::index_put", "aten::index_put_"):
        masked = any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
        return masked and not (name != "aten::index" and args[2].ndim == 0)
    if name == "aten::repeat_interleave":
        return func._overloadname == "Tensor" and kwargs.get("output_size") is None
    return name in ANSWERS


class PretendedDevice(TorchDispatchMode):
    """While it is entered, `DEVICE` is a device with numbers; `waits` counts, by line, what waits for it, and `launches`, by
    name, the operations that it is given, without those that only look at a tensor in another way.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.launches = Counter(), Counter()

    def wait(self, func) -> None:
        "Count a wait for the line of the library that asked."
        asked = [each for each in traceback.extract_stack() if "/ps_nb/" in each.filename]
        line = f"{asked[-1].filename.rsplit('/', 1)[1]}:{asked[-1].lineno} {asked[-1].line}" if asked else "elsewhere"
        self.waits[f"{func._schema.name} at {line}"] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        there = [each for each in tensors if isinstance(each, Pretended)]
        name, wanted = func._schema.name, kwargs.get("device")
        leaves = name in ("aten::_to_copy", "aten::copy_")
        if not there and (wanted is None or torch.device(wanted) != DEVICE):
            return func(*args, **kwargs)
        mixed = [each for each in tensors if each.ndim and not isinstance(each, Pretended)]
        if there and mixed and not leaves:
            raise AssertionError(f"{name} of tensors on two devices")
        if there and waits_for(func, args, kwargs):
            self.wait(func)
        back = wanted is not None and torch.device(wanted) != DEVICE
        back |= name == "aten::copy_" and not isinstance(args[0], Pretended)
        if there and leaves and back:
            self.wait(func)
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        if not func.is_view:
            self.launches[name] += 1
        found = func(*tree_map(numbers, args), **tree_map(numbers, kwargs))
        if back:
            return args[0] if name == "aten::copy_" else found
        found = tree_map(lambda each: Pretended(each) if isinstance(each, torch.Tensor) else each, found)
        return return_and_correct_aliasing(func, args, kwargs, found) if there else found
