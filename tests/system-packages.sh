#!/bin/sh
# What the tests start for real and pip cannot bring: Redis, Chromium, a C++ compiler for torch.compile, and promtool. Installed if this is root on
# Debian or Ubuntu; otherwise it says what to install and fails, so that no test is left out in silence.
set -eu

# only the program: the package would start a Prometheus on the machine
fetch_promtool() {
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .)
    mkdir -p .venv/bin && cp "$folder/usr/bin/promtool" .venv/bin/promtool
    rm -rf "$folder"
}
has_promtool() {
    command -v promtool >/dev/null 2>&1 || test -x .venv/bin/promtool
}

missing=""
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v chromedriver >/dev/null 2>&1 || missing="$missing chromium-driver"
command -v g++ >/dev/null 2>&1 || missing="$missing g++"
has_promtool || missing="$missing promtool"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    apt-get update -qq
    has_promtool || fetch_promtool
    missing=$(echo "$missing" | sed 's/ promtool//')
    # shellcheck disable=SC2086  # a list of names
    [ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "The tests need$missing. Install with: sudo apt-get install$missing (promtool is in the package prometheus)" >&2
    exit 1
fi
