"""Print where to distil a recipe, or all architectures that are known.

    python tools/misc/print_taps.py CONFIG
    python tools/misc/print_taps.py

Of a CONFIG the taps of last map, pyramid and logits are printed with the
shapes that they yield for two images; of a distiller's config those of its
student. Without a CONFIG the table of known architectures is printed. Taps in
it begin at the part of the network: `ln1` of a backbone is `backbone.ln1`.
"""

from mmdiffkd.analysis.command_line import config_parser, read_config
from mmdiffkd.analysis.tables import markdown
from mmdiffkd.analysis.taps import known, yielded
from mmdiffkd.models.distillers.known_taps import TABLE


def main() -> None:
    args = config_parser(__doc__, nargs='?').parse_args()
    if args.config is not None:
        print(yielded(read_config(args)))
        return
    for part in TABLE:
        headings, *rows = known(part)
        print(f'{part}\n\n{markdown(headings, rows)}\n')


if __name__ == '__main__':
    main()
