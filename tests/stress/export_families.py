"""Write as ONNX the families that the suite leaves out because torch's exporter takes long for them.

`python tests/stress/export_families.py [FAMILY ...]`: one line for each; ends with 1 where one is refused.
"""

import sys
import tempfile
import time
from pathlib import Path

from catheters.errors import UserError
from catheters.inference.export import export
from tests.inference.conftest import make_models
from tests.models.test_families import NOT_EXPORTED, OF_TOKENS, create_checkpoint


def main() -> int:
    refused = 0
    for family in sys.argv[1:] or NOT_EXPORTED:
        for classifier in ("linear", "attention") if family in OF_TOKENS else ("linear",):
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    line = export(
                        make_models(create_checkpoint(family, classifier)), Path(folder) / "m.onnx", half=False
                    )
                except UserError as error:
                    refused += 1
                    line = f"refused: {error}"
            print(f"{family}, {classifier}: {line} ({time.perf_counter() - start:.0f} s)", flush=True)
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
