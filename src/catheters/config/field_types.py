"""Types of settings: what a config may hold in a field, beyond plain numbers and texts."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from catheters.measurements import KindName

# Lists are as good as tuples in a config; what stands inside stays strict.
ListOrTuple = Field(strict=False)
PixelSize = Annotated[int, Field(ge=16, le=8192)]
# As the tables are read: blanks around a column's name are no part of it.
Column = Annotated[str, StringConstraints(strip_whitespace=True)]
Labels = Annotated[tuple[Column, ...], ListOrTuple, Field(min_length=1)]
Values = Annotated[tuple[str, ...], ListOrTuple, Field(min_length=1)]
Transforms = Annotated[tuple[Annotated[tuple[str, dict[str, Any]], ListOrTuple], ...], ListOrTuple]
PointToPoint = Annotated[tuple[str, str, KindName], ListOrTuple]
