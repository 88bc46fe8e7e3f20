"""`otpbridge completion`: let the shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from otpbridge.cli import show
from otpbridge.cli.options import example

_WHERE = {
    "bash": "/etc/bash_completion.d/otpbridge",
    "zsh": "/usr/share/zsh/site-functions/_otpbridge",
    "fish": "/etc/fish/completions/otpbridge.fish",
}


@click.command(
    epilog=example(
        'eval "$(otpbridge completion bash)"',
        *(f"otpbridge completion {shell} > {path}" for shell, path in _WHERE.items()),
    )
)
@click.argument("shell", type=click.Choice([*_WHERE]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    maker = kind(context.find_root().command, {}, "otpbridge", "_OTPBRIDGE_COMPLETE")
    show.line(kind.source_template % maker.source_vars())
