package wire

import "sync"

// budget bounds the bytes of all messages that have outgrown a small buffer. Where there is no room for
// one more, the largest of those that are not whole yet has to go: so many that are begun and never ended
// keep nobody out, however many users they come from. Root, and the user that we run as, have as much
// again for themselves.
type budget struct {
	each int // for the ordinary together, and for the privileged

	mu   sync.Mutex
	used map[bool]int // by whether privileged
	held map[*share]struct{}
}

// share is one connection's part of a budget.
type share struct {
	budget     *budget
	privileged bool
	evict      func() // ends the connection
	size       int
	whole      bool // its message is being handled
}

func newBudget(each int) *budget {
	return &budget{each: each, used: map[bool]int{}, held: map[*share]struct{}{}}
}

// grow asks for size bytes in all. It is false where there is no room, even without what is larger.
func (s *share) grow(size int) bool {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.used[s.privileged]+size-s.size > b.each {
		victim := b.largest(s)
		if victim == nil || victim.size < size {
			return false
		}
		victim.evict()
		b.drop(victim)
	}
	b.used[s.privileged] += size - s.size
	s.size = size
	b.held[s] = struct{}{}
	return true
}

// largest returns the one to go for the sake of s.
func (b *budget) largest(s *share) (out *share) {
	for other := range b.held {
		if other != s && other.privileged == s.privileged && !other.whole && (out == nil || other.size > out.size) {
			out = other
		}
	}
	return out
}

// keep says that the message is whole, and that what it takes is needed until release.
func (s *share) keep() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.whole = true
}

// unkeep says that the message is not whole any more: what is in the buffer belongs to the next one.
func (s *share) unkeep() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.whole = false
}

// release gives all back.
func (s *share) release() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.budget.drop(s)
	s.whole = false
}

func (b *budget) drop(s *share) {
	b.used[s.privileged] -= s.size
	s.size = 0
	delete(b.held, s)
}

// taken returns how much is in use.
func (b *budget) taken() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used[false] + b.used[true]
}
