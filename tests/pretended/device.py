"""A device that does not exist, computed on the CPU: what would fail on a GPU for lying on the wrong side fails here by name.

A Python backend of torch in the place of a GPU's. Its tensors hold CPU tensors and refuse what CUDA's refuse: an operation that
mixes both sides (a CPU scalar, and CPU indices into a device tensor, may), numpy without `.cpu()`, and while deterministic
algorithms are on the operations that have none on CUDA, and matrix products without `CUBLAS_WORKSPACE_CONFIG`. It knows nothing of
a GPU's own arithmetic, memory or speed, and holds no test.
"""

import os
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from sigma_core.config import SigmaConfig

NAME = "pretend"
_COPIES = {"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::_copy_from_and_resize"}
_INDEXED = {
    "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index",
    "aten::_unsafe_index_put",
}  # fmt: skip
_PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv", "aten::dot"}
_UNREPEATABLE = {  # on CUDA, by the documentation of torch.use_deterministic_algorithms
    "aten::put_", "aten::histc", "aten::median.dim", "aten::kthvalue", "aten::grid_sampler_2d",
    "aten::nll_loss2d_forward", "aten::_ctc_loss",
}  # fmt: skip
_LOW_PRECISION = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")


class CrossingError(RuntimeError):
    """An operation that CUDA refuses."""


class PretendTensor(torch.Tensor):
    """A tensor of the device; `inner` holds its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "PretendTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, *args, **(kwargs or {}))

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise CrossingError("a tensor of the device was asked for numpy; copy it with .cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __repr__(self, **_: Any) -> str:
        return f"pretend:0 {self.inner}"


class _Backend:
    """What torch asks the module of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        del seed  # random numbers come from the CPU's generator

    def device_count(self) -> int:
        return 1

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Op(NamedTuple):
    """What is asked of an operation's schema at every call."""

    name: str
    is_composite: bool
    is_view: bool
    written: tuple[tuple[int, str], ...]  # place and name of each argument that it changes
    mixes: bool
    reads_indices: bool


@cache
def _op(func: Any) -> _Op:
    schema = func._schema
    given = list(enumerate(schema.arguments))
    return _Op(
        f"{schema.name}.{schema.overload_name}".rstrip("."),
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"),
        bool(given) and given[0][1].alias_info is not None,
        tuple((n, arg.name) for n, arg in given if arg.alias_info is not None and arg.alias_info.is_write),
        schema.name in _COPIES,
        schema.name in _INDEXED,
    )


def _check(op: _Op, args: tuple[Any, ...], found: list[torch.Tensor]) -> None:
    base = op.name.split(".")[0]
    if not op.mixes and any(isinstance(tensor, PretendTensor) for tensor in found):
        if op.reads_indices and isinstance(args[0], PretendTensor):
            found = [
                one for one in (args[0], *args[2:3]) if isinstance(one, torch.Tensor)
            ]  # indices may lie on the CPU
        mixed = [tuple(t.shape) for t in found if t.dim() > 0 and not isinstance(t, PretendTensor)]
        if mixed:
            raise CrossingError(f"{op.name} mixes tensors of the device with CPU tensors of shapes {mixed}")
    if torch.are_deterministic_algorithms_enabled():
        if base in _PRODUCTS and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
            raise CrossingError(
                f"{op.name}: deterministic algorithms are on and CUBLAS_WORKSPACE_CONFIG is not set"
            )
        sums = base in {"aten::cumsum", "aten::cumsum_"} and args[0].is_floating_point()
        if sums or base in _UNREPEATABLE or op.name in _UNREPEATABLE:
            raise CrossingError(f"{op.name} has no deterministic form on CUDA")


def _own(value: Any, found: list[torch.Tensor]) -> Any:
    """An argument with the CPU tensors that the device's hold; tells which tensors there were."""
    if isinstance(value, torch.Tensor):
        found.append(value)
        return value.inner if isinstance(value, PretendTensor) else value
    return [_own(one, found) for one in value] if isinstance(value, list | tuple) else value


def _wrapped(out: Any) -> Any:
    if isinstance(out, torch.Tensor):
        return PretendTensor(out)
    return type(out)(map(_wrapped, out)) if isinstance(out, list | tuple) else out


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs an operation on the CPU: for tensors of the device, and for factories that shall make one."""
    op = _op(func)
    if op.is_composite:
        return func.decompose(*args, **kwargs)  # inference mode hands over what is made of others
    found: list[torch.Tensor] = []
    own_args = [_own(value, found) for value in args]
    own = {name: _own(value, found) for name, value in kwargs.items()}
    _check(op, args, found)
    asked = kwargs.get("device")
    if asked is not None:
        own["device"] = "cpu"
    out = func(*own_args, **own)
    if op.written:
        changed = [kwargs[name] if name in kwargs else args[place] for place, name in op.written]
        for one in changed:
            grown = isinstance(one, PretendTensor) and one.shape != one.inner.shape
            assert not grown, f"{func} changed the shape of a tensor: register it beside arange"
        return changed[0] if len(changed) == 1 else tuple(changed)
    if asked is not None and torch.device(asked).type != NAME:
        return out
    if op.is_view and isinstance(args[0], PretendTensor):
        with torch.inference_mode(args[0].is_inference()):  # a view is what it is a view of
            return _wrapped(out)
    return _wrapped(out)


def _low_precision(name: str) -> Any:
    """The operation as autocast runs it: every float32 tensor in the block's dtype."""
    op = getattr(torch.ops.aten, name).default

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME)
        with torch._C._ExcludeDispatchKeyGuard(
            torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        ):
            args, kwargs = tree_map_only(
                torch.Tensor, lambda t: t.to(dtype) if t.dtype == torch.float32 else t, (args, kwargs)
            )
            return op(*args, **kwargs)

    return run


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
_FALLBACK = torch.library.Library("_", "IMPL")
_FALLBACK.fallback(_run, "PrivateUse1")
_FALLBACK.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
_OPS = torch.library.Library("aten", "IMPL")
# what torch.tensor(values, device=...) does with Python's dispatch switched off, where the fallback is not found
for _made in (
    torch.ops.aten.arange.default,
    torch.ops.aten.arange.start,
    torch.ops.aten.arange.start_step,
    torch.ops.aten.eye.default,
    torch.ops.aten.eye.m,
):
    _OPS.impl(_made, partial(_run, _made), "PrivateUse1")  # torch's own grows an empty tensor
_OPS.impl("copy_", partial(_run, torch.ops.aten.copy_.default), "PrivateUse1")
for _name in _LOW_PRECISION:
    _OPS.impl(_name, _low_precision(_name), "AutocastPrivateUse1")


def on_device(config: SigmaConfig) -> SigmaConfig:
    """The settings with the pretend device, which the settings' own check would refuse."""
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": NAME})})
