"""Networks of other libraries: building one, and which images it takes."""

import json
import logging
import math
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from torch import nn

from .normalization import Normalization, describe

#: What pip calls packages whose import name is another.
_DISTRIBUTIONS = {'open_clip': 'open-clip-torch'}
_PROCESSOR = 'preprocessor_config.json'


def build_network(
    module: str | Callable | nn.Module, kwargs: Mapping, key: str
) -> nn.Module:
    """Build a network by whatever returns one.

    Args:
        module (str, Callable or nn.Module): The path of a function, a class
            or a classmethod, such as ``'timm.create_model'``; the object
            itself; or the built network.
        kwargs (Mapping): Its keyword arguments.
        key (str): Where the network stands in the config, for messages.

    Raises:
        ValueError: If there is nothing by that path, it fails, or it returns
            something else than a network.
    """
    if isinstance(module, nn.Module):
        return module
    found = _find(module, key) if isinstance(module, str) else module
    # Libraries check for plain dicts.
    kwargs = ConfigDict(kwargs).to_dict()
    try:
        network = found(**kwargs)
    except Exception as error:
        raise ValueError(
            f'`{key}.module` {_name(module)} fails with `{key}.kwargs` '
            f'{kwargs}: {type(error).__name__}: {error}'
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f'`{key}.module` {_name(module)} returns a '
            f'{type(network).__name__}, no torch.nn.Module. Name what returns '
            "a network, for instance 'timm.create_model' or "
            "'transformers.AutoModel.from_pretrained'."
        )
    return network


def _name(module: str | Callable) -> str:
    return repr(getattr(module, '__qualname__', module))


def _find(path: str, key: str) -> Callable:
    start = f'`{key}.module` is {path!r}'
    package = path.partition('.')[0]
    try:
        found = pkgutil.resolve_name(path)
    except ModuleNotFoundError as error:
        if error.name == package:
            name = _DISTRIBUTIONS.get(package, package)
            raise ValueError(
                f'{start}, but {package} is not installed. Install it by '
                f'`pip install {name}`.'
            ) from error
        raise ValueError(f'{start}, but importing it fails: {error}') from (
            error
        )
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(
            f'{start}, which is not there: {error}. Write the path of '
            'something that returns a network, for instance '
            "'timm.create_model'."
        ) from error
    if not callable(found):
        raise ValueError(
            f'{start}, which is a {type(found).__name__} and returns no '
            "network. Name a function or a class, for instance 'timm."
            "create_model'."
        )
    return found


class Statistics(NamedTuple):
    """How a library's network wants its images normalised.

    Attributes:
        mean (tuple[float, ...]): One a channel, of values from 0 to 255.
        std (tuple[float, ...]): The same of the standard deviations.
        rgb (bool): Whether its channels are red, green and blue, in this
            order; else blue comes first.
        source (str): Who says so.
        cure (str): How to correct that.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb: bool
    source: str
    cure: str


def statistics_of(
    network: nn.Module, checkpoint: str | Path | None = None
) -> Statistics | None:
    """What timm or Hugging Face says of the images of a network.

    Args:
        network (nn.Module): The network. timm's have ``pretrained_cfg``.
            Hugging Face's have ``preprocessor_config.json`` in the folder
            that they were loaded from.
        checkpoint (str or Path, optional): Its weights, beside which that
            file may be, too. Defaults to None.

    Returns:
        Statistics or None: None if nobody says anything, or only of images
        of another number of channels than the network takes.
    """
    found = _of_timm(network) or _of_hugging_face(network, checkpoint)
    if found is None:
        return None
    first = next((m for m in network.modules() if type(m) is nn.Conv2d), None)
    # A network of timm for grey images still names three values. Where
    # pixels become channels first, there is a multiple of them.
    if first is not None and first.in_channels % len(found.mean):
        return None
    return found


def _of_timm(network: nn.Module) -> Statistics | None:
    config = getattr(network, 'pretrained_cfg', None)
    if not isinstance(config, Mapping) or not config.get('mean'):
        return None
    mean, std = (
        tuple(255 * value for value in config[name])
        for name in ('mean', 'std')
    )
    return Statistics(
        mean,
        std,
        rgb=True,
        source='`pretrained_cfg` of timm',
        cure='kwargs=dict(pretrained_cfg_overlay=dict(mean=..., std=...)), '
        'of values from 0 to 1',
    )


def _of_hugging_face(
    network: nn.Module, checkpoint: str | Path | None
) -> Statistics | None:
    config = getattr(network, 'config', None)
    folders = [
        Path(str(checkpoint)).expanduser().parent if checkpoint else None,
        getattr(config, '_name_or_path', None) or None,
    ]
    for folder in filter(None, folders):
        file = Path(folder) / _PROCESSOR
        if file.is_file():
            return _of_image_processor(file)
    return None


def _of_image_processor(file: Path) -> Statistics | None:
    """Read a processor's file; keys that it lacks have their usual values."""
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f'{file} says what normalises the images of a teacher, but cannot '
            f'be read: {error}. Correct it, or remove it and set '
            '`teacher.data_preprocessor`.'
        ) from error
    factor = 1.0
    if settings.get('do_rescale', True):
        factor = settings.get('rescale_factor') or 1 / 255
    mean, std = (
        value if isinstance(value, list | None) else [value]
        for value in map(settings.get, ('image_mean', 'image_std'))
    )
    # EfficientNet's divides by `image_std` once more.
    again = settings.get('include_top') and std
    if not settings.get('do_normalize', True):
        mean, std = [0.0] * 3, [1.0] * 3
    if mean is None or std is None:
        return None
    if again:
        std = [a * b for a, b in zip(std, again)]
    if settings.get('rescale_offset') and settings.get('do_rescale', True):
        # To values from -1 to 1, before the mean is subtracted.
        mean = [value + 1 for value in mean]
    mean, std = (tuple(value / factor for value in x) for x in (mean, std))
    return Statistics(
        mean,
        std,
        rgb=not settings.get('do_flip_channel_order', False),
        source=f'{_PROCESSOR} of Hugging Face',
        cure=f'`image_mean` and `image_std` in {file}',
    )


