"""How many rows something is wrong with, and the first of them: what is told of any number of rows."""

SHOWN = 3


class Places:
    """`str()` of it is the first places, for the end of a sentence that begins with `count`."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def add(self, place: str) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self._first.append(place)

    def merge(self, other: "Places") -> None:
        """Adds those of later rows."""
        self.count += other.count
        self._first = [*self._first, *other._first][:SHOWN]

    def __str__(self) -> str:
        return "; ".join(self._first)
