package itest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// service is a daemon of a scenario.
type service struct {
	*scenario
	*background
	socket string
}

const removal = "io.unmoor.Removal"

// taken is what the daemon says of a new configuration.
const taken = "the configuration is taken"

// serve starts the daemon on the scenario's store and waits until it answers.
func (s *scenario) serve(args ...string) *service {
	s.t.Helper()
	return s.serveWith(unmoorBinary, nil, args...)
}

// serveWith starts this binary as the daemon, with more in its environment.
func (s *scenario) serveWith(binary string, env []string, args ...string) *service {
	s.t.Helper()
	d := &service{scenario: s, socket: s.path("service/" + removal)}
	flags := append(s.storeFlags(), "--config", s.serviceConfig())
	args = append(append(flags, "serve", "--socket", d.socket), args...)
	d.background = s.start(s.gen.command(append(s.environment(), env...), binary, args...))
	d.ready()
	return d
}

// ready waits until the daemon answers.
func (d *service) ready() {
	d.t.Helper()
	eventually(d.t, "the daemon answers", func() bool {
		if d.ended() {
			d.t.Fatalf("the daemon ended: %v\n%s", d.err, d.out.String())
		}
		return d.try("GetStore", nil).code == 0
	})
}

// serviceConfig is the daemon's configuration: nothing of it lies outside of the scenario.
func (s *scenario) serviceConfig() string {
	path := s.path("service.toml")
	if _, err := os.Stat(path); err != nil {
		s.write("service.toml", s.serviceSections())
	}
	return path
}

func (s *scenario) serviceSections() string {
	return fmt.Sprintf("[log]\nlevel = \"info\"\n[audit]\nfile = %q\n[plugins]\ndirectory = %q\nhints = %q\n",
		s.path("audit.log"), s.path("plugins"), s.path("state"))
}

// stop ends the daemon the polite way.
func (d *service) stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, "the daemon has ended", d.ended)
	if d.err != nil {
		d.t.Errorf("the daemon: %v\n%s", d.err, d.out.String())
	}
}

// varlinkctls are the clients that drive the service: the second generation's, and sid's where it could
// be had.
func varlinkctls(t *testing.T) map[string]string {
	t.Helper()
	cache := os.Getenv("UNMOOR_CACHE")
	if cache == "" {
		cache = "/var/cache/unmoor-itest"
	}
	all := map[string]string{"varlinkctl": filepath.Join(cache, "trixie-native/varlinkctl")}
	if _, err := os.Stat(all["varlinkctl"]); err != nil {
		skip(t, "no varlinkctl: run itest/setup.sh")
	}
	newest := filepath.Join(cache, "varlinkctl-sid/varlinkctl")
	if _, err := os.Stat(newest); err == nil {
		all["newest varlinkctl"] = newest
	} else {
		t.Log("note: no varlinkctl of sid")
	}
	return all
}

// varlinkctl runs the second generation's.
func (d *service) varlinkctl(args ...string) result {
	d.t.Helper()
	return d.do(d.gen.command(nil, varlinkctls(d.t)["varlinkctl"], args...))
}

// try calls a method of the service, with flags of varlinkctl before it.
func (d *service) try(method string, parameters any, flags ...string) result {
	d.t.Helper()
	text := []byte("{}")
	if parameters != nil {
		var err error
		if text, err = json.Marshal(parameters); err != nil {
			d.t.Fatal(err)
		}
	}
	return d.varlinkctl(append(flags, "--json=short", "--timeout=120", "call", d.socket, removal+"."+method, string(text))...)
}

type object = map[string]any

// call is try that has to succeed; it returns the replies.
func (d *service) call(method string, parameters any, flags ...string) []object {
	d.t.Helper()
	return d.replies(d.must(d.try(method, parameters, flags...)))
}

// replies parses what varlinkctl printed: one object a reply.
func (s *scenario) replies(text string) []object {
	s.t.Helper()
	var all []object
	lines := bufio.NewScanner(strings.NewReader(strings.ReplaceAll(text, "\x1e", "")))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var o object
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			s.t.Fatalf("not JSON: %v: %s", err, lines.Text())
		}
		all = append(all, o)
	}
	return all
}

