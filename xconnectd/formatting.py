"""Numbers as people read them: counts, times and rates, in one form wherever they stand. Pure."""

from __future__ import annotations


def number(value: float | None) -> str:
    """At most five characters: ``0``, ``9.5``, ``999``, ``12.3k``, ``1.20M``."""
    return "-" if value is None else "".join(_scaled(value))


def bit_rate(per_second: float | None) -> str:
    """As ``number``: ``0 bit/s``, ``1.50 kbit/s``, ``13.0 Gbit/s``."""
    if per_second is None:
        return "- bit/s"
    digits, unit = _scaled(per_second)
    return f"{digits} {unit}bit/s"


def _scaled(value: float) -> tuple[str, str]:
    """Up to three digits that count, and what they are to be multiplied by."""
    if value < 9.95 and value != round(value):
        return f"{value:.1f}", ""
    if value < 999.5:
        return f"{value:.0f}", ""
    for unit in "kMGT":
        value /= 1000
        if value < 999.5:
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f}", unit
    return ">999", "T"


def duration(seconds: float | None) -> str:
    """At most four characters: ``0.2s``, ``59s``, ``12m``, ``23h``, ``99d``."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    for size, unit, limit in ((1, "s", 99.5), (60, "m", 5970), (3600, "h", 178_200)):
        if seconds < limit:
            return f"{seconds / size:.0f}{unit}"
    days = seconds / 86_400
    return f"{days:.0f}d" if days < 999.5 else ">3y"


def counted(number: int, noun: str) -> str:
    """``0 links``, ``1 link``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "�" for character in text)
