"""What distillation necks and losses have in common."""

import inspect
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import torch
from torch import Tensor, nn

#: What a distiller can supply to ``forward``, by the argument's name.
SUPPLIED = (
    'gt_labels',
    'sample_idx',
    'gt_bboxes',
    'img_shape',
    'batch_input_shape',
    'roi_labels',
    'teacher_head',
    'teacher_logits',
)


class DistillPart(nn.Module):
    """A neck or a loss: what it may ask for and offer besides ``forward``.

    Attributes:
        supplied (tuple[str, ...] or None): Which of :data:`SUPPLIED` it
            wants in each training step. Defaults to None: every one of them
            that ``forward`` has as an argument.
    """

    supplied: tuple[str, ...] | None = None

    @classmethod
    def arguments(cls) -> tuple[str, ...]:
        """The names of the arguments that a call takes."""
        return names_of_arguments(cls.forward)

    @property
    def asks_for(self) -> tuple[str, ...]:
        """The names of :data:`SUPPLIED` that it gets in each step."""
        names = SUPPLIED if self.supplied is None else self.supplied
        return tuple(name for name in names if name in self.arguments())

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Whether the class overrides a method of the base class.

        Args:
            method (str): One that a base class declares without effect, such
                as ``'draw'``.
        """
        declared = next(
            base for base in reversed(cls.__mro__) if method in vars(base)
        )
        return getattr(cls, method) is not vars(declared)[method]

    def draw(
        self,
        student: Tensor,
        teacher: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw what is random in one call of ``forward``.

        Args:
            student (Tensor): The student's tensor.
            teacher (Tensor): The teacher's tensor.
            generator (torch.Generator, optional): Source of randomness, on
                the tensors' device. Defaults to None, PyTorch's default
                generator.

        Returns:
            dict[str, Tensor]: Tensors by the names of arguments of
            ``forward``. Empty unless a subclass draws something.
        """
        return {}

    def allocate(self, dataset_length: int, labels: Tensor | None) -> None:
        """Make buffers as long as the training set, before weights are read.

        The base class makes none.

        Args:
            dataset_length (int): The number of training samples.
            labels (Tensor, optional): Their class indices
                (dataset_length,), None where the data set does not know
                them.
        """


@cache
def names_of_arguments(function: object) -> tuple[str, ...]:
    """The names of a function's arguments, ``self`` included."""
    return tuple(inspect.signature(function).parameters)


def with_base(cls: type, base: type[DistillPart]) -> type[DistillPart]:
    """A class that also derives from a base class.

    A neck or loss of somebody else may be a plain ``nn.Module``. What it
    declares itself is kept; the rest has the base class's defaults.

    Args:
        cls (type): Any module class.
        base (type[DistillPart]): ``DistillNeck`` or ``DistillLoss``.
    """
    if issubclass(cls, base):
        return cls
    names = {'__module__': cls.__module__, '__doc__': cls.__doc__}
    return type(cls.__name__, (cls, base), names)


def classes_of(package: str, base: type) -> dict[str, type]:
    """All subclasses of a base class in a package's modules, by name.

    A new neck or loss is then found without being listed anywhere.

    Args:
        package (str): The package's ``__name__``.
        base (type): The base class, which is left out.
    """
    found = {}
    for module in iter_modules(import_module(package).__path__):
        for value in vars(import_module(f'{package}.{module.name}')).values():
            if isinstance(value, type) and issubclass(value, base):
                found[value.__name__] = value
    del found[base.__name__]
    return dict(sorted(found.items()))
