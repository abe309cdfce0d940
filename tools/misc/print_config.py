"""Print a config with everything it inherits.

python tools/misc/print_config.py CONFIG [--cfg-options KEY=VALUE ...]
"""

from mmdiffkd.analysis.command_line import config_parser, read_config


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument(
        '--save-path',
        metavar='FILE',
        help='write it here as well (.py, .json or .yml)',
    )
    args = parser.parse_args()
    config = read_config(args)
    print(config.pretty_text)
    if args.save_path is not None:
        config.dump(args.save_path)


if __name__ == '__main__':
    main()