// TestServiceRemovesScene removes the great scene's image by varlinkctl alone, the progress streamed.
func TestServiceRemovesScene(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		sc := newScene(s, true)
		d := s.serve()

		refused := d.try("RemoveImage", object{"image": image, "force": "stop"})
		if refused.code == 0 || !strings.Contains(refused.said(), "io.unmoor.Removal.Blocked") {
			t.Fatalf("a process that nobody owns is in the way: %v", refused)
		}
		plan := d.call("Plan", object{"targets": object{"images": []string{image}}, "force": "kill"})[0]["plan"].(object)
		planned := 0
		for _, r := range plan["removals"].([]any) {
			planned += len(r.(object)["actions"].([]any))
			if blockers := r.(object)["blockers"].([]any); len(blockers) > 0 {
				t.Fatalf("in the way of a kill: %v", blockers)
			}
		}
		r := d.try("RemoveImage", object{"image": image, "force": "kill", "gracePeriodMs": 1000}, "--more")
		replies := d.replies(d.must(r))
		last := replies[len(replies)-1]
		verbs := map[string]int{}
		for _, reply := range replies[:len(replies)-1] {
			verbs[reply["action"].(object)["verb"].(string)]++
			if reply["operationId"] != last["operationId"] {
				t.Errorf("another operation: %v", reply)
			}
		}
		// A container of Podman's that is stopped goes with its pod, or without: what counts is that each
		// planned action was told of.
		if len(replies)-1 < planned {
			t.Errorf("%d actions were planned, %d told of: %v", planned, len(replies)-1, verbs)
		}
		if verbs["stop"] < len(sc.inUse) || verbs["kill"] < 1 || verbs["delete_image"] != 1 {
			t.Errorf("the actions: %v", verbs)
		}
		if ids := last["deletedImages"].([]any); len(ids) != 1 || ids[0] != sc.target {
			t.Errorf("deleted: %v", ids)
		}
		if n := len(last["deletedContainers"].([]any)); n < len(sc.inUse)+len(sc.idle)+1 {
			t.Errorf("%d containers deleted", n)
		}
		d.stop()
		sc.wantDone(r)
	})
}

// TestServiceKilled kills the daemon in a removal; the same call completes it after a restart.
func TestServiceKilled(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		for _, step := range []string{"stop", "remove", "delete_container", "store_delete", "store_complete"} {
			t.Run(step, func(t *testing.T) {
				s := newScenario(t, s.gen, s.driver)
				target, processes := small(s)
				d := s.serveWith(failpointBinary, []string{"UNMOOR_FAILPOINT=" + step})
				r := d.try("RemoveImage", object{"image": image, "force": "kill", "gracePeriodMs": 0}, "--more")
				if r.code == 0 {
					t.Fatalf("not killed: %v", r)
				}
				eventually(t, "the daemon has died", d.ended)
				d = s.serve()
				r = d.try("RemoveImage", object{"image": image, "force": "kill", "gracePeriodMs": 0}, "--more")
				if r.code != 0 {
					t.Errorf("the same call does not complete: %v", r)
				}
				if s.hasImage(target) || len(s.containers()) > 0 {
					t.Errorf("left: image %v, containers %v", s.hasImage(target), s.containers())
				}
				wantGone(t, processes)
				s.check()
				d.stop()
			})
		}
	})
}

// TestServiceActivated has a service manager's stand-in hold the socket, and varlinkctl start the daemon
// itself.
func TestServiceActivated(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		flags := append(s.storeFlags(), "--config", s.serviceConfig(), "serve")
		if err := os.MkdirAll(s.path("service"), 0o755); err != nil {
			t.Fatal(err)
		}
		d := &service{scenario: s, socket: s.path("service/" + removal)}
		args := append([]string{"-l", d.socket, "--fdname=varlink", unmoorBinary}, flags...)
		d.background = s.start(s.gen.command(s.environment(), "systemd-socket-activate", args...))
		eventually(t, "the socket is there", func() bool { _, err := os.Stat(d.socket); return err == nil })
		d.ready()
		d.call("RemoveImage", object{"image": image})
		if s.hasImage(target) {
			t.Error("the image is still there")
		}

		s.importImage("image", image)
		wrapper := s.path("unmoor-serve")
		s.write("unmoor-serve", "#!/bin/sh\nexec "+unmoorBinary+" "+strings.Join(flags, " ")+"\n")
		if err := os.Chmod(wrapper, 0o755); err != nil {
			t.Fatal(err)
		}
		r := s.do(s.gen.command(s.environment(), varlinkctls(t)["varlinkctl"], "call", "exec:"+wrapper,
			removal+".RemoveImage", fmt.Sprintf(`{"image":%q}`, image)))
		if r.code != 0 || len(s.images()) > 0 {
			t.Errorf("exec: %v", r)
		}
	})
}

// TestServiceReloads gives the running daemon a protected image, and then a file that is wrong.
func TestServiceReloads(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		s.importImage("bystander", bystander)
		d := s.serve()
		d.reconfigure(fmt.Sprintf("[protect]\nimages = [%q]\n", image), taken)
		r := d.try("RemoveImage", object{"image": image, "force": "kill"})
		if r.code == 0 || !strings.Contains(r.said(), "Blocked") {
			t.Errorf("a protected image: %v", r)
		}
		d.reconfigure("[protect]\nimagez = []\n", "protect.imagez: no such key")
		r = d.try("RemoveImage", object{"image": image, "force": "kill"})
		if r.code == 0 || !s.hasImage(target) {
			t.Errorf("the old configuration is not kept: %v", r)
		}
		d.call("RemoveImage", object{"image": bystander})
		d.stop()
	})
}

