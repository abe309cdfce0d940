"""The base class of all losses, which checks ranks and shapes."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from ..part import DistillPart, names_of_arguments
from .operands import check_equal_shapes, comparable

_RANKS = {
    'map': (4, 'maps (B, C, H, W)', 'tap a stage before it is pooled'),
    'vector': (2, 'vectors (B, C)', 'tap what is pooled, or logits'),
}


class DistillLoss(DistillPart):
    """A distance between a student's and a teacher's tensor.

    A subclass writes :meth:`distance`. :meth:`forward` checks the two
    tensors, brings them to one precision and multiplies by ``loss_weight``.
    Class attributes say what a loss compares:

    Attributes:
        feature (str or None): ``'map'`` for (B, C, H, W) or ``'vector'`` for
            (B, C), if it takes one of the two alone. Defaults to None.
        over_classes (bool): Whether it compares distributions over classes,
            so that both networks need the same classes. Defaults to False.
        activation (str or None): How the logits that it compares become
            probabilities: ``'softmax'`` over the channels, axis 1, which
            needs two of them or more; or ``'sigmoid'`` of each channel.
            Defaults to None: it compares no logits.
        groups (int): How many distributions lie side by side on the
            channels, each on channels that follow one another; an instance
            may set it. Defaults to 1.
        any_channels (bool): Whether the channels, axis 1, may differ.
            Defaults to False.
        prepared (bool): False until :meth:`prepare` has run, for losses that
            need it. Defaults to True.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.
    """

    feature: str | None = None
    over_classes = False
    activation: str | None = None
    groups = 1
    any_channels = False
    prepared = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @classmethod
    def arguments(cls) -> tuple[str, ...]:
        """The names of the arguments that a call takes."""
        own = cls.forward is not DistillLoss.forward
        return names_of_arguments(cls.forward if own else cls.distance)

    def forward(
        self, preds_S: Tensor, preds_T: Tensor, *args: object, **kwargs: object
    ) -> Tensor:
        """Compare two tensors.

        Args:
            preds_S (Tensor): The student's.
            preds_T (Tensor): The teacher's; :meth:`distance` says which
                shapes the two may have.
            *args (object): Further arguments of :meth:`distance`.
            **kwargs (object): The same by name.

        Returns:
            Tensor: A scalar, computed in float32 or better.

        Raises:
            ValueError: If the tensors cannot be compared.
        """
        self._check_ranks(preds_S.shape, preds_T.shape)
        preds = comparable(preds_S, preds_T, self.any_channels)
        self._check_distributions(preds_S.shape, preds_T.shape)
        return self.loss_weight * self.distance(*preds, *args, **kwargs)

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """The distance without its weight, a scalar.

        Args:
            preds_S (Tensor): The student's, in float32 or float64 whatever
                autocast made of it.
            preds_T (Tensor): The teacher's, of the same type.
        """
        raise NotImplementedError

    def check_shapes(
        self, student: Sequence[int], teacher: Sequence[int]
    ) -> None:
        """Refuse shapes that the loss cannot compare.

        A loss with a ``forward`` of its own checks by itself whether the two
        are equal.

        Args:
            student (Sequence[int]): The shape of the student's tensor.
            teacher (Sequence[int]): That of the teacher's.

        Raises:
            ValueError: If the two differ, are not what ``feature`` says, or
                hold no distributions of two channels or more for a loss with
                a softmax.
        """
        self._check_ranks(student, teacher)
        if type(self).forward is DistillLoss.forward:
            check_equal_shapes(student, teacher, self.any_channels)
        self._check_distributions(student, teacher)

    def _check_ranks(self, *shapes: Sequence[int]) -> None:
        if self.feature is None:
            return
        rank, words, cure = _RANKS[self.feature]
        for side, shape in zip(('student', 'teacher'), shapes):
            if len(shape) != rank:
                if self.over_classes:
                    cure += '; KLDivergence and DISTLoss take maps of classes'
                raise ValueError(
                    f'{type(self).__name__} compares {words}, but the '
                    f"{side}'s tensor has the shape {tuple(shape)}: {cure}"
                )

    def _check_distributions(self, *shapes: Sequence[int]) -> None:
        if self.activation != 'softmax':
            return
        name, groups = type(self).__name__, self.groups
        for side, shape in zip(('student', 'teacher'), shapes):
            each, rest = divmod(shape[1], groups)
            if rest:
                raise ValueError(
                    f'{name} has groups={groups}, which does not divide the '
                    f"{shape[1]} channels of the {side}'s tensor of shape "
                    f'{tuple(shape)}: set `groups` to the number of '
                    'distributions that lie side by side on the channels'
                )
            if each < 2:
                what, cure = 'bin', "SmoothL1Loss') for plain numbers"
                if self.over_classes:
                    what = 'class'
                    cure = "BinaryKLDivergence') for a sigmoid logit"
                where = f' in each of groups={groups}' if groups > 1 else ''
                raise ValueError(
                    f"{name} takes a softmax, but the {side}'s tensor of "
                    f'shape {tuple(shape)} has one {what}{where}. A softmax '
                    f'over one {what} is always 1: the loss would be '
                    'constant and without gradient. Take '
                    f"loss=dict(type='{cure}"
                )

    def prepare(self, teachers: Iterable[Tensor]) -> None:
        """Learn from one pass of the teacher over the training data.

        It is called before training where ``prepared`` is False. A subclass
        that overrides it keeps what it learned in buffers, and sets
        ``prepared`` then and when a state is loaded.

        Args:
            teachers (Iterable[Tensor]): The teacher's tensors, batch by
                batch; of several processes each sees its share.
        """
