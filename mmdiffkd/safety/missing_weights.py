"""Refuse to evaluate a model that has kept random weights."""

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present


class MissingWeightsHook(Hook):
    """Refuse a checkpoint that lacks weights of the model.

    MMEngine logs what is missing and evaluates the random weights.

    Args:
        ignored (str or tuple[str, ...]): How names of tensors begin that a
            checkpoint may lack. Defaults to (), none.
    """

    def __init__(self, ignored: str | tuple[str, ...] = ()) -> None:
        self.ignored = ignored

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the weights, and see that none is missing.

        Raises:
            ValueError: If the checkpoint does not fit the model.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        state = checkpoint.get('state_dict', checkpoint)
        consume_prefix_in_state_dict_if_present(state, 'module.')
        try:
            missing = model.load_state_dict(state, strict=False).missing_keys
        except RuntimeError as error:
            problem = str(error)
        else:
            missing = [
                name
                for name in missing
                if not name.startswith(self.ignored)
                and not name.endswith('num_batches_tracked')
            ]
            if not missing:
                return
            problem = f'it lacks {len(missing)} tensors, {missing[:8]} first'
        raise ValueError(
            f'checkpoint {runner._load_from!r} does not fit '
            f'{type(model).__name__}: {problem}. Give the checkpoint that '
            'goes with this config.'
        )
