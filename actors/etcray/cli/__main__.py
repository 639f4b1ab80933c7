"""`python -m etcray.cli`: the same as `etcray`, where the script is not on the path."""

from etcray.cli.main import main

main()
