package itest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// machine is a small one of its own: systemd as pid 1 of its namespaces, with this host's programs, what `make
// install` installs, and the scenario's store. Whatever a scenario runs then, runs there.
type machine struct {
	*scenario
	// service has what the service printed.
	service string
}

// bootScript makes the machine's file system of this host's, without what is mounted on it, and becomes its
// systemd. $1 is the scenario's directory.
const bootScript = `set -e
mount --make-rprivate /
mkdir "$1/machine"
mount --bind / "$1/machine"
cd "$1/machine"
[ "$(stat -c %d "$1")" = "$(stat -c %d /)" ] || mount --bind "$1" ".$1"
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/lock run/host
mount --bind "$1/installed/usr/local" usr/local
for d in etc var/lib var/log; do mount --bind "$1/installed/$d" $d; done
pivot_root . run/host
umount -l /run/host
cd /
# As on any host of systemd's: what is unmounted is so in the services' namespaces, too.
mount --make-rshared /
exec env -i PATH="$PATH" container=unmoor-itest SYSTEMD_UNIT_PATH="/usr/local/lib/systemd/system:$1/units" \
	/lib/systemd/systemd --system --unit=default.target --log-target=console --log-level=notice --show-status=no
`

const serviceUnit = "unmoor.service"

// boot starts the machine of a scenario.
func (s *scenario) boot() *machine {
	s.t.Helper()
	for _, program := range []string{"/lib/systemd/systemd", "nsenter", "unshare", "systemd-tmpfiles", "systemctl"} {
		path := s.gen.find(program)
		if _, err := os.Stat(path); err != nil {
			skip(s.t, "no "+program+": run itest/setup.sh")
		}
	}
	cgroups := unifiedHierarchy()
	if cgroups == "" {
		skip(s.t, "no unified hierarchy of control groups is mounted")
	}
	m := &machine{scenario: s, service: s.path("service.log")}
	m.install()

	cgroup := filepath.Join(cgroups, "unmoor-itest-"+filepath.Base(run)+filepath.Base(s.dir))
	s.t.Cleanup(func() { removeCgroup(s.t, cgroup) })
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		s.t.Fatal(err)
	}
	const script = `echo $$ >"$2/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc sh -c "$3" sh "$1"`
	b := s.start(s.gen.command(nil, "sh", "-ec", script, "sh", s.dir, cgroup, bootScript))
	var init []byte
	eventually(s.t, "systemd is pid 1 of the machine", func() bool {
		if b.ended() {
			s.t.Fatalf("the machine ended: %v\n%s", b.err, b.out.String())
		}
		init, _ = os.ReadFile(filepath.Join(cgroup, "init.scope/cgroup.procs")) // not yet there
		return len(bytes.Fields(init)) > 0
	})
	// In the root of a hierarchy that is divided there may be no process.
	if err := os.WriteFile(filepath.Join(cgroups, "cgroup.procs"), []byte(strconv.Itoa(b.pid)), 0); err != nil {
		s.t.Fatal(err)
	}
	pid := string(bytes.Fields(init)[0])
	inside := *s.gen
	inside.through = []string{s.gen.find("nsenter"), "--target", pid, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--"}
	s.gen = &inside
	eventually(s.t, "the machine runs", func() bool {
		r := m.systemctl("is-system-running")
		return strings.TrimSpace(r.stdout) == "running"
	})
	m.must(m.do(s.gen.command(nil, "systemd-tmpfiles", "--create", "/usr/local/lib/tmpfiles.d/unmoor.conf")))
	return m
}

// unifiedHierarchy is where control groups of version 2 are mounted.
func unifiedHierarchy() string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	return ""
}

