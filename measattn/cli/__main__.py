"""Start with ``python -m measattn.cli``."""

from measattn.cli import main

if __name__ == "__main__":
    main()
