#!/bin/sh
# Installs what itest needs, where it can: the engines of this host (as root on Debian), and those of
# the next generation, cached outside the tree: a trixie root, and beside it its engines made to run
# on this host. It may be run any number of times, and does nothing where all is there. Where it can
# do nothing it says so and succeeds: the tests then skip, saying why.
#
#   UNMOOR_CACHE      where these lie (default /var/cache/unmoor-itest)
#   UNMOOR_NO_TRIXIE  set: the host's engines only
set -eu

cache=${UNMOOR_CACHE:-/var/cache/unmoor-itest}
say() { echo "itest/setup: $*" >&2; }

if [ "$(id -u)" -ne 0 ]; then
	say "not root: nothing is installed, and the tests against real engines will be skipped"
	exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null || [ ! -e /etc/debian_version ]; then
	say "not Debian: install podman, buildah, runc, conmon, containers-storage and a static busybox yourself; what is missing is skipped"
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# The host's engines, what the scenes are built with, and a browser to look at pages with.
host='podman buildah runc crun conmon skopeo containers-storage netavark fuse-overlayfs
busybox-static catatonit debootstrap patchelf strace util-linux procps passwd uidmap e2fsprogs systemd python3 chromium'
missing=
for package in $host; do
	status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
	case $status in ii*) ;; *) missing="$missing $package" ;; esac
done
if [ -n "$missing" ]; then
	say "installing$missing"
	apt-get update -q >&2 || say "apt-get update went wrong; going on with the lists that are there"
	# shellcheck disable=SC2086 # a list of words
	apt-get install -q -y --no-install-recommends $missing >&2
fi

# A user with subordinate IDs, for rootless engines.
id unmoor-itest >/dev/null 2>&1 || useradd --create-home --shell /usr/sbin/nologin unmoor-itest

# The next generation of the engines.
trixie=$cache/trixie
native=$cache/trixie-native
include=podman,buildah,crun,runc,conmon,netavark,containers-storage,systemd,busybox-static,python3-varlink,procps,catatonit
if [ -n "${UNMOOR_NO_TRIXIE:-}" ]; then
	say "UNMOOR_NO_TRIXIE is set: no second generation of engines"
	exit 0
fi
sid=$cache/varlinkctl-sid
if [ -x "$native/podman" ] && [ -x "$native/varlinkctl" ] && [ -x "$sid/varlinkctl" ]; then
	exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
# One that was interrupted lies under its temporary name, and is never used.
rm -rf --one-file-system "$cache"/*.new.*

# The host's own mirrors, as apt knows them: the repositories that call themselves Debian.
mirrors() {
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 2>/dev/null |
		awk -F'|' '$1 == "Debian" && $2 == "Debian" { print $3 }' | sort -u
}

root() {
	[ ! -x "$trixie/usr/bin/podman" ] || return 0
	for mirror in $(mirrors) ''; do
		new=$(mktemp -d "$cache/trixie.new.XXXXXX")
		chmod 755 "$new"
		say "debootstrap of trixie${mirror:+, from the mirror of this host}"
		# shellcheck disable=SC2086 # an empty mirror is no argument: debootstrap has its default
		if debootstrap --variant=minbase --include="$include" trixie "$new" $mirror >"$cache/debootstrap.log" 2>&1; then
			mv "$new" "$trixie"
			rm -f "$cache/debootstrap.log"
			return 0
		fi
		rm -rf --one-file-system "$new"
	done
	tail -n 5 "$cache/debootstrap.log" >&2 || true
	say "no trixie root (see $cache/debootstrap.log)"
	return 1
}

# The engines, and varlinkctl, with the loader and the libraries of their own root, so that they run on this
# host as any program: in a chroot, the containers' mount namespaces keep this host's root and all its mounts,
# and in namespaces of their own Unmoor rightly does not trust what it sees.
engines() {
	[ ! -x "$native/podman" ] || [ ! -x "$native/varlinkctl" ] || return 0
	new=$(mktemp -d "$cache/trixie-native.new.XXXXXX")
	chmod 755 "$new"
	set -- "$trixie"/usr/lib/*-linux-gnu*/libc.so.6
	libraries=$(dirname "$1")
	loader=$(patchelf --print-interpreter "$trixie/usr/bin/podman")
	for program in bin/podman bin/buildah bin/conmon bin/crun sbin/runc bin/containers-storage bin/varlinkctl \
		lib/podman/netavark; do
		cp "$trixie/usr/$program" "$new/" &&
			patchelf --set-interpreter "$trixie$loader" --force-rpath --set-rpath "$libraries:$libraries/systemd" \
				"$new/${program##*/}" ||
			return 1
	done
	cp "$trixie/usr/bin/catatonit" "$new/" # static
	"$new/podman" --version >/dev/null && "$new/varlinkctl" --version >/dev/null || return 1
	rm -rf "$native"
	mv "$new" "$native"
	say "second generation of engines ready in $native"
}

# The newest varlinkctl that there is, which leaves out parameters where an older one writes {}. It runs
# with this host's libraries and one of its own.
newest_varlinkctl() {
	[ ! -x "$sid/varlinkctl" ] || return 0
	new=$(mktemp -d "$cache/varlinkctl-sid.new.XXXXXX")
	chmod 755 "$new"
	mkdir -p "$new/apt/lists/partial" "$new/apt/cache/archives/partial"
	for mirror in $(mirrors); do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$new/apt/sources.list"
		set -- -q -o Dir::Etc::SourceList="$new/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
			-o Dir::State::Lists="$new/apt/lists" -o Dir::Cache="$new/apt/cache" -o Dir::State::Status=/dev/null \
			-o APT::Sandbox::User=root
		apt-get "$@" update >"$new/log" 2>&1 &&
			(cd "$new" && apt-get "$@" download systemd libsystemd-shared >>log 2>&1) || continue
		for deb in "$new"/*.deb; do
			dpkg-deb -x "$deb" "$new/root" || return 1
		done
		cp "$new"/root/usr/bin/varlinkctl "$new"/root/usr/lib/*/systemd/libsystemd-shared-*.so "$new/" &&
			patchelf --force-rpath --set-rpath "$sid" "$new/varlinkctl" &&
			rm -rf "$new/root" "$new/apt" "$new/log" "$new"/*.deb && mv "$new" "$sid" &&
			"$sid/varlinkctl" --version >/dev/null && return 0
		rm -rf "$sid"
		return 1
	done
	rm -rf "$new"
	return 1
}

if ! root || ! engines; then
	say "the second generation of engines is skipped"
fi
newest_varlinkctl || say "no varlinkctl of sid: the service is tested with the second generation's alone"
exit 0
