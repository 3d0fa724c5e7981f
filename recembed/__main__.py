"""``python -m recembed`` is the command ``recembed``."""

from recembed.cli import main

if __name__ == "__main__":
    main()
