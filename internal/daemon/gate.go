package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Bounds of the calls that look, so that no number of them keeps a removal from its work, nor one user
// another.
const (
	// looksAtOnce is how many may have the store, the engines and the kernel asked at once.
	looksAtOnce = 4
	// answersAtOnce is how many answers are being made or taken at once, for those who are privileged and
	// for the others each; answersOfUser for one of the others.
	answersAtOnce = 64
	answersOfUser = 16
	// answerTime is how long a caller may take to take a list.
	answerTime = time.Minute
	// buildsAtOnce is how many builds run at once; one more is refused.
	buildsAtOnce = 16
	// monitorsAtOnce is how many watch at once, for those who are privileged and for the others each;
	// monitorsOfUser for one of the others.
	monitorsAtOnce = 64
	monitorsOfUser = 8
)

// gate lets calls in.
type gate struct {
	looks, builds      *semaphore.Weighted
	privileged, others *semaphore.Weighted

	// mu guards what follows.
	mu       sync.Mutex
	users    map[int]*share
	monitors map[bool]int
}

// share is what one user has of it.
type share struct {
	answers  *semaphore.Weighted
	monitors int
	// uses is how many calls hold it.
	uses int
}

func newGate() *gate {
	return &gate{looks: semaphore.NewWeighted(looksAtOnce), builds: semaphore.NewWeighted(buildsAtOnce),
		privileged: semaphore.NewWeighted(answersAtOnce), others: semaphore.NewWeighted(answersAtOnce),
		users: make(map[int]*share), monitors: make(map[bool]int)}
}

// answer waits until one more answer may be made.
func (g *gate) answer(ctx context.Context, c caller) (leave func(), err error) {
	if c.privileged {
		if err := g.privileged.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		return func() { g.privileged.Release(1) }, nil
	}
	s := g.share(c.UID)
	if err := s.answers.Acquire(ctx, 1); err != nil {
		g.done(c.UID, s)
		return nil, err
	}
	if err := g.others.Acquire(ctx, 1); err != nil {
		s.answers.Release(1)
		g.done(c.UID, s)
		return nil, err
	}
	return func() {
		g.others.Release(1)
		s.answers.Release(1)
		g.done(c.UID, s)
	}, nil
}

// look waits until one more may look.
func (g *gate) look(ctx context.Context) (done func(), err error) {
	if err := g.looks.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { g.looks.Release(1) }, nil
}

// build lets one more build, or says that too many do.
func (g *gate) build() (done func(), err error) {
	if !g.builds.TryAcquire(1) {
		return nil, fmt.Errorf("%d builds run already: try again later", buildsAtOnce)
	}
	return func() { g.builds.Release(1) }, nil
}

// monitor lets one more watch, or says that too many do.
func (g *gate) monitor(c caller) (leave func(), err error) {
	s := g.share(c.UID)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.monitors[c.privileged] >= monitorsAtOnce || !c.privileged && s.monitors >= monitorsOfUser {
		n := s.monitors
		g.drop(c.UID, s)
		return nil, fmt.Errorf("%d watch already, %d of them of user %d: end one of those", g.monitors[c.privileged], n, c.UID)
	}
	g.monitors[c.privileged]++
	s.monitors++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.monitors[c.privileged]--
		s.monitors--
		g.drop(c.UID, s)
	}, nil
}

func (g *gate) share(uid int) *share {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.users[uid]
	if s == nil {
		s = &share{answers: semaphore.NewWeighted(answersOfUser)}
		g.users[uid] = s
	}
	s.uses++
	return s
}

func (g *gate) done(uid int, s *share) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(uid, s)
}

// drop is called with the lock.
func (g *gate) drop(uid int, s *share) {
	if s.uses--; s.uses == 0 {
		delete(g.users, uid)
	}
}
