"""The configuration: defaults, overrides, and refusals that say where and what."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import Config, ConfigError, load


def write(folder: Path, text: str) -> Path:
    path = folder / "fairwayd.toml"
    path.write_text(text)
    return path


def test_an_empty_file_gives_all_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, ""))
    assert config == Config()
    assert (config.api.port, config.raft.port, config.join.port) == (7443, 7444, 7445)
    assert config.socket_path == Path("/run/fairway/fairwayd.sock")


def test_every_value_can_be_set(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            """
            [host]
            name = "host-1"
            state_folder = "/srv/fairway"
            advertise_address = "192.0.2.7"
            [api]
            port = 8443
            [network]
            dns_upstreams = ["192.0.2.53", "2001:db8::53"]
            host_network_allowed = true
            [storage]
            allowed_bind_mounts = ["/srv/data"]
            [logs]
            size_bytes_max = 1_000_000
            [timing]
            heartbeat_ms = 200
            host_down_ms = 600
            """,
        )
    )
    assert config.host.name == "host-1"
    assert config.api.port == 8443
    assert config.network.dns_upstreams == ("192.0.2.53", "2001:db8::53")
    assert config.network.host_network_allowed
    assert config.storage.allowed_bind_mounts == ("/srv/data",)
    assert config.storage.volumes_folder == Path("/srv/fairway/volumes")
    assert config.identity_folder == Path("/srv/fairway/identity")
    assert config.timing.host_down_ms == 600


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[hosts]\nname = 'a'", 1, "did you mean 'host'"),
        ("[host]\n\nnmae = 'a'", 3, "did you mean 'name'"),
        ("port = 1", 1, "is not known"),
        ("# one\nhost = 'a'", 2, "must be a table"),
        ("host.nmae = 'a'", 1, "did you mean 'name'"),
        ("[api]\nport = '7443'", 2, "must be a whole number"),
        ("[api]\nport = true", 2, "must be a whole number"),
        ("[api]\nport = 70000", 2, "not between 1 and 65535"),
        ("[api]\nlisten_address = 'localhost'", 2, "not an IP address"),
        ("[host]\nadvertise_address = '0.0.0.0'", 2, "no address of one host"),
        ("[host]\nname = 'Host_1'", 2, "lower-case"),
        ("[host]\nstate_folder = 'state'", 2, "not an absolute path"),
        ("[resources]\nshared_devices = ['gpu']", 2, "'gpu' is neither a kind of device (vendor.com/class) nor one"),
        ("[host]\nstate_folder = 7", 2, "a path in quotes"),
        ("[containerd]\ncgroup_parent = 'fairway'", 2, "begins with '/'"),
        ("[containerd]\nsocket = '/" + "a" * 120 + "'", 2, "too long"),
        ("[network]\ndns_upstreams = '192.0.2.1'", 2, "a list of texts"),
        ("[network]\ndns_upstreams = [1]", 2, "a list of texts"),
        ("[network]\nhost_network_allowed = 1", 2, "must be true or false"),
        ("[network]\ninterface_prefix = 'fairway'", 2, "1 to 4"),
        ("[storage]\nallowed_bind_mounts = ['/srv/../etc']", 2, "without '..'"),
        ("[raft]\nport = 7443", 2, "set for both [api] and [raft]"),
        ("[timing]\nheartbeat_ms = 2000", 1, "twice heartbeat_ms"),
        ("[timing]\nraft_election_ms_min = 2000\nraft_election_ms_max = 2000", 3, "larger"),
        ("[timing]\nraft_heartbeat_ms = 500", 1, "at least 4"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


def test_broken_toml_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load(write(tmp_path, "host = "))
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "binary.toml")


def test_a_missing_default_file_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.config_file.DEFAULT_PATH", tmp_path / "absent.toml")
    assert load() == Config()
