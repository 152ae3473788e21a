package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// Release releases the layers one after the other, up to the first that it cannot. Where nothing uses or
// holds any of several and none is mounted, as is usual for the layers of an image, one look is the proof
// for all.
func (i *Inspector) Release(ctx context.Context, layers ...core.Layer) (unmounted []string, err error) {
	if len(layers) > 1 && i.freeTogether(ctx, layers) {
		return nil, nil
	}
	for _, layer := range layers {
		more, err := i.release(ctx, layer)
		unmounted = append(unmounted, more...)
		if err != nil {
			return unmounted, err
		}
	}
	return unmounted, nil
}

// release unmounts what is mounted at or below a layer's directory and proves that nothing uses the
// layer. The order: refuse where somebody is named or something cannot be found out; unmount plainly,
// deepest first, in every namespace; probe (overlay), or look again (what has no probe). A mount that
// a refusal left unmounted stays so: a second superblock on the same upper directory would do harm.
func (i *Inspector) release(ctx context.Context, layer core.Layer) (unmounted []string, err error) {
	if free, err := i.freeAtOnce(ctx, layer); err != nil || free {
		return nil, err
	}
	// A mount namespace that is made while we work inherits what is still mounted then: so again.
	for round := 1; ; round++ {
		more, err := i.releaseOnce(ctx, layer)
		unmounted = append(unmounted, more...)
		if round == rounds || !errors.Is(err, errLeft) {
			return unmounted, err
		}
	}
}

// freeTogether is whether one look proves all that release would. What it cannot prove is for release to say.
func (i *Inspector) freeTogether(ctx context.Context, layers []core.Layer) bool {
	s, err := i.look(ctx, layers, toRelease)
	if err != nil {
		return false
	}
	for _, t := range s.targets {
		probed := t.life == lifeNone || !t.overlay() || t.inode == 0
		if s.observation(t).Use != core.UseIdle || len(t.mounts) > 0 || t.server != 0 || !probed {
			return false
		}
	}
	return true
}

const rounds = 4

// errLeft says that nobody uses the layer, and that it has a mount all the same.
var errLeft = errors.New("mounts of it are left that nobody uses")

func (i *Inspector) releaseOnce(ctx context.Context, layer core.Layer) (unmounted []string, err error) {
	s, err := i.look(ctx, []core.Layer{layer}, toRelease)
	if err != nil {
		return nil, refuse(core.Observation{}, "its use cannot be found out: %v", err)
	}
	t := s.targets[0]
	if o := s.observation(t); o.Use != core.UseIdle {
		if o.Use == core.UseUnknown && t.server != 0 && len(t.mounts) == 0 {
			return nil, i.lookAgain(ctx, t) // unmounted just now, perhaps
		}
		return nil, refuse(o, "%s", reason(o))
	}
	if len(t.mounts) > 0 {
		if err := s.probeSees(t); err != nil {
			return nil, refuse(core.Observation{}, "%v", err)
		}
		if unmounted, err = s.unmountAll(ctx, t); err != nil {
			return unmounted, refuse(core.Observation{Evidence: s.mountEvidence(t)}, "%v", err)
		}
	}
	return unmounted, i.prove(ctx, t, len(t.mounts) > 0)
}

// freeAtOnce is the usual case, for the price of one reading of the host's mounts and one probe: a
// writable overlay layer that is mounted nowhere. No superblock means that no process in whatever
// namespace sees the layer through overlay.
func (i *Inspector) freeAtOnce(ctx context.Context, layer core.Layer) (free bool, err error) {
	if layer.Driver != "overlay" || layer.UpperDir == "" || layer.Directory == "" || layer.Orphan {
		return false, nil
	}
	near, err := i.readNear()
	if err != nil {
		return false, refuse(core.Observation{}, "%v", err)
	}
	servers, err := i.fuseServers(ctx)
	if err != nil {
		return false, refuse(core.Observation{}, "look for FUSE servers: %v", err)
	}
	t := i.newScene(near, servers, []core.Layer{layer}).targets[0]
	if len(t.mounts) > 0 || len(t.holders) > 0 || t.fuse {
		return false, nil
	}
	life, err := i.life(t.files())
	return life == lifeNone && err == nil, nil // what is doubtful is looked at again, and named
}

// probeSees is whether the probe knows a superblock that is mounted before our eyes. Where it does
// not, its word later would prove nothing.
func (s *scene) probeSees(t *target) error {
	if !t.overlay() || t.inode == 0 {
		return nil
	}
	seen := false
	for _, p := range t.mounts {
		if p.mount.fs != "overlay" || !t.devs[p.mount.dev] {
			continue
		}
		for _, d := range overlayDirs(p.mount.options) {
			seen = seen || (d.upper && d.name == "diff")
		}
	}
	if !seen {
		return nil
	}
	switch life, err := s.life(t.files()); {
	case err != nil:
		return err
	case life != lifeLive:
		return errors.New("the probe does not see its mounted superblock, so it could not prove it free")
	}
	return nil
}

