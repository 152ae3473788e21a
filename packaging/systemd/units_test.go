// Package systemd_test installs Unmoor into a directory and has systemd's own tools judge the units.
package systemd_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// setting is one line of a unit.
type setting struct{ section, key, value string }

// units are the repository's, by path.
func units(t *testing.T) map[string][]setting {
	t.Helper()
	all := map[string][]setting{}
	for _, pattern := range []string{"*.socket", "*.service", "*.timer", "user/*", "../../examples/*.service"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			all[path] = parse(t, path)
		}
	}
	if len(all) != 8 {
		t.Fatalf("not all units: %v", all)
	}
	return all
}

func parse(t *testing.T, path string) []setting {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []setting
	section := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = line
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || strings.HasSuffix(line, `\`) {
				t.Fatalf("%s: %q: one setting a line", path, line)
			}
			all = append(all, setting{section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// mountNamespace are the options that give a service a mount namespace, whatever their value: systemd,
// src/core/execute.c, exec_needs_mount_namespace, as of commit 0014db8f771f. unmoor.service says why none may
// be there.
var mountNamespace = strings.Fields(`BindPaths BindReadOnlyPaths BindLogSockets DynamicUser ExecPaths
	ExtensionDirectories ExtensionImages InaccessiblePaths IPCNamespacePath LogNamespace MountAPIVFS MountFlags
	MountImages NetworkNamespacePath NoExecPaths PrivateBPF PrivateDevices PrivateIPC PrivateMounts PrivateNetwork
	PrivatePIDs PrivateTmp ProcSubset ProtectControlGroups ProtectHome ProtectKernelLogs ProtectKernelModules
	ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyPaths ReadWritePaths RootDirectory RootImage
	TemporaryFileSystem`)

func TestNoMountNamespace(t *testing.T) {
	// Older names, and what systemd.exec(5) of 257 says implies one of those.
	forbidden := append([]string{"InaccessibleDirectories", "JoinsNamespaceOf", "ReadOnlyDirectories",
		"ReadWriteDirectories", "RootEphemeral", "RootHash", "RootVerity", "RootImageOptions"}, mountNamespace...)
	for path, settings := range units(t) {
		for _, s := range settings {
			if slices.Contains(forbidden, s.key) {
				t.Errorf("%s: %s= implies a mount namespace of the service's own", path, s.key)
			}
			// StateDirectory=NAME:LINK:ro makes it read-only, by a mount.
			if strings.HasSuffix(s.key, "Directory") && strings.Contains(s.value, ":") {
				t.Errorf("%s: %s=%s may imply a mount namespace of the service's own", path, s.key, s.value)
			}
		}
	}
	// The unit names each of them, with the reason.
	text, err := os.ReadFile("unmoor.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range mountNamespace {
		if !strings.Contains(string(text), option+"=") {
			t.Errorf("unmoor.service does not say that %s= is left out", option)
		}
	}
}

// TestSandbox: what runs the engines' commands lives in the same sandbox. A plugin needs nothing of what the
// service has for images that are loaded, and starts no plugins.
func TestSandbox(t *testing.T) {
	sandbox := func(path string) []setting {
		all := parse(t, path)
		from := slices.IndexFunc(all, func(s setting) bool { return s.key == "CapabilityBoundingSet" })
		to := slices.IndexFunc(all, func(s setting) bool { return s.section == "[Install]" })
		if to < 0 {
			to = len(all)
		}
		if from < 0 || to < from+10 {
			t.Fatalf("%s has no sandbox", path)
		}
		return all[from:to]
	}
	service := sandbox("unmoor.service")
	if got := sandbox("unmoor-prune.service"); !slices.Equal(got, service) {
		t.Errorf("unmoor-prune.service has\n%v\nand not unmoor.service's\n%v", got, service)
	}
	loading := []setting{
		{"[Service]", "CapabilityBoundingSet", "CAP_FSETID CAP_SETFCAP CAP_MKNOD"},
		{"[Service]", "DeviceAllow", "char-* m"}, {"[Service]", "DeviceAllow", "block-* m"},
	}
	tighter := []setting{{"[Service]", "RestrictSUIDSGID", "yes"}, {"[Service]", "MemoryDenyWriteExecute", "yes"}}
	without := func(all, some []setting) []setting {
		return slices.DeleteFunc(slices.Clone(all), func(s setting) bool { return slices.Contains(some, s) })
	}
	plugin := sandbox("unmoor-plugin@.service")
	if got, want := without(plugin, tighter), without(service, loading); !slices.Equal(got, want) || len(plugin) != len(got)+len(tighter) {
		t.Errorf("unmoor-plugin@.service has\n%v\nand not unmoor.service's\n%v", got, want)
	}
}

// systemd is one generation of its tools.
type systemd struct {
	name    string
	analyze []string
}

// systemds are this machine's, and the next generation's where itest/setup.sh has made it.
func systemds(t *testing.T) []systemd {
	t.Helper()
	var all []systemd
	if path, err := exec.LookPath("systemd-analyze"); err == nil {
		all = append(all, systemd{"host", []string{path}})
	}
	cache := os.Getenv("UNMOOR_CACHE")
	if cache == "" {
		cache = "/var/cache/unmoor-itest"
	}
	root := filepath.Join(cache, "trixie")
	libraries, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*")) // the pattern is right
	loaders, _ := filepath.Glob(filepath.Join(root, "usr/lib*/ld-linux-*.so.*"))
	if _, err := os.Stat(filepath.Join(root, "usr/bin/systemd-analyze")); err == nil && len(libraries) > 0 && len(loaders) > 0 {
		all = append(all, systemd{"trixie", []string{loaders[0], "--library-path", libraries[0] + ":" + libraries[0] + "/systemd",
			filepath.Join(root, "usr/bin/systemd-analyze")}})
	}
	if len(all) < 2 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%d of two generations of systemd-analyze: run itest/setup.sh (in CI that is a failure)", len(all))
		}
		t.Logf("note: %d of two generations of systemd-analyze", len(all))
	}
	if len(all) == 0 {
		t.Skip("no systemd-analyze")
	}
	return all
}

// run runs systemd-analyze; a user's manager has to have a runtime directory.
func (s systemd) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(s.analyze[0], append(s.analyze[1:len(s.analyze):len(s.analyze)], args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir(), "SYSTEMD_LOG_LEVEL=notice", "SYSTEMD_PAGER=cat")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}

// install runs make install and returns the directory that it installed into.
func install(t *testing.T, args ...string) (root string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the binary")
	}
	root = t.TempDir()
	runMake(t, root, append([]string{"install"}, args...)...)
	return root
}

func runMake(t *testing.T, root string, args ...string) {
	t.Helper()
	// GOFLAGS of a test run (-race, say) are not for the binary.
	cmd := exec.Command("make", append([]string{"-C", "../..", "DESTDIR=" + root}, args...)...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// TestVerify has systemd read the units as they are installed.
func TestVerify(t *testing.T) {
	root := install(t, "PREFIX=/usr")
	for _, kind := range []string{"system", "user"} {
		paths, err := filepath.Glob(filepath.Join(root, "usr/lib/systemd", kind, "*"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s units: %v (%v)", kind, paths, err)
		}
		// What they run has to be there.
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/usr/bin/unmoor", root+"/usr/bin/unmoor")), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if kind == "system" {
			paths = append(paths, example(t)...)
		}
		for _, s := range systemds(t) {
			t.Run(kind+"/"+s.name, func(t *testing.T) {
				args := append([]string{"--" + kind, "verify", "--man=no"}, paths...)
				if out, err := s.run(t, args...); err != nil || out != "" {
					t.Errorf("verify: %v\n%s", err, out)
				}
				// Those tools would have said something.
				bad := filepath.Join(t.TempDir(), "bad.service")
				if err := os.WriteFile(bad, []byte("[Service]\nExecStart=/nonexistent\nFrobnicate=yes\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				out, err := s.run(t, "--"+kind, "verify", "--man=no", bad)
				if err == nil || !strings.Contains(out, "Frobnicate") {
					t.Errorf("verify of a unit that is wrong: %v\n%s", err, out)
				}
			})
		}
	}
}

// example copies the units of the example of a plugin, with a program that is there.
func example(t *testing.T) (paths []string) {
	t.Helper()
	directory := t.TempDir()
	for _, name := range []string{"unmoor-plugin-skiff.service", "unmoor-plugin-skiff.socket"} {
		text, err := os.ReadFile("../../examples/" + name)
		if err == nil {
			paths = append(paths, filepath.Join(directory, name))
			text = []byte(strings.Replace(string(text), "/usr/libexec/unmoor-plugin-skiff", "/bin/true", 1))
			err = os.WriteFile(filepath.Join(directory, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// TestExposure fails where the sandbox gets weaker than it is, by systemd's own reckoning: 0 is none, 10 no
// sandbox at all. Most of what is left are the capabilities and the file system that a remover needs, and the
// options that imply a mount namespace.
func TestExposure(t *testing.T) {
	// In tenths, as 252 counts; 257 counts 0.1 to 0.2 less.
	thresholds := map[string]int{"unmoor.service": 56, "unmoor-prune.service": 56, "unmoor-plugin@.service": 52, "../../examples/unmoor-plugin-skiff.service": 33}
	for _, s := range systemds(t) {
		for unit, threshold := range thresholds {
			t.Run(s.name+"/"+unit, func(t *testing.T) {
				out, err := s.run(t, "security", "--offline=true", "--no-pager", fmt.Sprintf("--threshold=%d", threshold), unit)
				lines := strings.Split(strings.TrimSpace(out), "\n")
				t.Log("note: ", lines[len(lines)-1])
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if _, err := s.run(t, "security", "--offline=true", "--no-pager", "--threshold=5", unit); err == nil {
					t.Error("the threshold is not looked at")
				}
			})
		}
	}
}

func TestInstall(t *testing.T) {
	root := install(t, "PREFIX=/opt/unmoor")
	has := func(path string, mode fs.FileMode, words ...string) {
		t.Helper()
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
			return
		}
		if info.Mode() != mode {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range words {
			if !strings.Contains(string(text), w) {
				t.Errorf("%s lacks %q", path, w)
			}
		}
	}
	has("opt/unmoor/bin/unmoor", 0o755)
	for _, unit := range []string{"system/unmoor.service", "user/unmoor.service"} {
		has("opt/unmoor/lib/systemd/"+unit, 0o644, "ExecStart=/opt/unmoor/bin/unmoor serve\n", "ExecReload=/opt/unmoor/bin/unmoor config check\n")
	}
	has("opt/unmoor/lib/systemd/system/unmoor-plugin@.service", 0o644, "ExecStart=/opt/unmoor/bin/unmoor plugin serve %i\n")
	for _, unit := range []string{"system/unmoor.socket", "system/unmoor-plugin@.socket"} {
		has("opt/unmoor/lib/systemd/"+unit, 0o644, "FileDescriptorName=varlink\n")
	}
	has("opt/unmoor/lib/tmpfiles.d/unmoor.conf", 0o644, "/run/unmoor/plugins 0755 root root")
	for _, i := range []string{"Plugin", "Removal"} {
		has("opt/unmoor/share/unmoor/io.unmoor."+i+".varlink", 0o644, "interface io.unmoor."+i+"\n")
	}
	has("opt/unmoor/share/man/man1/unmoor-rmi.1", 0o644, ".SH SYNOPSIS")
	has("opt/unmoor/share/man/man5/unmoor-config.5", 0o644, "[protect]", `grace_period = "10s"`)
	has("opt/unmoor/share/bash-completion/completions/unmoor", 0o644, "bash completion")
	has("opt/unmoor/share/zsh/site-functions/_unmoor", 0o644, "#compdef unmoor")
	has("opt/unmoor/share/fish/vendor_completions.d/unmoor.fish", 0o644, "fish completion")
	has("etc/unmoor/config.toml", 0o644, "[store]")
	for _, path := range installed(t, root) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(path, "systemd") && strings.Contains(string(text), "/usr/bin/") {
			t.Errorf("%s names another place than it is installed in", path)
		}
	}

	// What an administrator has written survives, installed again or not.
	config := filepath.Join(root, "etc/unmoor/config.toml")
	const own = "[log]\nlevel = \"info\"\n"
	if err := os.WriteFile(config, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	runMake(t, root, "install", "PREFIX=/opt/unmoor")
	runMake(t, root, "uninstall", "PREFIX=/opt/unmoor")
	if text, err := os.ReadFile(config); err != nil || string(text) != own {
		t.Errorf("config.toml is %q (%v)", text, err)
	}
	if left := installed(t, root); !slices.Equal(left, []string{"etc/unmoor/config.toml"}) {
		t.Errorf("uninstall leaves %v", left)
	}
}

// installed are the files below a directory.
func installed(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
