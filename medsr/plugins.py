"""Networks, losses, degradations and distillation terms by name, and the options that recipes give.

Each registers itself, with what others look up about it, in the :class:`Registry` of its kind. A
registry imports the modules of its package when it is first asked, so that what is built in needs
no list; names that it misses are looked for in other packages, by their entry points.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from numbers import Integral, Real
from pkgutil import iter_modules
from threading import RLock
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from medsr.errors import MedsrError

__all__ = ["Entry", "Registry", "check_options", "first_sentence", "source_of"]

F = TypeVar("F", bound=Callable[..., Any])
G = TypeVar("G", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[F]):
    """What is known about a registered name.

    Attributes:
        name: What recipes call it.
        factory: The class, or what else builds it.
        small: Options of a small instance, for tests.
        head: Of terms: the head that the student of a small instance has.
        recipe: Path in the repository of a recipe that uses it; empty for none.
        compared: Of networks: options at which students of one size are compared.
        draws: Of degradations: options that a seeded evaluation may draw, of ``thickness`` and
            ``noise``.
        description: One sentence.
        source: Where it comes from.

    Examples:
        >>> from medsr.networks import NETWORKS, build_network
        >>> entry = NETWORKS.find("ResNet3D")
        >>> entry.recipe, dict(entry.small)
        ('configs/teachers/mr-z4-resnet.yaml', {'width': 16, 'blocks': 1})
        >>> build_network(entry.name, (1, 1, 4), **entry.small).halo
        (5, 5, 5)
    """

    name: str
    factory: F
    small: Mapping[str, Any] = field(default_factory=dict)
    head: str = "value"
    recipe: str = ""
    compared: Mapping[str, Any] | None = None
    draws: tuple[str, ...] = ()
    description: str = ""
    source: str = ""


class Registry(Mapping[str, F]):
    """What is registered under the names of one kind, the built-in ones and any others.

    As a mapping it holds what is registered; :meth:`find` and :meth:`entries` know the entry points
    of other packages too.

    Args:
        what: What messages call one of them, for example ``"network"``.
        package: Package whose modules register what is built in.
        error: Class of the refusal of an unknown name.
        group: Entry point group in which other packages publish; empty for none.

    Examples:
        >>> from medsr.losses import LOSSES
        >>> from torch import nn
        >>> @LOSSES.register("half_l1")
        ... class HalfL1(nn.Module):
        ...     def forward(self, sr, hr):
        ...         return 0.5 * (sr - hr).abs().mean()
        >>> LOSSES.pop("half_l1") is HalfL1  # known until it is taken out again
        True
    """

    def __init__(
        self, what: str, package: str, error: type[MedsrError], *, group: str = ""
    ) -> None:
        self.what, self.package, self.error, self.group = what, package, error, group
        self._entries: dict[str, Entry[F]] = {}
        self._lock = RLock()
        self._listed = False

    def register(self, name: str, **facts: Any) -> Callable[[G], G]:
        """Return a decorator that registers a class or function.

        Args:
            name: What recipes call it.
            **facts: Attributes of :class:`Entry`; description and source are those of its docstring
                where they are not given.

        Raises:
            ValueError: Something else has this name.
        """

        def decorate(factory: G) -> G:
            held = self._entries.get(name)
            if held is not None and _place(held.factory) != _place(factory):
                raise ValueError(f"{self.what} {name!r} is there already: {_place(held.factory)}")
            self._entries[name] = _entry(name, cast("F", factory), facts)
            return factory

        return decorate

    def pop(self, name: str) -> F:
        """Take out what has this name, and return it."""
        return self._entries.pop(name).factory

    def find(self, name: str) -> Entry[F]:
        """Find what a name stands for, if need be in another package.

        Args:
            name: What the user wrote.

        Raises:
            MedsrError: ``error``, where nothing has this name or the other package does not load.
        """
        if name in self:
            return self._entries[name]
        offered = self._offered()
        if name not in offered:
            available = ", ".join(sorted({*self, *offered}))
            raise self.error(f"{self.what} {name!r} is unknown; known are {available}")
        try:
            return self._load(offered[name])
        except (ImportError, AttributeError) as problem:
            raise self.error(
                f"{self.what} {name!r} of {offered[name].value} cannot be loaded ({problem}); "
                "mend or remove the package that offers it"
            ) from problem

    def entries(self) -> list[Entry[F]]:
        """All entries by name, those of other packages that load among them."""
        by_name = {name: self.find(name) for name in self}
        for name, point in self._offered().items():
            if name not in by_name:
                try:
                    by_name[name] = self._load(point)
                except (ImportError, AttributeError):
                    continue  # said by find() to whoever asks for this one
        return [by_name[name] for name in sorted(by_name, key=str.lower)]

    def public(self) -> dict[str, Any]:
        """What the package's modules give to users of the package, by name.

        That is what their ``__all__`` lists; of a module without it, the classes that it registers.
        """
        offered: dict[str, Any] = {}
        for factory in self.values():
            module = import_module(factory.__module__)
            if module.__name__.startswith(f"{self.package}."):
                names = getattr(module, "__all__", (getattr(factory, "__name__", ""),))
                offered |= {name: getattr(module, name) for name in names if hasattr(module, name)}
        return offered

    def attribute(self, name: str) -> Any:
        """Serve as ``__getattr__`` of the package, for the classes of :meth:`public`.

        Raises:
            AttributeError: There is none of this name.
        """
        # Only classes are looked for: asked for a module, this would import it within its import.
        public = self.public() if name[:1].isupper() else {}
        if name not in public:
            raise AttributeError(f"module {self.package!r} has no attribute {name!r}")
        return public[name]

    def __getitem__(self, name: str) -> F:
        """Return what is registered under a name."""
        self._list()
        return self._entries[name].factory

    def __iter__(self) -> Iterator[str]:
        """Iterate over the registered names."""
        self._list()
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        """Count the registered names."""
        self._list()
        return len(self._entries)

    def _list(self) -> None:
        """Import the package's modules, once."""
        with self._lock:
            if not self._listed:
                self._listed = True  # a module may ask while it is imported itself
                for module in iter_modules(import_module(self.package).__path__):
                    import_module(f"{self.package}.{module.name}")

    def _offered(self) -> dict[str, EntryPoint]:
        if not self.group:
            return {}
        return {point.name: point for point in entry_points(group=self.group)}

    def _load(self, point: EntryPoint) -> Entry[F]:
        """Load what another package offers, which may register itself meanwhile."""
        factory = cast("F", point.load())
        return self._entries.get(point.name) or _entry(point.name, factory, {})