// removeCgroup removes a control group and those in it once their processes are gone.
func removeCgroup(t *testing.T, cgroup string) {
	t.Helper()
	eventually(t, "the machine's control groups are gone", func() bool {
		// One whose processes are ending is busy yet.
		_ = exec.Command("find", cgroup, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
		_, err := os.Stat(cgroup)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// makeInstall installs into a directory, once.
var makeInstall = sync.OnceValues(func() (string, error) {
	to := filepath.Join(run, "installed")
	cmd := exec.Command("make", "-C", "..", "install", "DESTDIR="+to, "PREFIX=/usr/local")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return to, nil
})

// install fills the machine's own directories.
func (m *machine) install() {
	m.t.Helper()
	installed := m.path("installed")
	for _, dir := range []string{installed + "/var/lib", installed + "/var/log", m.path("units")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	from, err := makeInstall()
	if err != nil {
		m.t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from+"/.", "/etc", installed).CombinedOutput(); err != nil {
		m.t.Fatalf("copy what is installed, and /etc: %v: %s", err, out)
	}
	// The one that is tested.
	binary, err := os.ReadFile(unmoorBinary)
	if err == nil {
		err = os.WriteFile(installed+"/usr/local/bin/unmoor", binary, 0o755)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.config("")
	// The rest of a system is not needed.
	for _, name := range []string{"default", "sysinit", "basic", "sockets", "multi-user", "shutdown", "umount"} {
		m.write("units/"+name+".target", "[Unit]\nDefaultDependencies=no\n")
	}
	for _, unit := range []string{"unmoor.service", "unmoor-plugin@.service"} {
		m.dropIn(unit, "test", fmt.Sprintf("[Service]\nEnvironment=PATH=%s %s\nStandardOutput=append:%s\nStandardError=inherit\n",
			m.gen.path, strings.Join(m.environment(), " "), m.service))
	}
}

// config writes /etc/unmoor/config.toml, with these sections besides the store.
func (m *machine) config(sections string) {
	m.t.Helper()
	m.write("installed/etc/unmoor/config.toml", fmt.Sprintf("[store]\nroot = %q\nrunroot = %q\ndriver = %q\nall_processes_here = true\n%s",
		m.path("root"), m.path("run"), m.driver, sections))
}

// dropIn adds to a unit.
func (m *machine) dropIn(unit, name, text string) {
	m.t.Helper()
	dir := "installed/usr/local/lib/systemd/system/" + unit + ".d"
	if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.write(dir+"/"+name+".conf", text)
}

// systemctl runs it on the machine's systemd.
func (m *machine) systemctl(args ...string) result {
	m.t.Helper()
	return m.do(m.gen.command(nil, "systemctl", append([]string{"--no-pager"}, args...)...))
}

// show is a property of a unit.
func (m *machine) show(unit, property string) string {
	m.t.Helper()
	return m.must(m.systemctl("show", "--value", "--property="+property, unit))
}

// client runs the installed binary, which finds the service by itself.
func (m *machine) client(args ...string) result {
	m.t.Helper()
	return m.do(m.gen.command(m.environment(), "/usr/local/bin/unmoor", args...))
}

// sh runs a script in the machine.
func (m *machine) sh(script string, args ...string) string {
	m.t.Helper()
	return m.must(m.do(m.gen.command(nil, "sh", append([]string{"-ec", script, "sh"}, args...)...)))
}

// printed is what the service printed.
func (m *machine) printed() string {
	text, err := os.ReadFile(m.service)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// TestSystemd runs the service as it is installed, in its sandbox.
func TestSystemd(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		m := s.boot()
		target := m.importImage("image", image)
		m.podman("run", "-d", "--name", "p-run", image, "sleep", "1000")
		m.podman("create", "--name", "p-idle", image, "true")
		m.buildah("from", "--pull-never", "--name", "b-idle", image)
		m.buildah("mount", "b-idle")
		m.pivotedInside(m.mountUnknown(m.unknown("u-live", image)))

		m.must(m.systemctl("start", "unmoor.socket"))
		if state := m.show(serviceUnit, "ActiveState"); state != "inactive" {
			t.Errorf("the service is %s before anybody calls", state)
		}
		m.sh(`[ "$(stat -c %a-%U /run/unmoor/io.unmoor.Removal)" = 666-root ]
			[ /run/varlink/registry/io.unmoor.Removal -ef /run/unmoor/io.unmoor.Removal ]
			[ "$(stat -c %a-%U /run/unmoor/plugins)" = 755-root ]`)

		// Mounted after the service has started, and to be seen by it.
		m.client("ps").wantCode(t, 0).wantSaid(t, "p-run", "in_use", "b-idle", "u-live")
		if state := m.show(serviceUnit, "ActiveState"); state != "active" {
			t.Fatalf("the service is %s\n%s", state, m.printed())
		}
		m.mountUnknown(m.unknown("u-late", image))
		pid := m.show(serviceUnit, "MainPID")
		m.sh(`[ "$(readlink /proc/$1/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ]`, pid)
		m.sh(`grep -qx 'NoNewPrivs:	1' /proc/$1/status; grep -qx 'Seccomp:	2' /proc/$1/status`, pid)

		m.client("rmi", image).wantCode(t, 2).wantSaid(t, "p-run", "u-live")
		m.client("rmi", "-f", image).wantCode(t, 2).wantSaid(t, "u-live")
		m.client("rmi", "--force=kill", "--time", "1", image).wantCode(t, 0).wantSaid(t, "p-run", "by podman", "by buildah", "u-late")
		if m.hasImage(target) {
			t.Error("the image is still there")
		}
		if left := m.podman("ps", "-a", "--format", "{{.Image}}"); strings.Contains(left, image) {
			t.Errorf("podman has %s", left)
		}
		audit, err := os.ReadFile(m.path("installed/var/log/unmoor/audit.log"))
		if err != nil || !strings.Contains(string(audit), target) {
			t.Errorf("the service has not done it: %v\n%s", err, audit)
		}

		// A file that is wrong fails the reload, and changes nothing else.
		other := m.importImage("bystander", bystander)
		m.config(fmt.Sprintf("[protect]\nimages = [%q]\n", bystander))
		m.must(m.systemctl("reload", serviceUnit))
		eventually(t, "the new configuration is in force", func() bool { return m.client("plan", "-f", bystander).code == 2 })
		m.config("[protect]\nimagez = []\n")
		if r := m.systemctl("reload", serviceUnit); r.code == 0 {
			t.Errorf("a reload of nonsense: %v", r)
		}
		if now := m.show(serviceUnit, "MainPID"); now != pid || m.show(serviceUnit, "ActiveState") != "active" {
			t.Errorf("pid %s became %s", pid, now)
		}
		m.config("")
		m.client("rmi", "-f", bystander).wantCode(t, 2)
		m.must(m.systemctl("reload", serviceUnit))
		eventually(t, "nothing is protected any more", func() bool { return m.client("rmi", "-f", bystander).code == 0 })
		if m.hasImage(other) {
			t.Error("the other image is still there")
		}

		// A stop, and the next caller starts it again.
		m.must(m.systemctl("stop", serviceUnit))
		if r := m.show(serviceUnit, "Result"); r != "success" {
			t.Errorf("stopped: %s\n%s", r, m.printed())
		}
		m.client("images").wantCode(t, 0)
		if now := m.show(serviceUnit, "MainPID"); now == pid || now == "0" {
			t.Errorf("pid %s", now)
		}
	})
}

// pivotedInside starts a process in a container that nobody owns, in the machine, where its pids are others.
func (m *machine) pivotedInside(merged string) {
	m.t.Helper()
	m.start(m.gen.command(nil, "unshare", "--mount", "--propagation", "private", "sh", "-ec", `
		mount --bind "$1" "$1"; cd "$1"; pivot_root . old
		exec /bin/sh -c "umount -l /old; exec sleep 1012"`, "sh", merged))
	eventually(m.t, "the process runs", func() bool { return processNamed("sleep 1012").pid != 0 })
}

// TestSystemdHung has a service that does not answer its watchdog killed and started again.
func TestSystemdHung(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		m := s.boot()
		m.importImage("image", image)
		m.dropIn(serviceUnit, "watchdog", "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\nRestartSec=100ms\n")
		m.must(m.systemctl("daemon-reload"))
		m.must(m.systemctl("start", "unmoor.socket"))
		m.client("ps").wantCode(t, 0)
		pid := m.show(serviceUnit, "MainPID")
		time.Sleep(3 * time.Second) // it lives through three of them
		if now := m.show(serviceUnit, "MainPID"); now != pid {
			t.Fatalf("pid %s became %s: it does not answer the watchdog\n%s", pid, now, m.printed())
		}
		m.sh(`kill -STOP "$1"`, pid)
		// A caller may reach the one that is about to be killed.
		eventually(t, "the service answers again", func() bool { return m.client("ps").code == 0 })
		if now := m.show(serviceUnit, "MainPID"); now == pid || now == "0" {
			t.Errorf("pid %s is %s now", pid, now)
		}
	})
}

// TestSystemdStop stops the service in the middle of a removal: the engine's command is not killed, what was
// begun comes to a safe point, and the same command completes it.
func TestSystemdStop(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		m := s.boot()
		target := m.importImage("image", image)
		m.podman("run", "-d", "--name", "p-slow", image, "sleep", "1000") // as pid 1 it ignores SIGTERM
		m.must(m.systemctl("start", "unmoor.socket"))
		removal := m.start(m.gen.command(m.environment(), "/usr/local/bin/unmoor", "rmi", "-f", "--time", "3", image))
		eventually(t, "podman stops the container", func() bool { return strings.Contains(m.sh("ps -eo args="), " stop ") })
		began := time.Now()
		m.must(m.systemctl("stop", serviceUnit))
		if r := m.show(serviceUnit, "Result"); r != "success" {
			t.Errorf("stopped: %s\n%s", r, m.printed())
		}
		t.Logf("note: stopped after %v", time.Since(began).Round(10*time.Millisecond))
		eventually(t, "the caller has its answer", removal.ended)
		if state := m.podman("ps", "-a", "--filter", "name=p-slow", "--format", "{{.State}}"); strings.Contains(state, "stopping") {
			t.Errorf("podman was killed half-way: %s", state)
		}
		m.client("rmi", "-f", "--time", "0", image).wantCode(t, 0)
		if m.hasImage(target) || len(m.containers()) > 0 {
			t.Error("the same command does not complete it")
		}
	})
}

// TestSystemdPlugin has Podman's plugin and an example's served by their units.
func TestSystemdPlugin(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		example, err := buildExample()
		if err != nil {
			t.Fatal(err)
		}
		m := s.boot()
		program, err := os.ReadFile(example)
		if err == nil {
			err = os.WriteFile(m.path("installed/usr/local/bin/unmoor-plugin-skiff"), program, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"unmoor-plugin-skiff.service", "unmoor-plugin-skiff.socket"} {
			text, err := os.ReadFile("../examples/" + name)
			if err != nil {
				t.Fatal(err)
			}
			m.write("units/"+name, strings.Replace(string(text), "/usr/libexec/", "/usr/local/bin/", 1))
		}
		if err := os.MkdirAll(m.path("installed/var/lib/skiff"), 0o755); err != nil {
			t.Fatal(err)
		}
		id := strings.Repeat("5", 64)
		target := m.importImage("image", image)
		m.storage("create-container", "--id", id, "--metadata", `{"skiff":"web"}`, image)
		m.start(m.gen.command(nil, "chroot", m.mountUnknown(id), "sleep", "1013"))
		eventually(t, "the process runs", func() bool { return processNamed("sleep 1013").pid != 0 })
		m.sh(`pid=$(pgrep -xf 'sleep 1013'); printf '{"graphRoot":"%s","containers":{"%s":{"name":"web","pid":%s,"startTime":%s}}}' \
			"$1" "$2" $pid $(sed 's/.*) //' /proc/$pid/stat | cut -d' ' -f20) >/var/lib/skiff/state.json`, m.path("root"), id)
		m.podman("run", "-d", "--name", "p-run", image, "sleep", "1000")

		m.config("[plugin.podman]\nsocket = \"unix:/run/unmoor/plugins/podman.sock\"\n")
		m.must(m.systemctl("daemon-reload"))
		m.must(m.systemctl("start", "unmoor.socket", "unmoor-plugin@podman.socket", "unmoor-plugin-skiff.socket"))
		m.client("rmi", image).wantCode(t, 2).wantSaid(t, "web", "skiff", "p-run", "podman")
		m.client("rmi", "-f", "--time", "1", image).wantCode(t, 0).wantSaid(t, "Stopped: container web", "by skiff", "by podman")
		if m.hasImage(target) || len(m.containers()) > 0 || processNamed("sleep 1013").pid != 0 {
			t.Error("something of it is left")
		}
		if state := m.sh("cat /var/lib/skiff/state.json"); strings.Contains(state, id) {
			t.Errorf("Skiff has %s", state)
		}
		for _, unit := range []string{"unmoor-plugin@podman.service", "unmoor-plugin-skiff.service"} {
			if state := m.show(unit, "ActiveState"); state != "active" {
				t.Errorf("%s is %s\n%s", unit, state, m.printed())
			}
		}
		pid := m.show("unmoor-plugin@podman.service", "MainPID")
		m.sh(`[ "$(readlink /proc/$1/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ]`, pid)
	})
}

