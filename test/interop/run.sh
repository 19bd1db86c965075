#!/usr/bin/env bash
# Builds the binary and runs it against clients, servers, a broker, a browser and a scanner that are not ours. Installs what is missing:
# mosquitto, Chromium, NSS's certutil, OpenSSL, testssl.sh and systemd's tools by apt-get, the npm packages of package-lock.json. Arguments are
# the test files to run; all by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

PATH=$PATH:/usr/sbin # where Debian keeps its daemons
missing=()
command -v mosquitto >/dev/null || missing+=(mosquitto)
command -v chromium >/dev/null || missing+=(chromium)
command -v certutil >/dev/null || missing+=(libnss3-tools)
command -v openssl >/dev/null || missing+=(openssl)
command -v testssl >/dev/null || missing+=(testssl.sh)
command -v systemd-socket-activate >/dev/null || missing+=(systemd)
if [ ${#missing[@]} -gt 0 ]; then
	command -v apt-get >/dev/null || { echo "install ${missing[*]}, then run this again" >&2; exit 1; }
	root=$([ "$(id -u)" = 0 ] || echo sudo)
	$root apt-get -qq update
	# The broker is started by the tests, not by the system.
	$root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

npm ci --no-audit --no-fund --loglevel=error

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
go build -o "$built/bridgehead" ../../cmd/bridgehead

export BRIDGEHEAD=$built/bridgehead CHROMIUM
CHROMIUM=$(command -v chromium)
tests() { node --test --test-reporter=spec --test-timeout=120000 "$@"; }
if [ $# -gt 0 ]; then
	tests "$@"
else
	tests *.test.mjs
	HTTP=2 tests browser.test.mjs signin.test.mjs
	# Certificates, against Pebble: a module of its own, since nothing else needs it.
	(cd ../acme && go test -count=1 -timeout 10m .)
fi
