"""What the command lines of the analysis tools share."""

import argparse

from mmengine.config import Config, DictAction

from mmdiffkd.utils import load_config
from mmdiffkd.utils.command_line import merge_options


def config_parser(description: str, **config) -> argparse.ArgumentParser:
    """A parser of CONFIG and ``--cfg-options``, for :func:`read_config`.

    Keywords are those of ``add_argument`` for CONFIG.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config = {'help': 'a path, or package::name'} | config
    parser.add_argument('config', **config)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser


def read_config(args: argparse.Namespace) -> Config:
    """The config with the options merged in."""
    config = load_config(args.config)
    merge_options(config, args.cfg_options or {})
    return config
