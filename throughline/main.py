"""The command line: a table of its commands. Each is carried out by the module that is named after its subject."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from deploy.embedded.errors import CannotStart
from throughline import backups, dead, exports, hooks, imports, operations, parked, stack, tokens
from throughline.errors import FAILED, USAGE, CommandFailed

_UsageError: Any = typer.BadParameter.__base__  # the class of every wrong call; only its children are exported


class Commands(TyperGroup):
    """Ends with the status that a command answers, and says what kept it from its work in one sentence."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line."""
        try:
            status = super().main(*args, **{**extra, "standalone_mode": False})
        except _UsageError as exc:
            exc.show()
            sys.exit(USAGE)
        except CommandFailed as exc:
            print(exc, file=sys.stderr)
            sys.exit(exc.status)
        except CannotStart as exc:
            print(exc, file=sys.stderr)
            sys.exit(FAILED)
        sys.exit(status or 0)


app = typer.Typer(
    name="throughline",
    cls=Commands,
    help="Takes every lead from first touch to attributed revenue.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("ps")(stack.ps)
app.command("run")(operations.run)
app.command("migrate")(operations.migrate)
app.command("prepare")(operations.prepare)
app.command("lag")(operations.lag)
app.command("rebuild")(operations.rebuild)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)
app.command("import")(imports.import_file)
app.command("export")(exports.export)

topics_app = typer.Typer(help="Kafka's topics, as the topic table says.", no_args_is_help=True)
topics_app.command("apply")(operations.apply_topics)
topics_app.command("drift")(operations.topic_drift)
app.add_typer(topics_app, name="topics")

parked_app = typer.Typer(
    help="Facts that could not be carried out, and those that wait behind them.",
    no_args_is_help=True,
)
parked_app.command("list")(parked.list_parked)
parked_app.command("show")(parked.show)
parked_app.command("retry")(parked.retry)
parked_app.command("discard")(parked.discard)
app.add_typer(parked_app, name="parked")

dead_app = typer.Typer(help="Records of Kafka that could not be read.", no_args_is_help=True)
dead_app.command("list")(dead.list_dead)
dead_app.command("show")(dead.show)
dead_app.command("retry")(dead.retry)
dead_app.command("discard")(dead.discard)
app.add_typer(dead_app, name="dead")

hooks_app = typer.Typer(help="Recorded webhook requests.", no_args_is_help=True)
hooks_app.command("check")(hooks.check)
hooks_app.command("replay")(hooks.replay)
app.add_typer(hooks_app, name="hooks")

tokens_app = typer.Typer(help="Access tokens.", no_args_is_help=True)
tokens_app.command("create")(tokens.create)
tokens_app.command("list")(tokens.list_revoked)
tokens_app.command("revoke")(tokens.revoke)
app.add_typer(tokens_app, name="tokens")
