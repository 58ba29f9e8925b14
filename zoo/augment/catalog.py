"""What there is to augment with. Imports no Keras before a layer is made."""

from __future__ import annotations

import fnmatch
import importlib
from dataclasses import dataclass
from typing import Any

from zoo.errors import UnknownNameError, did_you_mean


@dataclass(frozen=True)
class AugmentationInfo:
    """A kind of layer.

    Attributes:
        name: As in `create_augmentation`.
        layer: Name of its class in `zoo.augment`.
        module: Where that is.
        domain: What it is for: image, audio, text or table.
        kind: Group in that.
        reference: What its results are compared with.
    """

    name: str
    layer: str
    module: str
    domain: str
    kind: str
    reference: str


_TV = "torchvision 0.29"
_LAYERS = (
    ("random_flip", "RandomFlip", "geometric", "image", "geometric", _TV),
    ("random_d4", "RandomD4", "geometric", "image", "geometric", "numpy"),
    ("random_rotation", "RandomRotation", "geometric", "image", "geometric", _TV),
    ("random_affine", "RandomAffine", "geometric", "image", "geometric", _TV),
    ("random_perspective", "RandomPerspective", "geometric", "image", "geometric", _TV),
    ("random_crop", "RandomCrop", "crops", "image", "geometric", _TV),
    ("random_resized_crop", "RandomResizedCrop", "crops", "image", "geometric", _TV),
    ("random_zoom_out", "RandomZoomOut", "crops", "image", "geometric", "numpy"),
    ("scale_jitter", "ScaleJitter", "crops", "image", "geometric", "numpy"),
    ("elastic", "ElasticTransform", "elastic", "image", "geometric", _TV),
    ("iou_crop", "IoUCrop", "iou_crop", "image", "geometric", "numpy"),
    ("color_jitter", "ColorJitter", "jitter", "image", "colour", _TV),
    ("random_brightness", "RandomBrightness", "photometric", "image", "colour", _TV),
    ("random_contrast", "RandomContrast", "photometric", "image", "colour", _TV),
    ("random_saturation", "RandomSaturation", "photometric", "image", "colour", _TV),
    ("random_hue", "RandomHue", "photometric", "image", "colour", _TV),
    ("random_gamma", "RandomGamma", "photometric", "image", "colour", _TV),
    ("random_posterize", "RandomPosterize", "photometric", "image", "colour", _TV),
    ("random_solarize", "RandomSolarize", "photometric", "image", "colour", _TV),
    ("random_invert", "RandomInvert", "photometric", "image", "colour", _TV),
    ("random_autocontrast", "RandomAutoContrast", "photometric", "image", "colour", _TV),
    ("random_equalize", "RandomEqualize", "photometric", "image", "colour", _TV),
    ("random_sharpness", "RandomSharpness", "photometric", "image", "colour", _TV),
    ("random_grayscale", "RandomGrayscale", "photometric", "image", "colour", _TV),
    ("random_channel_shuffle", "RandomChannelShuffle", "photometric", "image", "colour", _TV),
    ("photometric_distort", "RandomPhotometricDistort", "jitter", "image", "colour", _TV),
    ("gaussian_blur", "GaussianBlur", "filters", "image", "colour", _TV),
    ("gaussian_noise", "GaussianNoise", "filters", "image", "colour", "numpy"),
    ("random_jpeg", "RandomJPEG", "degrade", "image", "colour", "Pillow 13"),
    ("clahe", "CLAHE", "degrade", "image", "colour", "OpenCV 5"),
    ("planckian_jitter", "PlanckianJitter", "degrade", "image", "colour", "CIE 1931"),
    ("randaugment", "RandAugment", "policies", "image", "policy", _TV),
    ("trivialaugment", "TrivialAugmentWide", "policies", "image", "policy", _TV),
    ("autoaugment", "AutoAugment", "policies", "image", "policy", _TV),
    ("augmix", "AugMix", "policies", "image", "policy", "numpy"),
    ("threeaugment", "ThreeAugment", "policies", "image", "policy", _TV),
    ("random_erasing", "RandomErasing", "occlusion", "image", "occlusion", "numpy"),
    ("gridmask", "GridMask", "occlusion", "image", "occlusion", "numpy"),
    ("mixup", "MixUp", "mixing", "image", "mixing", "timm 1.0"),
    ("cutmix", "CutMix", "mixing", "image", "mixing", "timm 1.0"),
    ("mixup_or_cutmix", "MixUpOrCutMix", "mixing", "image", "mixing", "timm 1.0"),
    ("mosaic", "Mosaic", "collage", "image", "mixing", "numpy"),
    ("copy_paste", "CopyPaste", "copy_paste", "image", "mixing", "numpy"),
    ("compose", "Compose", "compose", "image", "composition", "its parts"),
    ("apply", "Apply", "compose", "image", "composition", "its parts"),
    ("choice", "Choice", "compose", "image", "composition", "its parts"),
    ("some_of", "SomeOf", "compose", "image", "composition", "its parts"),
    ("random_order", "RandomOrder", "compose", "image", "composition", "its parts"),
    # audio
    ("random_gain", "RandomGain", "waveform", "audio", "level", "numpy"),
    ("random_polarity", "RandomPolarity", "waveform", "audio", "level", "numpy"),
    ("random_clipping", "RandomClipping", "waveform", "audio", "level", "numpy"),
    ("time_shift", "TimeShift", "waveform", "audio", "time", "numpy"),
    ("time_mask", "TimeMask", "waveform", "audio", "time", "numpy"),
    ("time_stretch", "TimeStretch", "spectrogram", "audio", "time", "numpy"),
    ("pitch_shift", "PitchShift", "spectrogram", "audio", "frequency", "numpy"),
    ("low_pass", "LowPass", "acoustics", "audio", "frequency", "scipy"),
    ("high_pass", "HighPass", "acoustics", "audio", "frequency", "scipy"),
    ("band_pass", "BandPass", "acoustics", "audio", "frequency", "scipy"),
    ("add_noise", "AddNoise", "acoustics", "audio", "noise", "numpy"),
    ("impulse_response", "ImpulseResponse", "acoustics", "audio", "noise", "numpy"),
    ("spec_augment", "SpecAugment", "spectrogram", "audio", "spectrogram", "numpy"),
    # text
    ("token_deletion", "RandomTokenDeletion", "tokens", "text", "tokens", "numpy"),
    ("token_swap", "RandomTokenSwap", "tokens", "text", "tokens", "numpy"),
    ("token_dropout", "TokenDropout", "tokens", "text", "tokens", "numpy"),
    ("token_replacement", "TokenReplacement", "tokens", "text", "tokens", "numpy"),
    ("token_mask", "TokenMask", "token_masks", "text", "masking", "numpy"),
    ("span_mask", "SpanMask", "token_masks", "text", "masking", "numpy"),
    ("character_noise", "CharacterNoise", "characters", "text", "characters", "its rules"),
    # tables
    ("swap_noise", "SwapNoise", "tabular", "table", "noise", "numpy"),
    ("feature_noise", "GaussianFeatureNoise", "array_noise", "table", "noise", "numpy"),
    ("additive_noise", "AdditiveNoise", "array_noise", "table", "noise", "numpy"),
    ("dropout_noise", "DropoutNoise", "array_noise", "table", "noise", "numpy"),
    ("feature_dropout", "FeatureDropout", "tabular", "table", "noise", "numpy"),
    ("tabular_mixup", "TabularMixUp", "tabular", "table", "mixing", "numpy"),
)
CATALOG = {
    row[0]: AugmentationInfo(row[0], row[1], f"zoo.augment.{row[3]}.{row[2]}", *row[3:])
    for row in _LAYERS
}


