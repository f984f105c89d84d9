"""Text on figures: the font, and words made to fit."""

import functools
from pathlib import Path

from PIL import ImageFont

ELLIPSIS = "..."


@functools.cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's DejaVu Sans, which has the letters of most European languages; Pillow's own has English ones only.

    Args:
        size: height of a line in pixels, more or less.
    """
    import matplotlib as mpl  # here, so that preparing a data set without contact sheets does not wait for it

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def shorten_start(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The end of a text that is too wide: ids of one data set begin with the same letters."""
    if font.getlength(text) <= width:
        return text
    kept = next((n for n in range(1, len(text)) if font.getlength(ELLIPSIS + text[n:]) <= width), len(text))
    return ELLIPSIS + text[kept:]


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float, max_lines: int) -> list[str]:
    """Break a text between words into lines of at most `width` pixels.

    A word that is wider is broken; what does not fit into `max_lines` is left out, and the last line says so.
    """
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest:
        if len(lines) == max_lines:
            last = lines[-1]
            while last and font.getlength(f"{last} {ELLIPSIS}") > width:
                last = last[:-1]
            lines[-1] = f"{last.rstrip()} {ELLIPSIS}"
            break
        end = _break(rest, font, width)
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return lines


def _break(text: str, font: ImageFont.FreeTypeFont, width: float) -> int:
    """How many characters stand in the first line, at least one."""
    if font.getlength(text) <= width:
        return len(text)
    fitting = next((n for n in range(len(text) - 1, 0, -1) if font.getlength(text[:n].rstrip()) <= width), 1)
    space = text.rfind(" ", 0, fitting + 1)
    return space if space > 0 else fitting
