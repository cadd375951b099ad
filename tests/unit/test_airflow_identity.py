import json
import socket
import stat
from pathlib import Path

from jobs.services.airflow import Identity, ensure_password


def test_an_identity_is_kept_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    made = Identity.of(tmp_path)
    assert Identity.of(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "identity.json").stat().st_mode) == 0o600


def test_the_password_is_there_before_airflow_and_is_kept(tmp_path: Path) -> None:
    ensure_password(tmp_path)
    path = tmp_path / "passwords.json"
    made = json.loads(path.read_text())
    assert len(made["admin"]) >= 20
    path.chmod(0o644)
    ensure_password(tmp_path)
    assert json.loads(path.read_text()) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_two_homes_share_a_secret(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Identity.of(tmp_path / "a"), Identity.of(tmp_path / "b")
    secrets = {one.jwt_secret, one.secret_key, one.fernet_key}
    assert not secrets & {other.jwt_secret, other.secret_key, other.fernet_key}
    assert len(secrets) == 3


def test_a_port_that_was_taken_meanwhile_is_given_up(tmp_path: Path) -> None:
    made = Identity.of(tmp_path)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", made.port))
        squatter.listen()
        assert Identity.of(tmp_path).port != made.port
