"""What the library offers, by its `__all__`s."""

import functools
import types

import jaxrnn

MODULES = {
    name for name in jaxrnn.__all__ if isinstance(getattr(jaxrnn, name), types.ModuleType)
} | {"plot", "report", "strategies"}


def offered(module):
    """Full names of what a public module offers, `jaxrnn` itself among them."""
    public = "jaxrnn" if module == "jaxrnn" else f"jaxrnn.{module}"
    return _offered(resolved(public), public)


def _offered(module, public):
    """Full names of what a module's `__all__` offers; of the layouts in it, what those offer."""
    found = []
    for name in module.__all__:
        thing = getattr(module, name)
        if not isinstance(thing, types.ModuleType):
            found.append(f"{public}.{name}")
        elif module is not jaxrnn:
            found += _offered(thing, f"{public}.{name}")
    return found


def resolved(public):
    """What a public name stands for: `jaxrnn.convert.torch.read` by attributes."""
    return functools.reduce(getattr, public.split(".")[1:], jaxrnn)
