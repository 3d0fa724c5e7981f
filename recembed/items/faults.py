"""``Faults``: what was wrong with items, counted by kind, with the first of each named."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from recembed.errors import DataError

__all__ = ["Faults"]


class Faults:
    """Items that lack content, or whose content cannot be used; both are masked, never taken as zero.

    Args:
        on_error: ``stop`` raises at the first broken item; lacking content is no error.

    >>> faults = Faults()
    >>> faults.broken("image", "unreadable image", [7, 9])
    >>> faults.lacking("text", "no text", [4])
    >>> faults.counts, faults.lines()[0]
    ({'image: unreadable image': 2, 'text: no text': 1}, 'image: unreadable image: 2 items, the first is 7')
    """

    def __init__(self, on_error: Literal["mask", "stop"] = "mask") -> None:
        self.on_error = on_error
        self._found: dict[str, tuple[int, Any]] = {}

    def lacking(self, source: str, kind: str, ids: Sequence[Any]) -> None:
        """Count items without content."""
        if len(ids):
            count, first = self._found.get(f"{source}: {kind}", (0, ids[0]))
            self._found[f"{source}: {kind}"] = (count + len(ids), first)

    def broken(self, source: str, kind: str, ids: Sequence[Any], *, why: str = "") -> None:
        """Count items whose content cannot be used.

        Raises:
            DataError: ``on_error`` is ``stop``.
        """
        if len(ids) and self.on_error == "stop":
            detail = f" ({why})" if why else ""
            raise DataError(
                f"{source}: {kind}{detail}: {len(ids)} items, the first is {ids[0]!r}; mend it, "
                "or set on_error: mask to go on without its content"
            )
        self.lacking(source, kind, ids)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many items, by source and kind."""
        return {name: count for name, (count, _) in self._found.items()}

    def lines(self) -> list[str]:
        """Return one line per kind."""
        return [
            f"{name}: {count:,} item{'s' if count != 1 else ''}, the first is {first!r}"
            for name, (count, first) in self._found.items()
        ]
