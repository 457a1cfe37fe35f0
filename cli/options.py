"""Values of options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from stores.errors import VlError
from stores.names import printable

T = TypeVar("T")


class OptionError(VlError):
    """An option has a value that it cannot have."""


def split(text: str) -> tuple[str, ...]:
    """The words of a comma-separated option."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def whole_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Different numbers from 0 on, as `0,5,10`; none if the option is not given."""
    words = split(text or "")
    if text is not None and not (words and all(word.isdecimal() for word in words) and len({*words}) == len(words)):
        raise OptionError(f"{option} takes different whole numbers from 0 on, as 0,5,10, not '{printable(text)}'.")
    return tuple(int(word) for word in words)


def per_name(option: str, values: Iterable[str], names: Iterable[str], convert: Callable[[str], T]) -> dict[str, T]:
    """`NAME=VALUE` for one of `names`, or `VALUE` for all (key ""), of a repeatable option."""
    known = set(names)
    found: dict[str, T] = {}
    for value in values:
        # The longest first: a name may begin with another, or have an equals sign ("hf:a=b/model").
        key = max((name for name in known if value.startswith(f"{name}=")), key=len, default="")
        text = value.removeprefix(f"{key}=") if key else value
        name, equals, _ = value.partition("=")
        if equals and not key and "/" not in name:  # a path may have an equals sign
            raise OptionError(f"{option} {value} names {name}; the names are {', '.join(sorted(known))}.")
        if key in found:
            raise OptionError(f"{option} is given twice for {key or 'all'}.")
        try:
            found[key] = convert(text)
        except ValueError:
            raise OptionError(f"{option} {value}: '{text}' is no {convert.__name__}.") from None
    return found


def positive(option: str, values: dict[str, T]) -> dict[str, T]:
    """`values`, unless one is zero, negative or not finite."""
    for value in values.values():
        number = float(str(value))
        if not 0 < number < float("inf"):
            raise OptionError(f"{option} must be positive, not {value}.")
    return values


def region(text: str | None) -> tuple[int, int, int, int] | None:
    """`x,y,w,h` in pixels."""
    if text is None:
        return None
    try:
        x, y, width, height = (int(word) for word in text.split(","))
    except ValueError:
        raise OptionError(f"--roi takes x,y,w,h in whole pixels, not '{text}'.") from None
    if min(x, y) < 0 or min(width, height) < 1:
        raise OptionError(f"--roi {text} has a negative corner or no area.")
    return x, y, width, height


def fraction(text: str | None) -> tuple[int, int]:
    """`i/n` with 1 <= i <= n; none is 1/1."""
    if text is None:
        return 1, 1
    part, slash, whole = text.partition("/")
    if not slash or not part.isdigit() or not whole.isdigit() or not 1 <= int(part) <= int(whole):
        raise OptionError(f"--shard takes i/n with i from 1 to n, not '{text}'.")
    return int(part), int(whole)
