"""CPU tensors that pretend to be on several devices: operations across devices fail."""

import torch


class PretendedTensor(torch.Tensor):
    """A CPU tensor whose ``device`` is another; use :func:`place`."""

    where = torch.device("cpu")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return args[0].where
        if func == torch.Tensor.cpu:
            return place(args[0], "cpu")
        tensors = [x for x in _flat(args, (kwargs or {}).values()) if isinstance(x, torch.Tensor)]
        devices = {x.device for x in tensors}
        if func == torch.Tensor.to:
            target = [x for x in args[1:] if isinstance(x, torch.device)]
            args = [args[0], *(x for x in args[1:] if not isinstance(x, torch.device))]
            devices = set(target) or devices
            if len(args) == 1 and not kwargs:
                args.append(args[0].dtype)
        if len(devices) > 1:
            raise RuntimeError(f"{func.__name__} of tensors on {devices}")
        out = super().__torch_function__(func, types, args, kwargs)
        (where,) = devices
        if func == torch.Tensor.to and where != args[0].device:
            return place(out, where)
        for part in _flat([out]):
            if isinstance(part, cls):
                part.where = where
        return out


def place(tensor, device):
    """A copy of the tensor whose ``device`` is the given one."""
    tensor = tensor.clone().as_subclass(PretendedTensor)
    tensor.where = torch.device(device)
    return tensor


def _flat(*groups):
    for group in groups:
        for item in group:
            if isinstance(item, (list, tuple)):
                yield from _flat(item)
            else:
                yield item
