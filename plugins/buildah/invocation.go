package buildah

import (
	"path/filepath"
	"slices"
	"strings"
)

// invocation is what a command line of buildah or podman says about working containers.
type invocation struct {
	// verb is the command, such as run or "system service".
	verb string
	// makes is whether it may make working containers. A command that is not known may.
	makes bool
	// child is whether it is a process that Buildah started from its own binary to help it.
	child bool
	// named are the containers that it works in, mentioned words that may name one.
	named, mentioned []string
	// root is the value of --root that certainly holds, or "". rootWords are values that may.
	root      string
	rootWords []string
}

// children are the names under which Buildah and the storage library start their own binary
// (containers/buildah v1.28.2 and v1.39.3: reexec.Register in run_common.go, chroot, copier,
// internal/open, pkg/chrootuser; containers/storage v1.59.1: drivers, pkg/chrootarchive).
var children = []string{"buildah-oci-runtime", "buildah-chroot-runtime", "buildah-chroot-exec", "buildah-copier",
	"buildah-bind-fd-to-path", "buildah-open-in-chroot", "chrootuser-open", "storage-untar", "storage-tar",
	"storage-applyLayer", "storage-chown-by-maps", "storage-mountfrom"}

// parseInvocation reads the arguments of a process whose program, by its file, is buildah or podman.
// What it does not understand counts as making containers.
func parseInvocation(program string, argv []string) invocation {
	if len(argv) == 0 || argv[0] == "" {
		return invocation{makes: true}
	}
	base := filepath.Base(argv[0])
	if slices.Contains(children, base) {
		return invocation{verb: base, child: true}
	}
	inv, rest := globals(argv[1:])
	if len(rest) == 0 {
		inv.makes = true
		return inv
	}
	inv.verb, rest = rest[0], rest[1:]
	for i, word := range rest {
		if value, ok := strings.CutPrefix(word, "--root="); ok {
			inv.rootWords = append(inv.rootWords, value)
		} else if word == "--root" && i+1 < len(rest) {
			inv.rootWords = append(inv.rootWords, rest[i+1])
		}
	}
	if strings.Contains(program, "podman") {
		inv.podman(rest)
	} else {
		inv.buildah(rest)
	}
	return inv
}

// Global options of podman 4.3 to 5.4 and buildah 1.28 to 1.39 that take no value, and the short
// ones that do.
var (
	globalSwitches = []string{"--debug", "-D", "--help", "-h", "--version", "-v", "--remote", "-r", "--syslog",
		"--noout", "--trace", "--transient-store"}
	globalValues = []string{"--cgroup-manager", "--cni-config-dir", "--config", "--conmon", "--connection", "-c",
		"--context", "--cpu-profile", "--db-backend", "--default-mounts-file", "--events-backend", "--hooks-dir",
		"--host", "-H", "--identity", "--imagestore", "--log-level", "-l", "--max-workers", "--memory-profile",
		"--module", "--namespace", "--network-backend", "--network-cmd-path", "--network-config-dir", "--out", "--pull-option",
		"--registries-conf", "--registries-conf-dir", "--runroot", "--runtime", "--runtime-flag",
		"--short-name-alias-conf", "--ssh", "--storage-driver", "--storage-opt", "--tls-ca", "--tls-cert",
		"--tls-key", "--tmpdir", "--url", "--userns-gid-map", "--userns-uid-map", "--volumepath"}
)

// globals reads the options before the command.
func globals(args []string) (invocation, []string) {
	var inv invocation
	certain := true
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		word := args[0]
		args = args[1:]
		name, value, has := strings.Cut(word, "=")
		if name == "--root" {
			if !has && len(args) > 0 {
				value, args = args[0], args[1:]
			}
			inv.rootWords = append(inv.rootWords, value)
			inv.root = value
			continue
		}
		switch {
		case has || slices.Contains(globalSwitches, name):
		case slices.Contains(globalValues, name) && len(args) > 0:
			args = args[1:]
		default:
			certain = false
		}
	}
	if !certain {
		inv.root = ""
	}
	return inv, args
}

// The commands of buildah 1.28 to 1.39 that neither make a working container nor work in one, or
// whose children do that under their own names.
var buildahNeutral = []string{"containers", "ls", "list", "ps", "images", "info", "inspect", "login", "logout",
	"manifest", "passwd", "prune", "pull", "push", "rmi", "source", "tag", "unshare", "version", "help",
	"completion", "dumpbolt"}

func (inv *invocation) buildah(args []string) {
	switch {
	case slices.Contains(buildahNeutral, inv.verb):
	case slices.Contains([]string{"run", "commit", "add", "copy"}, inv.verb):
		inv.worker(args)
		// A scan for --sbom runs in a container of its own, and what --from names is an image as a rule,
		// of which a container is made (containers/buildah v1.39.3, scan.go; v1.28.2 and v1.39.3,
		// cmd/buildah/addcopy.go).
		option := map[string]string{"commit": "--sbom", "add": "--from", "copy": "--from"}[inv.verb]
		inv.makes = option != "" && slices.ContainsFunc(args, func(a string) bool {
			return strings.HasPrefix(a, option)
		})
	case slices.Contains([]string{"config", "mount", "umount", "unmount", "rename", "rm", "delete"}, inv.verb):
		inv.mentioned = words(args)
	default: // from, build, build-using-dockerfile, bud, mkcw, and what is not known
		inv.makes = true
	}
}

