from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import torch

from mmdiffkd.utils.arguments import check_arguments


class Thing:
    def __init__(
        self,
        count: int,
        weight: float = 1.0,
        on: bool = True,
        name: str | None = None,
        size: int | tuple[int, int] | None = None,
        mode: Literal['sum', 'mean'] = 'sum',
        sizes: Sequence[int] = (),
        more: dict | None = None,
        old: Optional[int] = None,  # noqa: UP045
        path: str | Path = '',
        any: Any = None,
        loose=None,
        **others,
    ):
        pass


@pytest.mark.parametrize(
    'given',
    [
        dict(count=1, weight=2, on=False, name='a', size=3, mode='mean'),
        dict(weight=0.5, name=None, size=(1, 2), sizes=[1], more={}, old=3),
        dict(old=None, path=Path('a'), any='x', loose=1, others=2, type='a'),
        dict(),
    ],
)
def test_values_that_fit(given):
    check_arguments(Thing, given, 'thing')


@pytest.mark.parametrize(
    ('given', 'cure'),
    [
        (dict(count='1'), "count` is '1'. Give an integer"),
        (dict(count=1.0), 'an integer'),
        (dict(count=True), 'an integer'),
        (dict(count=None), 'an integer'),
        (dict(weight='map'), 'a finite number'),
        (dict(weight=float('nan')), 'weight` is nan'),
        (dict(weight=float('inf')), 'a finite number'),
        (dict(weight=torch.ones(1)), 'a finite number'),
        (dict(on='no'), 'True or False'),
        (dict(on=1), 'True or False'),
        (dict(name=1), 'a string or None'),
        (dict(size='3'), 'an integer or tuple[int, int] or None'),
        (dict(mode='max'), "'sum' or 'mean'"),
        (dict(sizes='12'), 'Sequence'),
        (dict(more=[]), 'a dict or None'),
        (dict(old='3'), 'an integer or None'),
    ],
)
def test_values_that_do_not_fit_are_named(given, cure):
    with pytest.raises(ValueError, match=r'`thing\.') as error:
        check_arguments(Thing, given, 'thing')
    assert cure in str(error.value)
