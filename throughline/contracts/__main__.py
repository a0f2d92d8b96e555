"""`python -m throughline.contracts [--check]`."""

import sys

from throughline.contracts.documents import documents, in_step, write
from throughline.contracts.schemas import Broken


def main(arguments: list[str]) -> int:
    """Write the documents, or say which are not as the code would write them."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m throughline.contracts [--check]", file=sys.stderr)
        return 64
    try:
        made = documents()
        if not arguments:
            for path in write(made):
                print(f"{path}: written")
            return 0
    except Broken as exc:
        print(exc, file=sys.stderr)
        return 1
    stale = in_step(made)
    for path, why in stale.items():
        print(f"{path}: {why}; run `python -m throughline.contracts`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
