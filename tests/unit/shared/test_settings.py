"""Settings come from variables, and where there is none from the files a container is given."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared import settings as module
from shared.settings import Settings
from throughline.settings import given

SECRET = "ab" * 32
VARIABLES = {
    "THROUGHLINE_DATABASE_URL": "postgresql://throughline@127.0.0.1/throughline",
    "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
}


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("THROUGHLINE_SECRET", raising=False)
    monkeypatch.setattr(module, "SECRET_FILES", tmp_path)
    file = tmp_path / "throughline_secret"
    file.write_text(f"{SECRET}\n")
    return file


def read(folder: Path) -> Settings:
    return Settings(_secrets_dir=folder)


def test_a_file_stands_for_a_variable(secret_file: Path) -> None:
    assert read(secret_file.parent).secret.get_secret_value() == SECRET
    assert given("THROUGHLINE_SECRET") == SECRET


def test_a_variable_goes_before_a_file(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROUGHLINE_SECRET", "cd" * 32)
    assert read(secret_file.parent).secret.get_secret_value() == "cd" * 32
    assert given("THROUGHLINE_SECRET") == "cd" * 32


def test_an_empty_variable_is_none(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROUGHLINE_SECRET", "")
    monkeypatch.setenv("THROUGHLINE_SMTP_URL", "")
    found = read(secret_file.parent)
    assert found.secret.get_secret_value() == SECRET
    assert found.smtp_url is None


def test_a_secret_is_not_shown(secret_file: Path) -> None:
    assert SECRET not in repr(read(secret_file.parent))


def test_a_wrong_value_stops_the_start(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROUGHLINE_TOPIC_PARTITIONS", "none")
    with pytest.raises(ValidationError, match="topic_partitions"):
        read(secret_file.parent)


def test_what_is_nowhere_is_not_given(secret_file: Path) -> None:
    secret_file.unlink()
    assert given("THROUGHLINE_SECRET") is None


def test_a_secret_is_hexadecimal(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROUGHLINE_SECRET", "no" * 32)
    with pytest.raises(ValidationError, match="is not hexadecimal") as refused:
        read(secret_file.parent)
    assert "nono" not in str(refused.value)


@pytest.mark.parametrize("half", ["OIDC_ISSUER", "OIDC_JWKS_URL"])
def test_an_issuer_and_its_keys_go_together(secret_file: Path, monkeypatch: pytest.MonkeyPatch, half: str) -> None:
    monkeypatch.setenv(f"THROUGHLINE_{half}", "https://issuer.example")
    with pytest.raises(ValidationError, match="set together"):
        read(secret_file.parent)
