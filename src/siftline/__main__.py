"""``python -m siftline`` is the ``siftline`` command."""

from siftline.cli import main

main()
