"""What settings describe of a trained model: from a run's own, and from those that its checkpoint holds."""

from collections.abc import Mapping
from typing import Any

from catheters.config.settings import Settings
from catheters.data.preprocessing import Preprocessing
from catheters.models.classifier import Classifier, create_classifier
from catheters.models.weights import load_all_weights


def build_classifier(settings: Settings, mean: float, std: float) -> Classifier:
    """The model of these settings, of images of this grey mean and standard deviation (in 0..1).

    Raises:
        UserError: see `create_classifier`, `load_all_weights`.
    """
    takes_all = settings.pretrained_parts == "all"
    model = create_classifier(
        settings.backbone_model,
        settings.label_columns,
        mean,
        std,
        image_shape=settings.image_shape,
        pretrained=not takes_all and settings.pretrained,
        classifier=settings.classifier,
        heads=settings.heads,
        exclusive=settings.exclusive,
        drop_rate=settings.drop_rate,
        drop_path_rate=settings.drop_path_rate,
        grad_checkpointing=settings.grad_checkpointing,
        lines=settings.lines,
        map_shape=settings.map_shape,
        device_types=settings.device_types,
        num_landmarks=len(settings.landmarks),
        num_input_maps=settings.num_input_maps,
    )
    if takes_all:
        meaning: dict[str, Mapping[str, Any]] = {"exclusive": settings.exclusive}
        if settings.classifier == "attention" or settings.lines is not None:
            meaning |= {"heads": settings.heads, "measurements": settings.measurements}
        origin = load_all_weights(model, str(settings.pretrained), settings.label_columns, meaning)
        model.origin = f"{settings.backbone_model}: {origin}"
    return model


def build_preprocessing(settings: Settings) -> Preprocessing:
    """What is done to every X-ray."""
    return Preprocessing(
        image_shape=settings.image_shape,
        resize=settings.resize,
        crop_borders=settings.crop_borders,
        inverted=settings.inverted,
        resampling=settings.resampling,
    )
