"""What to try where a model learns nothing, as far as the settings tell."""

from pathlib import Path

from catheters.config.settings import Settings

SMALL_PIXELS = 512
"""Image height and width from which on thin lines are seen well."""


def advice_at_chance(settings: Settings) -> tuple[str, ...]:
    """What to try for a run of these settings that is no better than chance, the likeliest first."""
    advice = [f"init_lr three times lower, then three times higher (the peak is {settings.peak_lr:.2g})"]
    if settings.pretrained is False:
        advice.append("pretrained=True (ImageNet weights), or many more epochs from random weights")
    if min(settings.image_shape) < SMALL_PIXELS:
        advice.append(f"image_size={SMALL_PIXELS} or more, since lines are thin")
    advice.append("`python preproc_npy.py --audit` and its contact sheets: do the labels match the images?")
    if settings.lines is None and settings.device_types and settings.annotation_table is not None:
        file = Path(settings.dataset_folder) / settings.annotation_table
        if file.is_file():
            advice.append(f"lines='pooled', which learns the lines that {file} has")
    return tuple(advice)
