"""Finding and reading configs: by path, by ``package::name``, or as dicts."""

import ast
import copy
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from .download import DIGEST
from .naming import did_you_mean

#: What MMEngine reads.
_SUFFIXES = '.py', '.json', '.yaml', '.yml'
#: What our base files have at their top level.
_OWN_KEYS = 'distill', 'distillation', 'teacher', 'teachers'
#: Options of ours beside those of MMEngine's class of the same name.
_OWN_OPTIONS = {
    'CheckpointHook': ('exact_resume',),
    'FSDPStrategy': ('units',),
}


def find_config(name: str) -> Path:
    """The file of a config.

    Args:
        name (str): A path, or ``package::name`` for a config that an
            installed OpenMMLab package ships, with or without ``.py``:
            ``'mmpretrain::resnet/resnet34_8xb32_in1k.py'``. The package is
            looked up by its import name.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If the package is not installed or has no such
            config; the nearest names are listed.
        ValueError: If the file is none that MMEngine reads as a config.
    """
    package, separator, inner = name.partition('::')
    if not separator:
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(
                f'there is no config {name!r}. Give a path that exists from '
                'the current directory, or package::name.'
            )
        if path.suffix not in _SUFFIXES:
            raise ValueError(
                f'{name!r} is given as a config, but a config ends in '
                f'{" or ".join(_SUFFIXES)}. Give the config; a checkpoint has '
                'a key or flag of its own.'
            )
        return path
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f'config {name!r}: the package {package!r} is not installed. '
            'Install it, or give a path.'
        )
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    path = folder / inner
    if path.suffix != '.py':
        path = path.with_name(path.name + '.py')
    if not path.is_file():
        known = (p.relative_to(folder) for p in folder.rglob('*.py'))
        raise FileNotFoundError(
            f'{package} ships no config {inner!r}. '
            + did_you_mean(
                str(path.relative_to(folder)),
                (str(p) for p in known if not str(p).startswith('_base_')),
            )
        )
    return path


def load_config(source: str | Path | dict | Config) -> Config:
    """Read a config.

    - ``config`` and ``checkpoint`` of a teacher may be relative to the file
      that is read. A path that exists from the current directory comes first.
    - A config that a package ships gets that package as its
      ``default_scope`` if it has none.

    Args:
        source (str, Path, dict or Config): A path, a ``package::name`` (see
            :func:`find_config`), or the config itself.

    Returns:
        Config: The config; what the caller does to it stays with the caller.
    """
    if isinstance(source, dict):
        source = Config(source)
    if isinstance(source, Config):
        return copy.deepcopy(source)
    path = find_config(str(source))
    config = Config.fromfile(path)
    _forget_own_scope(config._cfg_dict)
    for teacher, key, name, places in _teacher_files(config):
        found = next(filter(os.path.isfile, places), places[0])
        if found != places[0]:
            _, mark, digest = name.partition(DIGEST)
            teacher[key.rpartition('.')[2]] = found + mark + digest
    package = _package_of(path)
    if package is not None:
        config.setdefault('default_scope', package)
    return config


def parse_config(text: str) -> Config:
    """Read the text of a config without running it.

    Args:
        text (str): What ``Config.pretty_text`` gives, as MMEngine writes it
            into checkpoints: names, to which values are assigned.

    Returns:
        Config: The config.

    Raises:
        ValueError: If there is more in it than that.
    """
    values = {}
    try:
        for statement in ast.parse(text).body:
            (target,) = statement.targets
            value = _DictCalls().visit(statement.value)
            values[target.id] = ast.literal_eval(value)
        return Config(values, format_python_code=False)
    except Exception as error:
        where = f'behind {list(values)[-1]!r}' if values else 'at its start'
        raise ValueError(
            f'the text of the config has more than names and values {where} '
            f'({type(error).__name__}: {error})'
        ) from error


