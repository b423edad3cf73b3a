#!/bin/bash
# Installs Fairway on this Debian 12 host: packages it needs, a virtual environment of its own in /opt/fairway, the
# service, a sample configuration. Safe to repeat: it then updates Fairway and keeps what you have configured.
#
#   ./packaging/install.sh [SOURCE]       SOURCE: a source folder or a wheel; default: the folder this lies in
#   ./packaging/install.sh --uninstall    removes it again; what the cluster keeps on this host stays
#   ./packaging/install.sh --uninstall --purge   removes configuration, state and logs too
set -euo pipefail

prefix=/opt/fairway
unit=/etc/systemd/system/fairwayd.service
config=/etc/fairway/fairwayd.toml
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
packages=(containerd runc nftables iproute2 python3 python3-venv tini util-linux sqlite3 ca-certificates)

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
has_systemd() { [ -d /run/systemd/system ]; }

install_fairway() {
    local source=$1
    [ -e "$source" ] || fail "$source does not exist: name a source folder or a wheel of Fairway"
    command -v apt-get >/dev/null || fail "this script is for Debian 12: there is no apt-get here"
    local missing=() package
    # Hosts of a cluster that encrypts need WireGuard: the kernel's, else the one in user space.
    [ -d /sys/module/wireguard ] || modprobe -n -q wireguard 2>/dev/null || packages+=(wireguard-go)
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing Debian packages: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update
        apt-get -q install -y --no-install-recommends "${missing[@]}"
    fi
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
    say "installing Fairway in $prefix"
    [ -x "$prefix/bin/python" ] || /usr/bin/python3 -m venv "$prefix"
    "$prefix/bin/python" -m pip install --quiet --quiet --upgrade "$source"
    # Without this a source folder of the same version would count as installed already.
    "$prefix/bin/python" -m pip install --quiet --quiet --force-reinstall --no-deps "$source"
    ln -sfn "$prefix/bin/fairway" /usr/local/bin/fairway
    ln -sfn "$prefix/bin/fairwayd" /usr/local/bin/fairwayd
    install -d -m 0755 /etc/fairway "$prefix/share/doc"
    [ -e "$config" ] || install -m 0644 "$here/fairwayd.toml" "$config"
    install -m 0644 "$here/../docs/install.md" "$prefix/share/doc/install.md"
    install -d -m 0755 "$(dirname "$unit")"
    install -m 0644 "$here/fairwayd.service" "$unit"
    if has_systemd; then
        systemctl daemon-reload
        systemctl enable --quiet containerd.service fairwayd.service
        systemctl start containerd.service
        systemctl restart fairwayd.service # containers go on: they are not the daemon's children
        say "fairwayd runs. Make a cluster: fairway init. Or join one: fairway join ADDRESS --token TOKEN"
    else
        say "there is no systemd here; start it yourself: fairwayd --config $config"
    fi
}

uninstall_fairway() {
    if [ -S /run/fairway/fairwayd.sock ]; then
        say "note: containers that still run are left running; drain the host first: fairway node drain NAME"
    fi
    if has_systemd && [ -e "$unit" ]; then
        systemctl disable --quiet --now fairwayd.service || true
    fi
    rm -f "$unit" /usr/local/bin/fairway /usr/local/bin/fairwayd
    ! has_systemd || systemctl daemon-reload
    rm -rf "$prefix"
    if [ "${1:-}" = --purge ]; then
        rm -rf /etc/fairway /var/lib/fairway /var/log/fairway
        say "Fairway is gone, with configuration, state and logs"
    else
        say "Fairway is gone; kept: /etc/fairway, /var/lib/fairway, /var/log/fairway (--purge removes them)"
    fi
}

[ "$(id -u)" = 0 ] || fail "this needs root: sudo $0 $*"
case ${1:-} in
--uninstall) uninstall_fairway "${2:-}" ;;
-h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" ;;
-*) fail "there is no option $1; see --help" ;;
*) install_fairway "${1:-$here/..}" ;;
esac