// Options of buildah run, commit, add and copy, 1.28 to 1.39.
var (
	workSwitches = []string{"--add-history", "--no-hosts", "--no-hostname", "--no-pivot", "--terminal", "--tty", "-t",
		"--disable-compression", "-D", "--identity-label", "--omit-history", "--quiet", "-q", "--rm", "--squash",
		"--tls-verify", "--pull", "--help", "-h", "--debug"}
	workValues = []string{"--cap-add", "--cap-drop", "--cgroupns", "--contextdir", "--device", "--env", "-e",
		"--hostname", "--ipc", "--isolation", "--mount", "--network", "--net", "--pid", "--runtime",
		"--runtime-flag", "--user", "--uts", "--volume", "-v", "--workingdir", "--add-file", "--authfile",
		"--cert-dir", "--change", "-c", "--config", "--creds", "--cw", "--encrypt-layer", "--encryption-key",
		"--format", "-f", "--iidfile", "--manifest", "--sbom", "--sbom-image-output", "--sbom-image-purl-output",
		"--sbom-merge-strategy", "--sbom-output", "--sbom-purl-output", "--sbom-scanner-command",
		"--sbom-scanner-image", "--sign-by", "--timestamp", "--unsetenv", "--checksum", "--chmod", "--chown",
		"--exclude", "--from", "--ignorefile", "--retry", "--retry-delay",
		"--root", "--runroot", "--storage-driver", "--storage-opt", "--log-level"}
)

// worker finds the container in the arguments of a command that takes it as the first word. Once an
// option is not known, every later word is only mentioned.
func (inv *invocation) worker(args []string) {
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		if word == "--" || !strings.HasPrefix(word, "-") {
			if word == "--" {
				if len(args) == 0 {
					return
				}
				word = args[0]
			}
			inv.named = append(inv.named, word)
			return
		}
		name, value, has := strings.Cut(word, "=")
		switch {
		case has:
		case slices.Contains(workSwitches, name):
			continue
		case slices.Contains(workValues, name) && len(args) > 0:
			value, args = args[0], args[1:]
		case shortCluster(name):
			continue
		default:
			inv.mentioned = append(inv.mentioned, words(args)...)
			return
		}
		switch name {
		case "--from":
			inv.mentioned = append(inv.mentioned, value)
		case "--mount":
			for _, part := range strings.Split(value, ",") {
				if from, ok := strings.CutPrefix(part, "from="); ok {
					inv.mentioned = append(inv.mentioned, from)
				}
			}
		}
	}
}

// shortCluster is whether a word is short options with everything that belongs to them: -qD, or a
// value joined to its option, -eA=B.
func shortCluster(word string) bool {
	if len(word) < 3 || word[1] == '-' {
		return false
	}
	if slices.Contains(workValues, word[:2]) {
		return true
	}
	for _, c := range word[1:] {
		if !slices.Contains(workSwitches, "-"+string(c)) {
			return false
		}
	}
	return true
}

// Podman's commands, 4.3 to 5.4, that make no working container. The groups that may are listed
// with their harmless members.
var (
	podmanNeutral = []string{"artifact", "attach", "auto-update", "checkpoint", "commit", "cp", "diff", "events", "exec", "export", "generate", "healthcheck", "help", "history", "images", "import", "info",
		"init", "inspect", "kill", "list", "load", "login", "logout", "logs", "machine", "manifest", "mount",
		"network", "pause", "port", "ps", "pull", "push", "quadlet", "rename", "restart", "restore", "rm",
		"rmi", "save", "search", "secret", "start", "stats", "stop", "tag", "top", "umount", "unmount",
		"unpause", "unshare", "untag", "update", "version", "volume", "wait", "completion"}
	podmanGroups = map[string][]string{
		"image": {"diff", "exists", "history", "import", "inspect", "list", "ls", "load", "mount", "prune", "pull",
			"push", "rm", "save", "scp", "search", "sign", "tag", "tree", "trust", "umount", "unmount", "untag"},
		"system": {"check", "connection", "df", "events", "info", "migrate", "prune", "renumber", "reset"},
		"kube":   {"apply", "down", "generate"},
		"buildx": {"inspect", "prune", "version"},
		"pod": {"exists", "inspect", "kill", "list", "logs", "ls", "pause", "ps", "prune", "restart", "rm", "start",
			"stats", "stop", "top", "unpause"},
		"container": {"attach", "checkpoint", "cleanup", "commit", "cp", "diff", "exec", "exists", "export", "init",
			"inspect", "kill", "list", "logs", "ls", "mount", "pause", "port", "prune", "ps", "rename", "restart",
			"restore", "rm", "runlabel", "start", "stats", "stop", "top", "umount", "unmount", "unpause", "update",
			"wait"},
	}
)

func (inv *invocation) podman(args []string) {
	if slices.Contains(podmanNeutral, inv.verb) {
		return
	}
	harmless, group := podmanGroups[inv.verb]
	if group && len(args) > 0 {
		if inv.verb += " " + args[0]; slices.Contains(harmless, args[0]) {
			return
		}
		args = args[1:]
	}
	switch inv.verb {
	case "run", "create", "container run", "container create":
		inv.makes = newPod(args)
	default: // build, play, farm, compose, builder, pod create and clone, and what is not known
		inv.makes = true
	}
}

// newPod is whether podman run or create makes a pod. The image of its infra container is then built
// in the very process, as by pod create (containers/podman, pkg/specgen/generate/pause_image.go, 4.3.1
// and 5.4.2). A word of the container's own command that looks like it counts too.
func newPod(args []string) bool {
	for i, a := range args {
		if strings.HasPrefix(a, "--pod=new:") || a == "--pod" && i+1 < len(args) && strings.HasPrefix(args[i+1], "new:") {
			return true
		}
	}
	return false
}

// words are the arguments that are not options, each of which may be a name.
func words(args []string) []string {
	var found []string
	for _, a := range args {
		if a != "" && !strings.HasPrefix(a, "-") {
			found = append(found, a)
		}
	}
	return found
}