// TestServiceIdle measures the daemon that nobody asks anything.
func TestServiceIdle(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		d := s.serve()
		d.call("ListImages", nil, "--more")
		time.Sleep(time.Second) // what the call left to do
		before := switches(t, d.background.pid)
		time.Sleep(5 * time.Second)
		woken := switches(t, d.background.pid) - before
		resident := status(t, d.background.pid, "VmRSS:")
		t.Logf("idle for 5 s: %d context switches of all threads, %d KiB resident", woken, resident)
		// The Go runtime's own monitor and garbage collector run now and then.
		if woken > 60 {
			t.Errorf("%d context switches in 5 s", woken)
		}
		if resident > 40<<10 {
			t.Errorf("%d KiB resident", resident)
		}
		d.stop()
	})
}

// switches are the voluntary context switches of all threads of a process.
func switches(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	sum := 0
	for _, task := range tasks {
		sum += statusOf(t, task+"/status", "voluntary_ctxt_switches:")
	}
	return sum
}

func status(t *testing.T, pid int, key string) int {
	t.Helper()
	return statusOf(t, fmt.Sprintf("/proc/%d/status", pid), key)
}

func statusOf(t *testing.T, path, key string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		return 0 // a thread that ended
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatalf("%s: %q", path, line)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", path, key)
	return 0
}

// TestServiceAccess asks as another user than root, and reads the audit log.
func TestServiceAccess(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		target := s.importImage("bystander", bystander)
		d := s.serve()
		as := func(method, parameters string) result {
			cmd := s.gen.command(nil, varlinkctls(t)["varlinkctl"], "--json=short", "call", d.socket, removal+"."+method, parameters)
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
			return s.do(cmd)
		}
		const denied = "org.varlink.service.PermissionDenied"
		wantDenied := func(method, parameters string) {
			t.Helper()
			if r := as(method, parameters); r.code == 0 || !strings.Contains(r.said(), denied) {
				t.Errorf("not denied: %v", r)
			}
		}
		remove := fmt.Sprintf(`{"image":%q,"force":"kill"}`, bystander)
		register := fmt.Sprintf(`{"address":"unix:%s"}`, s.path("evil.sock"))
		for _, call := range [][2]string{{"GetStore", "{}"}, {"Plan", `{"targets":{}}`}, {"RemoveImage", remove}, {"RegisterPlugin", register}} {
			wantDenied(call[0], call[1])
		}
		if r := s.do(s.gen.command(nil, varlinkctls(t)["varlinkctl"], "info", d.socket)); r.code != 0 {
			t.Errorf("anybody may ask what the service is: %v", r)
		}
		d.reconfigure("[access]\nread = [\"nobody\"]\n", taken)
		if r := as("GetStore", "{}"); r.code != 0 {
			t.Errorf("a reader is refused: %v", r)
		}
		wantDenied("RemoveImage", remove)
		if !s.hasImage(target) {
			t.Fatal("removed by a reader")
		}
		d.reconfigure("[access]\nwrite = [\"nobody\"]\n", taken)
		if r := as("RemoveImage", remove); r.code != 0 || s.hasImage(target) {
			t.Errorf("a writer is refused: %v", r)
		}
		wantDenied("RegisterPlugin", register)
		d.stop()
		log, err := os.ReadFile(s.path("audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		count, operation, done := map[string]int{}, "", false
		for line := range strings.Lines(string(log)) {
			var o struct {
				Event, OperationID string
				Caller             struct{ UID int }
			}
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Errorf("a line of the audit log: %v: %s", err, line)
			}
			count[o.Event]++
			switch {
			case o.Event == "begun" && o.Caller.UID == nobody:
				operation = o.OperationID
			case o.Event == "ended" && o.OperationID == operation:
				done = strings.Contains(line, target) && strings.Contains(line, "delete_image")
			}
		}
		if count["denied"] < 4 || count["begun"] != 1 || !done {
			t.Errorf("the removal, or a denial, is not in the audit log:\n%s", log)
		}
	})
}

// nobody is Debian's user of that name.
const nobody = 65534

// reconfigure writes these sections besides the scenario's own, and has the daemon read them.
func (d *service) reconfigure(sections, said string) {
	d.t.Helper()
	d.write("service.toml", d.serviceSections()+sections)
	before := strings.Count(d.out.String(), said)
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, "the daemon says: "+said, func() bool { return strings.Count(d.out.String(), said) > before })
}
