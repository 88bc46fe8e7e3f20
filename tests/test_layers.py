"""The structure that the design asks for."""

from __future__ import annotations

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_layers_point_one_way(capsys):
    """Every import goes downward; the deciding code reaches no I/O; hardware libraries stay apart."""
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == EXIT_STATUS_SUCCESS, (
        capsys.readouterr().out
    )
