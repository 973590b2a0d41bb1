"""Wall-clock time in ``info``."""


class Seconds(float):
    """A measured duration. Two measurements never differ in kind, only in luck, so all of them count as equal.

    Otherwise the ``info`` of two equal steps would differ, and with it what the environment promises about its seed.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seconds) or float(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = float.__hash__
