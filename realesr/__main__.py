"""`python -m realesr`: the same as the command `realesr`."""

from realesr.cli import main

if __name__ == "__main__":
    main()