// unmountAll unmounts what is at or below the layer's directory, in the host's namespace first: that
// takes the copies along that propagation made.
func (s *scene) unmountAll(ctx context.Context, t *target) (unmounted []string, err error) {
	for _, p := range t.mounts {
		if p.below && p.ns.inode != s.host && p.ns.inode != s.own && !p.ns.parent(p.mount) {
			busy, err := s.busy(t, p)
			if errors.Is(err, unix.EINVAL) {
				continue // locked there; see detachCopies
			}
			if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("check its mount in %s: %w", nsName(p.ns.inode), err)
			}
			if busy {
				return nil, fmt.Errorf("its mount at %s in mount namespace %s is busy", p.mount.point, nsName(p.ns.inode))
			}
		}
	}
	done := make(map[*namespace]bool)
	visit := func(n *namespace) error {
		if done[n] {
			return nil
		}
		done[n] = true
		var mounts []*mount
		for _, p := range t.mounts {
			if p.ns == n && p.below {
				mounts = append(mounts, p.mount)
			}
		}
		if len(mounts) == 0 {
			return nil
		}
		points, err := s.unmountIn(n, mounts)
		for _, point := range points {
			if n.inode == s.host || n.inode == s.own {
				unmounted = append(unmounted, t.shown(point))
			} else {
				unmounted = append(unmounted, point+" in "+nsName(n.inode))
			}
		}
		return err
	}
	for _, inode := range []uint64{s.host, s.own} {
		if n := s.tables.byInode[inode]; n != nil {
			if err := visit(n); err != nil {
				return unmounted, err
			}
		}
	}
	locked := false
	for _, p := range t.mounts {
		switch err := visit(p.ns); {
		case errors.Is(err, unix.EINVAL) && p.ns.inode != s.host && p.ns.inode != s.own:
			locked = true
		case err != nil:
			return unmounted, err
		}
	}
	if locked {
		return unmounted, s.detachCopies(ctx, t)
	}
	return unmounted, nil
}

// detachCopies takes the copies of a layer's mount away that a mount namespace of another user
// namespace inherited, which nobody uses and nobody may unmount there: the kernel locks them
// (mount_namespaces(7)). It does so itself when their mount point is removed (Linux, fs/namei.c,
// vfs_rmdir: detach_mounts), and the library makes the directory anew where it is missing
// (containers/storage v1.59.1, drivers/overlay/overlay.go, get). Killed in between, nothing is lost.
//
// It detaches lazily, whatever uses the copies: so not before another look shows that nothing does.
func (s *scene) detachCopies(ctx context.Context, t *target) error {
	after, err := s.look(ctx, []core.Layer{t.layer}, toProve)
	if err != nil {
		return fmt.Errorf("look for users of the copies of its mount in other user namespaces: %w", err)
	}
	if o := after.observation(after.targets[0]); o.Use != core.UseIdle {
		return fmt.Errorf("copies of its mount in other user namespaces may be in use: %s", reason(o))
	}
	info, err := os.Stat(t.layer.MountPoint)
	if err != nil {
		return fmt.Errorf("look at the mount point: %w", err)
	}
	// An rmdir: it fails where something is mounted there for us, or where there is a file in it.
	if err := os.Remove(t.layer.MountPoint); err != nil {
		return fmt.Errorf("detach the copies of the mount in other user namespaces: %w", err)
	}
	if err := os.Mkdir(t.layer.MountPoint, info.Mode().Perm()); err != nil {
		return fmt.Errorf("make the mount point anew: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(t.layer.MountPoint, int(owner.Uid), int(owner.Gid)); err != nil {
			return fmt.Errorf("make the mount point anew: %w", err)
		}
	}
	return nil
}

