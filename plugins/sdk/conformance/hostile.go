package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/unmoor/unmoor/internal/protocol"
)

// hostileRules are about calls that make no sense. That the plugin lives afterwards is looked at after
// every rule.
func hostileRules() []rule {
	return []rule{
		{"message-malformed", "A message that is no call is not answered with a success, and the plugin lives on", nil, messageMalformed},
		{"message-cut", "A connection that ends in the middle of a message leaves the plugin alive", nil, messageCut},
		{"caller-leaves", "A caller that goes away during a call leaves the plugin alive", nil, callerLeaves},
		{"callers-idle", "Connections that say nothing do not keep others from being answered", nil, callersIdle},
		{"peer", "Whoever is neither root nor the plugin's own user is denied", nil, peer},
	}
}

func messageMalformed(p *probe) error {
	for _, text := range []string{
		"\x00", "no JSON\x00", "{\x00", "[]\x00", "null\x00", `"io.unmoor.Plugin.Describe"` + "\x00", `{"method":5}` + "\x00",
		`{"parameters":{}}` + "\x00", `{"method":""}` + "\x00", `{"method":"Describe"}` + "\x00", `{"method":"io.unmoor.Plugin.Claim","parameters":[]}` + "\x00",
		"{\"method\":\"\xff\xfe\"}\x00", strings.Repeat("[", 100000) + "\x00",
	} {
		s, err := p.open()
		if err != nil {
			return err
		}
		r, err := func() (reply, error) {
			defer s.close()
			if err := s.write([]byte(text), p.options.Deadline); err != nil {
				return reply{}, err
			}
			return s.receive(200 * time.Millisecond) // silence is allowed
		}()
		if err == nil && r.Error == "" {
			return fmt.Errorf("%.80q is answered with %s", text, r)
		}
		if dead := p.lives(); dead != nil {
			return fmt.Errorf("after %.80q: %w", text, dead)
		}
	}
	return nil
}

func messageCut(p *probe) error {
	for _, text := range []string{`{"method":"io.unmoor.Plugin.Cla`, `{"method":"io.unmoor.Plugin.Describe"}`, strings.Repeat("x", 1<<20)} {
		s, err := p.open()
		if err != nil {
			return err
		}
		err = s.write([]byte(text), min(p.options.Deadline, time.Second))
		s.close()
		if err != nil && !errors.Is(err, errClosed) && !errors.Is(err, errSilent) { // it need not read all of it
			return err
		}
	}
	return p.livesOn()
}

func callerLeaves(p *probe) error {
	store := p.wireStore(p.store)
	calls := []request{
		{Method: protocol.MethodClaim, Parameters: p.claimIn(p.store, madeUp(p.store, 500)), More: true},
		{Method: protocol.MethodClaim, Parameters: p.claimIn(p.store, madeUp(p.store, 500))},
		{Method: protocol.MethodDescribe, More: true},
	}
	for _, v := range []verb{stop, remove} {
		if p.offers(v.capability) == nil {
			calls = append(calls, request{Method: v.method, Parameters: v.in(store, madeUpHandles(p.store, 100), 0), More: true})
		}
	}
	for _, c := range calls {
		s, err := p.open()
		if err != nil {
			return err
		}
		err = s.send(c, p.options.Deadline)
		s.close()
		if err != nil {
			return fmt.Errorf("%s: %w", c.Method, err)
		}
	}
	return p.livesOn()
}

func callersIdle(p *probe) error {
	var idle []*session
	defer func() {
		for _, s := range idle {
			s.close()
		}
	}()
	for range 32 {
		s, err := p.open()
		if err != nil {
			return err
		}
		idle = append(idle, s)
	}
	for _, s := range idle[:16] {
		if err := s.write([]byte(`{"method":"io.un`), p.options.Deadline); err != nil {
			return err
		}
	}
	if err := p.lives(); err != nil {
		return fmt.Errorf("with %d idle connections: %w", len(idle), err)
	}
	return nil
}

// nobody is the user that stands for anyone.
const nobody = 65534

func peer(p *probe) error {
	path := p.target.Socket()
	switch {
	case path == "":
		return skipf("it has no socket of its own")
	case os.Geteuid() != 0:
		return skipf("only root can call as somebody else")
	}
	for _, r := range append([]request{{Method: protocol.MethodDescribe}}, p.acts(protocol.Version)...) {
		conn, err := dialAs(path, nobody)
		if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
			return nil
		}
		if err != nil {
			return err
		}
		s := &session{conn: conn, in: bufio.NewReader(conn)}
		got, err := s.call(r.Method, r.Parameters, p.options.Deadline)
		s.close()
		if err == nil && got.Error != varlinkService+".PermissionDenied" {
			return fmt.Errorf("user %d calls %s, and is answered with %s", nobody, r.Method, got)
		}
		if errors.Is(err, errSilent) {
			return fmt.Errorf("user %d calls %s: %w", nobody, r.Method, err)
		}
	}
	return nil
}

// dialAs connects as another user, in a thread that ends afterwards.
func dialAs(path string, uid int) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		id := uintptr(uid)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			err = errno
			return
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, id, id, id); errno != 0 {
			err = errno
			return
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, id, id, id); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	return conn, err
}
