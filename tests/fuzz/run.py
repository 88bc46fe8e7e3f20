"""Runs a target: over files, or (with atheris) by libFuzzer.

python tests/fuzz/run.py TARGET FILE...              what the target makes of these inputs
python tests/fuzz/run.py --fuzz TARGET OPTION...     fuzzing, with the options of libFuzzer
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TARGETS = tuple(sorted(path.stem for path in (FOLDER / "targets").glob("*.py")))


def load(target: str) -> Callable[[bytes], None]:
    """The check of a target."""
    support = str(FOLDER.parent / "support")
    if support not in sys.path:
        sys.path.append(support)
    specification = importlib.util.spec_from_file_location(f"fuzz_{target}", FOLDER / "targets" / f"{target}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    check: Callable[[bytes], None] = module.check
    return check


def fuzz(target: str, options: list[str]) -> None:
    """Fuzz until libFuzzer ends the process. Coverage is that of otpbridge's own modules."""
    import atheris

    with atheris.instrument_imports(include=["otpbridge"], enable_loader_override=False):
        check = load(target)
    atheris.Setup([target, *options], check)
    atheris.Fuzz()


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["--fuzz", target, *options] if target in TARGETS:
            fuzz(target, options)
        case [target, *files] if target in TARGETS:
            check = load(target)
            for file in files:
                check(Path(file).read_bytes())
        case _:
            sys.exit(f"{__doc__}\ntargets: {', '.join(TARGETS)}")


if __name__ == "__main__":
    main()
