"""The command, called as a user calls it."""

from typer.testing import CliRunner

from quincunx.cli.app import app


def call(*words, code: int = 0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result
