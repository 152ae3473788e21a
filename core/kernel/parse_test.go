package kernel

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const statLine = "4242 (a) R (b\n) S 1 4242 4242 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 98765 1000 10 18446744073709551615 0 0\n"

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte(statLine))
	if err != nil || s != (stat{comm: "a) R (b\n", state: 'S', parent: 1, flags: 4194560, startTime: 98765}) {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{"", "1 (x", "1 )x( S", "1 (x) S 1 2 3", strings.ReplaceAll(statLine, "98765", "never")} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	for _, c := range []struct{ name, file, cgroup, unit string }{
		{"a service, cgroup v2", "0::/system.slice/crio.service\n", "/system.slice/crio.service", "crio.service"},
		{"a container in a scope", "0::/machine.slice/libpod-1f.scope/container\n", "/machine.slice/libpod-1f.scope/container", "libpod-1f.scope"},
		{"a login", "0::/user.slice/user-0.slice/session-1.scope\n", "/user.slice/user-0.slice/session-1.scope", "session-1.scope"},
		{"hybrid", "12:pids:/x\n1:name=systemd:/system.slice/ssh.service\n0::/\n", "/system.slice/ssh.service", "ssh.service"},
		{"no systemd", "0::/docker/1f\n", "/docker/1f", ""},
		{"nothing", "", "", ""},
	} {
		cgroup, unit := parseCgroup([]byte(c.file))
		if cgroup != c.cgroup || unit != c.unit {
			t.Errorf("%s: %q %q", c.name, cgroup, unit)
		}
	}
}

