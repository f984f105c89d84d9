"""A DICOM file's header alone: its pixels stay unread, and what a damaged or harmful file holds does no harm."""

import io
import warnings
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from catheters.data.decoding.dicom import is_dicom
from catheters.errors import raise_of_machine

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_INFLATED_BYTES = 2**28
"""A deflated file that inflates to more is not read: a few hundred kB can be made to fill any memory."""


def read_header(source: Path | bytes, keywords: Collection[str]) -> "Dataset | None":
    """The elements of these keywords; None for what is no DICOM file, or damaged so that its header cannot be read.

    `source` is the file, or the content of one.

    A value is converted when it is asked for, and pydicom raises whatever it then stumbles over.

    Raises:
        OSError: the file cannot be read.
    """
    # Slow to import, and only those with a DICOM archive need it.
    import pydicom

    try:
        # Archives are full of values that break the standard's rules; here they only have to be found again.
        opened: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with opened as stream, warnings.catch_warnings(action="ignore"):
            start = stream.read(132)
            if not is_dicom(start):
                return None
            stream.seek(0)
            if start.endswith(b"DICM") and _inflates_too_far(stream):
                return None
            stream.seek(0)
            return pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(keywords), force=True)
    except Exception as error:  # whatever a file that is damaged or made to harm brings out in the library
        raise_of_machine(error)
        return None


def _inflates_too_far(stream: BinaryIO) -> bool:
    """Whether the file is deflated as a whole, which pydicom inflates as a whole, to more than fits an X-ray."""
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(stream.read(), MAX_INFLATED_BYTES)
    return bool(inflater.unconsumed_tail)
