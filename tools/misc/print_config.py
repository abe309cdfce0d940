"""Print a config with everything it inherits.

python tools/misc/print_config.py CONFIG [--cfg-options KEY=VALUE ...]
"""

import argparse

from mmengine.config import Config, DictAction

from mmdiffkd.utils.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Print a config with everything it inherits.'
    )
    parser.add_argument('config', help='a path, or package::name')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    parser.add_argument(
        '--save-path',
        metavar='FILE',
        help='write it here as well (.py, .json or .yml)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg: Config = load_config(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    print(cfg.pretty_text)
    if args.save_path is not None:
        cfg.dump(args.save_path)


if __name__ == '__main__':
    main()
