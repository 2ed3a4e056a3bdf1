"""An instance as the histories know it, and what comes of a call."""

from dataclasses import dataclass, field

from ratzarr import RatZarr, RatZarrError


@dataclass(eq=False)
class View:
    """One instance, and what it may still believe."""

    table: RatZarr
    writes: bool
    looked: int
    """When it last looked at the table."""
    counted: bool = False
    """Whether it knows how many rows there are: the first time it looks at columns for that."""
    used: dict = field(default_factory=dict)
    """For each name the columns that it may have open."""
    logged: set = field(default_factory=set)
    """Columns that it has written to."""
    building: dict = field(default_factory=dict)
    """Columns that are to take another's place, and that it means by the name."""
    unconfirmed: dict = field(default_factory=dict)
    """Columns written to where nobody looks first: (rows, looked, written, and the rows that are sure, None: none)."""

    def forget(self, name):
        """Know nothing of a name any more."""
        self.used.pop(name, None)
        self.building.pop(name, None)
        self.unconfirmed = {c: w for c, w in self.unconfirmed.items() if c.name != name}


def attempt(call, *args, **kwargs):
    """Return (what comes of it, None), or (None, the error); any but ours is a failure."""
    try:
        return call(*args, **kwargs), None
    except RatZarrError as error:
        assert len(str(error)) > 10, f"an error without words: {error!r}"
        return None, error


def expect(error, *kinds):
    """Fail unless it is an error of one of these kinds."""
    assert error is not None, f"nothing was refused, expected {[kind.__name__ for kind in kinds]}"
    assert isinstance(error, kinds), f"{error!r}, expected {[kind.__name__ for kind in kinds]}"


def settled(error):
    """Fail if there was an error at all."""
    if error is not None:
        raise AssertionError("refused, though nothing forbids it") from error
