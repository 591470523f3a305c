"""`python -m s1batch`."""

from s1batch.cli import main

main()
