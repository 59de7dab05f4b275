"""The colours and markers of all figures and pictures.

The hues are those of Okabe and Ito (Color Universal Design, 2008), which people with any of the
common kinds of colour blindness tell apart. Each comes with a marker and a line style, so that no
figure depends on its hues alone.
"""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE = COLORS
MARKERS = ("o", "s", "^", "D", "v", "P")  # of matplotlib
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))


def style(index: int) -> dict:
    """Colour, marker and line style of the curve with this index, as matplotlib's keywords.

    Example:
        >>> style(1)
        {'color': '#D55E00', 'marker': 's', 'linestyle': '--'}
    """
    kinds = zip(("color", "marker", "linestyle"), (COLORS, MARKERS, LINES))
    return {key: values[index % len(values)] for key, values in kinds}


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour as ``#rrggbb``.

    Example:
        >>> rgb(BLUE)
        (0, 114, 178)
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
