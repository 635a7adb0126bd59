"""The address of an MLflow server or database in a job: which are allowed, without passwords."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationInfo

from trialrun.job.fields import folder_of

_SQLITE = "sqlite"
# MLflow's folders of plain files (`file:`) are not allowed, because MLflow has deprecated them.
_SQL_STORES = (_SQLITE, "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")


def check_tracking_uri(uri: str, info: ValidationInfo) -> str:
    """The address; that of a SQLite file becomes absolute if the job's folder is known.

    Raises:
        ValueError: MLflow does not take such an address, or it holds a password, which everybody
            who sees the run could read.
    """
    kind, _, rest = uri.partition("://")
    is_file = kind_of(uri) == _SQLITE
    if kind_of(uri) not in (*_SERVERS, *_SQL_STORES) or not rest.strip("/"):
        raise ValueError(
            "must be the address of an MLflow server, such as http://localhost:5000, or of its"
            f" database, such as sqlite:///mlflow.db, got {_without_password(uri)!r}"
        )
    if _password_of(uri):
        raise ValueError(
            "must not hold a password, because job.yaml and the report show it; set the environment"
            " variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    folder = folder_of(info)
    if folder is None or not (is_file and rest.startswith("/")):
        return uri
    return f"{kind}:///{folder / rest[1:]}"


def kind_of(uri: str) -> str:
    """The kind of a store: `http`, `sqlite`, ...; `mysql` for `mysql+pymysql`."""
    return uri.partition("://")[0].partition("+")[0]


def is_database(uri: str) -> bool:
    """Whether MLflow connects to a database itself instead of to a server."""
    return kind_of(uri) in _SQL_STORES


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for other stores."""
    if kind_of(uri) != _SQLITE:
        return None
    return Path(uri.partition("://")[2][1:].partition("?")[0])


def _password_of(uri: str) -> str | None:
    try:
        return urlsplit(uri).password
    except ValueError:  # the text is no URL
        return None


def _without_password(uri: str) -> str:
    """The address without its password, as messages may show it."""
    password = _password_of(uri)
    return uri.replace(password, "...") if password else uri
