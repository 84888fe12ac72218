"""Numbers and lines on paper: what tables and plots have in common."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

OURS: Final = "xconnectd"
BARE: Final = "bare"
BLUE: Final = "#1f6feb"
LIGHT_BLUE: Final = "#79b8ff"
GREY: Final = "#6e7781"
FAINT: Final = "#d0d7de"
RIGHT: Final = {"text-anchor": "end"}
BOLD: Final = {"font-weight": "bold"}

LINE: Final = 18
"""Pixels from one line of words to the next."""

_INK: Final = "#24292f"


def number(value: float) -> str:
    """Three digits that say something, and never an exponent."""
    for bound, digits in ((0.00005, 0), (0.1, 4), (1, 3), (10, 2), (100, 1)):
        if abs(value) < bound:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def text(at: ET.Element, x: float, y: float, words: str, style: dict[str, str]) -> None:
    place = {"x": f"{x:g}", "y": f"{y:g}", "fill": _INK}
    ET.SubElement(at, "text", place | style).text = words


def line(
    at: ET.Element, x: tuple[float, float], y: tuple[float, float], colour: str, width: int
) -> None:
    ends = {"x1": x[0], "x2": x[1], "y1": y[0], "y2": y[1]}
    place = {name: f"{value:.1f}" for name, value in ends.items()}
    ET.SubElement(at, "line", place | {"stroke": colour, "stroke-width": str(width)})


def dot(at: ET.Element, x: float, y: float, colour: str) -> None:
    ET.SubElement(at, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4", fill=colour)
