"""What the benchmarks share: rows of a table, each a ratio to a reference that took turns with what is measured."""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        benchmark: the script's name.
        what: what is measured.
        unit: of both values.
        value: the median of what is measured.
        reference: what it is compared with.
        reference_value: its median.
        ratio: the median over the rounds: for times, how many times as fast as the reference, else value over it.
        quartiles: the first and third of the rounds' ratios.
        rounds: how often both were measured, taking turns.
        bound: what the ratio has to be at least or at most, where there is such an aim.
    """

    benchmark: str
    what: str
    unit: str
    value: float
    reference: str
    reference_value: float
    ratio: float
    quartiles: tuple[float, float]
    rounds: int
    bound: tuple[Literal[">=", "<="], float] | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the ratio is what it has to be."""
        if self.bound is None:
            return True
        kind, limit = self.bound
        return self.ratio >= limit if kind == ">=" else self.ratio <= limit


def compare_seconds(
    benchmark: str,
    what: str,
    seconds: Sequence[float],
    reference: str,
    reference_seconds: Sequence[float],
    *,
    each: int = 1,
    unit: str = "ms",
    at_least: float | None = None,
) -> Row:
    """How many times as fast as the reference something is.

    Args:
        benchmark: the script's name.
        what: what is measured.
        seconds: of each round.
        reference: what it is compared with.
        reference_seconds: of the same rounds.
        each: images or the like in a round; values are milliseconds for one.
        unit: what the values are called.
        at_least: the aim.
    """
    ratios = [theirs / ours for ours, theirs in zip(seconds, reference_seconds, strict=True)]
    return Row(
        benchmark=benchmark,
        what=what,
        unit=unit,
        value=1e3 * statistics.median(seconds) / each,
        reference=reference,
        reference_value=1e3 * statistics.median(reference_seconds) / each,
        ratio=statistics.median(ratios),
        quartiles=_quartiles(ratios),
        rounds=len(ratios),
        bound=None if at_least is None else (">=", at_least),
    )


def compare_sizes(
    benchmark: str,
    what: str,
    values: Sequence[float],
    reference: str,
    reference_values: Sequence[float],
    *,
    unit: str,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """How large something is beside the reference; arguments as in `compare_seconds`."""
    ratios = [ours / theirs for ours, theirs in zip(values, reference_values, strict=True)]
    return Row(
        benchmark=benchmark,
        what=what,
        unit=unit,
        value=statistics.median(values),
        reference=reference,
        reference_value=statistics.median(reference_values),
        ratio=statistics.median(ratios),
        quartiles=_quartiles(ratios),
        rounds=len(ratios),
        bound=("<=", at_most) if at_most is not None else (">=", at_least) if at_least is not None else None,
    )


def _quartiles(ratios: Sequence[float]) -> tuple[float, float]:
    if len(ratios) == 1:
        return ratios[0], ratios[0]
    first, _, third = statistics.quantiles(ratios, n=4, method="inclusive")
    return first, third


def create_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    return parser


def finish(rows: Sequence[Row], options: argparse.Namespace) -> int:
    """Print the rows as a table, and write them where the options say. Returns the exit status."""
    print_rows(rows)
    if options.json is not None:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
    return 0


def read_rows(text: str) -> list[Row]:
    """The inverse of what `finish` writes."""
    rows = []
    for values in json.loads(text):
        bound = values.pop("bound")
        first, third = values.pop("quartiles")
        rows.append(Row(**values, quartiles=(first, third), bound=None if bound is None else (bound[0], bound[1])))
    return rows


def print_rows(rows: Sequence[Row]) -> None:
    """One line per row."""
    for line in table_lines(rows):
        print(line, flush=True)


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The table as text."""
    wide = max(len(row.what) for row in rows) + 2
    reference_wide = max(len(row.reference) for row in rows) + 2
    names = f"{'measured':>18}{'reference':>18}  {'':<{reference_wide}}{'ratio':>8}{'quartiles':>20}{'rounds':>8}  aim"
    return [f"{'':<{12 + wide}}{names}", *(_line(row, wide, reference_wide) for row in rows)]


def _line(row: Row, wide: int, reference_wide: int) -> str:
    spread = "" if row.rounds == 1 else " to ".join(map(number, row.quartiles))
    aim = "" if row.bound is None else f"{row.bound[0]} {row.bound[1]:g}{'' if row.is_reached else '  missed'}"
    return (
        f"{row.benchmark:<12}{row.what:<{wide}}{f'{number(row.value)} {row.unit}':>18}"
        f"{f'{number(row.reference_value)} {row.unit}':>18}  "
        f"{row.reference:<{reference_wide}}{number(row.ratio):>8}{spread:>20}{row.rounds:>8}  {aim:<8}"
    ).rstrip()


def number(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
