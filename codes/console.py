"""Text on the console that other programs may read."""

import os
import sys


def write_out(text: str) -> None:
    """Write lines to stdout; where its reader (`| head`) has seen enough before their end, drop the rest."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
