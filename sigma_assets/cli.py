"""The command line: `sigma --help` lists its verbs.

Every import that costs time is inside the verb that needs it, so that `sigma --help` and `sigma recommend` start fast (the
latter and `search` never import dagster, peft or great_expectations). Errors are one line on stderr and exit code 1;
`-v` shows the traceback. Source: issue "SIGMA end to end", section CLI.
"""

import errno
import logging
import signal
import sys
from typing import Final

import sigma_assets.cli_abtest
import sigma_assets.cli_benchmark
import sigma_assets.cli_benchmark_accuracy
import sigma_assets.cli_benchmark_operations
import sigma_assets.cli_benchmark_proof
import sigma_assets.cli_benchmark_serving
import sigma_assets.cli_benchmark_speed
import sigma_assets.cli_pipeline
import sigma_assets.cli_promotion
import sigma_assets.cli_serving  # noqa: F401  (these register the verbs)
from sigma_assets.cli_app import app

_FULL: Final = "Nothing half written counts. Make room (`sigma prune` takes old days away), then run the same command again."
_REMEDIES: Final = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: "Give this user the right to it, or use another --root.",
    errno.EROFS: "Nothing can be written there; use another --root.",
    errno.EIO: "The disk failed to read or write it. What was written whole before stays; look at the disk, then run the same command again.",
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: runs a verb and exits with 0, 1 (an error, one line) or 130 (Ctrl-C)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verbose = "-v" in arguments or "--verbose" in arguments
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends like Ctrl-C
    try:
        code = app(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on where it was.\n")
        sys.exit(130)
    except Exception as error:
        if verbose:
            logging.getLogger("sigma").exception("failed")
        sys.stderr.write(f"error: {one_line(error)}\n")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def one_line(error: BaseException) -> str:
    """The error in one line. Our own errors say what to do; of others the type is named."""
    text = " ".join(str(getattr(error, "format_message", lambda: error)()).split())
    module = type(error).__module__
    if module.startswith(("sigma_", "typer")) or isinstance(error, ValueError):
        return text
    if isinstance(error, OSError) and (to_do := _REMEDIES.get(error.errno or 0)):
        return f"{text}. {to_do}"
    return f"{type(error).__name__}: {text} (run again with -v for the traceback)"


if __name__ == "__main__":
    main()
