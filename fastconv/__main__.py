"""``python -m fastconv`` is the command ``fastconv``."""

from .cli.__main__ import main

if __name__ == "__main__":
    main()
