"""The plain recipe that a run leaves beside its checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.dist import master_only
from mmengine.runner import Runner

from mmdiffkd.safety.atomic_files import atomic_write
from mmdiffkd.utils.config import plain_recipe

#: Its name in the work directory, and where the run's config has that name.
NAME, OTHER_NAME = 'student.py', 'plain_student.py'
HEADER = '# The plain recipe of the student, written by mmdiffkd.'


@master_only
def write_student_recipe(runner: Runner) -> None:
    """Write the recipe of the plain student into the work directory.

    ``init_detector``, ``init_model``, ``get_model`` and the inferencers
    read a config's ``model`` themselves, and know no distiller. With this
    file they take any checkpoint of the run.

    Args:
        runner (Runner): A runner whose model is a distiller. Where its
            config does not hold the student, nothing is written.
    """
    model = runner.cfg.get('model')
    if not isinstance(model, Mapping) or not isinstance(
        model.get('student'), Mapping
    ):
        runner.logger.info(
            f'{NAME} is not written: the config has no model to write.'
        )
        return
    recipe = plain_recipe(runner.cfg)
    file = Path(runner.work_dir) / NAME
    if file.exists() and not file.read_text().startswith(HEADER):
        # The user's own config, or MMEngine's copy of it.
        file = file.with_name(OTHER_NAME)
    with atomic_write(file) as opened:
        opened.write(f'{HEADER}\n{recipe.pretty_text}'.encode())
    runner.logger.info(f'The plain recipe of the student: {file}')