def preprocessor_for(
    said: Statistics, student: nn.Module | None, key: str
) -> nn.Module | None:
    """What normalises images as a library's network wants them.

    Args:
        said (Statistics): What the library says.
        student (nn.Module, optional): The student's data preprocessor.
        key (str): Where the network stands in the config, for messages.

    Returns:
        nn.Module or None: A data preprocessor. None, with a warning, where
        nothing says what normalises the student's images.

    Raises:
        ValueError: If it is not certain in which order the student's images
            have their channels.
    """
    mean, std = (
        [round(value, 3) for value in values]
        for values in (said.mean, said.std)
    )
    wanted = f'mean {mean}, std {std} of values from 0 to 255'
    if student is None or type(student) is BaseDataPreprocessor:
        print_log(
            "Nothing says what normalises the student's images. The teacher "
            f'gets them as they are; by {said.source} it wants {wanted}, in '
            f'the order {"RGB" if said.rgb else "BGR"}.',
            'current',
            logging.WARNING,
        )
        return None
    seen = Normalization.of(student)
    swaps = seen is None or seen.swap
    if not swaps and len(mean) == 3:
        raise ValueError(
            f'`{key}` takes {"RGB" if said.rgb else "BGR"} images by '
            f"{said.source}. The student's data preprocessor swaps no "
            'channels, so that it is not certain whether its images are '
            "loaded as BGR, as mmcv reads files, or as RGB, as CIFAR's are. "
            f"Set `{key}.data_preprocessor` to dict(type='ImgDataPreprocessor"
            f"', mean={mean}, std={std}, bgr_to_rgb={said.rgb}) for BGR, or "
            f'with {"rgb_to_bgr" if not said.rgb else "bgr_to_rgb"}='
            f'{not said.rgb} for RGB.'
        )
    # MMEngine does not keep in which direction a data preprocessor swaps.
    taken = ' Images are taken to be loaded as BGR, as mmcv reads files.'
    print_log(
        f'`{key}`: {wanted}, by {said.source}.'
        + (taken if len(mean) == 3 else ''),
        'current',
    )
    return ImgDataPreprocessor(
        list(said.mean),
        list(said.std),
        bgr_to_rgb=said.rgb and len(mean) == 3,
    )


def check_agreement(
    said: Statistics,
    preprocessor: nn.Module,
    student: nn.Module | None,
    key: str,
) -> None:
    """Refuse a data preprocessor that contradicts what a library says.

    The order of channels is a warning alone: it depends on how images are
    loaded, which nobody says.

    Args:
        said (Statistics): What the library says.
        preprocessor (nn.Module): What the config gives.
        student (nn.Module, optional): The student's.
        key (str): Where the network stands in the config, for messages.

    Raises:
        ValueError: Names both and how to correct the library's.
    """
    given = Normalization.of(preprocessor)
    if given is None:
        return
    for mine, theirs in ((given.mean, said.mean), (given.std, said.std)):
        mine = mine * len(theirs) if len(mine) == 1 else mine
        # A recipe rounds: 123.68 for 123.675.
        if len(mine) != len(theirs) or not all(
            math.isclose(a, b, rel_tol=0.01, abs_tol=0.5)
            for a, b in zip(mine, theirs)
        ):
            raise ValueError(
                f'`{key}.data_preprocessor` has {describe(preprocessor)}, '
                f'but {said.source} has mean {list(said.mean)}, std '
                f'{list(said.std)} of values from 0 to 255. Leave '
                '`data_preprocessor` out, or correct the other by '
                f'{said.cure}.'
            )
    seen = Normalization.of(student)
    if (
        len(said.mean) == 3
        and seen is not None
        and seen.swap
        and given.swap != said.rgb
    ):
        print_log(
            f"The student's data preprocessor swaps red and blue. If it makes "
            f'RGB of BGR images, `{key}.data_preprocessor` gives the teacher '
            f'{"BGR" if said.rgb else "RGB"}, but by {said.source} it takes '
            f'{"RGB" if said.rgb else "BGR"}. Set `bgr_to_rgb={said.rgb}` '
            'there.',
            'current',
            logging.WARNING,
        )
