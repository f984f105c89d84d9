"""albumentations, imported without its question to the network whether there is a newer version."""

import os

_ASK_NOTHING = "NO_ALBUMENTATIONS_UPDATE"

_before = os.environ.get(_ASK_NOTHING)
os.environ[_ASK_NOTHING] = "1"
try:
    import albumentations as A
finally:
    if _before is None:
        del os.environ[_ASK_NOTHING]
    else:
        os.environ[_ASK_NOTHING] = _before

__all__ = ["A"]