func TestParseMaps(t *testing.T) {
	got := parseMaps([]byte("00400000-00401000 r-xp 00000000 fd:10 1234                 /bin/a b\n" +
		"00401000-00402000 rw-p 00001000 fd:10 1234                 /bin/a b\n" +
		"7ffd0000-7ffd1000 rw-p 00000000 00:00 0                    [stack]\nnonsense\n"))
	if diff := cmp.Diff([]mapping{{addresses: "400000-401000", dev: unix.Mkdev(0xfd, 0x10), inode: 1234}}, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseCommand(t *testing.T) {
	for in, want := range map[string]string{
		"sh\x00-c\x00a\nb\x00": "sh -c a b", "": "[comm]", "\x00\x00": "[comm]", strings.Repeat("x", 300): strings.Repeat("x", 200),
	} {
		if got := parseCommand([]byte(in), "comm"); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestOverlayDirs(t *testing.T) {
	for _, c := range []struct {
		name, options string
		want          []overlayDir
	}{
		{"a container", "rw,lowerdir=/s/overlay/l/AAA:/s/overlay/l/BBB,upperdir=/s/overlay/id/diff,workdir=/s/overlay/id/work,uuid=on",
			[]overlayDir{{layer: "l", name: "AAA", top: true, path: "/s/overlay/l/AAA"}, {layer: "l", name: "BBB", path: "/s/overlay/l/BBB"},
				{layer: "id", name: "diff", upper: true, path: "/s/overlay/id/diff"}}},
		{"relative to the home", "lowerdir=l/AAA,upperdir=id/diff,workdir=id/work",
			[]overlayDir{{layer: "l", name: "AAA", top: true, path: "l/AAA"}, {layer: "id", name: "diff", upper: true, path: "id/diff"}}},
		{"an image", "ro,lowerdir=/s/overlay/id/diff:/s/overlay/l/BBB",
			[]overlayDir{{layer: "id", name: "diff", top: true, path: "/s/overlay/id/diff"}, {layer: "l", name: "BBB", path: "/s/overlay/l/BBB"}}},
		{"one by one", "ro,lowerdir+=/s/id/diff,lowerdir+=/s/other/diff,datadir+=/s/c/d",
			[]overlayDir{{layer: "id", name: "diff", top: true, path: "/s/id/diff"}, {layer: "other", name: "diff", path: "/s/other/diff"},
				{layer: "c", name: "d", path: "/s/c/d"}}},
		{"escaped", `lowerdir=/a\:b/id/diff,upperdir=/a\,b/x/diff`,
			[]overlayDir{{layer: "id", name: "diff", top: true, path: "/a:b/id/diff"}, {layer: "x", name: "diff", upper: true, path: "/a,b/x/diff"}}},
		{"nothing", "rw", nil},
	} {
		if diff := cmp.Diff(c.want, overlayDirs(c.options), cmp.AllowUnexported(overlayDir{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		dir, path, rest string
		ok              bool
	}{
		{"/a", "/a", "", true}, {"/a", "/a/b", "/b", true}, {"/a", "/ab", "", false}, {"/a", "/", "", false},
		{"/", "/a", "/a", true}, {"/", "/", "", true}, {"/a", "", "", false},
	} {
		if rest, ok := within(c.dir, c.path); rest != c.rest || ok != c.ok {
			t.Errorf("%q in %q: %q %v", c.path, c.dir, rest, ok)
		}
	}
}

// The two ways to read the mounts agree.
func TestListmountAgrees(t *testing.T) {
	i := inspector(t)
	a, err := i.hostMounts()
	if err != nil {
		t.Fatal(err)
	}
	i.noListmount = true
	b, err := i.hostMounts()
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[uint64]mount)
	for _, m := range b {
		byID[m.id] = m
	}
	common := 0
	for _, m := range a {
		other, ok := byID[m.id]
		if !ok {
			continue // others mount and unmount while we read
		}
		common++
		if m.fs != "overlay" {
			other.options = ""
		}
		other.options = strings.TrimPrefix(other.options, "rw,") // statmount leaves the flags out
		if m.fuse() && other.fuse() {
			m.fs = other.fs
		}
		if diff := cmp.Diff(other, m, cmp.AllowUnexported(mount{})); diff != "" {
			t.Error(diff)
		}
	}
	if common*10 < len(b)*9 {
		t.Errorf("%d mounts by listmount, %d by mountinfo, %d in both", len(a), len(b), common)
	}
}

func FuzzMountinfo(f *testing.F) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(own) {
		f.Add(bytes.Clone(line))
	}
	f.Add([]byte("412 27 0:5 /a\\040b//deleted /x\\134y rw shared:1 - overlay o rw,lowerdir=/a:/b,upperdir=/c/d\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		mounts, err := readMountinfo(bytes.NewReader(b))
		if err != nil && len(mounts) > 0 {
			t.Error("mounts beside an error")
		}
		n := newNamespace(1, mounts)
		for k := range n.mounts {
			n.attach(&n.mounts[k])
			for _, d := range overlayDirs(n.mounts[k].options) {
				if d.name == "" || strings.Contains(d.name, "/") || strings.Contains(d.layer, "/") {
					t.Errorf("%+v of %q", d, n.mounts[k].options)
				}
			}
		}
	})
}

func FuzzStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte(statLine))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && (s.state == 0 || !bytes.Contains(b, []byte("("+s.comm+")"))) {
			t.Errorf("%+v", s)
		}
	})
}

func FuzzCgroup(f *testing.F) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("1:name=systemd:/a.service/b\n0::/\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cgroup, unit := parseCgroup(b)
		if !strings.Contains(cgroup, unit) || !bytes.Contains(b, []byte(cgroup)) {
			t.Errorf("%q %q", cgroup, unit)
		}
	})
}

func FuzzProcessFiles(f *testing.F) {
	for _, name := range []string{"maps", "status", "cmdline"} {
		own, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(own)
	}
	f.Add([]byte("fuse_connection:\t66\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range parseMaps(b) {
			if m.inode == 0 || strings.ContainsAny(m.addresses, " \n") {
				t.Errorf("%+v", m)
			}
		}
		if uid, err := parseUID(b); err == nil && uid < 0 {
			t.Error(uid)
		}
		if c := parseCommand(b, "comm"); !utf8.ValidString(c) || strings.ContainsAny(c, "\n\x00") {
			t.Errorf("%q", c)
		}
		parseConnection(b)
	})
}
