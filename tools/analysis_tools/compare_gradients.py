"""How near the distance's gradient with few `grad_steps` is to the whole one.

    python tools/analysis_tools/compare_gradients.py CONFIG CHECKPOINT

CONFIG is a distiller's with a DiffKD neck, CHECKPOINT one of its training,
with the necks in it. On batches of its training data the distance's gradient
is taken with 1, 2, ... denoising steps that pass gradients on, with the same
noise each time, and compared with the one through all steps: by its cosine and
by its length, for the student's weights and for the denoiser's. Nothing is
trained.
"""

import contextlib
import sys

from mmdiffkd.analysis.command_line import config_parser, read_config
from mmdiffkd.analysis.gradients import COLUMNS, compare
from mmdiffkd.analysis.tables import table


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='a path or a URL')
    parser.add_argument(
        '--batches',
        type=int,
        default=8,
        help='how many batches are averaged over (default: 8)',
    )
    args = parser.parse_args()
    # What building a model prints stays out of the table.
    with contextlib.redirect_stdout(sys.stderr):
        rows = compare(read_config(args), args.checkpoint, args.batches)
    print(table(rows, COLUMNS))


if __name__ == '__main__':
    main()
