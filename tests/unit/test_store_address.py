"""The address of the online store: malformed ones are refused, and nothing of them is shown."""

import pytest

from feature_store.client.client import FeatureClient
from feature_store.contracts.errors import InputError
from feature_store.online.store import open_store
from jobs.cli import main

MALFORMED = (
    "redis://:s3cr3t/x@host:6379/0",
    "redis://user:s3cr3t#x@host:6379/0",
    "redis://user:s3cr3t?x@host",
    "redis://:s3cr3t",
    "redis://user:pass@host:s3cr3t/0",
    "redis://host/s3cr3t",
    "redis://[::s3cr3t:6379/0",
    "redi://:s3cr3t@host",
    "user:s3cr3t@host:6379",
    "s3cr3t",
    "unix://:s3cr3t/x@/run/redis.sock",
    "file://s3cr3t/folder",
    "redis://:p\ud800s3cr3t@host/x@y",
)


@pytest.mark.parametrize("url", MALFORMED)
def test_no_part_of_a_malformed_address_is_shown(url, tmp_path, monkeypatch, capsys) -> None:
    for use in (open_store, FeatureClient):
        with pytest.raises(InputError, match="online store") as refused:
            use(url)
        shown = repr(refused.value) + str(refused.value.__cause__)
        assert "s3cr3t" not in shown
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--dataset", "simulated"]) == 0
    if not url.isascii():
        return  # no environment can hold it
    monkeypatch.setenv("DERM_REDIS_URL", url)
    for command in (["status"], ["get", "user", "u1"], ["status", "--json"]):
        assert main(command) in (0, 2)
        said = capsys.readouterr()
        assert "s3cr3t" not in said.out + said.err


def test_an_option_of_a_wrong_type_is_named_without_its_value() -> None:
    with pytest.raises(InputError, match="'db'") as refused:
        open_store("redis://host?db=s3cr3t")
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("redis://host:6380/3", "redis host:6380"),
        ("rediss://user:p%2F%40@host:6380/0?ssl_ca_certs=/etc/ca.pem", "redis host:6380"),
        ("redis://user:p@ss@host", "redis host:6379"),
        ("redis://[::1]:6379/0", "redis ::1:6379"),
        ("unix://user:pass@/run/redis.sock?db=0", "redis unix:/run/redis.sock"),
        ("file:///a folder/caf\u00e9@home/100%25", "files /a folder/caf\u00e9@home/100%"),
    ],
)
def test_a_good_address_is_read_as_it_is_meant(url: str, location: str) -> None:
    assert open_store(url).location == location
