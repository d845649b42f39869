"""``python -m refsam_qgis.engine``: run a job from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from . import process
from .arguments import build_parser, job_from_arguments
from .errors import JobCancelled
from .failures import explain


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is JSON on standard output.

    Returns:
        Exit status: 0 done, 1 failed with one sentence on standard error. Wrong usage leaves with 2 by argparse.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.command == "worker":
        from .worker import serve_standard_streams

        return serve_standard_streams(arguments.idle_seconds)
    try:
        job = job_from_arguments(arguments)
        from .console import ConsoleReporter
        from .pace import paced
        from .runner import run_job

        with ConsoleReporter() as console, paced(console) as reporter:
            result = run_job(job, reporter)
    except KeyboardInterrupt:
        print(JobCancelled(), file=sys.stderr)
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        print(explain(error), file=sys.stderr)
        return 1
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    process.prepare()
    sys.exit(main())
