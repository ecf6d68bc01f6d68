"""`python -m flowplan.cli`, for launchers of several processes such as torchrun."""

from flowplan.cli import main

if __name__ == "__main__":
    main()
