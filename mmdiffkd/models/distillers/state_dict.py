"""A distiller's state dict: the plain student's names, and ``distill.*``."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from mmdiffkd.utils import DISTILL_PREFIX

STUDENT_PREFIX = 'student.'
_OWN = ('student', 'distill')


def name_as_plain_student(distiller: nn.Module) -> None:
    """Save the student's weights under its plain names, and load them so.

    Args:
        distiller (nn.Module): A module with the children ``student`` and
            ``distill``.
    """
    # The wrappers of timm's and Hugging Face's networks save other names
    # alone than inside another module.
    alone: dict[int, list[str]] = {}
    for name, tensor in distiller.student.state_dict(keep_vars=True).items():
        alone.setdefault(id(tensor), []).append(name)
    plain = {
        key.removeprefix(STUDENT_PREFIX): alone[id(tensor)].pop(0)
        for key, tensor in distiller.state_dict(keep_vars=True).items()
        if key.startswith(STUDENT_PREFIX) and alone.get(id(tensor))
    }
    distiller._register_state_dict_hook(partial(_drop_student_prefix, plain))
    distiller._register_load_state_dict_pre_hook(
        _restore_student_prefix, with_module=True
    )


def _rename(mapping: dict, rename: Callable[[str], str]) -> None:
    """Rename keys in place, keeping their order."""
    items = [(rename(key), value) for key, value in mapping.items()]
    mapping.clear()
    mapping.update(items)


def _drop_student_prefix(
    plain: Mapping[str, str],
    distiller: nn.Module,
    state: dict,
    prefix: str,
    metadata: dict,
) -> None:
    """After saving: give every name of the student as it is alone."""
    long = prefix + STUDENT_PREFIX

    def shorten(key: str) -> str:
        if not key.startswith(long):
            return key
        name = key.removeprefix(long)
        return prefix + plain.get(name, name)

    _rename(state, shorten)
    if getattr(state, '_metadata', None) is not None:
        own = prefix[:-1]
        student = long[:-1]
        _rename(
            state._metadata,
            lambda key: own if key == student else shorten(key),
        )


def _restore_student_prefix(
    distiller: nn.Module, state: dict, prefix: str, metadata: dict, *rest
) -> None:
    """Before loading: add ``student.`` to every name outside ``distill.``.

    A checkpoint without any ``distill.*``, a plain model's, leaves the necks
    as they are.
    """
    distill_prefix = prefix + DISTILL_PREFIX

    def lengthen(key: str) -> str:
        if not key.startswith(prefix) or key.startswith(distill_prefix):
            return key
        return prefix + STUDENT_PREFIX + key[len(prefix) :]

    _rename(state, lengthen)
    if getattr(state, '_metadata', None) is not None:
        # Keys are added and none removed: the dictionary is the caller's.
        versions = state._metadata
        for key, value in list(versions.items()):
            root = key.removeprefix(prefix).partition('.')[0]
            if key.startswith(prefix) and root not in ('', *_OWN):
                versions[lengthen(key)] = value
        student = prefix + STUDENT_PREFIX[:-1]
        versions[student] = versions.get(prefix[:-1], {})
    if not any(key.startswith(distill_prefix) for key in state):
        for key, value in distiller.distill.state_dict().items():
            state[distill_prefix + key] = value