def list_augmentations(
    pattern: str | None = None, *, domain: str | None = None, kind: str | None = None
) -> list[str]:
    """Lists the names of augmentation layers, in the order of the catalog.

    Args:
        pattern: Shell-style, such as `random_*`; without a wildcard it must match a whole name.
        domain: What they are for: image, audio, text or table.
        kind: Group in that, such as `geometric` or `policy`.

    Raises:
        UnknownNameError: A domain or kind that no layer has.
    """
    found = list(CATALOG.values())
    for field, value in (("domain", domain), ("kind", kind)):
        if value is not None:
            known = list(dict.fromkeys(getattr(info, field) for info in CATALOG.values()))
            if value not in known:
                raise UnknownNameError(
                    f"Unknown {field} `{value}`.{did_you_mean(value, known)} "
                    f"There are: {', '.join(known)}."
                )
            found = [info for info in found if getattr(info, field) == value]
    names = [info.name for info in found]
    return names if pattern is None else fnmatch.filter(names, pattern)


def augmentation_info(name: str) -> AugmentationInfo:
    """Describes a layer without importing Keras.

    Raises:
        UnknownNameError: No such layer; the close names are listed.
    """
    if name not in CATALOG:
        raise UnknownNameError(
            f"Unknown augmentation `{name}`.{did_you_mean(name, CATALOG)} "
            "zoo.list_augmentations() lists them all."
        )
    return CATALOG[name]


def augmentation_class(name: str) -> Any:
    """Returns the class of a layer by the layer's name."""
    info = augmentation_info(name)
    return getattr(importlib.import_module(info.module), info.layer)


def create_augmentation(name: str, /, **options: Any) -> Any:
    """Makes an augmentation layer.

    Args:
        name: A name of `zoo.list_augmentations()`, or a policy as timm writes it, such as
            `rand-m9-mstd0.5-inc1`.
        **options: Of the layer's class, see `zoo.augment`; all take `p` and `seed`.

    Returns:
        A Keras layer: call it on a batch, map it over a `tf.data.Dataset`, or make it part of a
        model, where it is the identity at inference.

    Raises:
        UnknownNameError: No such layer.
        OptionError: An option that the layer does not have.
        OptionValueError: An option that breaks its rule.
    """
    if name.startswith("rand-"):
        return augmentation_class("randaugment").from_string(name, **options)
    return augmentation_class(name)(**options)