// TestSystemdUser runs the service in the manager of an ordinary user, whose Podman has its containers in
// namespaces of its own.
func TestSystemdUser(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		who, err := user.Lookup("unmoor-itest")
		if err != nil {
			skip(t, "no user unmoor-itest with subordinate IDs: run itest/setup.sh")
		}
		m := s.boot()
		config := fmt.Sprintf("[store]\nroot = %q\nrunroot = %q\ndriver = %q\nall_processes_here = true\n",
			m.path("root"), m.path("run"), m.driver)
		m.write("user.toml", config)
		for _, dir := range []string{"home", "runtime", "userunits", "installed/usr/local/lib/systemd/user/unmoor.service.d"} {
			if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		env := append(m.environment(), "HOME="+m.path("home"), "XDG_RUNTIME_DIR="+m.path("runtime"))
		// With a directory of its own for this Podman forks once more (v4.3.1), and the service is no child of its.
		conf, err := os.ReadFile(m.path("containers.conf"))
		if err != nil {
			t.Fatal(err)
		}
		m.write("containers.conf", strings.Replace(string(conf), "tmp_dir=", "#tmp_dir=", 1))
		for _, name := range []string{"default", "sysinit", "basic", "sockets", "shutdown"} {
			m.write("userunits/"+name+".target", "[Unit]\nDefaultDependencies=no\n")
		}
		m.write("units/manager.service", fmt.Sprintf("[Service]\nUser=%s\nType=notify\nDelegate=yes\nEnvironment=PATH=%s %s\n"+
			"Environment=SYSTEMD_UNIT_PATH=/usr/local/lib/systemd/user:%s\n"+
			"ExecStart=/lib/systemd/systemd --user --unit=default.target --log-target=console\n",
			who.Username, m.gen.path, strings.Join(env, " "), m.path("userunits")))
		m.write("installed/usr/local/lib/systemd/user/unmoor.service.d/test.conf",
			fmt.Sprintf("[Service]\nEnvironment=PATH=%s UNMOOR_CONFIG=%s\n", m.gen.path, m.path("user.toml")))
		if out, err := exec.Command("chown", "-R", who.Uid+":"+who.Gid, m.path("home"), m.path("runtime"), m.path("tmp"), m.path("btmp")).CombinedOutput(); err != nil {
			t.Fatalf("chown: %v: %s", err, out)
		}
		if err := os.Chmod(m.path("runtime"), 0o700); err != nil {
			t.Fatal(err)
		}
		// The store's directories are the user's to make.
		if err := os.Chmod(m.dir, 0o777); err != nil {
			t.Fatal(err)
		}
		m.must(m.systemctl("daemon-reload"))
		m.must(m.systemctl("start", "manager.service"))
		as := func(program string, args ...string) result {
			t.Helper()
			words := append([]string{"--reuid=" + who.Uid, "--regid=" + who.Gid, "--init-groups", program}, args...)
			return m.do(m.gen.command(env, "setpriv", words...))
		}
		podman := func(args ...string) result { return as("podman", append(m.storeFlags(), args...)...) }
		podman("import", "-q", run+"/image.tar", image).wantCode(t, 0)
		podman("import", "-q", run+"/bystander.tar", bystander).wantCode(t, 0)
		podman("run", "-d", "--name", "web", image, "sleep", "1000").wantCode(t, 0)
		podman("run", "-d", "--name", "beside", bystander, "sleep", "1000").wantCode(t, 0)

		if r := as("systemctl", "--user", "start", serviceUnit); r.code != 0 {
			t.Fatal(r, as("systemctl", "--user", "status", "--no-pager", serviceUnit))
		}
		pid := m.must(as("systemctl", "--user", "show", "--value", "--property=MainPID", serviceUnit))
		as("/usr/local/bin/unmoor", "ps").wantCode(t, 0).wantSaid(t, "web", "running", "in_use")
		as("/usr/local/bin/unmoor", "rmi", image).wantCode(t, 2).wantSaid(t, "web")
		m.write("user.toml", config+fmt.Sprintf("[protect]\nimages = [%q]\n", bystander))
		as("systemctl", "--user", "reload", serviceUnit).wantCode(t, 0)
		eventually(t, "the new configuration is in force", func() bool {
			return strings.Contains(as("/usr/local/bin/unmoor", "plan", "--force=kill", bystander).said(), "protect")
		})
		as("/usr/local/bin/unmoor", "rm", "-f", "--time", "1", "web").wantCode(t, 0).wantSaid(t, "by podman")
		if left := podman("ps", "--format", "{{.Names}}").wantCode(t, 0).stdout; strings.TrimSpace(left) != "beside" {
			t.Errorf("podman lists %q", left)
		}
		if now := m.must(as("systemctl", "--user", "show", "--value", "--property=MainPID", serviceUnit)); now != pid || pid == "0" {
			t.Errorf("pid %s became %s", pid, now)
		}
		as("systemctl", "--user", "stop", serviceUnit).wantCode(t, 0)
		if r := m.must(as("systemctl", "--user", "show", "--value", "--property=Result", serviceUnit)); r != "success" {
			t.Errorf("stopped: %s", r)
		}
		podman("exec", "beside", "true").wantCode(t, 0)
	})
}
