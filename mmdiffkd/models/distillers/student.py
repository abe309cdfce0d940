"""The student of a distiller: building it with its data preprocessor."""

from collections.abc import Mapping

from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from mmdiffkd.utils.naming import left_over_hint


class ImagesAsGiven(BaseDataPreprocessor):
    """Stands for what a loop does to its images: nobody knows."""


def build_student(
    given: Mapping | nn.Module, data_preprocessor: Mapping | None
) -> nn.Module:
    """Build the student.

    Args:
        given (Mapping or nn.Module): Its model configuration, or a built
            module.
        data_preprocessor (Mapping, optional): The ``data_preprocessor`` of
            the distiller. The student takes it, unless it is built.

    Raises:
        TypeError: If its class does not take what is given.
        ValueError: If a built module has a data preprocessor of its own, too.
    """
    if isinstance(given, nn.Module):
        own = getattr(given, 'data_preprocessor', None)
        if None not in (own, data_preprocessor):
            raise ValueError(
                '`student` is a built module, which has its own data '
                'preprocessor. Leave `data_preprocessor` out, or give '
                'the student as a dict.'
            )
        return given
    config = given.copy()
    if data_preprocessor is not None:
        config.setdefault('data_preprocessor', data_preprocessor)
    try:
        return MMENGINE_MODELS.build(config)
    except TypeError as error:
        hint = left_over_hint(error)
        if data_preprocessor and "'data_preprocessor'" in str(error):
            hint = (
                '. The recipe has it at its top level: leave it out '
                'there, or let the class take it.'
            )
        raise TypeError(f'`student`: {error}{hint}') from error