// unmountIn unmounts plainly in one namespace. It goes on while that gets anywhere: a mount may be
// covered by another one.
func (s *scene) unmountIn(n *namespace, mounts []*mount) (unmounted []string, err error) {
	slices.Reverse(mounts) // what was mounted last lies on top
	slices.SortStableFunc(mounts, func(a, b *mount) int {
		return strings.Count(b.point, "/") - strings.Count(a.point, "/")
	})
	err = s.enter(n, func() error {
		left := mounts
		for len(left) > 0 {
			var again []*mount
			var first error
			for _, m := range left {
				err := s.unmountPlainly(m)
				switch {
				case err == nil:
					unmounted = append(unmounted, m.point)
				case errors.Is(err, errGone):
				default:
					again = append(again, m)
					if first == nil {
						first = err
					}
				}
			}
			if len(again) == len(left) {
				return first
			}
			left = again
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) && n.inode != s.host && n.inode != s.own {
		return unmounted, nil // the namespace has ended, and its mounts with it
	}
	if err != nil && n.inode != s.host {
		return unmounted, fmt.Errorf("in mount namespace %s: %w", nsName(n.inode), err)
	}
	return unmounted, err
}

var errGone = errors.New("not mounted any more")

// unmountPlainly unmounts exactly this mount: where another one covers its mount point, it says so.
func (i *Inspector) unmountPlainly(m *mount) error {
	h, err := statHandle(unix.AT_FDCWD, m.point)
	if errors.Is(err, unix.ENOENT) {
		return errGone
	}
	if err == nil && h.mnt != 0 && h.mnt != m.id {
		if here, err := i.mountedHere(m); err == nil && !here {
			return errGone
		}
		return fmt.Errorf("%s is covered by another mount", m.point)
	}
	for try := 0; ; try++ {
		err = unix.Unmount(m.point, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EBUSY) || try == 4 {
			break
		}
		time.Sleep(time.Millisecond << try) // whoever only passes by is gone then
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.point, err)
	}
	return nil
}

// mountedHere is whether our thread's namespace still has the mount.
func (i *Inspector) mountedHere(m *mount) (bool, error) {
	mounts, err := i.mountinfo("thread-self")
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(mounts, func(x mount) bool { return x.id == m.id }), nil
}

// prove shows after the unmounting that nothing uses the layer.
func (i *Inspector) prove(ctx context.Context, t *target, changed bool) error {
	if !t.overlay() || t.inode == 0 {
		if changed {
			return i.lookAgain(ctx, t)
		}
		return nil // the look before was the proof
	}
	// The last reference may be dropped a moment after the unmount.
	life, err := i.await(ctx, t, time.Second)
	if err != nil {
		return refuse(core.Observation{}, "%v", err)
	}
	if life == lifeLive {
		s, err := i.look(ctx, []core.Layer{t.layer}, toProve)
		if err != nil {
			return refuse(core.Observation{}, "something still holds its superblock, and it cannot be found out what: %v", err)
		}
		return left(s, "something still holds its superblock")
	}
	if !changed {
		return nil
	}
	if t.fuse {
		return i.lookAgain(ctx, t)
	}
	// No superblock, so no mount of it in whatever namespace; another file system may have come.
	near, err := i.readNear()
	if err != nil {
		return refuse(core.Observation{}, "%v", err)
	}
	if s := i.newScene(near, nil, []core.Layer{t.layer}); len(s.targets[0].mounts) > 0 {
		return left(s, "something is mounted at it again")
	}
	return nil
}

// left is the error where the proof was not had: errLeft too, where mere mounts are in the way.
func left(s *scene, why string) error {
	t := s.targets[0]
	o := s.observation(t)
	idle := o.Use == core.UseIdle && len(t.mounts) > 0
	if o.Use == core.UseIdle {
		o.Use = core.UseUnknown
	}
	err := refuse(o, "%s", why)
	if idle {
		return fmt.Errorf("%w: %w", err, errLeft)
	}
	return err
}

// await probes until the superblock is gone or the time is up.
func (i *Inspector) await(ctx context.Context, t *target, most time.Duration) (life, error) {
	for end := time.Now().Add(most); ; {
		l, err := i.life(t.files())
		if err != nil || l != lifeLive || time.Now().After(end) {
			return l, err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return lifeUnknown, err
		}
	}
}

// lookAgain scans once more, and gives a FUSE server the time to end.
func (i *Inspector) lookAgain(ctx context.Context, t *target) error {
	for end := time.Now().Add(2 * time.Second); ; {
		s, err := i.look(ctx, []core.Layer{t.layer}, toProve)
		if err != nil {
			return refuse(core.Observation{}, "%v", err)
		}
		after := s.targets[0]
		o := s.observation(after)
		switch {
		case o.Use == core.UseIdle && len(after.mounts) == 0 && after.server == 0:
			return nil
		case after.server == 0 || len(after.mounts) > 0 || time.Now().After(end):
			return left(s, reason(o))
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return refuse(o, "%v", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// refuse makes the error. Its container is for the caller to fill in: the kernel knows layers only.
func refuse(o core.Observation, format string, args ...any) error {
	return &core.BusyError{Observation: o, Reason: fmt.Sprintf(format, args...)}
}

// reason is the first thing that was seen.
func reason(o core.Observation) string {
	for _, e := range o.Evidence {
		if e.Process != nil || e.Kind == core.EvidenceProbe || o.Use == core.UseUnknown {
			return e.Detail
		}
	}
	return "something uses it"
}
