"""Types of settings: what a config may hold in a field, beyond plain numbers and texts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, StringConstraints
from pydantic.fields import FieldInfo

from catheters.measurements import KindName

# Lists are as good as tuples in a config; what stands inside stays strict.
ListOrTuple = Field(strict=False)
PixelSize = Annotated[int, Field(ge=16, le=8192)]
# As the tables are read: blanks around a column's name are no part of it.
Column = Annotated[str, StringConstraints(strip_whitespace=True)]
Labels = Annotated[tuple[Column, ...], ListOrTuple, Field(min_length=1)]
Values = Annotated[tuple[str, ...], ListOrTuple, Field(min_length=1)]
Transforms = Annotated[tuple[Annotated[tuple[str, dict[str, Any]], ListOrTuple], ...], ListOrTuple]
PointToPoint = Annotated[tuple[str, str, KindName], ListOrTuple]
BOUNDS = ("gt", "ge", "lt", "le")
"""pydantic's names: above, at least, below, at most."""


def in_words(annotation: Any) -> str:
    """A type as a reader of a config says it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, arguments))
    if origin is dict:
        return f"{{{in_words(arguments[0])}: {in_words(arguments[1])}}}"
    if origin is tuple:
        parts = ", ".join(in_words(argument) for argument in arguments if argument is not Ellipsis)
        return f"list of {parts}" if Ellipsis in arguments else f"({parts})"
    if annotation is Any:
        return "any"
    return "None" if annotation is NoneType else str(annotation.__name__)


def number_type(annotation: Any) -> type[int] | type[float] | None:
    """Which numbers a type takes, itself or as one of a union: float for fractions, int for whole ones, None: none."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return number_type(arguments[0])
    if origin in (Union, UnionType):
        taken = set(map(number_type, arguments))
        return float if float in taken else int if int in taken else None
    return annotation if annotation in (int, float) else None


def bounded_numbers(annotation: Any, constraints: Iterable[object] = ()) -> Iterator[tuple[dict[str, float], str]]:
    """The numbers with bounds that a type takes, itself or inside: each one's bounds, and the number in words.

    Args:
        annotation: the type.
        constraints: those that hold for the whole type, as `metadata` of pydantic's FieldInfo.
    """
    bounds = {name: getattr(each, name) for each in constraints for name in BOUNDS if hasattr(each, name)}
    if bounds:
        yield bounds, _number_in_words(annotation, bounds)
    elif get_origin(annotation) is Annotated:
        inner, *fields = get_args(annotation)
        yield from bounded_numbers(inner, [each for of in fields if isinstance(of, FieldInfo) for each in of.metadata])
    else:
        for argument in get_args(annotation):
            yield from bounded_numbers(argument)


def _number_in_words(annotation: Any, bounds: Mapping[str, float]) -> str:
    """As in "a number above 0 and at most 1"."""
    kind = "a whole number" if annotation is int else "a number"
    if "ge" in bounds and "le" in bounds:
        return f"{kind} from {bounds['ge']:g} to {bounds['le']:g}"
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
    return f"{kind} {' and '.join(f'{words[name]} {bounds[name]:g}' for name in BOUNDS if name in bounds)}"


def type_inside(annotation: Any, path: Sequence[str | int]) -> Any:
    """The type of what stands inside a value of a type, by keys and positions; a union is gone into no further."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if path and origin is dict:
        return type_inside(arguments[1], path[1:])
    if path and origin is tuple:
        return type_inside(arguments[0 if Ellipsis in arguments else int(path[0])], path[1:])
    return annotation