def first_sentence(documented: object) -> str:
    """Return the first paragraph of a docstring as one line.

    Examples:
        >>> from medsr.networks import NETWORKS
        >>> from medsr.plugins import first_sentence
        >>> first_sentence(NETWORKS["ShuffleNet3D"])
        "ShuffleNetV2's units in three dimensions, without batch norm."
    """
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def source_of(documented: object) -> str:
    """Return the ``Source:`` section of a docstring as one line; empty where there is none.

    Examples:
        >>> from medsr.networks import NETWORKS
        >>> from medsr.plugins import source_of
        >>> source_of(NETWORKS["Span3D"])[:15]
        'Wan et al. 2024'
    """
    text = inspect.getdoc(documented) or ""
    match = re.search(r"^Source: (.+?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(match[1].split()) if match else ""


def _entry(name: str, factory: F, facts: Mapping[str, Any]) -> Entry[F]:
    told = {"description": first_sentence(factory), "source": source_of(factory), **facts}
    return Entry(name, factory, **told)


def _place(factory: Callable[..., Any]) -> str:
    """Where a factory is defined; a module that is imported again defines the same anew."""
    return f"{factory.__module__}.{getattr(factory, '__qualname__', factory)}"


def check_options(factory: Callable[..., object], options: Mapping[str, Any]) -> None:
    """Refuse options whose type is plainly not the one that the factory's annotations name.

    Numbers, texts, truth values, lists and mappings are told apart, which is what YAML can hold;
    annotations with any other type let everything pass. What is in a list, and whether a number is
    in its range, is for the factory to say.

    Args:
        factory: A class or function with annotations.
        options: Its arguments by name; unknown names are left to the call itself.

    Raises:
        TypeError: An option is of another type, or a text where a list is wanted.

    Examples:
        >>> from medsr.networks import NETWORKS
        >>> from medsr.plugins import check_options
        >>> check_options(NETWORKS["ResNet3D"], {"width": 1.5})
        Traceback (most recent call last):
            ...
        TypeError: width is 1.5; give a whole number
    """
    target = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        hints = get_type_hints(target)
    except (NameError, TypeError):
        return  # of another package, written for type checkers alone
    for name, value in options.items():
        wanted = _kinds(hints.get(name))
        if wanted and not any(_KINDS[kind](value) for kind in wanted):
            hint = " (YAML reads 1e-3 as text; write 1.0e-3)" if _is_number(value) else ""
            raise TypeError(f"{name} is {value!r}; give {' or '.join(wanted)}{hint}")


_KINDS: dict[str, Callable[[object], bool]] = {
    "a whole number": lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    "a number": lambda value: isinstance(value, Real) and not isinstance(value, bool),
    "a text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "a list": lambda value: (
        isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    ),
    "a mapping": lambda value: isinstance(value, Mapping),
    "null": lambda value: value is None,
}
_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    Sequence: "a list",
    dict: "a mapping",
    Mapping: "a mapping",
    NoneType: "null",
}


def _kinds(hint: object) -> tuple[str, ...]:
    """What YAML may give for an annotation; empty where that cannot be said."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    names = [_NAMES.get(get_origin(member) or member) for member in members]
    return () if None in names else tuple(dict.fromkeys(cast("list[str]", names)))


def _is_number(value: object) -> bool:
    """Whether this is a text that Python would read as a number."""
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False
