"""Writes a number of things in words."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as in "1 row" and "1,234 rows".

    Args:
      number: number of things.
      noun: the noun for one of them, whose plural ends in "s".
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
