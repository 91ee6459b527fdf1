#!/bin/sh
# Puts a 64-bit Arm Python with the runtime's dependencies, and an emulator for it, into the folder $1: `$1/python` runs it.
# From Debian's packages, installed nowhere else; $2 is a Python with pip. Never fails: where it cannot be done, it says so.
folder=$1
host_python=$2
stage=$folder.stage

give_up() {
  echo "cannot make a 64-bit Arm Python ($1): the tests that run it will be skipped" >&2
  rm -rf "$stage"
  exit 0
}

[ ! -e "$folder/python" ] || exit 0
for program in apt-get dpkg; do
  command -v "$program" >/dev/null 2>&1 || give_up "there is no $program"
done
rm -rf "$stage"
mkdir -p "$stage/apt/state/lists/partial" "$stage/apt/cache/archives/partial" "$stage/tools" "$stage/root" || give_up "no folder"
stage=$(cd "$stage" && pwd)
: >"$stage/apt/installed"

# A package manager with a state of its own, in which nothing is installed, for one architecture.
apt_of() {
  architecture=$1
  shift
  apt-get -qq -o Dir::State="$stage/apt/state" -o Dir::State::status="$stage/apt/installed" -o Dir::Cache="$stage/apt/cache" \
    -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" -o APT::Sandbox::User= \
    -o Debug::NoLocking=1 "$@" >"$stage/log" 2>&1
}

unpack() {
  for package in "$stage"/apt/cache/archives/*.deb; do
    dpkg -x "$package" "$1" || return 1
  done
  rm -f "$stage"/apt/cache/archives/*.deb
}

apt_of "$(dpkg --print-architecture)" update || give_up "apt-get update fails"
apt_of "$(dpkg --print-architecture)" install -y --no-install-recommends --download-only qemu-user-static ||
  give_up "there is no qemu-user-static"
unpack "$stage/tools" || give_up "dpkg fails"
# From Debian 13 on the name that ends in -static is a link to the other.
find "$stage/tools/usr/bin" -name 'qemu-*' ! -name qemu-aarch64 ! -name qemu-aarch64-static -delete
apt_of arm64 update || give_up "the package sources have no arm64"
apt_of arm64 install -y --no-install-recommends --download-only python3-minimal libpython3-stdlib libstdc++6 ||
  give_up "the package sources have no arm64 Python"
unpack "$stage/root" || give_up "dpkg fails"
# There /lib is a link as well, which no package of these brings.
[ -e "$stage/root/lib" ] || ln -s usr/lib "$stage/root/lib"

python=$(basename "$(ls "$stage"/root/usr/bin/python3.[0-9]* | head -n 1)")
dependencies=$("$host_python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"])')
# shellcheck disable=SC2086 - one word each
"$host_python" -m pip install --quiet --disable-pip-version-check --target "$stage/site" --only-binary=:all: \
  --python-version "${python#python}" --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
  --platform manylinux2014_aarch64 -c constraints.txt $dependencies >"$stage/log" 2>&1 ||
  give_up "no wheels of the dependencies for $python on aarch64"

cat >"$stage/python" <<END
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
export PYTHONPATH="\$here/site\${PYTHONPATH:+:\$PYTHONPATH}"
exec "\$here/tools/usr/bin/qemu-aarch64-static" -L "\$here/root" "\$here/root/usr/bin/$python" "\$@"
END
chmod +x "$stage/python"
"$stage/python" -c 'import numpy' >"$stage/log" 2>&1 || give_up "$(tail -n 1 "$stage/log")"
rm -rf "$stage/apt" "$stage/log" "$folder"
mv "$stage" "$folder"
