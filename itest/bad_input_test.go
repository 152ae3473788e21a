package itest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dropRecord takes one record out of a file of the store's.
func dropRecord(t *testing.T, file, id string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all, rest []map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r["id"] != id {
			rest = append(rest, r)
		}
	}
	if len(rest) != len(all)-1 {
		t.Fatalf("no record %s in %s", id, file)
	}
	if b, err = json.Marshal(rest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBadInput(t *testing.T) {
	for _, bad := range []struct {
		name string
		run  func(t *testing.T, s *scenario)
	}{
		{"unknown image", func(t *testing.T, s *scenario) {
			s.importImage("image", image)
			// The advice leads to the same store.
			program := strings.Join(append([]string{"unmoor"}, s.storeFlags()...), " ")
			s.unmoor("rmi", "localhost/unmoor/nosuch").wantCode(t, 1).wantSaid(t, "localhost/unmoor/nosuch", program+" images")
			s.unmoor("rmi", "-f", "deadbeef").wantCode(t, 1).wantSaid(t, "deadbeef", program+" images")
			s.unmoor("rm", "-f", "deadbeef").wantCode(t, 1).wantSaid(t, "deadbeef", program+" ps")
			s.unmoor("why", "deadbeef").wantCode(t, 1).wantSaid(t, "deadbeef", program+" images", program+" ps")
		}},
		{"no argument", func(t *testing.T, s *scenario) {
			s.unmoor("rmi").wantCode(t, 125)
			s.unmoor("rmi", "--force=hard", "x").wantCode(t, 125).wantSaid(t, "hard", "idle", "stop", "kill")
			s.unmoor("rmi", "--nosuch", "x").wantCode(t, 125).wantSaid(t, "nosuch")
		}},
		{"not a name", func(t *testing.T, s *scenario) {
			s.importImage("image", image)
			if r := s.unmoor("rmi", "UPPER CASE:::"); r.code != 1 && r.code != 125 {
				t.Error(r)
			}
			if r := s.unmoor("rmi", ""); r.code != 1 && r.code != 125 {
				t.Error(r)
			}
		}},
		{"ambiguous prefix", func(t *testing.T, s *scenario) {
			target := s.importImage("image", image)
			layer := s.podman("inspect", "--type", "image", "--format", "{{.Id}}", image)
			for _, r := range s.records("image") {
				if r.ID == target {
					layer = r.Layer
				}
			}
			twins := []string{strings.Repeat("ab", 31) + "01", strings.Repeat("ab", 31) + "02"}
			for _, id := range twins {
				s.storage("create-image", "--id", id, layer)
			}
			before := s.look()
			// Both candidates are named, by so much of the ID as tells them apart.
			s.unmoor("rmi", "-f", "abab").wantCode(t, 125).wantSaid(t, "abab", twins[0], twins[1])
			s.wantSame(before)
		}},
		{"configuration", func(t *testing.T, s *scenario) {
			s.write("config.toml", "# a comment\n\n[plugin.podman]\ncomand = [\"podman\"]\n")
			for _, args := range [][]string{{"rmi", image}, {"config", "check"}} {
				r := s.unmoor(append([]string{"--config", s.path("config.toml")}, args...)...).wantCode(t, 125)
				r.wantSaid(t, s.path("config.toml")+":4", "comand")
			}
			s.write("config.toml", "[plugin.podman\n")
			s.unmoor("--config", s.path("config.toml"), "rmi", image).wantCode(t, 125).wantSaid(t, s.path("config.toml"))
			s.unmoor("--config", s.path("nosuch.toml"), "rmi", image).wantCode(t, 125).wantSaid(t, s.path("nosuch.toml"))
		}},
		{"a store that cannot be opened", func(t *testing.T, s *scenario) {
			s.write("root", "a file\n")
			r := s.unmoor("rmi", image).wantCode(t, 125)
			r.wantSaid(t, s.path("root"), "--root", "storage.conf")
		}},
		{"no store at all", func(t *testing.T, s *scenario) {
			s.unmoor("rmi", image).wantCode(t, 125).wantSaid(t, s.path("root"), "nothing was made", "--root")
			if _, err := os.Stat(s.path("root")); !os.IsNotExist(err) {
				t.Errorf("something was made: %v", err)
			}
		}},
		{"a read-only file system", func(t *testing.T, s *scenario) {
			root := s.path("root")
			target := s.importImage("image", image)
			s.bind(root, root)
			if err := s.gen.in("mount", "-o", "remount,bind,ro", root); err != nil {
				t.Fatal(err)
			}
			s.unmoor("rmi", image).wantCode(t, 125).wantSaid(t, root, "read-only", "writable")
			if err := s.gen.in("umount", root); err != nil {
				t.Fatal(err)
			}
			if !s.hasImage(target) {
				t.Error("the image is gone")
			}
			s.unmoor("rmi", image).wantCode(t, 0)
			s.check()
		}},
		{"a driver that there is not", func(t *testing.T, s *scenario) {
			s.importImage("image", image)
			was := s.driver
			s.driver = "nosuch"
			s.unmoor("rmi", image).wantCode(t, 125).wantSaid(t, "nosuch", "--storage-driver "+was)
			s.driver = was
		}},
		{"corrupt containers.json", func(t *testing.T, s *scenario) {
			s.importImage("image", image)
			s.podman("create", "--name", "p", image, "true")
			file := s.path("root/" + s.driver + "-containers/containers.json")
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			torn := whole[:len(whole)/2]
			if err := os.WriteFile(file, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			r := s.unmoor("rmi", "-f", image).wantCode(t, 125)
			r.wantSaid(t, "containers.json", "restore the file from a backup")
			if now, err := os.ReadFile(file); err != nil || string(now) != string(torn) {
				t.Errorf("the file was written: %v", err)
			}
			if err := os.WriteFile(file, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			s.unmoor("rmi", "-f", image).wantCode(t, 0)
			s.check()
		}},
		{"no permission", func(t *testing.T, s *scenario) {
			target := s.importImage("image", image)
			cmd := s.unmoorCommand("rmi", "-f", image)
			cmd.Env = append(cmd.Env, "HOME=/nonexistent", "XDG_RUNTIME_DIR=/nonexistent")
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
			r := s.do(cmd)
			r.wantCode(t, 125)
			if !strings.Contains(strings.ToLower(r.said()), "permi") && !strings.Contains(r.said(), "root") {
				t.Errorf("what to do is not said: %v", r)
			}
			if strings.Contains(r.said(), "goroutine ") || len(strings.Split(r.said(), "\n")) > 8 {
				t.Errorf("too much is said: %v", r)
			}
			if !s.hasImage(target) {
				t.Error("the image is gone")
			}
		}},
		{"a full disk", func(t *testing.T, s *scenario) {
			root := s.path("root")
			if err := os.MkdirAll(root, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=12m"); err != nil {
				t.Fatal(err)
			}
			target := s.importImage("image", image)
			s.unknown("u", image)
			s.buildah("from", "--pull-never", "--name", "b", image)
			s.podman("create", "--name", "p", image, "true")
			fill := filepath.Join(root, "fill")
			f, err := os.Create(fill)
			if err != nil {
				t.Fatal(err)
			}
			block := make([]byte, 4096)
			for err == nil {
				_, err = f.Write(block)
			}
			if err := f.Close(); err != nil {
				t.Log(err)
			}
			r := s.unmoor("rmi", "--force=idle", image)
			t.Logf("on a full disk: %v", r)
			switch r.code {
			case 0:
				if s.hasImage(target) {
					t.Error("said to be removed, and is there")
				}
			case 125, 2:
				r.wantSaid(t, "no space is left", "free some space")
				if err := os.Remove(fill); err != nil {
					t.Fatal(err)
				}
				s.unmoor("rmi", "--force=idle", image).wantCode(t, 0)
			default:
				t.Error(r)
			}
			if err := os.RemoveAll(fill); err != nil {
				t.Fatal(err)
			}
			s.check()
			for _, line := range s.podmanContainers() {
				t.Errorf("podman still lists %s", line)
			}
		}},
	} {
		t.Run(dashed(bad.name), func(t *testing.T) {
			hostOnly(t, []string{"overlay"}, bad.run)
		})
	}
}

// TestPodmanCannotAnswer: its hints match, so its containers are kept, whatever the force.
func TestPodmanCannotAnswer(t *testing.T) {
	for name, command := range map[string]string{
		"absent": `["/nonexistent"]`,
		"broken": `["/bin/false"]`,
		"silent": `["/bin/true"]`,
		"babble": `["/bin/echo", "[{\"Id\": 7}]"]`,
	} {
		t.Run(name, func(t *testing.T) {
			hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
				target := s.importImage("image", image)
				s.podman("run", "-d", "--name", "p-run", image, "sleep", "1000")
				s.podman("create", "--name", "p-idle", image, "true")
				p := s.process(s.podmanPID("p-run"))
				before := s.look()
				s.write("config.toml", "[plugin.podman]\ncommand = "+command+"\n")
				for _, force := range []string{"--force=none", "--force=idle", "-f", "--force=kill"} {
					r := s.unmoor("--config", s.path("config.toml"), "rmi", force, "--time", "0", image).wantCode(t, 2)
					r.wantSaid(t, "podman", "p-idle")
					if !strings.Contains(r.said(), "when_unavailable") {
						t.Errorf("what to do is not said by %v", r)
					}
				}
				wantAlive(t, p)
				s.wantSame(before)
				// The operator's decision; what the kernel sees in use is still kept.
				s.write("config.toml", "[plugin.podman]\ncommand = "+command+"\nwhen_unavailable = \"ignore\"\n")
				s.unmoor("--config", s.path("config.toml"), "rmi", "-f", image).wantCode(t, 2)
				wantAlive(t, p)
				if !s.hasImage(target) {
					t.Error("the image is gone")
				}
				// With Podman back, all goes as ever.
				s.unmoor("rmi", "-f", "--time", "0", image).wantCode(t, 0)
				s.check()
			})
		})
	}
}