class _DictCalls(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a': 1})`` into ``{'a': 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if not (isinstance(node.func, ast.Name) and node.func.id == 'dict'):
            return node
        if not node.args and None not in names:
            values = [keyword.value for keyword in node.keywords]
            return ast.Dict(list(map(ast.Constant, names)), values)
        if len(node.args) == 1 and isinstance(node.args[0], ast.Dict):
            return node if names else node.args[0]
        return node


def check_weight_files(config: Config) -> None:
    """Find missing files of weights by the config alone.

    These are a teacher's config and checkpoint, what an ``init_cfg`` of type
    'Pretrained' reads, and ``load_from``. Files to download and configs of
    packages are left to those who read them.

    Args:
        config (Config): A whole config. One that was read from a file names
            the folder beside which :func:`load_config` looked.

    Raises:
        FileNotFoundError: If there is no such file; names key, value and
            each place.
    """
    for _, key, name, places in _teacher_files(config):
        absent = [place for place in places if not os.path.isfile(place)]
        if places[0] in absent:
            absent = dict.fromkeys(map(os.path.abspath, absent))
            raise FileNotFoundError(
                f'`model.{key}` is {name!r}, but there is no '
                + ' and no '.join(map(repr, absent))
                + '. Give a path from the current directory; a config file '
                'may also name what lies in its folder.'
            )
    for key, name in _start_files(config):
        file = os.path.expanduser(str(name))
        if '://' not in file and not os.path.exists(file):
            raise FileNotFoundError(
                f'`{key}` is {name!r}, but there is no '
                f'{os.path.abspath(file)!r}. Give a path from the current '
                'directory. If another recipe writes this file, train that '
                'first; with None in its place nothing is read.'
            )


def teachers_of(model: object) -> dict[str, dict]:
    """The teachers in a distiller's config, by where they stand in it.

    Args:
        model (object): The ``model`` of a config.

    Returns:
        dict[str, dict]: ``'teacher'``, or ``'teachers.<name>'`` of several;
        without those that are no dict. None of a plain model.
    """
    if not isinstance(model, dict):
        return {}
    given = {'teacher': model.get('teacher')}
    several = model.get('teachers')
    if isinstance(several, dict):
        given = {f'teachers.{name}': each for name, each in several.items()}
    return {key: each for key, each in given.items() if isinstance(each, dict)}


def _teacher_files(
    config: Config,
) -> Iterator[tuple[dict, str, str, list[str]]]:
    """What names the files of teachers on this disk.

    Yields:
        tuple: The teacher, the key below ``model``, its value, and the
        places where the file may be.
    """
    found = [
        (key, teacher, name)
        for key, teacher in teachers_of(config.get('model')).items()
        for name in ('config', 'checkpoint')
    ]
    for key, teacher, part in found:
        name = teacher.get(part)
        if not isinstance(name, str | Path) or '::' in str(name):
            continue
        file = os.path.expanduser(str(name).partition(DIGEST)[0])
        if '://' in file:
            continue
        folder = os.path.dirname(config.filename or '')
        # The second is the first, where that is absolute.
        places = [file, os.path.join(folder, file)]
        yield teacher, f'{key}.{part}', str(name), places


def _start_files(config: Config) -> Iterator[tuple[str, object]]:
    """What the networks that train begin with: keys and values."""
    model = config.get('model')
    if not isinstance(model, Mapping):
        model = {}
    ours = is_distiller(model)
    todo = [
        (f'model.{key}', part)
        for key, part in model.items()
        if not (ours and key in ('teacher', 'teachers'))
    ]
    while todo:
        key, part = todo.pop()
        if isinstance(part, list | tuple):
            todo += [(f'{key}.{i}', each) for i, each in enumerate(part)]
        elif isinstance(part, Mapping):
            pretrained = str(part.get('type')).endswith('Pretrained')
            if pretrained and isinstance(part.get('checkpoint'), str):
                yield f'{key}.checkpoint', part['checkpoint']
            todo += [(f'{key}.{name}', each) for name, each in part.items()]
    if isinstance(config.get('load_from'), str):
        yield 'load_from', config.load_from


def _package_of(path: Path) -> str | None:
    """The OpenMMLab package, other than ours, whose config a file is."""
    for folder in path.absolute().parents:
        if folder.name != 'configs':
            continue
        if folder.parent.name == '.mim':
            package = folder.parent.parent.name
            return package if package in _packages() else None
        # A copy of the repository.
        for package in _packages():
            if (folder.parent / package / '__init__.py').is_file():
                return package
    return None


def _packages() -> set[str]:
    return MODULE2PACKAGE.keys() - {'mmdiffkd'}


def is_distiller(model: Mapping) -> bool:
    """Whether the ``model`` of a config is a distiller's."""
    return {'student', 'distill'} <= model.keys() and (
        'teacher' in model or 'teachers' in model
    )


def plain_config(config: Config) -> Config:
    """A distiller's config with the plain student in its place.

    Args:
        config (Config): A whole config; that of a plain model is returned as
            it is.
    """
    model = config.model
    if not is_distiller(model):
        return config
    plain = copy.deepcopy(config)
    plain.model = plain.model.student
    if model.get('data_preprocessor') is not None:
        plain.data_preprocessor = model.data_preprocessor
    return plain


def plain_recipe(config: Config) -> Config:
    """The recipe of the plain student in a distiller's config.

    It trains, tests and serves for inference as if it had never been a
    distiller's, and dumps to a file. Of mmdiffkd it has what student and
    data need alone.

    - The model is the student, with the data preprocessor inside, where
      ``init_detector`` and ``init_model`` look for it.
    - ``DistillHook`` is gone, and so are the keys of our base files. The
      optimizer constructor is the student's. Checkpoint hook and FSDP
      strategy are MMEngine's, with the options that MMEngine's take.
    - It does not go on with the distiller's run: ``work_dir`` is left out,
      and so is a checkpoint to resume from.

    Args:
        config (Config): A whole config; that of a plain model is returned as
            it is.

    Returns:
        Config: The recipe.
    """
    plain = plain_config(config)
    if plain is config:
        return config
    if plain.get('data_preprocessor') is not None:
        plain.model.setdefault('data_preprocessor', plain.data_preprocessor)
    for key in (*_OWN_KEYS, 'launcher', 'work_dir'):
        plain.pop(key, None)
    if plain.get('resume'):
        plain.update(resume=False, load_from=None)
    hooks = plain.get('default_hooks') or {}
    for name, hook in list(hooks.items()):
        if name == 'distill' or _own_type_name(hook) == 'DistillHook':
            del hooks[name]
    if plain.get('custom_hooks'):
        plain.custom_hooks = [
            hook
            for hook in plain.custom_hooks
            if _own_type_name(hook) != 'DistillHook'
        ]
    parts = *hooks.values(), *(plain.get('custom_hooks') or ())
    for part in (*parts, plain.get('strategy')):
        name = _own_type_name(part)
        if name in _OWN_OPTIONS:
            part.type = name
            for option in _OWN_OPTIONS[name]:
                part.pop(option, None)
    _restore_constructor(plain.get('optim_wrapper') or {})
    _drop_own_imports(plain)
    return plain


def _own_type_name(part: object) -> str | None:
    """The name of a type of ours, or of one without a package."""
    kind = part.get('type') if isinstance(part, dict) else None
    if isinstance(kind, type):
        kind = f'{kind.__module__}.{kind.__qualname__}'
    package, _, name = str(kind).rpartition('.')
    return name if package.split('.')[0] in ('', 'mmdiffkd') else None


def _restore_constructor(wrapper: dict) -> None:
    """Give an optimizer wrapper back the constructor of the student."""
    constructor = wrapper.get('constructor')
    if _own_type_name(dict(type=constructor)) != 'OptimWrapperConstructor':
        return
    del wrapper['constructor']
    rules = wrapper.get('paramwise_cfg') or {}
    constructor = rules.pop('student_constructor', None)
    if constructor is not None:
        wrapper['constructor'] = constructor
    for key in ('distill_lr_mult', 'distill_decay_mult'):
        rules.pop(key, None)
    if not rules:
        wrapper.pop('paramwise_cfg', None)


def _drop_own_imports(plain: Config) -> None:
    """Import mmdiffkd for nothing, where no type of ours is left."""
    imports = plain.pop('custom_imports', None)
    if imports is None:
        return
    names = imports['imports']
    names = [names] if isinstance(names, str) else names
    if 'mmdiffkd' not in str(plain.to_dict()):
        names = [n for n in names if n.split('.')[0] != 'mmdiffkd']
    if names:
        plain.custom_imports = {**imports, 'imports': names}


def _forget_own_scope(value: object) -> None:
    """Undo what ``_base_ = 'mmdiffkd::...'`` does to every typed dict.

    MMEngine would look all types up in mmdiffkd; ours are written with
    their package, the others belong to the recipe's default scope.
    """
    if isinstance(value, dict):
        if value.get('_scope_') == 'mmdiffkd':
            del value['_scope_']
        for item in value.values():
            _forget_own_scope(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _forget_own_scope(item)
