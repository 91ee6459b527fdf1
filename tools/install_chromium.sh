#!/bin/sh
# Installs Chromium's headless shell where that is possible without asking anybody; never fails. A package of 64 MB.
for name in chromium-headless-shell chromium google-chrome; do
  if command -v "$name" >/dev/null 2>&1; then
    exit 0
  fi
done
if ! command -v apt-get >/dev/null 2>&1; then
  echo "no Chromium, and no apt-get to install one: the test of the benchmark's page will be skipped" >&2
  exit 0
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
  sudo="sudo -n"
fi
install() {
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends chromium-headless-shell
}
# The lists of packages may be there already.
{ install || { $sudo apt-get update -qq && install; }; } >/dev/null 2>&1 ||
  echo "cannot install chromium-headless-shell: the test of the benchmark's page will be skipped" >&2
