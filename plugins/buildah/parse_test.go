package buildah

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRecord(t *testing.T) {
	for _, version := range []string{"1.28.2", "1.39.3"} {
		r, err := parseRecord(testdata(t, "buildah-"+version+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if r.Container != "bb-working-container" || r.Image != "localhost/bb:latest" || len(r.ContainerID) != 64 || len(r.ImageID) != 64 {
			t.Errorf("%s: %+v", version, r)
		}
	}
	for name, text := range map[string]string{
		"empty":           "",
		"half":            string(testdata(t, "buildah-1.28.2.json")[:1000]),
		"another's":       `{"type":"kaniko 1"}`,
		"no type":         `{"container-id":"x"}`,
		"wrong kind":      `{"type":["buildah 0.0.1"]}`,
		"an endless name": `{"type":"buildah 0.0.1","container-name":"` + strings.Repeat("x", maxName+1) + `"}`,
	} {
		if r, err := parseRecord([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if _, err := parseRecord([]byte(`{"type":"buildah 1.2","container-id":"x"}`)); err != nil {
		t.Errorf("a later type: %v", err)
	}
}

// claimOf claims a container of a made-up store in which nothing runs.
func claimOf(t *testing.T, c core.Container) core.Claim {
	t.Helper()
	claims, err := New(Options{}).Claim(t.Context(), core.StoreInfo{GraphRoot: t.TempDir()}, []core.Container{c})
	if err != nil || len(claims) != 1 {
		t.Fatalf("%v %v", claims, err)
	}
	return claims[0]
}

func TestClaimByRecord(t *testing.T) {
	good := testdata(t, "buildah-1.39.3.json")
	r, err := parseRecord(good)
	if err != nil {
		t.Fatal(err)
	}
	id := core.ContainerID(r.ContainerID)
	write := func(b []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	scenes := map[string]struct {
		make     func(t *testing.T, path string)
		metadata string
		id       core.ContainerID
		want     core.Ownership
	}{
		"its own record":             {write(good), "", id, core.OwnershipMine},
		"no record":                  {func(*testing.T, string) {}, "", id, core.OwnershipNotMine},
		"imported by podman commit":  {write(good), `{"image-name":"x","name":"y"}`, id, core.OwnershipNotMine},
		"another container's record": {write(good), "", "other", core.OwnershipUnknown},
		"corrupt":                    {write(good[:len(good)-2]), "", id, core.OwnershipUnknown},
		"another program's":          {write([]byte(`{"type":"x"}`)), "", id, core.OwnershipUnknown},
		"a file of 17 MB": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil || os.Truncate(path, maxRecord+1) != nil {
				t.Fatal(err)
			}
		}, "", id, core.OwnershipUnknown},
		"a link": {func(t *testing.T, path string) {
			write(good)(t, path+".real")
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		}, "", id, core.OwnershipUnknown},
		"a pipe": {func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "", id, core.OwnershipUnknown},
		"a directory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "", id, core.OwnershipUnknown},
	}
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			scene.make(t, filepath.Join(dir, stateFile))
			c := claimOf(t, core.Container{ID: scene.id, LayerID: "layer", Metadata: scene.metadata, Volatile: true,
				Created: time.Now(), Directory: dir, Names: []string{"renamed"}})
			if c.Ownership != scene.want {
				t.Fatalf("%+v", c)
			}
			if c.Ownership == core.OwnershipMine && (c.Use != core.UseIdle || c.DisplayName != "renamed") {
				t.Errorf("%+v", c)
			}
			if c.Ownership == core.OwnershipUnknown && len(c.Evidence) == 0 {
				t.Errorf("no reason: %+v", c)
			}
		})
	}
	if c := claimOf(t, core.Container{ID: id}); c.Ownership != core.OwnershipUnknown {
		t.Errorf("without a directory: %+v", c)
	}
}

func TestParseInvocation(t *testing.T) {
	scenes := map[string]struct {
		line             string
		makes, child     bool
		named, mentioned string
		root             string
	}{
		"build":                {line: "buildah build -t x .", makes: true},
		"bud":                  {line: "buildah bud .", makes: true},
		"from":                 {line: "/usr/bin/buildah --root /a from x", makes: true, root: "/a"},
		"from, root joined":    {line: "buildah --storage-driver vfs --root=/a from x", makes: true, root: "/a"},
		"two roots":            {line: "buildah --root /b --root /a from x", makes: true, root: "/a"},
		"unknown global":       {line: "buildah --new --root /a from x", makes: true},
		"unknown command":      {line: "buildah dance", makes: true},
		"no command":           {line: "buildah", makes: true},
		"run":                  {line: "buildah run c sleep 1", named: "c"},
		"run with options":     {line: "buildah --root=/a run --isolation chroot -v /x:/y -e A=B -t c sh", named: "c", root: "/a"},
		"run, short cluster":   {line: "buildah run -eA=B -v/x:/y c sh", named: "c"},
		"run after dashes":     {line: "buildah run -t -- c sh -c x", named: "c"},
		"run, unknown option":  {line: "buildah run --new what c sh", mentioned: "what c sh"},
		"run, mount of one":    {line: "buildah run --mount type=bind,from=d,target=/x c sh", named: "c", mentioned: "d"},
		"copy from one":        {line: "buildah copy --from d c a b", named: "c", mentioned: "d", makes: true},
		"copy":                 {line: "buildah copy c a b", named: "c"},
		"add, from joined":     {line: "buildah add --from=d c a b", named: "c", mentioned: "d", makes: true},
		"run, not from":        {line: "buildah run c copy --from=d", named: "c"},
		"commit":               {line: "buildah commit -q --rm c image", named: "c"},
		"commit with a scan":   {line: "buildah commit --sbom=syft c image", named: "c", makes: true},
		"config":               {line: "buildah config --label a=b c", mentioned: "a=b c"},
		"images":               {line: "buildah images"},
		"unshare":              {line: "buildah unshare sh"},
		"helper":               {line: "buildah-oci-runtime", child: true},
		"copier":               {line: "buildah-copier /", child: true},
		"a build of it":        {line: "buildah-1.40 run c sh", named: "c"},
		"podman build":         {line: "podman --tmpdir /t build .", makes: true},
		"podman image build":   {line: "podman image build .", makes: true},
		"podman service":       {line: "podman --log-level=info system service --time 0", makes: true},
		"podman play":          {line: "podman play kube x", makes: true},
		"podman kube play":     {line: "podman kube play x", makes: true},
		"podman kube down":     {line: "podman kube down x"},
		"podman run":           {line: "podman run --rm x buildah build"},
		"podman run, new pod":  {line: "podman run -d --pod new:web x", makes: true},
		"podman create, pod":   {line: "podman create --pod=new:web x", makes: true},
		"podman run, old pod":  {line: "podman run --pod web x"},
		"podman container run": {line: "podman container run --pod=new:web x", makes: true},
		"podman container ls":  {line: "podman container ls"},
		"podman container cre": {line: "podman container create x"},
		"podman pod create":    {line: "podman pod create --name new", makes: true},
		"podman pod clone":     {line: "podman pod clone web", makes: true},
		"podman pod stop":      {line: "podman pod stop web"},
		"podman image list":    {line: "podman image ls"},
		"podman system df":     {line: "podman system df"},
		"podman ps":            {line: "podman ps"},
		"podman unknown":       {line: "podman dance", makes: true},
		"podman remote switch": {line: "podman -r --url x build .", makes: true},
	}
	for name, s := range scenes {
		t.Run(name, func(t *testing.T) {
			argv := strings.Fields(s.line)
			inv := parseInvocation(filepath.Base(argv[0]), argv)
			if inv.makes != s.makes || inv.child != s.child || inv.root != s.root ||
				strings.Join(inv.named, " ") != s.named || strings.Join(inv.mentioned, " ") != s.mentioned {
				t.Errorf("%+v", inv)
			}
		})
	}
	if inv := parseInvocation("buildah", strings.Fields("buildah build --root /late .")); inv.root != "" || !slices.Contains(inv.rootWords, "/late") {
		t.Errorf("a root after the command is no certainty: %+v", inv)
	}
}

func TestIsName(t *testing.T) {
	c := core.Container{ID: "4f0123456789abcdef", Names: []string{"web"}}
	taken := func(name string) bool { return name == "4f" }
	for word, want := range map[string][2]bool{ // at least 12 digits, at least 1
		"web": {true, true}, "4f0123456789abcdef": {true, true}, "4f0123456789": {true, true}, "4f01": {false, true},
		"4f": {false, false}, "we": {false, false}, "": {false, false},
	} {
		if got := [2]bool{isName(c, word, taken, 12), isName(c, word, taken, 1)}; got != want {
			t.Errorf("%q: %v", word, got)
		}
	}
}

func TestOrder(t *testing.T) {
	boot := time.Now().Add(-time.Hour)
	s := &scan{at: time.Now(), boot: boot, described: make(map[[2]uint64]core.Process)}
	builder := func(after time.Duration, state byte) {
		s.actors = []*actor{{process{pid: 7, start: uint64(after / (time.Second / ticks)), state: state}, invocation{verb: "build", makes: true}, true}}
	}
	c := core.Container{ID: "x", Volatile: true}
	for name, scene := range map[string]struct {
		builder, container time.Duration
		state              byte
		makes              bool
		ownership          core.Ownership
	}{
		"older builder, young container": {time.Minute, 59 * time.Minute, 'S', true, core.OwnershipUnknown},
		"younger builder":                {50 * time.Minute, 40 * time.Minute, 'S', false, core.OwnershipNotMine},
		"younger by a second":            {50*time.Minute + time.Second, 50 * time.Minute, 'S', true, core.OwnershipUnknown},
		"old container":                  {time.Minute, 2 * time.Minute, 'S', true, core.OwnershipNotMine},
		"old container, held builder":    {time.Minute, 2 * time.Minute, 'T', true, core.OwnershipUnknown},
	} {
		builder(scene.builder, scene.state)
		c.Created = boot.Add(scene.container)
		if got := len(s.makers(c)) > 0; got != scene.makes {
			t.Errorf("%s: %v", name, got)
		}
		if got := s.recordless(c).Ownership; got != scene.ownership && name != "younger by a second" {
			t.Errorf("%s: %s", name, got)
		}
	}
	// The clock was set forward by an hour since the container was made.
	builder(59*time.Minute, 'S')
	c.Created = boot.Add(time.Minute)
	for count, want := range []int{0, 1, 1} {
		c.Layer.MountCount = count
		if got := len(s.makers(c)); got != want {
			t.Errorf("mounted %d times: %d makers", count, got)
		}
	}
	if len(s.makers(core.Container{})) != 1 {
		t.Error("a container without a time may be anybody's")
	}
}

func TestMountinfo(t *testing.T) {
	l := newLayers([]core.Container{{LayerID: "aaa"}, {LayerID: "bbb"}, {LayerID: "ccc"}})
	host := parseMountinfo(`20 1 254:0 / / rw - ext4 /dev/vda rw
21 20 0:39 / /s/overlay/aaa/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/s/overlay/aaa/diff,workdir=/w
22 20 0:41 / /s/overlay/ccc/merged rw - fuse.fuse-overlayfs fuse-overlayfs rw
`)
	l.learn(host)
	for name, scene := range map[string]struct {
		text          string
		inside, holds core.LayerID
	}{
		"the host":         {"21 20 0:39 / /s/overlay/aaa/merged rw - overlay overlay rw,upperdir=/s/overlay/aaa/diff", "", ""},
		"pivoted":          {"21 20 0:39 / / rw - overlay overlay rw,upperdir=aaa/diff", "aaa", ""},
		"by device":        {"21 20 0:41 / / rw - fuse.fuse-overlayfs fuse-overlayfs rw", "ccc", ""},
		"vfs":              {"21 20 254:0 /s/vfs/dir/bbb / rw - ext4 /dev/vda rw", "bbb", ""},
		"bundle":           {"21 20 0:39 / /tmp/buildah1/mnt/rootfs rw - overlay overlay rw,upperdir=/s/overlay/aaa/diff", "", "aaa"},
		"another's":        {"21 20 0:77 / / rw - overlay overlay rw,upperdir=/s/overlay/zzz/diff", "", ""},
		"nothing but dirt": {"x y\n\n - \n1 2 3 4 - overlay", "", ""},
	} {
		inside, holds := l.uses(parseMountinfo(scene.text + "\n"))
		if len(inside) > 1 || len(holds) > 1 || scene.inside != "" && !inside[scene.inside] || scene.holds != "" && !holds[scene.holds] ||
			scene.inside == "" && len(inside) > 0 || scene.holds == "" && len(holds) > 0 {
			t.Errorf("%s: %v %v", name, inside, holds)
		}
	}
}

func TestParseState(t *testing.T) {
	for text, want := range map[string]int{
		`{"id":"x","init_process_pid":12,"config":{}}`: 12,
		`{"pid":13,"process-start-time":1}`:            13,
		`{"a":{"pid":5},"pid":14}`:                     14,
		`{"pid":"15"}`:                                 0, `[]`: 0, ``: 0, `{"pid"`: 0, `{}`: 0,
	} {
		if got := parseState(strings.NewReader(text)); got != want {
			t.Errorf("%s: %d", text, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	p, ok := parseStat([]byte("17 (a) b (c) R 3 " + strings.Repeat("0 ", 17) + "4242 0\n"))
	if !ok || p.pid != 17 || p.parent != 3 || p.start != 4242 || p.comm != "a) b (c" || p.state != 'R' {
		t.Errorf("%+v %v", p, ok)
	}
	if _, ok := parseStat([]byte("17 (x) R 3")); ok {
		t.Error("a short line is none")
	}
}

func FuzzRecord(f *testing.F) {
	for _, version := range []string{"1.28.2", "1.39.3"} {
		f.Add(testdata(f, "buildah-"+version+".json"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err == nil && (!strings.HasPrefix(r.Type, "buildah ") || len(r.Container) > maxName) {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzInvocation(f *testing.F) {
	f.Add("buildah", "buildah\x00--root\x00/a\x00run\x00-t\x00--mount\x00from=x\x00c\x00sh\x00")
	f.Add("podman", "podman\x00system\x00service\x00")
	f.Fuzz(func(t *testing.T, program, line string) {
		argv := parseArgs([]byte(line))
		inv := parseInvocation(program, argv)
		if inv.child && (inv.makes || len(inv.named) > 0) {
			t.Errorf("%+v", inv)
		}
		if len(argv) == 0 && !inv.makes {
			t.Error("an unreadable command line may be anything")
		}
		for _, word := range append(slices.Clone(inv.named), inv.mentioned...) {
			if !strings.Contains(line, word) {
				t.Errorf("%q is not in %q", word, line)
			}
		}
	})
}

func FuzzProc(f *testing.F) {
	f.Add([]byte("17 (a) R 3 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 42 0"))
	f.Add([]byte("21 20 0:39 / / rw - overlay overlay rw,upperdir=aaa/diff\n0::/x"))
	f.Add([]byte(`{"pid":1}`))
	f.Add([]byte("[storage]\ngraphroot = \"/x\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseStat(b); ok && p.state == 0 {
			t.Error("a state of nothing")
		}
		mounts := parseMountinfo(string(b))
		l := newLayers([]core.Container{{LayerID: "aaa"}})
		l.learn(mounts)
		inside, holds := l.uses(mounts)
		for id := range inside {
			if !l.known[id] || holds[id] {
				t.Errorf("%v %v", inside, holds)
			}
		}
		parseState(strings.NewReader(string(b)))
		parseCgroup(string(b))
		parseConf(string(b))
	})
}

// TestChildren: both ways to find descendants find the same.
func TestChildren(t *testing.T) {
	shell := exec.Command("sh", "-c", "sleep 1210 & sleep 1210 & wait")
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer shell.Wait()
	defer syscall.Kill(-shell.Process.Pid, syscall.SIGKILL)
	fs, err := openProcfs()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.close()
	var direct, byParents []int
	for end := time.Now().Add(10 * time.Second); len(direct) < 2 || len(byParents) < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v %v", direct, byParents)
		}
		all, err := pids()
		if err != nil {
			t.Fatal(err)
		}
		direct, byParents = fs.children(shell.Process.Pid), fs.childrenByParents(all)(shell.Process.Pid)
	}
	slices.Sort(direct)
	slices.Sort(byParents)
	if !slices.Equal(direct, byParents) {
		t.Errorf("%v %v", direct, byParents)
	}
	all, _ := pids()
	a := &actor{}
	found := fs.below(all, map[int]bool{direct[0]: true}, map[int]*actor{shell.Process.Pid: a})
	if len(found) != 3 || found[direct[0]].actor != a {
		t.Errorf("%+v", found)
	}
}
