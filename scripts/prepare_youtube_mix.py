"""Say how to get YouTubeMix: nobody gives a licence for it, so it is not downloaded here.

python scripts/prepare_youtube_mix.py
"""

import argparse

STEPS = """YouTubeMix is cut from one video; its rights are its owner's, and nobody gives a licence for it.

1. Decide whether you may use it; its makers offer it at https://huggingface.co/datasets/krandiash/youtubemix.
2. Download the zip from there and unpack it into a folder: 241 numbered WAV files of a minute, 16,000 Hz, mono.
3. python -m codes.data.audio.youtube_mix --path FOLDER"""


def main(arguments: list[str] | None = None) -> int:
    """Print the steps."""
    argparse.ArgumentParser(prog="prepare_youtube_mix.py", description=(__doc__ or "").split("\n")[0]).parse_args(
        arguments
    )
    print(STEPS)
    return 0


if __name__ == "__main__":
    main()
