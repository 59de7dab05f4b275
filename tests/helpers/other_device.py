"""CPU tensors that stand for tensors of several devices: operations across devices fail."""

import torch


class Placed(torch.Tensor):
    """A CPU tensor that says it is elsewhere; use :func:`place`."""

    where = torch.device("cpu")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return args[0].where
        if func == torch.Tensor.cpu:
            return place(args[0], "cpu")
        tensors = [x for x in _flat(args, (kwargs or {}).values()) if isinstance(x, torch.Tensor)]
        places = {x.device for x in tensors}
        if func == torch.Tensor.to:
            target = [x for x in args[1:] if isinstance(x, torch.device)]
            args = [args[0], *(x for x in args[1:] if not isinstance(x, torch.device))]
            places = set(target) or places
            if len(args) == 1 and not kwargs:
                args.append(args[0].dtype)
        if len(places) > 1:
            raise RuntimeError(f"{func.__name__} of tensors on {places}")
        out = super().__torch_function__(func, types, args, kwargs)
        (where,) = places
        if func == torch.Tensor.to and where != args[0].device:
            return place(out, where)
        for part in _flat([out]):
            if isinstance(part, cls):
                part.where = where
        return out


def place(tensor, device):
    """The tensor as if it were on ``device``."""
    tensor = tensor.clone().as_subclass(Placed)
    tensor.where = torch.device(device)
    return tensor


def _flat(*groups):
    for group in groups:
        for item in group:
            if isinstance(item, (list, tuple)):
                yield from _flat(item)
            else:
                yield item
